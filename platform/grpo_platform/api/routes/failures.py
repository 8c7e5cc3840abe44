"""Calls about the worst episodes of a job."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from grpo_platform.api.dependencies import JobId, JsonRoute, ServicesDep
from grpo_platform.api.errors import documented
from grpo_platform.api.ranges import ranged
from grpo_platform.api.schemas.failures import (
    FailureList,
    FailureScenario,
    ScenarioBody,
    failures_reply,
)
from grpo_platform.services.failures import failure_to_scenario, job_failures, read_clip, read_film

__all__ = ["router"]

router = APIRouter(
    tags=["training"], route_class=JsonRoute, responses=documented(401, 403, 422, 503)
)

_ACTOR = "api"

Number = Annotated[int, Path(ge=1, le=20, description="Of the failure, from 1.", examples=[1])]


@router.get("/training/{job_id}/failures", operation_id="get_failures", responses=documented(404))
def get_failures(job_id: JobId, services: ServicesDep) -> FailureList:
    """The worst episodes of the job's evaluation, cut to where the value estimate collapsed."""
    return failures_reply(job_failures(services.store, job_id))


_MP4: Final = {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}
_FILM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": _MP4},
    206: {"content": _MP4, "description": "The range that was asked for."},
    **documented(404, 416),
}


@router.get(
    "/training/{job_id}/film",
    operation_id="get_film",
    response_class=Response,
    responses=_FILM,
)
def get_film(job_id: JobId, services: ServicesDep, request: Request) -> Response:
    """Greedy episodes of a completed job's policy, as a film."""
    return ranged(request, read_film(services.store, job_id), "video/mp4")


@router.get(
    "/training/{job_id}/failures/{number}/film",
    operation_id="get_failure_film",
    response_class=Response,
    responses=_FILM,
)
def get_failure_film(
    job_id: JobId, number: Number, services: ServicesDep, request: Request
) -> Response:
    """One of the worst episodes, from shortly before the value estimate collapsed, as a film."""
    return ranged(request, read_clip(services.store, job_id, number), "video/mp4")


@router.post(
    "/training/{job_id}/failures/{number}/scenario",
    operation_id="failure_to_scenario",
    responses=documented(400, 404, 409, 413, 415),
)
def make_scenario(
    job_id: JobId, number: Number, body: ScenarioBody, services: ServicesDep
) -> FailureScenario:
    """Test the job's model on one of its failures from now on: a start state of its suite."""
    made = failure_to_scenario(
        services, job_id, number, _ACTOR, scenario=body.scenario, assertions=body.assertions
    )
    return FailureScenario(
        model_name=services.store.get(job_id).model_name,
        scenario=made.scenario,
        suite=made.kept.suite.to_dict(),
    )
