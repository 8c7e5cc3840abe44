"""Calls about scenarios: what a model's versions must pass, and what they came to."""

from anyio import to_thread
from fastapi import APIRouter, Request

from grpo_platform.api.dependencies import JsonRoute, ModelPath, ServicesDep, VersionPath
from grpo_platform.api.errors import documented
from grpo_platform.api.schemas.common import reply_of
from grpo_platform.api.schemas.scenarios import (
    DeletedSuite,
    RunBody,
    Suite,
    SuiteBody,
    SuiteResult,
    SuiteResultSummary,
    VersionResults,
    result_reply,
    suite_reply,
)
from grpo_platform.core.errors import InvalidRequestError

__all__ = ["router"]

router = APIRouter(
    tags=["scenarios"], route_class=JsonRoute, responses=documented(401, 403, 404, 422, 503)
)

_ACTOR = "api"


@router.get("/models/{name}/scenarios", operation_id="get_scenarios")
def get_scenarios(name: ModelPath, services: ServicesDep) -> Suite:
    """A model's suite, as it was written and as it was understood."""
    return suite_reply(services.scenarios.show(name))


@router.put(
    "/models/{name}/scenarios",
    operation_id="put_scenarios",
    responses=documented(400, 409, 413, 415),
)
def put_scenarios(name: ModelPath, body: SuiteBody, services: ServicesDep) -> Suite:
    """Give a model a suite that its versions must pass, in the place of the one before."""
    return suite_reply(services.scenarios.put(name, body.suite, _ACTOR))


@router.delete(
    "/models/{name}/scenarios", operation_id="delete_scenarios", responses=documented(409)
)
def delete_scenarios(name: ModelPath, services: ServicesDep) -> DeletedSuite:
    """Take a model's suite away; what versions came to stays."""
    services.scenarios.remove(name, _ACTOR)
    return DeletedSuite(message=f"Versions of {name} are promoted without a suite from now on.")


@router.post(
    "/models/{name}/scenarios/run",
    operation_id="run_scenarios",
    responses=documented(400, 409, 413, 415),
)
async def run_scenarios(
    name: ModelPath, body: RunBody, services: ServicesDep, request: Request
) -> SuiteResult:
    """Put a version through its model's suite, and keep what comes out."""
    if body.version is not None and body.alias is not None:
        raise InvalidRequestError("Give a version or an alias, not both.", field="alias")
    reference = f"{name}/{body.version}" if body.version is not None else name
    reference = f"{name}@{body.alias}" if body.alias is not None else reference
    found = await to_thread.run_sync(
        services.scenarios.run, reference, _ACTOR, limiter=request.app.state.decisions
    )
    return result_reply(found)


@router.get("/models/{name}/versions/{version}/scenarios", operation_id="get_scenario_results")
def get_scenario_results(
    name: ModelPath, version: VersionPath, services: ServicesDep
) -> VersionResults:
    """What a version came to in its model's suites."""
    records = services.scenarios.results(name, version)
    latest = services.scenarios.result(name, records[-1]) if records else None
    return VersionResults(
        results=[reply_of(SuiteResultSummary, each) for each in reversed(records)],
        latest=None if latest is None else result_reply(latest),
    )
