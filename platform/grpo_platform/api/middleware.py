"""What each connection and each request passes before its route.

Connections: how many, how long each may keep us waiting, its end. uvicorn closes an idle connection
after five seconds, exactly where clients that poll send their next request: they meet a reset. Ours
outlives the time that the `Keep-Alive` header of each answer tells, so that a client which reads it
is always first to close; and it ends by a half-close (RFC 9112, section 9.6), so that one which
does not finds an end of the stream before it sends, and never loses an answer to a reset. uvicorn
waits for ever for the rest of a request, and takes as many connections as the process may have
files, the store's included. Here a head has to arrive in time, and a body at a least speed, as
Apache's mod_reqtimeout asks; and of too many connections, the one that waits longest makes room.

Requests: host, origin, token, body, request id, log, metrics. One ASGI middleware instead of one
each, since POST /inference is measured in microseconds.
"""

import asyncio
import logging
import random
import re
import resource
import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from grpo_platform.api.dependencies import CODINGS, decoded
from grpo_platform.api.errors import problem_response
from grpo_platform.core.access import Access, Head, Sessions, read_head, token_digest
from grpo_platform.core.settings import Settings
from grpo_platform.web.security import SIGN_IN, STATIC, sign_in_first

__all__ = [
    "LATER_SECONDS",
    "MAX_BODY_BYTES",
    "Connection",
    "Connections",
    "RequestMiddleware",
    "is_open",
    "raise_file_limit",
]

LATER_SECONDS: Final = 5
"""How much longer than it says the server keeps an idle connection."""

HEAD_SECONDS: Final = 20.0
"""How long the head of a request may take, and a connection may stay without one."""

MAX_HEAD_BYTES: Final = 64 * 2**10
"""Of a request's head, and of what has come after it in the same moment."""

LEAST_BYTES_PER_SECOND: Final = 1_000
"""Speed of a body, once it has had `HEAD_SECONDS`."""

_LINGER_SECONDS: Final = 5.0
_MOST_FILES: Final = 65_536
_KEPT_FILES: Final = 512
"""For the store, jobs and the libraries; half of what there is, where that is less."""

MAX_BODY_BYTES = 8 * 2**20
_OPEN = frozenset(
    {
        "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready",
        "/docs", "/redoc", "/openapi.json", SIGN_IN,
    }
)  # fmt: skip
"""Paths that need no token."""

_log = logging.getLogger("grpo_platform.access")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TOO_LARGE = f"The body may have at most {MAX_BODY_BYTES} bytes; send fewer items in one call."
_CODING = "Send the body as it is, or with Content-Encoding: gzip or deflate; no other is read."

_END: Final = b"content-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\n" + _END
_TOO_LONG: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\n" + _END
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n" + _END


class Connections:
    """All connections of one server.

    Args:
        most: how many there may be at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        # in the order in which they began to wait
        self.unread: dict[Connection, None] = {}
        """Those whose request has not arrived as a whole."""
        self.idle: dict[Connection, None] = {}
        """Those that have been answered."""

    def protocol(self) -> "type[Connection]":
        """What uvicorn makes a connection with."""
        return type("Connection", (Connection,), {"_others": self})

    def make_room(self, newcomer: "Connection") -> bool:
        """Close the one that waits longest; False where every one is being answered."""
        for waiting in (self.unread, self.idle):
            for connection in waiting:
                if connection is not newcomer:
                    del waiting[connection]
                    connection.transport.abort()
                    return True
        return False


class Connection(HttpToolsProtocol):
    """One client's connection; made by `Connections.protocol`."""

    _others: Connections
    _ends: asyncio.TimerHandle | None = None
    _slow: asyncio.TimerHandle | None = None
    _begun_at = 0.0
    _received = 0
    _is_reading = True
    _in_head = True
    _is_upgraded = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, if there is room."""
        super().connection_made(transport)
        self._others.unread[self] = None
        self._start_timer()
        if len(self.connections) > self._others.most and not self._others.make_room(self):
            self._close_with(_FULL)

    def timeout_keep_alive_handler(self) -> None:
        """Say that no further request is read, then wait for the client to close."""
        if self._ends is not None or self.transport.is_closing():
            return
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self._ends = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def data_received(self, data: bytes) -> None:
        """Read a request; one that crossed our half-close on its way is dropped."""
        if self._ends is not None:
            return
        self._received += len(data)
        super().data_received(data)
        if self._is_upgraded:
            return
        if not self._is_reading:  # nearly always: the request came as a whole
            self._received = 0
            if self._slow is not None:
                self._stop_timer()
            if self.cycle.response_complete:
                self._await_next()
        elif self._in_head and self._received > MAX_HEAD_BYTES:
            self._close_with(_TOO_LONG)
        elif self._slow is None and not self.transport.is_closing():
            self._others.unread[self] = None
            self._start_timer()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to a WebSocket, which keeps it alive by itself."""
        self._is_upgraded = True
        self._stop_timer()
        self._others.idle.pop(self, None)
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._is_reading = self._in_head = True
        self._others.idle.pop(self, None)

    def on_headers_complete(self) -> None:
        """The last byte of its head."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        self._is_reading = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The last byte of an answer."""
        super().on_response_complete()
        if not self._is_reading:
            self._others.idle[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._ends is not None:
            self._ends.cancel()
        self._stop_timer()
        self._others.idle.pop(self, None)
        super().connection_lost(exc)

    def _await_next(self) -> None:
        """Be idle again after bytes that began no request: uvicorn would wait for ever."""
        self._unset_keepalive_if_required()
        self._others.idle[self] = None
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _start_timer(self) -> None:
        self._begun_at = self.loop.time()
        self._slow = self.loop.call_later(HEAD_SECONDS, self._look_at_speed)

    def _stop_timer(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        self._others.unread.pop(self, None)

    def _look_at_speed(self) -> None:
        """End a request that comes too slowly, unless it is we who do not read it."""
        now, allowed = self.loop.time(), HEAD_SECONDS
        if not self._in_head:
            allowed += self._received / LEAST_BYTES_PER_SECOND
        if self.flow.read_paused:
            self._begun_at = now
        wait = self._begun_at + allowed - now
        if wait > 0:
            self._slow = self.loop.call_later(wait, self._look_at_speed)
        else:
            self._close_with(_TOO_SLOW)

    def _close_with(self, answer: bytes) -> None:
        """End the connection, with a word to whoever has sent something and waits for one."""
        cycle = self.cycle  # of this request, or, while its head arrives, of the one before
        in_answer = cycle is not None and (
            not cycle.response_complete if self._in_head else cycle.response_started
        )
        if not self.transport.is_closing():
            if not in_answer and (self._received or answer is _FULL):
                self.transport.write(answer)
            self.transport.close()


def raise_file_limit() -> int:
    """Let this process have as many files open as it may; returns the most connections to take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    allowed = _MOST_FILES if hard == unlimited else min(hard, _MOST_FILES)
    if soft != unlimited and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    else:
        allowed = _MOST_FILES if soft == unlimited else soft
    return allowed - min(_KEPT_FILES, allowed // 2)


def is_open(path: str) -> bool:
    """Whether a path needs no token: a probe, or documentation, the same on every server.

    A browser sends no token when it opens a page, and Swagger's *Authorize* needs the schema.
    """
    return path in _OPEN or path.startswith(("/static/", STATIC))


class RequestMiddleware:
    """Lets through who belongs, and notes who passed.

    Args:
        app: what comes after it.
        settings: who may call, and from where.
        registry: takes the counters of requests.
        sessions: of browsers that have signed in; None where there is no token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        registry: CollectorRegistry,
        sessions: Sessions | None = None,
    ) -> None:
        self._app = app
        self._requests = Counter(
            "grpo_http_requests", "Requests answered.", ["method", "route", "status"],
            registry=registry,
        )  # fmt: skip
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._durations = Histogram(
            "grpo_http_request_duration_seconds", "Time to answer a request.", ["method", "route"],
            registry=registry,
        )  # fmt: skip
        token = settings.api_token
        self._access = Access(
            hosts=(*settings.allowed_hosts, settings.host),
            origins=settings.cors_origins,
            addresses=not settings.is_loopback,
            token_sha256=None if token is None else token_digest(token),
            sessions=sessions,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or hand it on."""
        if scope["type"] == "websocket":
            if self._access.refusal(read_head(scope), "1.1", needs_token=True) is not None:
                await send({"type": "websocket.close", "code": 1008, "reason": ""})  # 403
                return
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        _drop_final_slash(scope)
        head = read_head(scope)
        request_id = _request_id(head.request_id)
        scope["request_id"] = request_id.decode()
        status = 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            refusal = self._refusal(scope, head)
            if refusal is not None:
                await refusal(scope, receive, note)
                return
            limited = receive if head.length else _limited(receive)
            if head.coding is not None:
                limited = decoded(limited, head.coding, MAX_BODY_BYTES)
            if scope["method"] == "HEAD":
                inner = {**scope, "method": "GET"}
                await self._app(inner, limited, _head_of(note))
                scope["route"] = inner.get("route")
            else:
                await self._app(scope, limited, note)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope, head: Head) -> Response | None:
        refused = self._access.refusal(
            head, scope["http_version"], needs_token=not is_open(scope["path"])
        )
        if refused is not None:
            if refused.status == 401 and (page := sign_in_first(scope)) is not None:
                return page
            challenge = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None
            return problem_response(
                refused.status, refused.detail, kind=refused.kind, headers=challenge
            )
        if head.length is not None and _too_large(head.length):
            return problem_response(413, _TOO_LARGE, headers={"Connection": "close"})
        if head.coding is not None and head.coding.lower() not in CODINGS:
            return problem_response(415, _CODING, headers={"Accept-Encoding": "gzip, deflate"})
        return None

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if path != "unmatched" else "any"
        key = method, path, status
        counted = self._counted.get(key)
        if counted is None:  # finding those of these labels takes as long as counting
            durations = self._durations.labels(method, path)
            counted = self._counted[key] = self._requests.labels(*key), durations
        counted[0].inc()
        counted[1].observe(seconds)
        if _log.isEnabledFor(logging.INFO):
            _log.info(
                "request method=%s path=%s status=%d ms=%.2f request_id=%s",
                scope["method"], _printable(scope["path"]), status, seconds * 1000,
                scope["request_id"],
            )  # fmt: skip


def _limited(receive: Receive) -> Receive:
    """Count a body whose length was not announced."""
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MAX_BODY_BYTES:
            raise HTTPException(413, _TOO_LARGE)
        return message

    return counted


def _too_large(length: bytes) -> bool:
    return not length.isdigit() or len(length) > 18 or int(length) > MAX_BODY_BYTES


def _request_id(given: bytes | None) -> bytes:
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return b"%016x" % random.getrandbits(64)


def _printable(path: str) -> str:
    """The path as one word, so that nobody writes lines of their own into the log."""
    return path.encode("unicode_escape").decode().replace(" ", "\\x20")[:500]


def _drop_final_slash(scope: Scope) -> None:
    """Make `/models/` the path `/models`; an encoded slash is part of a name, and stays.

    A redirect would lose the body in some clients, and the token in others.
    """
    path: str = scope["path"]
    if path.endswith("/") and path != "/":
        raw: bytes = scope.get("raw_path") or path.encode()
        if raw.endswith(b"/"):
            scope["path"] = path[:-1]
            scope["raw_path"] = raw[:-1]


def _head_of(send: Send) -> Send:
    """Sends the head of a reply to GET and ends there, also where the body would have no end.

    RFC 9110, 9.3.2: HEAD answers where GET does.
    """

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_head
