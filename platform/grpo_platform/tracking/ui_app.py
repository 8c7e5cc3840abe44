"""MLflow's own web application, without the parts that are not for us.

`mlflow server --app-name grpo` finds it by the entry point `mlflow.app`. Experiments, runs, models
and artifacts stay; what would run jobs, call other servers or keep secrets is answered with 404.
"""

import json
import os
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from grpo_platform.tracking.presence import require_database

__all__ = ["CLOSED", "create_app"]

CLOSED: Final = frozenset({
    "assistant", "gateway", "gateway-proxy", "invoke", "jobs", "mcp-servers", "prompt-optimization",
    "scorer", "scorers", "webhooks",
})  # fmt: skip
"""Path segments of the routes that are closed."""

_ROOTS: Final = frozenset({"ajax-api", "api", "gateway"})
_REPLY: Final = json.dumps(
    {"error_code": "ENDPOINT_NOT_FOUND", "message": "GRPO Platform keeps this MLflow route closed."}
).encode()

_NO_ENDPOINTS: Final = b'{"endpoints": []}'
"""What MLflow says where no gateway is set up; its pages show an error at anything else."""


def create_app() -> ASGIApp:
    """MLflow's application behind the filter.

    Raises:
        StoreUnavailableError: the database that it is to show is not there.
    """
    require_database(os.environ.get("MLFLOW_BACKEND_STORE_URI", ""))
    from mlflow.server.fastapi_app import app

    return _Filter(app)


class _Filter:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_closed(scope["path"]):
            empty = scope["method"] == "GET" and scope["path"].endswith("/gateway-proxy")
            status, reply = (200, _NO_ENDPOINTS) if empty else (404, _REPLY)
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": reply})
            return
        await self._app(scope, receive, send)


def _is_closed(path: str) -> bool:
    segments = [segment for segment in path.split("/") if segment]
    return bool(segments) and segments[0] in _ROOTS and not CLOSED.isdisjoint(segments)
