"""The one shape of every error reply: RFC 9457 problem details."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

__all__ = ["PROBLEM_MEDIA_TYPE", "FieldProblem", "Problem", "documented", "problem_response"]

PROBLEM_MEDIA_TYPE = "application/problem+json"
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
