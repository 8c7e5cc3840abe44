"""A sweep and its trials as the platform sees them: frozen records, read from MLflow runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.names import Tag, trial_claim, trials_tag
from grpo_platform.core.states import JobStatus
from grpo_platform.sweeps.request import MAX_TRIALS, SweepRequest
from grpo_platform.tracking.job_groups import GroupKind, GroupMember, GroupRecord, group_fields
from grpo_platform.tracking.reader import RunRow
from grpo_platform.tracking.records import record_of

__all__ = [
    "SWEEP",
    "Outcome",
    "SweepRecord",
    "Trial",
    "TrialRecord",
    "TrialState",
    "best_of",
    "sweep_of",
    "trial_of",
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
class TrialRecord(GroupMember):
    """One trial at the moment it was read; numbered from 0."""

    params: Mapping[str, Any]
    """Values of the searched fields; empty without a job."""

    state: TrialState
    value: float | None
    """Of the sweep's metric; None until completed."""

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
        """Job of each trial's number that was given away."""
        return self.jobs


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


def trial_of(number: int, job_id: str, row: RunRow | None, request: SweepRequest) -> TrialRecord:
    """The trial that a job of a sweep stands for; a job that is gone has failed."""
    unmade = row is not None and Tag.JOB not in row.tags
    if row is None or row.deleted or unmade:
        return TrialRecord(
            number=number,
            job_id=job_id,
            job=None,
            params={},
            state="queued" if unmade else "failed",
            value=None,
        )
    job = record_of(row)
    values = job.request.to_dict()
    state: TrialState = job.status.value
    value = job.metrics.get(request.metric) if job.status is JobStatus.COMPLETED else None
    if state == "stopped" and row.tags.get(Tag.TRIAL_PRUNED) == "true":
        state = "pruned"
    if state == "completed" and value is None:
        state = "failed"
    return TrialRecord(
        number=number,
        job_id=job_id,
        job=job,
        params={name: values[name] for name in request.search_space},
        state=state,
        value=value,
    )


def _request_of(tags: Mapping[str, str], n_trials: int) -> tuple[SweepRequest, str | None]:
    try:
        return SweepRequest.from_json(tags.get(Tag.SWEEP_REQUEST, "")), None
    except InvalidRequestError as error:
        reason = f"The sweep's stored request cannot be read: {error}"
        return SweepRequest(search_space={}, n_trials=n_trials), reason


def best_of(trials: list[TrialRecord], request: SweepRequest) -> TrialRecord | None:
    """The completed trial with the best value, the earliest of equals."""
    sign = 1.0 if request.direction == "maximize" else -1.0
    done = [trial for trial in trials if trial.value is not None]
    return max(done, key=lambda t: (sign * (t.value or 0.0), -t.number), default=None)
