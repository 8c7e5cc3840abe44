"""The Python client: names that do not exist, and connections that break, against real sockets."""

import asyncio
import contextlib
import gc
import inspect
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from grpo_platform.cli import app
from grpo_platform.client import (
    AsyncGRPOClient,
    ConnectionBrokenError,
    Event,
    GRPOClient,
    Job,
    Prediction,
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
        assert [r[0] for r in server.requests] == [0, 0, 1, 2]
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


@pytest.mark.rotated(14)
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
        monkeypatch.setattr("grpo_platform.client.waiting.AWAY_SECONDS", 0.1)
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


def test_an_address_and_a_token_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("GRPO_API_TOKEN", "of-the-environment")
    with serving(lambda *_: None) as (server, _):
        monkeypatch.setenv("GRPO_URL", f"{server.url}/")
        for token in (None, "given"):
            with GRPOClient(token=token) as client:
                client.health()
                assert client.base_url == server.url
        sent = [headers["authorization"] for _, _, headers, _ in server.requests]
        assert sent == ["bearer of-the-environment", "bearer given"]
    monkeypatch.delenv("GRPO_URL")
    monkeypatch.setenv("GRPO_PORT", "8123")
    assert GRPOClient().base_url == "http://localhost:8123"


def test_a_client_that_nobody_closed_closes_itself():
    with serving(lambda *_: None) as (server, _):
        client = GRPOClient(server.url)
        client.health()
        client.stop("j")
        del client
        gc.collect()  # a socket that is open now is a warning, and so an error


# --- the client that is awaited ------------------------------------------------------------------


def test_what_is_awaited_is_sent_again_or_refused_as_what_blocks():
    async def calls(url: str) -> None:
        async with AsyncGRPOClient(url, timeout_seconds=0.5) as client:
            await client.health()
            await client.health()
            assert [job["job_id"] async for job in client.iter_jobs()] == ["j"]
            with pytest.raises(UnknownFieldError, match="Did you mean 'learning_rate'"):
                await client.train_model("tt", lerning_rate=1)  # type: ignore[call-arg]
            with pytest.raises(TimeoutError, match="is still running"):
                await client.wait("j", timeout_seconds=0)

    page = {"jobs": [{"job_id": "j"}], "next_page_token": None, "status": "running"}
    with serving(once_used("reset"), page) as (server, _):
        asyncio.run(calls(server.url))
        assert [request[0] for request in server.requests][:3] == [0, 0, 1]


def test_many_calls_are_under_way_at_once():
    together = threading.Barrier(8, timeout=20)

    def all_here(*_: int) -> None:
        together.wait()

    async def calls(url: str) -> list[Prediction]:
        async with AsyncGRPOClient(url) as client:
            asked = [client.predict("m", [float(i)]) for i in range(8)]
            return list(await asyncio.gather(*asked))

    with serving(all_here, {"action": 1}) as (server, _):
        assert asyncio.run(calls(server.url)) == [{"action": 1}] * 8


def test_the_blocking_client_works_where_a_loop_runs_as_in_a_notebook():
    async def cell(url: str) -> list[str]:
        with GRPOClient(url) as client:
            return [client.health()["status"], *(job["job_id"] for job in client.iter_jobs())]

    with serving(lambda *_: None, {"status": "healthy", "jobs": [{"job_id": "j"}],
                                   "next_page_token": None}) as (server, _):  # fmt: skip
        assert asyncio.run(cell(server.url)) == ["healthy", "j"]


def calls_of(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - {"base_url"}


def test_both_clients_have_the_same_calls_with_the_same_words():
    assert calls_of(GRPOClient) == calls_of(AsyncGRPOClient)
    assert len(calls_of(GRPOClient)) > 50
    for name in calls_of(GRPOClient):
        blocking, awaited = getattr(GRPOClient, name), getattr(AsyncGRPOClient, name)
        assert blocking.__doc__ == awaited.__doc__, name
        assert inspect.signature(blocking).parameters == inspect.signature(awaited).parameters
        assert not inspect.iscoroutinefunction(blocking)
        assert inspect.iscoroutinefunction(awaited) or inspect.isasyncgenfunction(awaited), name


# --- events --------------------------------------------------------------------------------------

TOLD = (
    ("metrics", "64", {"step": 64, "metrics": {"rollout/ep_rew_mean": 9.5}}),
    ("progress", "64", {"job_id": "j", "status": "running"}),
    ("metrics", "128", {"step": 128, "metrics": {"rollout/ep_rew_mean": 11.0}}),
    ("end", "end-128", {"job_id": "j", "status": "completed"}),
)


@contextlib.contextmanager
def telling(
    *streams: tuple[tuple[str, str, object], ...],
) -> Iterator[tuple[str, list[str | None]]]:
    """A server whose connections tell these events, and then end; yields what came before each."""
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Last-Event-ID"])
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"retry: 2000\n\n: still here\n\n")
            for event, number, data in streams[len(asked) - 1]:
                text = f"id: {number}\nevent: {event}\ndata: {json.dumps(data)}\n\n"
                self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def expected(*told: tuple[str, str, object]) -> list[dict[str, object]]:
    return [{"event": event, "id": number, "data": data} for event, number, data in told]


def test_events_come_as_they_are_told_and_a_stream_that_breaks_goes_on(monkeypatch):
    monkeypatch.setattr("grpo_platform.client.training._COME_BACK_SECONDS", 0.01)
    with telling(TOLD[:2], TOLD[2:]) as (url, asked), GRPOClient(url) as client:
        assert list(client.events("j")) == expected(*TOLD)
        assert asked == [None, "64"]

    async def watch(url: str) -> list[Event]:
        async with AsyncGRPOClient(url) as client:
            return [event async for event in client.events("j")]

    with telling(TOLD[:1], (), TOLD[1:]) as (url, asked):
        assert asyncio.run(watch(url)) == expected(*TOLD)
        assert asked == [None, "64", "64"]


def test_events_of_no_job_are_refused():
    with serving(lambda *_: None) as (server, client):
        with pytest.raises(ServerNotFoundError, match="another program"):
            list(client.events("j"))
        server.close()
    with pytest.raises(ServerNotFoundError, match="No server answers"):
        next(GRPOClient(f"http://127.0.0.1:{free_port()}").events("j"))


def test_a_progress_bar_shows_how_far_it_is(capfd):
    job = {
        "job_id": "j", "status": "completed", "progress": 1.0, "current_timesteps": 64,
        "total_timesteps": 64, "status_message": None,
        "metrics": {"rollout/ep_rew_mean": 20.0, "eval/mean_reward": 21.5},
    }  # fmt: skip
    with serving(lambda *_: None, job) as (_, client):
        client.wait("j")
        assert capfd.readouterr() == ("", "")
        client.wait("j", progress_bar=True)
    out, err = capfd.readouterr()
    assert out == ""
    for word in ("completed", "100 %", "64 of 64 steps", "train 20.0", "eval 21.5"):
        assert word in " ".join(err.split())
