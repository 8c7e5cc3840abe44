"""The Python client: names that do not exist, and connections that break, against real sockets."""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner

from grpo_platform.cli import app
from grpo_platform.client import (
    ConnectionBrokenError,
    GRPOClient,
    Job,
    ServerNotFoundError,
    ServerTimeoutError,
    UnknownFieldError,
)
from tests.e2e.processes import free_port

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class SocketServer:
    """Answers each request with JSON, but for those that `breaks` names by their number.

    `requests` has (number of the connection, request line, headers in lower case, body).
    """

    def __init__(
        self, breaks: Callable[[int, int], str | None], reply: object, port: int = 0
    ) -> None:
        self.requests: list[tuple[int, str, dict[str, str], str]] = []
        self._breaks, self._content = breaks, json.dumps(reply).encode()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for opened in (self._listener, *self._held):
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)  # threads wait in them
            opened.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            for number in range(100):
                connection, _ = self._listener.accept()
                self._held.append(connection)
                threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        file = connection.makefile("rb")
        with contextlib.suppress(OSError):
            for request in range(100):
                line = file.readline().decode().strip()
                if not line:
                    return
                headers = dict(
                    raw.decode().strip().lower().split(": ", 1)
                    for raw in iter(file.readline, b"\r\n")
                )
                body = file.read(int(headers.get("content-length", 0))).decode()
                self.requests.append((number, line, headers, body))
                match self._breaks(number, request):
                    case "reset":
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                        file.close()
                        connection.close()
                        return
                    case "silence":
                        return
                    case "half":
                        self._answer(connection, self._content[:1])
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    case _:
                        self._answer(connection, self._content)

    def _answer(self, connection: socket.socket, body: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self._content)}\r\n\r\n"
        connection.sendall(head.encode() + body)


@contextlib.contextmanager
def serving(
    breaks: Callable[[int, int], str | None], reply: object = None
) -> Iterator[tuple[SocketServer, GRPOClient]]:
    server = SocketServer(breaks, {"status": "healthy", "job_id": "j"} if reply is None else reply)
    with contextlib.closing(server), GRPOClient(server.url, timeout_seconds=0.5) as client:
        yield server, client


def once_used(how: str) -> Callable[[int, int], str | None]:
    """The first connection breaks at its second request, as one that was idle for too long."""
    return lambda connection, request: how if (connection, request) == (0, 1) else None


@pytest.mark.parametrize("how", ["reset", "half"])
def test_a_call_that_may_be_repeated_is_sent_again_on_a_fresh_connection(how):
    with serving(once_used(how)) as (server, client):
        client.health()
        client.health()
        client.predict("m", [0.0])
        assert [r[0] for r in server.requests] == [0, 0, 1, 1]
    with serving(once_used(how)) as (server, client):
        client.health()
        client.predict("m", [0.0])
        assert [r[0] for r in server.requests] == [0, 0, 1]
        assert server.requests[1][1:] == server.requests[2][1:]


def test_a_training_is_sent_again_under_the_same_key():
    with serving(once_used("reset")) as (server, client):
        client.health()
        client.start_training(total_timesteps=64)
        client.start_training(total_timesteps=64)
        client.start_training(total_timesteps=64, idempotency_key="mine")
    first, again, other, mine = (r[2]["idempotency-key"] for r in server.requests[1:])
    assert first == again != other
    assert mine == "mine"


def test_other_calls_are_made_once_and_never_on_a_connection_that_was_idle():
    with serving(once_used("reset")) as (server, client):
        for call in (client.health, lambda: client.rollback("m"), lambda: client.stop("j")):
            call()
        assert [r[0] for r in server.requests] == [0, 1, 2]
    with serving(lambda connection, _: "reset" if connection else None) as (server, client):
        client.health()
        with pytest.raises(ConnectionBrokenError, match="may have done it: look before"):
            client.rollback("m")
        assert len(server.requests) == 2


def test_reset_late_absent_and_foreign_are_told_apart():
    with serving(lambda *_: "reset") as (server, client):
        with pytest.raises(ConnectionBrokenError, match=r"closed the connection .* GET /health"):
            client.health()
        assert len(server.requests) == 2
    with serving(lambda *_: "silence") as (server, client):
        with pytest.raises(ServerTimeoutError, match=r"did not answer GET /health within 0\.5 s"):
            client.health()
        assert len(server.requests) == 1
    with pytest.raises(ServerNotFoundError, match="No server answers"):
        GRPOClient(f"http://127.0.0.1:{free_port()}").health()
    with serving(lambda *_: None) as (server, client):
        server._content = b"<html>"
        with pytest.raises(ServerNotFoundError, match="another program"):
            client.health()


def test_waiting_outlasts_a_restart_of_the_server(monkeypatch):
    before = SocketServer(lambda *_: None, {"status": "running"})
    port = int(before.url.rpartition(":")[2])
    after: list[SocketServer] = []

    def restart(job: Job) -> None:
        if job["status"] == "running":
            before.close()
            threading.Timer(1.5, lambda: after.append(serve("completed"))).start()

    def serve(status: str) -> SocketServer:
        return SocketServer(lambda *_: None, {"status": status}, port)

    with GRPOClient(before.url) as client:
        assert client.wait("j", on_progress=restart)["status"] == "completed"
        after[0].close()
        with pytest.raises(ServerNotFoundError):  # who has never answered is not waited for
            client.wait("j")
        monkeypatch.setattr("grpo_platform.client.calls._AWAY_SECONDS", 0.1)
        last = serve("running")
        with pytest.raises(ConnectionError):
            client.wait("j", on_progress=lambda _: last.close())  # away for too long


def test_no_proxy_is_asked_for_this_machine(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(lambda *_: None) as (_, client):
        assert client.health()["status"] == "healthy"


def body_of(call: Callable[[GRPOClient], object], reply: object) -> dict[str, object]:
    with serving(lambda *_: None, reply) as (server, client):
        call(client)
        return dict(json.loads(server.requests[0][3]))


DONE = {"job_id": "j", "status": "completed"}


def test_the_budget_goes_by_both_of_its_names():
    for call, budget in (
        (lambda client: client.train_model("tt"), 5000),
        (lambda client: client.train_model("tt", timesteps=3000), 3000),
        (lambda client: client.train_model("tt", total_timesteps=20_000), 20_000),
        (lambda client: client.train_model("tt", timesteps=0), 0),
    ):
        assert body_of(call, DONE)["total_timesteps"] == budget
    with serving(lambda *_: None, DONE) as (server, client):
        with pytest.raises(TypeError, match="not as both"):
            client.train_model("tt", timesteps=1, total_timesteps=2)
        assert server.requests == []


def test_a_name_that_does_not_exist_is_refused_with_the_nearest():
    with serving(lambda *_: None, DONE) as (server, client):
        for call, near in (
            (lambda: client.start_training(timesteps=1), "total_timesteps"),
            (lambda: client.train_model("tt", lerning_rate=1), "learning_rate"),
            (lambda: client.start_sweep({"gama": {}}), "gamma"),
            (lambda: client.start_sweep({"gamma": {}}, config={"n_step": 1}), "n_steps"),
            (lambda: client.start_sweep({"gamma": {}}, sampeler="tpe"), "sampler"),
            (lambda: client.jobs(model="m"), "model_name"),
        ):
            with pytest.raises(UnknownFieldError, match=f"Did you mean '{near}'"):
                call()
        with pytest.raises(UnknownFieldError, match=r"There are: advantage, .*total_timesteps"):
            client.start_training(qqq=1)
        assert server.requests == []


@pytest.mark.parametrize("command", [("train",), ("sweep", "start", "space.json")])
def test_the_command_line_names_the_nearest_field(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.json").write_text('{"gamma": {}}')
    for words, said in (
        (("-s", "lerning_rate=1"), "'lerning_rate'. Did you mean 'learning_rate'?"),
        (("-s", "n_steps=1", "-s", "n_steps=2"), "n_steps is given twice"),
        (("-s", "n_steps"), "name=value"),
    ):
        with serving(lambda *_: None, DONE) as (server, _):
            refused = CliRunner().invoke(app, ["--url", server.url, *command, *words])
            assert refused.exit_code == 1
            assert said in refused.output
            assert server.requests == []


def test_an_option_and_a_field_of_one_name_do_not_overrule_each_other():
    for option, name in (("--timesteps", "total_timesteps"), ("--seed", "seed")):
        refused = CliRunner().invoke(app, ["train", option, "64", "-s", f"{name}=32"])
        assert refused.exit_code == 1
        assert f"{name} is given twice" in refused.output
