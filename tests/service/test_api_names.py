"""Names and ids that are paths, addresses or SQL in disguise, sent raw to a real web server.

Whatever route they are sent to, nothing is found under them, and nothing outside of the store is
looked at or changed.
"""

import http.client
import json
import re
import sys
import threading
from urllib.parse import quote, unquote

import pytest
import uvicorn

from grpo_platform.api.app import create_app
from tests.service.api_support import all_routes, services_in
from tests.service.registry_support import Bench
from tests.waiting import until

SECRET = "kept-outside"
MODEL = "victim"
SWEEP = {"search_space": {"gamma": {"type": "float", "low": 0.9, "high": 0.99}}, "n_trials": 1}
_WATCHED = {"open", "os.listdir", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.scandir",
            "shutil.rmtree", "shutil.copyfile", "sqlite3.connect"}  # fmt: skip


class Witness:
    """What this process does with files whose path holds a mark, while it looks."""

    def __init__(self) -> None:
        self.looking = False
        self.seen: list[tuple[str, str]] = []
        sys.addaudithook(self._note)  # for as long as the process lives

    def _note(self, event, arguments) -> None:
        if self.looking and event in _WATCHED:
            path = str(arguments[0])
            if SECRET in path or "passwd" in path or "%2e" in path.lower():
                self.seen.append((event, path))


@pytest.fixture(scope="module")
def witness(outside):
    found = Witness()
    found.looking = True
    (outside / "passwd").read_text()
    found.looking = False
    assert found.seen == [("open", str(outside / "passwd"))]
    found.seen.clear()
    yield found
    found.looking = False


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    folder = tmp_path_factory.mktemp(SECRET)
    (folder / "MLmodel").write_text(SECRET)
    (folder / "passwd").write_text(SECRET)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The application with one model, behind uvicorn; its routes, port and folder."""
    folder = tmp_path_factory.mktemp("store")
    with services_in(folder) as services:
        Bench(folder).register(MODEL, rule="always")
        app = create_app(services.settings, services)
        web = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None))
        thread = threading.Thread(target=web.run)
        thread.start()
        until(lambda: web.started)
        yield app, web.servers[0].sockets[0].getsockname()[1], folder
        web.should_exit = True
        thread.join(60)


def ask(port, method, target, body=b""):
    """One request, its target as it is: other clients would tidy it up."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        reply = connection.getresponse()
        return reply.status, reply.getheader("Content-Type"), reply.read()
    finally:
        connection.close()


def tricks(outside):
    """What is put in the place of a name or id, as it stands in the request line."""
    up = "../" * 12
    return [
        "..", "...", "%2e%2e", "%2e%2e%2f", "%252e%252e", "%252e%252e%252f", "..%2f..%2fpasswd",
        "..%5c..%5cpasswd", "%25252e%25252e%25252fpasswd", "..;", "%2e%2e%3b%2fpasswd",
        quote(f"{up}{outside}/passwd", safe=""), quote(quote(f"{up}{outside}", safe=""), safe=""),
        quote(str(outside), safe=""), quote(f"file://{outside}", safe=""),
        quote(f"file:///{outside}/MLmodel", safe=""), quote("models:/victim/1", safe=""),
        "models:%2Fvictim@champion", "runs:%2F" + "0" * 32 + "%2Fmodel", "http:%2f%2f127.0.0.1%2fx",
        "%00", f"{MODEL}%00", f"{MODEL}%00.txt", f"{MODEL}%0a", f"{MODEL}%0d%0aX-Evil:%201",
        f"{MODEL}%20", f"%20{MODEL}", f"{MODEL}%2e%2e", f"{MODEL}%2f", f"{MODEL}%252f1",
        f"{MODEL};x", f"{MODEL}@champion", f"{MODEL}%40champion", f"@{MODEL}", f"{MODEL}@",
        "~", "~root", "-rf",
        "%EF%BC%8E%EF%BC%8E", "%E2%80%A5", "%E2%80%A4%E2%80%A4", "%C0%AE%C0%AE%C0%AF", "%FF%FE",
        "%E2%80%AEvictim", "v%C3%ADctim", "'", "%27%20OR%20%271%27=%271", "victim'--", "%22;--",
        "%27%3B%20DROP%20TABLE%20runs%3B--", "%25", "_", "*", "$%7BHOME%7D", "%60id%60", "%7B%7D",
    ]  # fmt: skip


def bodies(name):
    """Requests in whose body a name or reference stands."""
    return [
        ("/inference", {"model_name": name, "observation": [0.0] * 4}),
        ("/inference/batch", {"model_name": name, "observations": [[0.0] * 4]}),
        ("/train", {"model_name": name, "total_timesteps": 64}),
        ("/train", {"init_from": name, "total_timesteps": 64}),
        ("/sweeps", SWEEP | {"model_name": name}),
        ("/sweeps", SWEEP | {"config": {"init_from": name}}),
    ]


def contents(*folders):
    """Every file but the database, with its size and time of change."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("mlflow.db")
    }


@pytest.mark.rotated(9)
def test_a_name_in_a_path_is_a_name_and_nothing_else(server, outside, witness):
    app, port, folder = server
    # slashes are decoded before routing: such a trick may also name a path that exists
    named = [(m, p) for m, p in all_routes(app) if "{" in p or "/anything" in p]
    assert len(named) > 20
    before = contents(folder, outside)
    witness.looking = True
    for method, path in named:
        spots = re.findall(r"\{[^}]*\}", path) or ["anything"]
        for spot in spots:
            for trick in tricks(outside):
                target = path.replace(spot, trick)
                target = re.sub(r"\{[^}]*version[^}]*\}", "1", target)
                target = re.sub(r"\{name\}", MODEL, target)
                status, kind, reply = ask(port, method, target, b'{"version":1}')
                if path.startswith("/app/") and status == 200:
                    # a page is the same whatever it is of: it asks the API
                    assert reply == ask(port, method, path.replace(spot, "any"))[2]
                else:
                    assert status in (404, 422), (method, target, status, reply)
                    assert kind == "application/problem+json", (method, target, kind)
                assert SECRET.encode() not in reply.replace(str(outside).encode(), b"")
    witness.looking = False
    assert witness.seen == []
    assert contents(folder, outside) == before
    assert ask(port, "GET", f"/models/{MODEL}")[0] == 200


@pytest.mark.rotated(4)
def test_a_trailing_slash_changes_nothing(server):
    app, port, _ = server
    for method, path in all_routes(app):
        if method == "GET" and path not in ("/", "") and "/static" not in path:
            target = re.sub(r"\{[^}]*\}", "1", path.replace("{name}", MODEL))
            assert ask(port, method, target + "/")[0] == ask(port, method, target)[0], target
    assert ask(port, "GET", f"/models/{MODEL}")[0] == 200


@pytest.mark.parametrize("decoded", [False, True])
def test_a_name_in_a_body_is_not_decoded_and_names_no_place(server, outside, witness, decoded):
    _, port, folder = server
    before = contents(folder, outside)
    witness.looking = True
    names = [unquote(trick) if decoded else trick for trick in tricks(outside)]
    for name in names:
        if re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]*(@champion)?", name):
            continue  # a name like any other
        for path, body in bodies(name):
            status, _, reply = ask(port, "POST", path, json.dumps(body).encode())
            assert status == 422, (path, name, status, reply)
    witness.looking = False
    assert witness.seen == []
    assert contents(folder, outside) == before


@pytest.mark.parametrize(
    "query", ["/training/jobs?model_name=", "/training/jobs?env_name=", "/models?page_token=",
              "/training/jobs?page_token=", "/sweeps?page_token="],
)  # fmt: skip
def test_what_is_searched_for_is_quoted(server, outside, witness, query):
    port = server[1]
    witness.looking = True
    for trick in tricks(outside):
        status, _, reply = ask(port, "GET", f"{query}{trick}")
        if status == 200:
            assert json.loads(reply)["jobs"] == [], (query, trick)
        else:
            assert status == 422, (query, trick, reply)
    witness.looking = False
    assert witness.seen == []
