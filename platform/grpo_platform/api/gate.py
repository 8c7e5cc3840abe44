"""The gate that every request passes: host, origin, token, body size, request id, log, metrics.

One ASGI middleware instead of one each, since POST /inference is measured in microseconds.
"""

import hashlib
import hmac
import ipaddress
import logging
import os
import re
import time
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grpo_platform.api.metrics import Metrics
from grpo_platform.api.problems import problem_response
from grpo_platform.settings import Settings

__all__ = ["MAX_BODY_BYTES", "PROBES", "Gate"]

MAX_BODY_BYTES = 8 * 2**20
PROBES = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
"""Paths that need no token."""

_log = logging.getLogger("grpo_platform.access")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TOO_LARGE = f"The body may have at most {MAX_BODY_BYTES} bytes; send fewer items in one call."


class _Headers(NamedTuple):
    host: bytes | None
    origin: bytes | None
    authorization: bytes | None
    api_key: bytes | None
    length: bytes | None
    request_id: bytes | None


class Gate:
    """Lets through who belongs, and notes who passed."""

    def __init__(self, app: ASGIApp, *, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._loopback = settings.is_loopback
        self._hosts = frozenset(
            host.lower() for host in (*settings.allowed_hosts, settings.host, "localhost")
        )
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.cors_origins)
        token = settings.api_token
        self._token = None if token is None else hashlib.sha256(token.encode()).digest()
        self._host_allowed = lru_cache(maxsize=256)(self._is_host_allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or hand it on."""
        if scope["type"] == "websocket":  # there are none here
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = _read(scope)
        request_id = _request_id(headers.request_id)
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
            refusal = self._refusal(scope, headers)
            if refusal is not None:
                await refusal(scope, receive, note)
            else:
                limited = receive if headers.length else _limited(receive)
                await self._app(scope, limited, note)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope, headers: _Headers) -> Response | None:
        if headers.host is not None and not self._host_allowed(headers.host):
            return problem_response(
                403,
                "This Host header is not one of this server's names; add it to "
                "GRPO_ALLOWED_HOSTS if it should be.",
                kind="foreign-host",
            )
        if headers.origin is not None and not self._origin_allowed(headers):
            return problem_response(
                403,
                "Pages of this origin may not call this server; add it to GRPO_CORS_ORIGINS if "
                "they should.",
                kind="foreign-origin",
            )
        if self._token is not None and scope["path"] not in PROBES:
            token = _bearer(headers.authorization) or headers.api_key
            if token is None or not hmac.compare_digest(
                hashlib.sha256(token).digest(), self._token
            ):
                return problem_response(
                    401,
                    "Send this server's GRPO_API_TOKEN as `Authorization: Bearer …` or "
                    "`X-API-Key: …`.",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        if headers.length is not None and _too_large(headers.length):
            return problem_response(413, _TOO_LARGE, headers={"Connection": "close"})
        return None

    def _is_host_allowed(self, host: bytes) -> bool:
        name = _host_name(host.decode("latin-1"))
        if name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # a page that rebinds a name to our address sends that name, never an address
        return address.is_loopback or not self._loopback

    def _origin_allowed(self, headers: _Headers) -> bool:
        origin = (headers.origin or b"").decode("latin-1").lower()
        if origin in self._origins or "*" in self._origins:
            return True
        try:
            return urlsplit(origin).netloc == (headers.host or b"").decode("latin-1").lower() != ""
        except ValueError:
            return False

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


def _read(scope: Scope) -> _Headers:
    host = origin = authorization = api_key = length = request_id = None
    for name, value in scope["headers"]:
        if name == b"host":
            host = value
        elif name == b"origin":
            origin = value
        elif name == b"authorization":
            authorization = value
        elif name == b"x-api-key":
            api_key = value
        elif name == b"content-length":
            length = value
        elif name == b"x-request-id":
            request_id = value
    return _Headers(host, origin, authorization, api_key, length, request_id)


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


def _bearer(authorization: bytes | None) -> bytes | None:
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else None


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def _request_id(given: bytes | None) -> bytes:
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return os.urandom(8).hex().encode()


def _printable(path: str) -> str:
    """The path as one word, so that nobody writes lines of their own into the log."""
    return path.encode("unicode_escape").decode().replace(" ", "\\x20")[:500]
