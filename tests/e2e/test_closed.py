"""A real server with a token: what it keeps closed, what it never says, and its MLflow UI child."""

import contextlib
import http.client
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from mlflow import MlflowClient

from tests.e2e.processes import Server, environment, server, wait_until_answers

pytestmark = [pytest.mark.slow, pytest.mark.rotated(7)]

TOKEN = "kept-secret-" + "k" * 30
KEY = {"X-API-Key": TOKEN}
FILES = 1024
"""That the server may have open."""
MLFLOW_ROUTES = """
from mlflow.server import app as flask_app
from mlflow.server.fastapi_app import app
paths = {rule.rule for rule in flask_app.url_map.iter_rules()}
def walk(routes, before=""):
    for route in routes:
        path = before + getattr(route, "path", "")
        paths.add(path)
        walk(getattr(route, "routes", None) or (), path)
walk(app.routes)
print("\\n".join(sorted(paths)))
"""
MUST_BE_CLOSED = re.compile(
    r"/(jobs|gateway|assistant|gateway-proxy|webhooks|scorers?|invoke)(/|$)"
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("closed")
    (folder / "mlruns").mkdir(mode=0o755)  # as an earlier start without a token left it
    few_files = ("sh", "-c", f'ulimit -n {FILES} && exec "$@"', "sh")
    settings = {"GRPO_API_TOKEN": TOKEN, "GRPO_LOG_LEVEL": "debug"}
    with server(folder, ui=True, prefix=few_files, **settings) as found:
        wait_until_answers(f"{ui_of(found)}/health", found)
        yield found


def ui_of(running: Server) -> str:
    return str(requests.get(running.url, headers=KEY, timeout=60).json()["mlflow_ui"])


def status_of(url: str, method: str, path: str) -> tuple[int, bytes]:
    """Sent as it is: other clients would tidy the path up."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request(method, path, headers=KEY | {"Host": "localhost"})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def mlflow_routes(folder: Path) -> list[str]:
    """Every path of the installed MLflow's own server."""
    store = f"sqlite:///{folder / 'routes.db'}"
    done = subprocess.run(
        [sys.executable, "-c", MLFLOW_ROUTES], capture_output=True, text=True, timeout=120,
        check=True, cwd=folder, env=environment(MLFLOW_BACKEND_STORE_URI=store),
    )  # fmt: skip
    return done.stdout.split()


def test_mlflows_jobs_gateway_and_assistant_are_closed_in_the_child(running, tmp_path):
    url = ui_of(running)
    routes = [path for path in mlflow_routes(tmp_path) if MUST_BE_CLOSED.search(path)]
    assert len(routes) > 20
    for path in routes:
        concrete = re.sub(r"<[^>]*>|\{[^}]*\}", "x", path)
        for method in ("POST", "DELETE"):
            status, body = status_of(url, method, concrete)
            assert status == 404, (method, path)
            assert b"GRPO Platform keeps this MLflow route closed" in body, (method, path)


@pytest.mark.parametrize(
    "path",
    [
        "/ajax-api/3.0/jobs", "/ajax-api//3.0//jobs/", "/ajax-api/3.0/%6aobs",
        "/%61jax-api/3.0/jobs", "/ajax-api/3.0/jobs?x=/", "//ajax-api/3.0/jobs",
    ],
)  # fmt: skip
def test_spellings_open_nothing(running, path):
    status, body = status_of(ui_of(running), "POST", path)
    assert status == 404
    assert b"GRPO Platform keeps this MLflow route closed" in body


@pytest.mark.parametrize("token", [None, "", "wrong", "w" * 40, "schlüssel…"])
def test_the_command_line_without_the_token_is_told_what_to_do(running, token):
    given = {} if token is None else {"GRPO_API_TOKEN": token}
    refused = command_line(running, **given)
    assert refused.returncode == 1
    (line,) = refused.stderr.strip().splitlines()
    assert line.startswith("Error: The server asks for its token")
    assert "--token" in line
    assert "GRPO_API_TOKEN" in line


def test_the_command_line_with_the_token_is_answered(running):
    done = command_line(running, GRPO_API_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def command_line(running: Server, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "grpo_platform", "--url", running.url, "jobs", "list", "--json"],
        capture_output=True, text=True, timeout=120, cwd=running.folder,
        env=environment(COLUMNS="250", **variables),
    )  # fmt: skip


def test_the_mlflow_ui_is_behind_the_token(running, monkeypatch):
    url = ui_of(running)
    create = f"{url}/api/2.0/mlflow/runs/create"
    for key in (None, ("me", "wrong" * 9)):
        for path in ("", "/ajax-api/2.0/mlflow/experiments/search", "/get-artifact"):
            assert requests.get(url + path, auth=key, timeout=60).status_code == 401, path
        assert requests.post(create, json={"experiment_id": "1"}, auth=key).status_code == 401
    assert "<title>MLflow</title>" in requests.get(url, auth=("me", TOKEN), timeout=60).text
    page = {"Origin": "http://localhost:9999"} | KEY
    assert requests.post(create, json={"experiment_id": "1"}, headers=page).status_code == 403
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anybody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", TOKEN)
    names = {found.name for found in MlflowClient(tracking_uri=url).search_experiments()}
    assert "grpo" in names


def test_the_child_listens_on_loopback(running):
    children = psutil.Process(running.process.pid).children(recursive=True)
    port = int(ui_of(running).rpartition(":")[2])
    listening = {
        connection.laddr.ip
        for child in children
        for connection in child.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    assert listening == {"127.0.0.1"}


def test_no_child_knows_the_token(running):
    """The MLflow UI's processes, and those that run plug-ins: forkserver, worker, trainer."""
    body = {"total_timesteps": 10**8, "model_name": "long"}
    job = requests.post(f"{running.url}/train", json=body, headers=KEY, timeout=60).json()
    try:
        deadline = time.monotonic() + 60
        seen: list[psutil.Process] = []
        while len(seen) < 5 and time.monotonic() < deadline:
            time.sleep(0.2)
            seen = psutil.Process(running.process.pid).children(recursive=True)
        commands = " ".join(" ".join(child.cmdline()) for child in seen)
        assert "mlflow" in commands
        assert "forkserver" in commands
        for child in seen:
            assert TOKEN not in child.environ().values()
            assert TOKEN not in " ".join(child.cmdline())
    finally:
        requests.post(f"{running.url}/training/{job['job_id']}/stop", headers=KEY, timeout=60)


def test_the_token_and_what_was_sent_are_never_in_the_log(running):
    body = {"total_timesteps": 64, "n_eval_episodes": 1, "model_name": "quiet"}
    accepted = requests.post(f"{running.url}/train", json=body, headers=KEY, timeout=60)
    assert accepted.status_code == 200, accepted.text
    asked = {"model_name": "nobody", "observation": [0.1234567]}
    for headers in (
        KEY, {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"Bearer {TOKEN}wrong"}, {},
    ):  # fmt: skip
        reply = requests.post(f"{running.url}/inference", json=asked, headers=headers, timeout=60)
        assert TOKEN not in reply.text + str(reply.headers)
        assert requests.get(f"{running.url}/x?key={TOKEN}", headers=headers, timeout=60).status_code
    assert "request_id=" in running.log
    assert "path=/inference status=401" in running.log
    assert TOKEN not in running.log
    assert "0.1234567" not in running.log
    logs = f"{running.url}/training/{accepted.json()['job_id']}/logs"
    assert TOKEN not in requests.get(logs, headers=KEY, timeout=60).text


@pytest.mark.parametrize("host", ["evil.test", "localhost.evil.test"])
def test_a_rebound_name_is_refused_even_with_the_token(running, host):
    for address in (running.url, ui_of(running)):
        refused = requests.get(address, headers=KEY | {"Host": host}, timeout=60)
        assert refused.status_code == 403, address


def test_other_accounts_can_read_nothing_of_the_store(running):
    body = {"total_timesteps": 64, "n_eval_episodes": 1, "model_name": "private"}
    job = requests.post(f"{running.url}/train", json=body, headers=KEY, timeout=60).json()
    wait_until(running, job["job_id"], "completed")
    for path in (running.folder / "mlflow.db", *(running.folder / "mlruns").rglob("*")):
        if path.name != "server.log":
            assert path.stat().st_mode & 0o077 == 0, path
    assert (running.folder / "mlruns").stat().st_mode & 0o077 == 0


def test_half_open_connections_stop_nothing(running):
    host, _, port = running.url.removeprefix("http://").partition(":")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(FILES + 200):
            client = stack.enter_context(socket.create_connection((host, int(port)), 30))
            client.sendall(b"POST /train HTTP/1.1\r\nHost: local")
        body = {"total_timesteps": 64, "n_eval_episodes": 1, "model_name": "besieged"}
        job = requests.post(f"{running.url}/train", json=body, headers=KEY, timeout=60).json()
        wait_until(running, job["job_id"], "completed")
        assert requests.get(f"{running.url}/health/ready", timeout=60).status_code == 200
    assert "Too many open files" not in running.log


def wait_until(running: Server, job_id: str, status: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        url = f"{running.url}/training/{job_id}/status"
        found = requests.get(url, headers=KEY, timeout=60).json()
        if found["status"] == status:
            return
        assert found["status"] in ("queued", "running"), found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
