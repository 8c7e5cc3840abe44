"""Experiment calls: what they take and what they give."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from grpo_platform.api.schemas.common import WHOLE, Reply, bounded
from grpo_platform.api.schemas.experiment_results import (
    ExperimentResults,
    ExperimentSelection,
    results_reply,
    selection_reply,
)
from grpo_platform.api.schemas.training import TrainRequest
from grpo_platform.core.names import ExperimentMetric, Metric
from grpo_platform.core.request import Promote
from grpo_platform.core.states import JobStatus
from grpo_platform.experiments.aggregate import Results, SeedResult
from grpo_platform.experiments.records import ExperimentRecord, SeedRecord, SeedState
from grpo_platform.experiments.request import MAX_SEEDS, Register

__all__ = [
    "DeletedExperiment", "Experiment", "ExperimentAnswer", "ExperimentList", "ExperimentReply",
    "ExperimentSummary", "Seed", "SeedJob", "Seeds", "TrainBody", "experiment_reply",
    "experiment_summary", "started_reply",
]  # fmt: skip


def _one_sentence(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401
    try:
        return handler(value)
    except ValidationError:
        raise ValueError(
            f"It must be how many seeds, 2 to {MAX_SEEDS}, or a list of as many whole numbers from "
            "0 to 4294967295"
        ) from None


Seeds = Annotated[
    Annotated[int, Field(ge=2, le=MAX_SEEDS), WHOLE]
    | Annotated[list[Annotated[int, bounded("seed")]], Field(min_length=2, max_length=MAX_SEEDS)],
    WrapValidator(_one_sentence),
]
"""How many seeds, or which."""


class TrainBody(TrainRequest):
    """What to train, and how. Every field may be left out; the environment's preset fills it in.

    With `seeds` it becomes an experiment: a job a seed, and one result.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    seeds: Seeds | None = None
    """Makes an experiment: how many seeds, counted from `seed`, or which ones; a job each."""

    register_: Annotated[Register, Field(alias="register")] = "best"
    """Only with `seeds`: which versions the model gets, that of the `best` or of the `median` seed
    alone, or one of `each` seed, of which none is promoted."""


class SeedJob(Reply):
    """The job that trains a seed."""

    seed: int
    job_id: str


class ExperimentReply(Reply):
    """An experiment was accepted, and all its jobs are queued."""

    experiment_id: str
    """Names the experiment in every other call; it is the MLflow run id of the parent."""

    message: str
    jobs: list[SeedJob]
    """In the order of the seeds."""

    config: TrainBody
    """All values in force."""


class Seed(Reply):
    """One seed of an experiment."""

    seed: int
    job_id: str
    state: SeedState
    """As the job's status; `failed` also where its run is gone."""

    progress: float = Field(ge=0, le=1)
    """Share of its budget that is spent."""

    current_timesteps: int
    evaluation: float | None
    """Mean return of its final evaluation; null until it is completed."""

    model_version: int | None
    """Version that the job made; null until it completed."""

    area_under_curve: float | None
    """Mean height of its learning curve over the whole budget; null until it completed."""

    steps_to_threshold: int | None
    """First step at which its learning curve reached the threshold; null where it did not."""

    error_message: str | None
    """Why it failed."""


class ExperimentSummary(Reply):
    """An experiment, without its seeds."""

    model_config = ConfigDict(
        validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    experiment_id: str
    """Names the experiment in every other call; it is the MLflow run id of the parent."""

    status: JobStatus
    """`failed` where a seed failed, `stopped` where one was stopped and none failed."""

    env_name: str
    model_name: str
    """Registered model that receives the versions."""

    register_: Annotated[Register, Field(alias="register")]
    """Which versions it gets."""

    promote: Promote
    """When the experiment's version becomes the champion."""

    total_timesteps: int
    """Budget of each seed."""

    n_seeds: int
    counts: dict[SeedState, int]
    """Number of seeds by state."""

    progress: float = Field(ge=0, le=1)
    """Mean over the seeds of the share that is done."""

    eta_seconds: float | None
    """Expected time to the end, in seconds; null when it cannot be told."""

    start_time: datetime
    end_time: datetime | None
    error_message: str | None
    """Why it is not completed, and what can be done."""

    iqm: float | None
    """Interquartile mean of the seeds' evaluations; null before the end."""

    ci_low: float | None
    """Lower end of its 95 % interval."""

    ci_high: float | None
    """Upper end of its 95 % interval."""


class Experiment(ExperimentSummary):
    """An experiment with its seeds."""

    config: TrainBody
    """All values in force."""

    results: ExperimentResults
    """What the seeds that completed came to together."""

    selection: ExperimentSelection | None
    """The version that was chosen; null until all seeds are completed, and where none is."""

    seeds: list[Seed]
    """In order of the seeds."""


class ExperimentList(Reply):
    """A page of experiments, newest first."""

    experiments: list[ExperimentSummary]
    next_page_token: str | None
    """Leads to the next page; null on the last one."""


class ExperimentAnswer(Reply):
    """What was asked for is under way."""

    experiment_id: str
    message: str


class DeletedExperiment(Reply):
    """The experiment is gone."""

    experiment_id: str
    message: str


def started_reply(experiment: ExperimentRecord) -> ExperimentReply:
    """The reply to who started this experiment."""
    request, jobs = experiment.request, experiment.seed_jobs
    return ExperimentReply(
        experiment_id=experiment.experiment_id,
        message="Experiment started",
        jobs=[SeedJob(seed=seed, job_id=jobs[seed]) for seed in request.seeds if seed in jobs],
        config=_config(experiment),
    )


def experiment_summary(
    experiment: ExperimentRecord, seeds: Sequence[SeedRecord]
) -> ExperimentSummary:
    """The reply that describes this experiment in a list."""
    request, metrics = experiment.request, experiment.metrics
    done = experiment.status is JobStatus.COMPLETED
    share = sum(1.0 if seed.ended else seed.progress for seed in seeds) / len(request.seeds)
    return ExperimentSummary(
        experiment_id=experiment.experiment_id,
        status=experiment.status,
        env_name=request.env_name,
        model_name=experiment.model_name,
        register_=request.register,
        promote=request.promote,
        total_timesteps=request.total_timesteps,
        n_seeds=len(request.seeds),
        counts=dict(Counter(seed.state for seed in seeds)),
        progress=1.0 if done else min(1.0, share),
        eta_seconds=_eta_seconds(experiment, seeds),
        start_time=experiment.start_time,
        end_time=experiment.end_time,
        error_message=experiment.error_message,
        iqm=metrics.get(ExperimentMetric.IQM),
        ci_low=metrics.get(ExperimentMetric.CI_LOW),
        ci_high=metrics.get(ExperimentMetric.CI_HIGH),
    )


def experiment_reply(
    experiment: ExperimentRecord, seeds: Sequence[SeedRecord], results: Results
) -> Experiment:
    """The reply that describes this experiment and its seeds."""
    found = zip(seeds, results.seeds, strict=True)
    return Experiment(
        **dict(experiment_summary(experiment, seeds)),
        config=_config(experiment),
        results=results_reply(results),
        selection=selection_reply(experiment.selection),
        seeds=[_seed(seed, result) for seed, result in found],
    )


def _config(experiment: ExperimentRecord) -> TrainBody:
    request = experiment.request
    own = {
        "seeds": list(request.seeds),
        "register": request.register,
        "model_name": experiment.model_name,
        "promote": request.promote,
    }
    return TrainBody.model_validate({**request.config, **own}, strict=False)


def _seed(seed: SeedRecord, result: SeedResult) -> Seed:
    return Seed(
        seed=seed.seed,
        job_id=seed.job_id,
        state=seed.state,
        progress=seed.progress,
        current_timesteps=result.timesteps,
        evaluation=result.evaluation,
        model_version=result.model_version,
        area_under_curve=result.area_under_curve,
        steps_to_threshold=result.steps_to_threshold,
        error_message=None if seed.job is None else seed.job.error_message,
    )


def _eta_seconds(experiment: ExperimentRecord, seeds: Sequence[SeedRecord]) -> float | None:
    """What is left of all seeds, at the speed of those that train now."""
    speeds, left, longest = 0.0, 0, 0.0
    for seed in seeds:
        if seed.ended or experiment.status not in (JobStatus.QUEUED, JobStatus.RUNNING):
            continue
        steps = experiment.request.total_timesteps
        speed = 0.0
        if seed.job is not None:
            steps = max(0, seed.job.total_timesteps - seed.job.current_timesteps)
            if seed.state == "running":
                speed = max(0.0, seed.job.metrics.get(Metric.FPS, 0.0))
        left, speeds = left + steps, speeds + speed
        longest = max(longest, steps / speed if speed else 0.0)
    return max(left / speeds, longest) if speeds else None
