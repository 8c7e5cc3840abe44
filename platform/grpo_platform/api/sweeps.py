"""From the body of POST /sweeps to a sweep, and from a sweep's record to the reply."""

import secrets
from collections import Counter

from grpo_platform.api.schemas.sweeps import Sweep, SweepBody, SweepSummary, Trial
from grpo_platform.api.services import Services
from grpo_platform.api.submission import check_request
from grpo_platform.jobs.states import JobStatus
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.sweeps.space import Choices, check_space
from grpo_platform.tracking.sweep_records import SweepRecord, TrialRecord, best_of

__all__ = ["check_sweep", "submit_sweep", "sweep_reply", "sweep_summary"]

_JOB_ONLY = (
    "init_from", "max_seconds", "checkpoint_seconds", "max_attempts", "max_metric_points",
    "num_cpus", "num_gpus", "seed",
)  # fmt: skip


def submit_sweep(services: Services, body: SweepBody) -> SweepRecord:
    """Check the sweep, and queue it; raises what `check_sweep` raises."""
    return services.sweep_runner.submit(check_sweep(services, body))


def check_sweep(services: Services, body: SweepBody) -> SweepRequest:
    """Check the sweep against everything that can be known before its first trial.

    Raises:
        grpo.ConfigError: its space has a corner that cannot be trained.
        InvalidRequestError: over the server's ceiling.
        ConflictError: the model's name belongs to another environment.
        UnknownModelError: `init_from` names no version.
    """
    given = body.model_dump(exclude_unset=True)
    given["config"] = {k: v for k, v in given.get("config", {}).items() if v is not None}
    given.setdefault("n_trials", body.n_trials)
    if given.get("seed") is None:
        given["seed"] = secrets.randbits(32)
    request = SweepRequest(**given)
    space = request.space
    check_space(space, {k: v for k, v in request.config.items() if k not in _JOB_ONLY})
    ceiling = services.settings.max_timesteps
    lowest = {n: s.choices[0] if isinstance(s, Choices) else s.low for n, s in space.items()}
    rewards = space.get("reward_function_type")
    for reward in rewards.choices if isinstance(rewards, Choices) else [None]:
        corner = lowest if reward is None else lowest | {"reward_function_type": reward}
        job = request.trial(corner, request.model_name, ceiling)
        check_request(
            job, services.registry, services.store, services.jobs.check, services.isolation.validate
        )
    largest = {n: max(s.choices) if isinstance(s, Choices) else s.high
               for n, s in space.items() if n == "total_timesteps"}  # fmt: skip
    request.trial(lowest | largest, request.model_name, ceiling)
    return request


def sweep_summary(sweep: SweepRecord, trials: list[TrialRecord]) -> SweepSummary:
    """The reply that describes this sweep in a list."""
    request, best = sweep.request, best_of(trials, sweep.request)
    share = sum(1.0 if t.ended else (t.job.progress if t.job else 0.0) for t in trials)
    done = sweep.status is JobStatus.COMPLETED
    return SweepSummary(
        sweep_id=sweep.sweep_id,
        status=sweep.status,
        env_name=request.env_name,
        model_name=request.model_name_for(sweep.sweep_id),
        metric=request.metric,
        n_trials=request.n_trials,
        started_trials=len(sweep.trial_jobs),
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
    version = None if trial.job is None else trial.job.model_version
    return Trial(
        number=trial.number,
        job_id=trial.job_id,
        state=trial.state,
        params=dict(trial.params),
        value=trial.value,
        model_version=None if version is None else int(version),
    )


def _eta_seconds(sweep: SweepRecord, trials: list[TrialRecord], share: float) -> float | None:
    spans = [
        (trial.job.end_time - trial.job.start_time).total_seconds()
        for trial in trials
        if trial.job is not None and trial.job.end_time is not None
    ]
    if sweep.status is not JobStatus.RUNNING or not spans:
        return None
    left = max(0.0, sweep.request.n_trials - share)
    return left * sum(spans) / len(spans) / sweep.request.max_concurrent_trials
