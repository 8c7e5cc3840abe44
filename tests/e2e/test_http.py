"""The server as HTTP clients meet it: connections that idle, methods, watchers, examples."""

import contextlib
import socket
import statistics
import time
from collections.abc import Iterator

import pytest
import requests

from grpo_platform.api.connections import LATER_SECONDS
from tests.e2e.processes import Server, server

pytestmark = pytest.mark.slow

KEEP_ALIVE_SECONDS = 1


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"GRPO_KEEP_ALIVE_SECONDS": str(KEEP_ALIVE_SECONDS)}
    with server(tmp_path_factory.mktemp("http"), **settings) as found:
        yield found


def connected(running: Server) -> socket.socket:
    host, _, port = running.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


# --- idle connections --------------------------------------------------------------------------

LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_session_that_polls_as_often_as_idle_connections_end_meets_no_reset(running):
    with requests.Session() as session:
        for _ in range(4):
            reply = session.get(f"{running.url}/health/live", timeout=30)
            assert reply.headers["Keep-Alive"] == f"timeout={KEEP_ALIVE_SECONDS}"
            time.sleep(KEEP_ALIVE_SECONDS)


def test_an_idle_connection_ends_after_it_was_told_to_and_a_request_that_crosses_meets_no_reset(
    running,
):
    with connected(running) as client:
        client.sendall(LIVE)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        answered = time.monotonic()
        assert client.recv(65536) == b""  # the server's half-close
        idle = time.monotonic() - answered
        assert KEEP_ALIVE_SECONDS + LATER_SECONDS - 0.1 < idle < 20
        for _ in range(3):  # sent before the client noticed
            client.sendall(LIVE)
            time.sleep(0.1)
            assert client.recv(65536) == b""


# --- methods -----------------------------------------------------------------------------------


def test_head_of_a_stream_ends_and_keeps_the_connection(running):
    body = {"total_timesteps": 10**7, "model_name": "asked_by_head"}
    job_id = requests.post(f"{running.url}/train", json=body, timeout=30).json()["job_id"]
    with requests.Session() as session:
        for path in (f"/training/{job_id}/events", "/health", "/", "/metrics", "/health/ready"):
            reply = session.head(running.url + path, timeout=30)
            assert (reply.status_code, reply.content) == (200, b""), path
        assert session.get(f"{running.url}/health/live/", timeout=30).json() == {"status": "live"}
    requests.post(f"{running.url}/training/{job_id}/stop", timeout=30)


@pytest.mark.parametrize("target", [b"*", b"/train", b"http://localhost/train"])
def test_options_of_anything_are_answered(running, target):
    with connected(running) as client:
        client.sendall(b"OPTIONS %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
        answer = client.recv(65536).split(b"\r\n")
        assert answer[0].split()[1] in (b"204", b"400", b"404"), answer
        assert b"500" not in answer[0]


# --- watchers ----------------------------------------------------------------------------------

WATCHERS = 500


def test_many_watchers_of_a_job_do_not_hold_up_other_calls(running):
    """Each used to poll for itself: 500 made `/health/ready` take 1.6 s, 1,000 took 6 s."""
    body = {"total_timesteps": 10**7, "model_name": "watched"}
    job_id = requests.post(f"{running.url}/train", json=body, timeout=30).json()["job_id"]
    with contextlib.ExitStack() as stack:
        watchers = [stack.enter_context(connected(running)) for _ in range(WATCHERS)]
        for watcher in watchers:
            watcher.sendall(
                f"GET /training/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
        for watcher in watchers:
            text = b""
            while b"event: progress" not in text:
                text += watcher.recv(65536)
        waited = []
        for _ in range(20):
            asked = time.monotonic()
            assert requests.get(f"{running.url}/health/ready", timeout=30).ok
            waited.append(time.monotonic() - asked)
        requests.post(f"{running.url}/training/{job_id}/stop", timeout=30)
        for watcher in watchers:
            text = b""
            while b"event: end" not in text:
                text += watcher.recv(65536)
    assert statistics.median(waited) < 0.3  # on a busy machine; 0.01 on a quiet one
