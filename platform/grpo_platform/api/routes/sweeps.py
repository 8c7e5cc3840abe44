"""Sweep calls."""

from fastapi import APIRouter

from grpo_platform.api.dependencies import JsonRoute, Limit, PageToken, ServicesDep, SweepId
from grpo_platform.api.errors import documented
from grpo_platform.api.schemas.sweeps import (
    Sweep,
    SweepAnswer,
    SweepBody,
    SweepList,
    sweep_reply,
    sweep_summary,
)
from grpo_platform.services.sweeps import submit_sweep

__all__ = ["router"]

router = APIRouter(tags=["sweeps"], route_class=JsonRoute, responses=documented(401, 403, 422, 503))


@router.post("/sweeps", operation_id="start_sweep", responses=documented(400, 404, 409, 413, 415))
def start_sweep(body: SweepBody, services: ServicesDep) -> SweepAnswer:
    """Queue a sweep: jobs that try hyperparameters, each choice learning from those before."""
    sweep = submit_sweep(services, body.model_dump(exclude_unset=True))
    return SweepAnswer(sweep_id=sweep.sweep_id, message="Sweep started")


@router.get("/sweeps", operation_id="list_sweeps")
def list_sweeps(
    services: ServicesDep, limit: Limit = 100, page_token: PageToken = None
) -> SweepList:
    """Sweeps, newest first."""
    page = services.sweeps.page(limit, page_token)
    trials = services.sweeps.trials_of(page.items)
    sweeps = [sweep_summary(sweep, trials[sweep.sweep_id]) for sweep in page.items]
    return SweepList(sweeps=sweeps, next_page_token=page.next_page_token)


@router.get("/sweeps/{sweep_id}", operation_id="get_sweep", responses=documented(404))
def get_sweep(sweep_id: SweepId, services: ServicesDep) -> Sweep:
    """A sweep with its trials and the best of them."""
    sweep = services.sweeps.sweep(sweep_id)
    return sweep_reply(sweep, services.sweeps.trials(sweep))


@router.post("/sweeps/{sweep_id}/stop", operation_id="stop_sweep", responses=documented(404, 409))
def stop_sweep(sweep_id: SweepId, services: ServicesDep) -> SweepAnswer:
    """Stop a sweep and its running trials; their checkpoints are kept."""
    services.sweep_runner.stop(sweep_id)
    return SweepAnswer(
        sweep_id=sweep_id, message=f"The sweep stops; POST /sweeps/{sweep_id}/resume goes on."
    )


@router.post(
    "/sweeps/{sweep_id}/resume", operation_id="resume_sweep", responses=documented(404, 409)
)
def resume_sweep(sweep_id: SweepId, services: ServicesDep) -> SweepAnswer:
    """Take a stopped or failed sweep up again, with its stopped and failed trials."""
    services.sweep_runner.resume(sweep_id)
    return SweepAnswer(sweep_id=sweep_id, message="The sweep goes on.")
