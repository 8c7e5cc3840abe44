"""MLflow's own web application, behind our rules and without the parts that are not for us.

`mlflow server --app-name grpo` finds it by the entry point `mlflow.app`. Experiments, runs, models
and artifacts stay; what would run jobs, call other servers or keep secrets is answered with 404.
Host and Origin are checked as strictly as the API's, and where there is a token, it is asked for:
browsers show their sign-in, MLflow's clients send it as MLFLOW_TRACKING_PASSWORD or
MLFLOW_TRACKING_TOKEN.
"""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from grpo_platform.core.access import TOKEN_DIGEST, Access, Refusal, read_head, token_digest
from grpo_platform.core.process import die_with_parent
from grpo_platform.core.settings import Settings
from grpo_platform.tracking.locations import require_database
from grpo_platform.tracking.ui import UI_PROCESS

__all__ = ["CLOSED", "create_app", "guarded"]

CLOSED: Final = frozenset({
    "assistant", "gateway", "gateway-proxy", "invoke", "jobs", "mcp-servers", "prompt-optimization",
    "scorer", "scorers", "webhooks",
})  # fmt: skip
"""Path segments of the routes that are closed."""

_ROOTS: Final = frozenset({"ajax-api", "api", "gateway"})
_REPLY: Final = json.dumps(
    {"error_code": "ENDPOINT_NOT_FOUND", "message": "GRPO Platform keeps this MLflow route closed."}
).encode()

_PROBES: Final = frozenset({"/health", "/version"})
"""Paths that need no token, as MLflow's own authentication lets them through."""

_CHALLENGE: Final = (
    b"www-authenticate",
    b'Basic realm="MLflow UI: any user name, GRPO_API_TOKEN as the password", charset="UTF-8"',
)

_NO_ENDPOINTS: Final = b'{"endpoints": []}'
"""What MLflow says where no gateway is set up; its pages show an error at anything else."""


def create_app() -> ASGIApp:
    """MLflow's application behind the filter.

    Raises:
        StoreUnavailableError: the database that it is to show is not there.
        pydantic.ValidationError: GRPO_API_TOKEN is too short.
    """
    if parent := os.environ.get(UI_PROCESS):
        die_with_parent(int(parent))
    require_database(os.environ.get("MLFLOW_BACKEND_STORE_URI", ""))
    from mlflow.server.fastapi_app import app

    return guarded(app, os.environ)


def guarded(app: ASGIApp, environment: Mapping[str, str]) -> ASGIApp:
    """The application behind the filter that these variables describe.

    Raises:
        pydantic.ValidationError: GRPO_API_TOKEN is too short.
    """
    return _Filter(app, _access(environment))


def _access(environment: Mapping[str, str]) -> Access:
    digest, token = environment.get(TOKEN_DIGEST), None
    if digest is None:  # not a child of our server, but one that somebody started by hand
        token = Settings().api_token
    secret = bytes.fromhex(digest) if digest else token and token_digest(token)
    return Access(
        hosts=[h.partition(":")[0] for h in _listed(environment, "MLFLOW_SERVER_ALLOWED_HOSTS")],
        origins=_listed(environment, "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"),
        addresses=False,
        token_sha256=secret or None,
        basic=True,
        hosts_setting="MLFLOW_SERVER_ALLOWED_HOSTS",
        origins_setting="MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
    )


def _listed(environment: Mapping[str, str], name: str) -> list[str]:
    parts = (part.strip() for part in environment.get(name, "").split(","))
    return [part for part in parts if part]


class _Filter:
    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":  # MLflow has no websockets for us
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
        elif refused := self._access.refusal(
            read_head(scope), scope["http_version"], needs_token=scope["path"] not in _PROBES
        ):
            await _refuse(send, refused)
        elif _is_closed(scope["path"]):
            empty = scope["method"] == "GET" and scope["path"].endswith("/gateway-proxy")
            await _answer(send, *((200, _NO_ENDPOINTS) if empty else (404, _REPLY)))
        else:
            await self._app(scope, receive, send)


async def _refuse(send: Send, refused: Refusal) -> None:
    codes = {400: "BAD_REQUEST", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
    error = {"error_code": codes[refused.status], "message": refused.detail}
    challenge = [_CHALLENGE] if refused.status == 401 else []
    await _answer(send, refused.status, json.dumps(error).encode(), challenge)


async def _answer(
    send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    own = (b"content-type", b"application/json")
    await send({"type": "http.response.start", "status": status, "headers": [own, *headers]})
    await send({"type": "http.response.body", "body": body})


def _is_closed(path: str) -> bool:
    segments = [segment for segment in path.split("/") if segment]
    return bool(segments) and segments[0] in _ROOTS and not CLOSED.isdisjoint(segments)
