"""The OpenAPI schema: FastAPI's, with our error replies under the media type that they have.

Every operation has an example that runs: bodies and names in its schema, and ids, which no schema
can know, by links from the reply that gives them.
"""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from grpo_platform.api.problems import PROBLEM_MEDIA_TYPE

__all__ = ["DESCRIPTION", "TAGS", "install_openapi"]

DESCRIPTION = """\
Train reinforcement-learning policies with GRPO, watch them, and serve them. Every training job is
an MLflow run and every model a registered MLflow model.

Errors are problem details (RFC 9457) whose `detail` says what to do.
"""

TAGS = [
    {"name": "system", "description": "What this server is, and how it is doing."},
    {"name": "training", "description": "Jobs: start, watch, stop, resume."},
    {"name": "sweeps", "description": "Searches for hyperparameters, each trial a job."},
    {"name": "inference", "description": "Ask a model for an action."},
    {"name": "models", "description": "Registered models and their versions."},
    {"name": "catalog", "description": "What can be trained, and how."},
    {"name": "open inference protocol", "description": "For clients of KServe and Triton (v2)."},
]

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

_GIVEN_BY: Final = {"job_id": ("/train", "post"), "sweep_id": ("/sweeps", "post")}
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
    if secured:
        schema["components"]["securitySchemes"] = _SECURITY
        schema["security"] = [{name: []} for name in _SECURITY]
    return schema


def _link_ids(paths: dict[str, Any]) -> None:
    for name, (source, method) in _GIVEN_BY.items():
        reply = paths[source][method]["responses"]["200"]
        reply["links"] = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {name: f"$response.body#/{name}"},
            }
            for path, operations in paths.items()
            if f"{{{name}}}" in path
            for operation in operations.values()
        }
