"""A sweep and its trials as the platform sees them: frozen records, read from MLflow runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.names import Tag, trial_claim
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.sweeps.request import MAX_TRIALS, SweepRequest
from grpo_platform.tracking.reader import RunRow
from grpo_platform.tracking.records import JOB_STATUS, JobRecord, record_of

__all__ = [
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
_CLAIM: Final = trial_claim(0)[:-1]
_RESUMING: Final = TypeAdapter(dict[int, int])


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """One trial at the moment it was read."""

    number: int
    """From 0."""

    job_id: str
    job: JobRecord | None
    """None where its run was deleted, or is still being made."""

    params: Mapping[str, Any]
    """Values of the searched fields; empty without a job."""

    state: TrialState
    value: float | None
    """Of the sweep's metric; None until completed."""

    @property
    def ended(self) -> bool:
        """Whether it will not change by itself."""
        return self.state not in ("queued", "running")

    @property
    def resumable(self) -> bool:
        """Whether its job can be taken up again."""
        stopped = self.job is not None and self.job.status in (JobStatus.STOPPED, JobStatus.FAILED)
        return stopped and self.state != "pruned"

    def waits_in(self, sweep: "SweepRecord") -> bool:
        """Whether the sweep was resumed, and this trial is not yet."""
        attempt = sweep.resuming.get(self.number)
        return self.resumable and self.job is not None and self.job.attempt == attempt

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
class SweepRecord:
    """One sweep at the moment it was read."""

    sweep_id: str
    """The MLflow run id of the parent."""

    status: JobStatus
    request: SweepRequest
    request_error: str | None = None
    """Why the stored request cannot be read (someone edited its tag); None when it can.

    `request` then has an empty search space.
    """

    stored_request: str
    """The request as it is stored, to the letter: what was signed."""

    signature: str
    """Of whoever queued it; empty where that had no token."""

    start_time: datetime
    end_time: datetime | None
    error_message: str | None
    trial_jobs: Mapping[int, str]
    """Job of each trial's number that was given away."""

    owner: str | None
    """Server that leads it, or led it last."""

    heartbeat_ms: int | None
    stop_requested: bool
    resuming: Mapping[int, int]
    """Trials that are to go on since the sweep was resumed: their attempts then, by number."""

    best_value: float | None
    """Of the metric, as last logged."""

    @property
    def run_id(self) -> str:
        """See `grpo_platform.tracking.records.Held`."""
        return self.sweep_id

    @property
    def is_claimed(self) -> bool:
        """Whether a server leads it, or led it."""
        return self.owner is not None

    @property
    def holder(self) -> str | None:
        """Server that leads it, or led it last."""
        return self.owner

    @property
    def last_beat(self) -> tuple[int, int | None]:
        """Changes with each heartbeat of the server that leads it."""
        return 0, self.heartbeat_ms


def sweep_of(row: RunRow) -> SweepRecord:
    """The sweep that a run of ours stands for."""
    tags, status = row.tags, JOB_STATUS[row.status]
    trial_jobs = _trial_jobs(row)
    request, request_error = _request_of(tags, min(max(1, len(trial_jobs)), MAX_TRIALS))
    ended = row.end_time if status in TERMINAL else None
    heartbeat = tags.get(Tag.HEARTBEAT, "")
    return SweepRecord(
        sweep_id=row.run_id,
        status=status,
        request=request,
        request_error=request_error,
        stored_request=tags.get(Tag.SWEEP_REQUEST, ""),
        signature=tags.get(Tag.SIGNATURE, ""),
        start_time=datetime.fromtimestamp(row.start_time / 1000, UTC),
        end_time=datetime.fromtimestamp(ended / 1000, UTC) if ended else None,
        error_message=tags.get(Tag.ERROR) or request_error,
        trial_jobs=trial_jobs,
        owner=tags.get(Tag.WORKER) or None,
        heartbeat_ms=int(heartbeat) if heartbeat.isdecimal() else None,
        stop_requested=tags.get(Tag.STOP_REQUESTED) == "true",
        resuming=_resuming(tags.get(Tag.SWEEP_RESUMING, "")),
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


def _resuming(text: str) -> dict[int, int]:
    try:
        return _RESUMING.validate_json(text)
    except ValidationError:
        return {}  # never resumed, or somebody edited the tag


def _trial_jobs(row: RunRow) -> dict[int, str]:
    numbers = {key.removeprefix(_CLAIM): job_id for key, job_id in row.claims.items()}
    return {int(number): job_id for number, job_id in numbers.items() if number.isdecimal()}


def best_of(trials: list[TrialRecord], request: SweepRequest) -> TrialRecord | None:
    """The completed trial with the best value, the earliest of equals."""
    sign = 1.0 if request.direction == "maximize" else -1.0
    done = [trial for trial in trials if trial.value is not None]
    return max(done, key=lambda t: (sign * (t.value or 0.0), -t.number), default=None)
