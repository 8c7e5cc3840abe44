"""Sweep calls: what they take and what they give."""

from collections import Counter
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, JsonValue

from grpo_platform.api.schemas.common import (
    WHOLE,
    Reply,
    RequestBody,
    Verdict,
    bounded,
    example,
    fields_from,
)
from grpo_platform.api.schemas.experiments import Seeds
from grpo_platform.api.schemas.training import TrainRequest
from grpo_platform.core.states import JobStatus
from grpo_platform.sweeps import records
from grpo_platform.sweeps.records import SweepRecord, TrialRecord, TrialState, best_of
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.tracking.records import JobRecord

__all__ = [
    "Sweep", "SweepAnswer", "SweepBody", "SweepList", "SweepSummary", "Trial", "TrialSeed",
    "sweep_reply", "sweep_summary",
]  # fmt: skip


@fields_from(SweepRequest)
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

    config: TrainRequest = Field(default_factory=TrainRequest)
    """Fields of POST /train that stay fixed, but for `model_name` and `promote`."""

    seed: Annotated[int, bounded("seed"), WHOLE] | None = None
    """Seeds the sampler, and every trial where `config` has no seed and there are no `seeds`; drawn
    when left out."""

    seeds: Seeds | None = None
    """Trains every trial with several seeds, a job each, and compares trials by the mean over them:
    how many, counted from `seed`, or which ones."""


class TrialSeed(Reply):
    """One seed of a trial, which is a job."""

    seed: int
    job_id: str
    state: TrialState
    value: float | None
    """Of the metric; null until completed."""

    model_version: int | None
    error_message: str | None
    """Why it failed."""


class Trial(Reply):
    """One trial of a sweep."""

    number: int
    job_id: str
    """Of the seed whose version stands for the trial: the one with the best evaluation."""

    state: TrialState
    """`pruned`: stopped, since it was worse than the others; `failed` also where its run is
    gone."""

    params: dict[str, Any]
    """Values of the searched fields."""

    value: float | None
    """Of the metric, the mean over the seeds; null until completed."""

    ci_low: float | None
    """Lower end of the value's 95 % interval over seeds; null until completed, and for one seed."""

    ci_high: float | None
    """Upper end of it."""

    model_version: int | None
    """Version that the job made."""

    verdict: Verdict | None
    """Whether the job learned anything; null until completed."""

    seeds: list[TrialSeed]
    """Its jobs: one, or one for each of the sweep's `seeds`."""


class SweepSummary(Reply):
    """A sweep, without its trials."""

    sweep_id: str
    """Names the sweep in every other call; it is the MLflow run id of the parent."""

    status: JobStatus
    env_name: str
    model_name: str
    metric: str
    n_trials: int
    n_seeds: int
    """Jobs that each trial consists of."""

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


def sweep_summary(sweep: SweepRecord, trials: list[TrialRecord]) -> SweepSummary:
    """The reply that describes this sweep in a list."""
    request, best = sweep.request, best_of(trials, sweep.request)
    share = sum(1.0 if t.ended else t.progress for t in trials)
    done = sweep.status is JobStatus.COMPLETED
    return SweepSummary(
        sweep_id=sweep.sweep_id,
        status=sweep.status,
        env_name=request.env_name,
        model_name=request.model_name_for(sweep.sweep_id),
        metric=request.metric,
        n_trials=request.n_trials,
        n_seeds=len(request.trial_seeds),
        started_trials=len(trials),
        best_value=None if best is None else best.value,
        start_time=sweep.start_time,
        end_time=sweep.end_time,
        error_message=sweep.error_message,
        progress=1.0 if done else min(1.0, share / request.n_trials),
        eta_seconds=_eta_seconds(sweep, trials, share),
        counts=dict(Counter(trial.state for trial in trials)),
        best=None if best is None else _trial(best),
    )


def sweep_reply(sweep: SweepRecord, trials: list[TrialRecord]) -> Sweep:
    """The reply that describes this sweep and its trials."""
    summary = dict(sweep_summary(sweep, trials))
    return Sweep(**summary, trials=[_trial(trial) for trial in trials])


def _trial(trial: TrialRecord) -> Trial:
    interval = trial.interval
    judged = None if trial.job is None else trial.job.verdict
    return Trial(
        number=trial.number,
        job_id=trial.job_id,
        state=trial.state,
        params=dict(trial.params),
        value=trial.value,
        ci_low=None if interval is None else interval.low,
        ci_high=None if interval is None else interval.high,
        model_version=_version(trial.job),
        verdict=None if judged is None else Verdict.model_validate(judged, from_attributes=True),
        seeds=[_seed(seed) for seed in trial.seeds],
    )


def _seed(seed: records.TrialSeed) -> TrialSeed:
    return TrialSeed(
        seed=seed.seed,
        job_id=seed.job_id,
        state=seed.state,
        value=seed.value,
        model_version=_version(seed.job),
        error_message=None if seed.job is None else seed.job.error_message,
    )


def _version(job: JobRecord | None) -> int | None:
    return None if job is None or job.model_version is None else int(job.model_version)


def _eta_seconds(sweep: SweepRecord, trials: list[TrialRecord], share: float) -> float | None:
    spans = [span for trial in trials if (span := _span(trial)) is not None]
    if sweep.status is not JobStatus.RUNNING or not spans:
        return None
    left = max(0.0, sweep.request.n_trials - share)
    return left * sum(spans) / len(spans) / sweep.request.max_concurrent_trials


def _span(trial: TrialRecord) -> float | None:
    """Seconds from the first start of a trial's jobs to their last end; None before that."""
    jobs = [seed.job for seed in trial.seeds if seed.job is not None]
    ends = [job.end_time for job in jobs if job.end_time is not None]
    if not ends or not trial.ended:
        return None
    return (max(ends) - min(job.start_time for job in jobs)).total_seconds()
