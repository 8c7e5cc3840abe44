"""A sweep and its trials as the platform sees them: frozen records, read from MLflow runs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final, Literal

from grpo.statistics import Interval, mean_interval
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.names import Tag, trial_claim, trials_tag
from grpo_platform.core.states import JobStatus
from grpo_platform.experiments.selection import choose
from grpo_platform.sweeps.request import MAX_TRIALS, SweepRequest
from grpo_platform.tracking.group_records import GroupKind, GroupMember, GroupRecord, group_fields
from grpo_platform.tracking.reader import RunRow
from grpo_platform.tracking.records import JobRecord, record_of

__all__ = [
    "SWEEP",
    "Outcome",
    "SweepRecord",
    "Trial",
    "TrialRecord",
    "TrialSeed",
    "TrialState",
    "best_of",
    "sweep_of",
    "trial_seed_of",
    "trials_of",
]

Outcome = Literal["running", "completed", "pruned", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One trial as the sampler sees it."""

    params: Mapping[str, Any]
    outcome: Outcome
    value: float | None = None
    """Of the metric; None until completed."""

    intermediate: Mapping[int, float] = field(default_factory=dict)
    """Of the metric while it trained, by twentieths of the budget, 0 to 20."""


TrialState = Literal["queued", "running", "completed", "pruned", "failed", "stopped"]

SWEEP: Final = GroupKind(
    mark=Tag.SWEEP,
    request=Tag.SWEEP_REQUEST,
    resuming=Tag.SWEEP_RESUMING,
    member=Tag.TRIAL,
    claim=trial_claim,
    members=trials_tag,
)
"""How sweeps and their trials are told in the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSeed(GroupMember):
    """A job of a trial at the moment it was read: a seed of it, or all of it.

    The jobs of a sweep are numbered through: first those of trial 0.
    """

    seed: int
    params: Mapping[str, Any]
    """Values of the searched fields; empty without a job."""

    state: TrialState
    value: float | None
    """Of the sweep's metric; None until completed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """One trial at the moment it was read; numbered from 0."""

    number: int
    seeds: tuple[TrialSeed, ...]
    """Those that were given a job, at least one, in their order."""

    n_seeds: int
    """Those that it has when it is whole."""

    @property
    def params(self) -> Mapping[str, Any]:
        """Values of the searched fields; empty where the first seed's run is gone."""
        return self.seeds[0].params

    @property
    def state(self) -> TrialState:
        """One word for all seeds; one that failed or was pruned is the end of its trial.

        A mean over the seeds that were left would praise values that crash now and then.
        """
        states = {seed.state for seed in self.seeds}
        for last in ("failed", "pruned"):
            if last in states:
                return last
        if states == {"queued"}:
            return "queued"
        if states & {"queued", "running"}:
            return "running"
        return "completed" if states == {"completed"} and not self.lacks_seeds else "stopped"

    @property
    def is_over(self) -> bool:
        """Whether its result is known, whatever its other seeds come to."""
        return self.state in ("failed", "pruned")

    @property
    def lacks_seeds(self) -> bool:
        """Whether seeds of it have no job yet."""
        return len(self.seeds) < self.n_seeds

    @property
    def ended(self) -> bool:
        """Whether no job of it will change by itself."""
        return all(seed.ended for seed in self.seeds)

    @property
    def progress(self) -> float:
        """Share of its budget that is spent, 0 to 1."""
        return sum(1.0 if seed.ended else seed.progress for seed in self.seeds) / self.n_seeds

    @property
    def value(self) -> float | None:
        """Of the sweep's metric, the mean over the seeds; None until completed."""
        values = [seed.value for seed in self.seeds if seed.value is not None]
        return fmean(values) if self.state == "completed" else None

    @property
    def interval(self) -> Interval | None:
        """The value with its 95 % interval over seeds; None until completed, and for one seed."""
        values = [seed.value for seed in self.seeds if seed.value is not None]
        return mean_interval(values) if self.state == "completed" and len(values) > 1 else None

    @property
    def chosen(self) -> TrialSeed:
        """The seed whose version stands for it: the best by its evaluation, else the first."""
        return choose(self.seeds, "best") or self.seeds[0]

    @property
    def job_id(self) -> str:
        """Of the chosen seed."""
        return self.chosen.job_id

    @property
    def job(self) -> JobRecord | None:
        """Of the chosen seed; None where its run was deleted, or is still being made."""
        return self.chosen.job

    def waiting_in(self, sweep: GroupRecord) -> list[TrialSeed]:
        """Seeds that the sweep was resumed with, and that are not resumed yet."""
        return [seed for seed in self.seeds if seed.waits_in(sweep)]

    def seen(self, course: Mapping[int, float] | None = None) -> Trial:
        """The trial as the sampler sees it.

        Args:
            course: the metric while it trained, by twentieths of the budget.
        """
        outcome: Outcome
        match self.state:
            case "queued" | "running":
                outcome = "running"
            case "stopped":
                outcome = "failed"
            case "completed" | "pruned" | "failed":
                outcome = self.state
        return Trial(
            params=self.params, outcome=outcome, value=self.value, intermediate=course or {}
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRecord(GroupRecord):
    """One sweep at the moment it was read."""

    request: SweepRequest
    """Has an empty search space where the stored one cannot be read."""

    best_value: float | None
    """Of the metric, as last logged."""

    @property
    def sweep_id(self) -> str:
        """The MLflow run id of the parent."""
        return self.group_id

    @property
    def trial_jobs(self) -> Mapping[int, str]:
        """Jobs of the trials, numbered through: as many a trial as it has seeds."""
        return self.jobs

    @property
    def started_trials(self) -> int:
        """Trials that were given a job so far."""
        return len({number // len(self.request.trial_seeds) for number in self.jobs})


def sweep_of(row: RunRow) -> SweepRecord:
    """The sweep that a run of ours stands for."""
    fields = group_fields(row, SWEEP)
    request, request_error = _request_of(row.tags, min(max(1, len(fields["jobs"])), MAX_TRIALS))
    fields["error_message"] = fields["error_message"] or request_error
    return SweepRecord(
        **fields,
        request=request,
        request_error=request_error,
        best_value=row.metrics.get(request.metric),
    )


def trial_seed_of(number: int, job_id: str, row: RunRow | None, request: SweepRequest) -> TrialSeed:
    """The seed of a trial that a job of a sweep stands for; a job that is gone has failed."""
    seed = request.trial_seeds[number % len(request.trial_seeds)]
    unmade = row is not None and Tag.JOB not in row.tags
    if row is None or row.deleted or unmade:
        state: TrialState = "queued" if unmade else "failed"
        return TrialSeed(
            number=number, job_id=job_id, job=None, seed=seed, params={}, state=state, value=None
        )
    job = record_of(row)
    values = job.request.to_dict()
    state = job.status.value
    value = job.metrics.get(request.metric) if job.status is JobStatus.COMPLETED else None
    if state == "stopped" and row.tags.get(Tag.TRIAL_PRUNED) == "true":
        state = "pruned"
    if state == "completed" and value is None:
        state = "failed"
    return TrialSeed(
        number=number,
        job_id=job_id,
        job=job,
        seed=seed,
        params={name: values[name] for name in request.search_space},
        state=state,
        value=value,
    )


def trials_of(jobs: Sequence[TrialSeed], request: SweepRequest) -> list[TrialRecord]:
    """The trials that a sweep's jobs are of, by number."""
    n_seeds = len(request.trial_seeds)
    trials: defaultdict[int, list[TrialSeed]] = defaultdict(list)
    for job in jobs:
        trials[job.number // n_seeds].append(job)
    return [
        TrialRecord(number=number, seeds=tuple(seeds), n_seeds=n_seeds)
        for number, seeds in sorted(trials.items())
    ]


def _request_of(tags: Mapping[str, str], n_trials: int) -> tuple[SweepRequest, str | None]:
    try:
        return SweepRequest.from_json(tags.get(Tag.SWEEP_REQUEST, "")), None
    except InvalidRequestError as error:
        reason = f"The sweep's stored request cannot be read: {error}"
        return SweepRequest(search_space={}, n_trials=n_trials), reason


def best_of(trials: Sequence[TrialRecord], request: SweepRequest) -> TrialRecord | None:
    """The completed trial with the best value, the earliest of equals."""
    sign = 1.0 if request.direction == "maximize" else -1.0
    done = [trial for trial in trials if trial.value is not None]
    return max(done, key=lambda t: (sign * (t.value or 0.0), -t.number), default=None)
