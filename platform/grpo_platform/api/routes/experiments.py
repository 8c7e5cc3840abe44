"""Experiment calls; POST /train starts one."""

from typing import Annotated

from fastapi import APIRouter, Query

from grpo_platform.api.dependencies import (
    EnvNameFilter,
    ExperimentId,
    JsonRoute,
    Limit,
    ModelNameFilter,
    PageToken,
    ServicesDep,
)
from grpo_platform.api.errors import documented
from grpo_platform.api.schemas.experiment_results import ExperimentHistory, history_reply
from grpo_platform.api.schemas.experiments import (
    DeletedExperiment,
    Experiment,
    ExperimentAnswer,
    ExperimentList,
    experiment_reply,
    experiment_summary,
)
from grpo_platform.core.names import Metric
from grpo_platform.core.states import JobStatus
from grpo_platform.services.experiments import history_of, results_of

__all__ = ["router"]

router = APIRouter(
    tags=["experiments"], route_class=JsonRoute, responses=documented(401, 403, 422, 503)
)


Threshold = Annotated[
    float | None,
    Query(
        allow_inf_nan=False,
        description="Return that counts as solved; by default the configuration's `target_return`, "
        "else what the environment says.",
    ),
]


@router.get("/experiments", operation_id="list_experiments")
def list_experiments(
    services: ServicesDep,
    limit: Limit = 100,
    page_token: PageToken = None,
    status: JobStatus | None = None,
    env_name: EnvNameFilter = None,
    model_name: ModelNameFilter = None,
) -> ExperimentList:
    """Experiments, newest first."""
    page = services.experiments.page(
        limit, page_token, status=status, env_name=env_name, model_name=model_name
    )
    seeds = services.experiments.members_of(page.items)
    found = [experiment_summary(one, seeds[one.experiment_id]) for one in page.items]
    return ExperimentList(experiments=found, next_page_token=page.next_page_token)


@router.get(
    "/experiments/{experiment_id}", operation_id="get_experiment", responses=documented(404)
)
def get_experiment(
    experiment_id: ExperimentId, services: ServicesDep, threshold: Threshold = None
) -> Experiment:
    """An experiment with its seeds, and what they came to together."""
    experiment = services.experiments.experiment(experiment_id)
    seeds = services.experiments.seeds(experiment)
    return experiment_reply(experiment, seeds, results_of(services, seeds, threshold))


@router.get(
    "/experiments/{experiment_id}/history",
    operation_id="get_experiment_history",
    responses=documented(400, 404),
)
def get_experiment_history(
    experiment_id: ExperimentId,
    services: ServicesDep,
    key: Annotated[
        str, Query(min_length=1, max_length=250, description="Name of the metric.")
    ] = Metric.EPISODE_RETURN,
    points: Annotated[int, Query(ge=2, le=1000, description="Common steps.")] = 100,
) -> ExperimentHistory:
    """A metric over all seeds at common steps: interquartile mean and interval."""
    experiment = services.experiments.experiment(experiment_id)
    curves = history_of(services, services.experiments.seeds(experiment), key, points)
    return history_reply(experiment_id, key, curves)


@router.post(
    "/experiments/{experiment_id}/stop",
    operation_id="stop_experiment",
    responses=documented(404, 409),
)
def stop_experiment(experiment_id: ExperimentId, services: ServicesDep) -> ExperimentAnswer:
    """Stop an experiment with its waiting and running jobs; their checkpoints are kept."""
    services.experiment_runner.stop(experiment_id)
    return ExperimentAnswer(
        experiment_id=experiment_id,
        message="The experiment stops; resume it to go on from its checkpoints.",
    )


@router.post(
    "/experiments/{experiment_id}/resume",
    operation_id="resume_experiment",
    responses=documented(404, 409, 429),
)
def resume_experiment(experiment_id: ExperimentId, services: ServicesDep) -> ExperimentAnswer:
    """Take a stopped or failed experiment up again, with its stopped and failed seeds."""
    services.experiment_runner.resume(experiment_id)
    return ExperimentAnswer(experiment_id=experiment_id, message="The experiment goes on.")


@router.post(
    "/experiments/{experiment_id}/retry",
    operation_id="retry_experiment",
    responses=documented(404, 409, 429),
)
def retry_experiment(experiment_id: ExperimentId, services: ServicesDep) -> ExperimentAnswer:
    """Train the failed seeds again, from their checkpoints; the others stay as they are."""
    failed = services.experiment_runner.retry(experiment_id)
    seeds = ", ".join(str(seed.seed) for seed in failed)
    return ExperimentAnswer(
        experiment_id=experiment_id, message=f"These seeds are trained again: {seeds}."
    )


@router.delete(
    "/experiments/{experiment_id}",
    operation_id="delete_experiment",
    responses=documented(404, 409),
)
def delete_experiment(experiment_id: ExperimentId, services: ServicesDep) -> DeletedExperiment:
    """Delete a finished experiment with its jobs, their checkpoints and logs; the models stay."""
    services.experiment_runner.delete(experiment_id)
    return DeletedExperiment(
        experiment_id=experiment_id, message="The experiment and its jobs are deleted."
    )
