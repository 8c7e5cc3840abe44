"""Which HTTP status each of our errors has, and the one shape of their replies (RFC 9457)."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Mount
from starlette.types import Scope

from grpo import errors as algorithm
from grpo.errors import did_you_mean
from grpo_platform.core import errors as platform

__all__ = [
    "ERROR_TABLE",
    "PROBLEM_MEDIA_TYPE",
    "FieldProblem",
    "InvalidBodyError",
    "Problem",
    "add_error_handlers",
    "documented",
    "explain_finding",
    "problem_of",
    "problem_response",
    "validation_problem",
]

PROBLEM_MEDIA_TYPE = "application/problem+json"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_TYPE_PREFIX = "urn:grpo-platform:problem:"


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str = Field(description="Path of the field, parts joined by dots.")
    detail: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(description="URN of the kind of problem, stable for programs.")
    title: str = Field(description="The kind of problem, in a few words.")
    status: int = Field(description="HTTP status, as in the status line.")
    detail: str = Field(description="What happened and what to do, in a sentence.")
    errors: list[FieldProblem] | None = Field(
        default=None, description="The fields at fault, where there are any."
    )


def problem_response(
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    title: str | None = None,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The reply to a request that is refused.

    Args:
        status: HTTP status.
        detail: a sentence that says what to do.
        kind: last part of the problem's URN; by default the status phrase, hyphenated.
        title: a few words; by default the status phrase.
        errors: the fields at fault.
        headers: further headers of the reply.
    """
    phrase = HTTPStatus(status).phrase
    body: dict[str, Any] = {
        "type": _TYPE_PREFIX + (kind or phrase.lower().replace(" ", "-")),
        "title": title or phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = [error.model_dump() for error in errors]
    return JSONResponse(body, status, headers=headers, media_type=PROBLEM_MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Replies of a route, for the OpenAPI schema, beside those that every route has."""
    return {
        status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in statuses
    }


_log = logging.getLogger(__name__)
_MAX_FIELDS = 20
_MAX_TEXT = 2_000
_RETRY_SECONDS = 5


class ErrorRow(NamedTuple):
    """How one kind of error is answered."""

    status: int
    kind: str
    title: str


ERROR_TABLE: dict[type[Exception], ErrorRow] = {
    # the algorithm's: what was asked for cannot be trained
    algorithm.OutOfRangeError: ErrorRow(422, "out-of-range", "Value out of range"),
    algorithm.UnknownNameError: ErrorRow(400, "unknown-name", "Unknown name"),
    algorithm.IncompatibleError: ErrorRow(400, "incompatible", "Values do not go together"),
    algorithm.UnsupportedEnvironmentError: ErrorRow(
        400, "unsupported-environment", "Environment not supported"
    ),
    algorithm.ConfigError: ErrorRow(400, "bad-configuration", "Configuration cannot be trained"),
    algorithm.UnsupportedPolicyError: ErrorRow(400, "unsupported-policy", "Policy not supported"),
    algorithm.AdvantageError: ErrorRow(400, "advantage-fault", "Advantage function failed"),
    algorithm.RewardError: ErrorRow(400, "reward-fault", "Reward function failed"),
    algorithm.EnvironmentFaultError: ErrorRow(400, "environment-fault", "Environment failed"),
    algorithm.TrainingDivergedError: ErrorRow(409, "diverged", "Training diverged"),
    algorithm.CheckpointError: ErrorRow(409, "bad-checkpoint", "Checkpoint cannot be read"),
    # the platform's
    platform.InvalidPageTokenError: ErrorRow(422, "bad-page-token", "Unknown page token"),
    platform.InvalidObservationError: ErrorRow(422, "bad-observation", "Invalid observation"),
    platform.InvalidRequestError: ErrorRow(422, "bad-request-value", "Invalid value"),
    platform.AmbiguousIdError: ErrorRow(404, "ambiguous-id", "Several ids begin so"),
    platform.UnknownJobError: ErrorRow(404, "unknown-job", "No such job"),
    platform.UnknownSweepError: ErrorRow(404, "unknown-sweep", "No such sweep"),
    platform.UnknownExperimentError: ErrorRow(404, "unknown-experiment", "No such experiment"),
    platform.UnknownComparisonError: ErrorRow(404, "unknown-comparison", "No such comparison"),
    platform.UnknownModelError: ErrorRow(404, "unknown-model", "No such model"),
    platform.NotFoundError: ErrorRow(404, "not-found", "Not found"),
    platform.ConflictError: ErrorRow(409, "conflict", "Does not fit the present state"),
    platform.UnsafeModelError: ErrorRow(409, "unsafe-model", "Model refused"),
    platform.QueueFullError: ErrorRow(429, "queue-full", "Queue is full"),
    platform.TooManyWatchersError: ErrorRow(429, "too-many-watchers", "Too many watchers"),
    platform.TooManySessionsError: ErrorRow(429, "too-many-sessions", "Too many sessions"),
    platform.BusyError: ErrorRow(503, "busy", "Busy"),
    platform.NotReadyError: ErrorRow(503, "not-ready", "Not ready"),
    platform.StoreUnavailableError: ErrorRow(503, "store-unavailable", "Store unavailable"),
    platform.StoreGoneError: ErrorRow(503, "store-gone", "Store not where it was"),
    platform.StoreError: ErrorRow(503, "store-error", "Store refused"),
}
"""The most specific class of an error that is listed here decides."""

_ADVICE = {
    404: "There is no such path here; GET /docs shows the calls.",
    413: "The body is too large; send fewer items in one call.",
}


class InvalidBodyError(HTTPException):
    """A JSON body that does not match its schema.

    Attributes:
        errors: pydantic's findings.
        model: whose schema it is; None where the body was not looked at.
    """

    def __init__(
        self, errors: Sequence[ErrorDetails], model: type[BaseModel] | None = None
    ) -> None:
        super().__init__(422)
        self.errors = errors
        self.model = model


def problem_of(error: Exception) -> Response:
    """The reply to one of our own errors.

    Raises:
        LookupError: the error is not in the table.
    """
    row = next((ERROR_TABLE[kind] for kind in type(error).__mro__ if kind in ERROR_TABLE), None)
    if row is None:
        raise LookupError(type(error).__name__)
    detail = str(error)[:_MAX_TEXT]
    field = getattr(error, "field", None)
    headers = {}
    if (seconds := getattr(error, "retry_after_seconds", None)) is not None:
        headers["Retry-After"] = str(seconds)
    elif row.status == 503:
        _log.warning("unavailable reason=%r", detail)
        headers["Retry-After"] = str(_RETRY_SECONDS)
    return problem_response(
        row.status,
        detail,
        kind=row.kind,
        title=row.title,
        errors=[FieldProblem(field=field, detail=detail)] if field else (),
        headers=headers,
    )


def validation_problem(
    findings: Sequence[ErrorDetails], model: type[BaseModel] | None = None
) -> Response:
    """The reply to a body or parameter that does not match its schema.

    Args:
        findings: pydantic's.
        model: of the body, whose fields are suggested for those that do not exist.
    """
    fields = [_field_problem(finding, model) for finding in findings[:_MAX_FIELDS]]
    said = "; ".join(f"{f.field}: {f.detail}" if f.field else f.detail for f in fields[:3])
    more = len(findings) - min(len(fields), 3)
    said += f"; and {more} more" if more > 0 else ""
    detail = f"{said}{'' if said.endswith('?') else '.'} GET /docs shows what is expected."
    return problem_response(
        422, detail[:_MAX_TEXT], kind="bad-request-value", title="Invalid value", errors=fields
    )


def add_error_handlers(app: FastAPI) -> None:
    """Answer every exception with a problem; none gives a traceback."""
    for kind in (algorithm.GRPOError, platform.PlatformError):
        app.add_exception_handler(kind, _on_own_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameter)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_unexpected)


def _on_own_error(request: Request, error: Exception) -> Response:
    try:
        return problem_of(error)
    except LookupError:
        return _on_unexpected(request, error)


def _on_invalid_parameter(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return validation_problem(error.errors())


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, InvalidBodyError):
        return validation_problem(error.errors, error.model)
    detail, headers = _ADVICE.get(error.status_code, str(error.detail)), error.headers
    if error.status_code == 405:
        methods = ", ".join(_allowed_methods(request.app, request.scope))
        headers = {"Allow": methods}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
        detail = f"This path takes {methods}, not {request.method}; GET /docs shows the calls."
    return problem_response(error.status_code, detail, headers=headers)


def _on_disconnect(_request: Request, _error: Exception) -> Response:
    return problem_response(400, "The connection closed before the body was complete; send again.")


def _on_unexpected(request: Request, error: Exception) -> Response:
    request_id = request.scope.get("request_id", "-")
    _log.error("unexpected error request_id=%s path=%s", request_id, request.url.path,
               exc_info=error)  # fmt: skip
    return problem_response(
        500,
        f"The server met an error that it did not expect. Its log has the details under "
        f"request id {request_id}; please report them.",
    )


def explain_finding(finding: ErrorDetails, model: type[BaseModel] | None = None) -> str:
    """What pydantic found, in words that say what to do; its last sentence has no full stop.

    Args:
        finding: one of pydantic's.
        model: that was validated, whose fields are suggested for those that do not exist.
    """
    kind, message = finding["type"], str(finding["msg"])
    if kind == "extra_forbidden":
        near = did_you_mean(finding["loc"][-1], _fields_beside(finding["loc"], model)).strip()
        return f"There is no such field{f'. {near}' if near else '; leave it out'}"
    if kind == "missing":
        return "This field is required"
    if kind == "json_invalid":
        return f"The body is not valid JSON ({message.removeprefix('Invalid JSON: ')})"
    return message.removeprefix("Value error, ")[:500].rstrip(".")


def _fields_beside(location: tuple[int | str, ...], model: type[BaseModel] | None) -> Iterable[str]:
    """Fields of the model, or of the model within it, that this location's last part is in."""
    for part in location[:-1]:
        field = None if model is None else model.model_fields.get(str(part))
        inner = None if field is None else field.annotation
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    if model is None:
        return ()
    return [field.alias or name for name, field in model.model_fields.items()]


def _field_problem(finding: ErrorDetails, model: type[BaseModel] | None) -> FieldProblem:
    where = [str(part) for part in finding["loc"]]
    if where and where[0] in ("body", "query", "path", "header"):
        where = where[1:]
    # a position in a malformed text is no field
    field = "" if finding["type"] == "json_invalid" else ".".join(where)[:200]
    return FieldProblem(field=field, detail=explain_finding(finding, model))


def _allowed_methods(app: FastAPI, scope: Scope) -> tuple[str, ...]:
    """The methods that the path of a request takes, sorted (RFC 9110, 9.3.7 and 15.5.6)."""
    found = {"OPTIONS"}
    whole = {**scope, "root_path": scope.get("app_root_path", "")}  # a mount has shortened it
    for route in app.router.routes:
        for method in ("GET",) if isinstance(route, Mount) else _METHODS:
            if route.matches({**whole, "method": method})[0] is Match.FULL:
                found.add(method)
    if "GET" in found:
        found.add("HEAD")
    return tuple(sorted(found))
