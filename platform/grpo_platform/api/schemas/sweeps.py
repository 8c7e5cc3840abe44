"""Sweep calls: what they take and what they give."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from grpo_platform.api.schemas.common import WHOLE, ModelName, Reply, RequestBody, example
from grpo_platform.api.schemas.training import TrainRequest
from grpo_platform.jobs.states import JobStatus
from grpo_platform.tracking.sweep_records import TrialState

__all__ = ["Sweep", "SweepAnswer", "SweepBody", "SweepList", "SweepSummary", "Trial"]


class SweepBody(RequestBody):
    """What to search, and how."""

    model_config = example(
        search_space={"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}},
        n_trials=3,
        config={"total_timesteps": 2000},
        model_name="my_sweep",
    )

    search_space: Annotated[dict[str, JsonValue], Field(min_length=1, max_length=50)]
    """By field of POST /train: `{"type": "float", "low", "high", "log"}`,
    `{"type": "int", "low", "high", "step", "log"}` or `{"type": "categorical", "choices"}`."""

    n_trials: Annotated[int, Field(ge=1, le=1000), WHOLE] = 20
    """Jobs that are tried, pruned and failed ones included."""

    config: TrainRequest = Field(default_factory=TrainRequest)
    """Fields of POST /train that stay fixed, but for `model_name` and `promote`."""

    metric: Annotated[str, Field(min_length=1, max_length=200)] = "eval/mean_reward"
    """What the trials are compared by, at their end."""

    direction: Literal["maximize", "minimize"] = "maximize"
    """Which values of the metric are better."""

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """`tpe` learns from the trials so far; `grid` takes every combination in turn."""

    pruner: Literal["median", "none"] = "median"
    """`median` stops trials that are worse than the median of the others at the same point."""

    max_concurrent_trials: Annotated[int, Field(ge=1, le=1000), WHOLE] = 1
    """Trials that wait or run at once; with 1, equal seeds give equal trials."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1), WHOLE] | None = None
    """Seeds the sampler, and every trial where `config` has no seed; drawn when left out."""

    model_name: ModelName | None = None
    """Registered model that receives every trial's version; `grpo_sweep_<sweep_id>` when left
    out."""

    promote: Literal["always", "if_better", "never"] = "if_better"
    """When the best trial's version becomes the one that serves under the model's name."""


class Trial(Reply):
    """One trial of a sweep."""

    number: int
    job_id: str
    state: TrialState
    """`pruned`: stopped, since it was worse than the others; `failed` also where its run is
    gone."""

    params: dict[str, Any]
    """Values of the searched fields."""

    value: float | None
    """Of the metric; null until completed."""

    model_version: int | None


class SweepSummary(Reply):
    """A sweep, without its trials."""

    sweep_id: str
    """Names the sweep in every other call; it is the MLflow run id of the parent."""

    status: JobStatus
    env_name: str
    model_name: str
    metric: str
    n_trials: int
    started_trials: int
    """Trials that were given a job so far."""

    best_value: float | None
    start_time: datetime
    end_time: datetime | None
    error_message: str | None

    progress: float = Field(ge=0, le=1)
    """Share of the trials that ended, those that train in part."""

    eta_seconds: float | None
    """Expected time to the end, in seconds; null when it cannot be told."""

    counts: dict[TrialState, int]
    """Number of trials by state."""

    best: Trial | None
    """The completed trial with the best value."""


class Sweep(SweepSummary):
    """A sweep with its trials."""

    trials: list[Trial]
    """By number."""


class SweepList(Reply):
    """A page of sweeps, newest first."""

    sweeps: list[SweepSummary]
    next_page_token: str | None
    """Leads to the next page; null on the last one."""


class SweepAnswer(Reply):
    """What was asked for is under way."""

    sweep_id: str
    message: str
