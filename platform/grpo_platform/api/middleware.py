"""The gate that every request passes: host, origin, token, body, request id, log, metrics.

One ASGI middleware instead of one each, since POST /inference is measured in microseconds.
"""

import logging
import os
import re
import time

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grpo_platform.api.body import CODINGS, decoded
from grpo_platform.api.errors import problem_response
from grpo_platform.api.metrics import Metrics
from grpo_platform.core.access import Access, Head, read_head, token_digest
from grpo_platform.core.settings import Settings

__all__ = ["MAX_BODY_BYTES", "RequestMiddleware", "is_open"]

MAX_BODY_BYTES = 8 * 2**20
_OPEN = frozenset(
    {
        "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready",
        "/docs", "/redoc", "/openapi.json",
    }
)  # fmt: skip
_log = logging.getLogger("grpo_platform.access")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TOO_LARGE = f"The body may have at most {MAX_BODY_BYTES} bytes; send fewer items in one call."
_CODING = "Send the body as it is, or with Content-Encoding: gzip or deflate; no other is read."


def is_open(path: str) -> bool:
    """Whether a path needs no token: a probe, or documentation, the same on every server.

    A browser sends no token when it opens a page, and Swagger's *Authorize* needs the schema.
    """
    return path in _OPEN or path.startswith("/static/")


class RequestMiddleware:
    """Lets through who belongs, and notes who passed."""

    def __init__(self, app: ASGIApp, *, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        token = settings.api_token
        self._access = Access(
            hosts=(*settings.allowed_hosts, settings.host),
            origins=settings.cors_origins,
            addresses=not settings.is_loopback,
            token_sha256=None if token is None else token_digest(token),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or hand it on."""
        if scope["type"] == "websocket":  # there are none here
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
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
        self._metrics.request(method, path, status, seconds)
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
    return os.urandom(8).hex().encode()


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
