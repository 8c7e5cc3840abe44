"""Connections that keep the server waiting, each by real sockets."""

import contextlib
import http.client
import socket
import threading
import time

import pytest
import uvicorn

from grpo_platform.api import middleware
from grpo_platform.api.middleware import Connections

MOST = 5
HEAD = 0.5
REQUEST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
TIMEOUT = 10.0


async def echo(scope, receive, send):
    """Answers with the length of the body; `/hold` answers when the client has gone."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    if scope["path"] == "/hold":
        await receive()
    body = str(size).encode()
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def running(monkeypatch):
    """Where the server listens, and all its connections."""
    monkeypatch.setattr(middleware, "HEAD_SECONDS", HEAD)
    everyone = Connections(MOST)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        echo, http=everyone.protocol(), lifespan="off", log_config=None, timeout_keep_alive=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname(), everyone
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextlib.contextmanager
def opened(address, *parts):
    with socket.create_connection(address, TIMEOUT) as client:
        for part in parts:
            client.sendall(part)
        yield client


def to_the_end(client):
    told = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.recv(65536):
            told += chunk
    return told


def reply_of(client):
    """One whole answer: head and body may come apart."""
    with http.client.HTTPResponse(client) as response:
        response.begin()
        return b"HTTP/1.1 %d " % response.status + response.read()


def asked(address):
    with opened(address, WHOLE) as client:
        return reply_of(client)


@pytest.mark.rotated(4)
@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost: loc", b"HTTP/1.1 408 "),
        (REQUEST % 10 + b"short", b"HTTP/1.1 408 "),
        (b"X" * 10, b"HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\n" + b"X-Filler: xxxxxxxxxxxxxxxxxxxx\r\n" * 5000, b"HTTP/1.1 431 "),
    ],
    ids=["nothing", "part of a head", "part of a body", "no http", "an endless head"],
)
def test_what_does_not_arrive_is_not_waited_for(running, sent, told):
    address, everyone = running
    started = time.monotonic()
    with opened(address) as client:
        with contextlib.suppress(OSError):
            client.sendall(sent)
        assert to_the_end(client).startswith(told)
    assert time.monotonic() - started < HEAD + 2
    assert asked(address).endswith(b"0")
    assert everyone.unread == {}


def test_a_head_that_trickles_has_no_more_time(running):
    address, _ = running
    started = time.monotonic()
    with opened(address, b"GET / HTTP/1.1\r\n") as client, contextlib.suppress(OSError):
        while time.monotonic() - started < 5 * HEAD:
            client.sendall(b"X-Slow: 1\r\n")
            time.sleep(HEAD / 4)
        pytest.fail("it was waited for")


@pytest.mark.rotated(4)
def test_a_body_of_a_slow_line_has_the_time_that_it_needs(running):
    address, _ = running
    with opened(address, REQUEST % 6000) as client:
        for _ in range(6):
            client.sendall(b"x" * 1000)
            time.sleep(HEAD / 2)
        assert reply_of(client).endswith(b"6000")


@pytest.mark.rotated(4)
def test_a_second_request_of_a_connection_is_not_waited_for_either(running):
    address, _ = running
    with opened(address, WHOLE) as client:
        assert reply_of(client).endswith(b"0")
        time.sleep(2 * HEAD)  # idle is another matter
        client.sendall(b"GET / HT")
        assert to_the_end(client).startswith(b"HTTP/1.1 408 ")


@pytest.mark.rotated(4)
def test_bytes_that_begin_no_request_do_not_keep_a_connection(running):
    address, _ = running
    with opened(address, WHOLE) as client:
        assert reply_of(client).endswith(b"0")
        client.sendall(b"\r\n")
        assert client.recv(65536) == b""


def test_those_that_send_nothing_make_room(running):
    address, everyone = running
    with contextlib.ExitStack() as stack:
        for _ in range(4 * MOST):
            stack.enter_context(opened(address))
        for _ in range(3):
            assert asked(address).startswith(b"HTTP/1.1 200 ")
        assert len(everyone.unread) <= MOST


def test_idle_ones_make_room_after_those_and_busy_ones_never(running):
    address, _ = running
    hold = WHOLE.replace(b" / ", b" /hold ")
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(opened(address, WHOLE))
        assert reply_of(idle).endswith(b"0")
        for _ in range(MOST - 1):
            stack.enter_context(opened(address, hold))
        time.sleep(0.2)
        stack.enter_context(opened(address, hold))
        assert to_the_end(idle) == b""
        assert asked(address).startswith(b"HTTP/1.1 503 ")


def test_the_limit_of_files_is_raised_and_room_is_kept():
    most = middleware.raise_file_limit()
    soft, hard = middleware.resource.getrlimit(middleware.resource.RLIMIT_NOFILE)
    assert soft == min(hard, 65_536)
    assert soft // 2 <= most < soft
