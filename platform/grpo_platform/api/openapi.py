"""The OpenAPI schema, and the pages that show it: `/docs` (Swagger UI), `/redoc` (ReDoc)."""

import json
from html import escape
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from grpo_platform.api.errors import PROBLEM_MEDIA_TYPE

__all__ = ["DESCRIPTION", "TAGS", "install_docs", "install_openapi"]

DESCRIPTION = """\
Train reinforcement-learning policies with GRPO, watch them, and serve them. Every training job is
an MLflow run and every model a registered MLflow model.

Errors are problem details (RFC 9457) whose `detail` says what to do.
"""

TAGS = [
    {"name": "system", "description": "What this server is, and how it is doing."},
    {"name": "training", "description": "Jobs: start, watch, stop, resume."},
    {"name": "experiments", "description": "One configuration with several seeds, as one thing."},
    {"name": "sweeps", "description": "Searches for hyperparameters, each trial a job."},
    {"name": "comparisons", "description": "Experiments, jobs, versions and sweeps side by side."},
    {"name": "inference", "description": "Ask a model for an action."},
    {"name": "models", "description": "Registered models and their versions."},
    {"name": "scenarios", "description": "What a model's versions must pass to be promoted."},
    {"name": "play", "description": "Policies at play: watched, steered, branched, explained."},
    {"name": "catalog", "description": "What can be trained, and how."},
    {"name": "open inference protocol", "description": "For clients of KServe and Triton (v2)."},
]

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

_PRESET: Final = ("TrainBody", "TrainRequest")
"""Bodies whose fields have the environment's defaults."""

_GIVEN_BY: Final = {
    "job_id": ("/train", "post"),
    "experiment_id": ("/train", "post"),
    "sweep_id": ("/sweeps", "post"),
    "comparison_id": ("/comparisons", "post"),
    "session_id": ("/play", "post"),
}
"""Which call gives the ids that others take in their path."""


def install_openapi(app: FastAPI, *, secured: bool) -> None:
    """Make `app.openapi()` give our schema, built once.

    Args:
        app: the application, with all its routes.
        secured: whether calls need a token.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app, secured=secured)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _build(app: FastAPI, *, secured: bool) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    for operations in schema["paths"].values():
        for operation in operations.values():
            for status, reply in operation["responses"].items():
                content = reply.get("content", {})
                if status >= "400" and "application/json" in content:
                    content[PROBLEM_MEDIA_TYPE] = content.pop("application/json")
    _link_ids(schema["paths"])
    _tell_presets(schema["components"]["schemas"])
    if secured:
        schema["components"]["securitySchemes"] = _SECURITY
        schema["security"] = [{name: []} for name in _SECURITY]
    return schema


def _tell_presets(schemas: dict[str, Any]) -> None:
    """Say of what to train that its defaults are CartPole's: others come from other presets.

    A client that is made of the schema sends defaults as if they were given.
    """
    for name in _PRESET:
        for field in schemas[name]["properties"].values():
            if (default := field.pop("default", None)) is not None:
                field["description"] += f" Default on CartPole-v1: {json.dumps(default)}."
            for part in field.get("anyOf", ()):
                if "const" in part:  # the same, for generators that read of names only enumerations
                    part["enum"] = [part.pop("const")]


def _link_ids(paths: dict[str, Any]) -> None:
    for name, (source, method) in _GIVEN_BY.items():
        reply = paths[source][method]["responses"]["200"]
        links = reply.setdefault("links", {})
        links |= {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {name: f"$response.body#/{name}"},
            }
            for path, operations in paths.items()
            if f"{{{name}}}" in path
            for operation in operations.values()
        }


# whatever the bundles would like to load or send, the browser asks this machine only
_POLICY = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "worker-src blob:",
            "frame-ancestors 'none'",
        )
    )
}
_STATIC = Path(__file__).parent / "static"
_REDOC = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="shortcut icon" href="/static/favicon.png">
<style>body {{ margin: 0 }}</style>
</head>
<body>
<div id="redoc"></div>
<noscript>ReDoc needs JavaScript; the schema itself is at {url}.</noscript>
<script type="module">
import {{ init }} from "/static/redoc.standalone.js";
init("{url}", {{ disableTelemetry: true }}, document.getElementById("redoc"));
</script>
</body>
</html>
"""


def install_docs(app: FastAPI) -> None:
    """Add both pages and the assets they load."""
    url = app.openapi_url or "/openapi.json"

    async def swagger(_request: Request) -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url=url,
            title=f"{app.title}: Swagger UI",
            swagger_js_url="/static/swagger-ui-bundle.js",
            swagger_css_url="/static/swagger-ui.css",
            swagger_favicon_url="/static/favicon.png",
            swagger_ui_parameters={"displayRequestDuration": True, "tryItOutEnabled": True},
        )
        page.headers.update(_POLICY)
        return page

    async def redoc(_request: Request) -> HTMLResponse:
        page = _REDOC.format(title=escape(f"{app.title}: ReDoc"), url=escape(url))
        return HTMLResponse(page, headers=_POLICY)

    app.add_route("/docs", swagger, include_in_schema=False)
    app.add_route("/redoc", redoc, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
