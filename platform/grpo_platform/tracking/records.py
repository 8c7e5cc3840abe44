"""A job as the platform sees it: a frozen record, read from one MLflow run; and its params."""

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from grpo import GRPOConfig
from grpo.envs import Branching
from grpo.errors import ConfigError
from grpo.verdict import Verdict
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.names import Metric, Tag, attempt_claim, env_tag
from grpo_platform.core.request import JobRequest
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.tracking.reader import RunRow

__all__ = [
    "JOB_STATUS",
    "MAX_PARAM_LENGTH",
    "RUN_STATUS",
    "STOPPED_BY",
    "Held",
    "JobRecord",
    "differing",
    "finite",
    "params_of",
    "parse_param",
    "record_of",
]

MAX_PARAM_LENGTH: Final = 6000
"""Characters of a param's value that MLflow keeps; it cuts the rest off."""


def params_of(request: JobRequest, job_id: str) -> dict[str, str]:
    """Every field of the request under its own name, as the text that MLflow shows.

    Raises:
        InvalidRequestError: a value too long to be stored.
    """
    values = request.to_dict() | {"model_name": request.model_name_for(job_id)}
    params = {name: _text(value) for name, value in values.items()}
    for name, text in params.items():
        if len(text) > MAX_PARAM_LENGTH:
            raise InvalidRequestError(
                f"{name} takes {len(text)} characters as JSON; at most {MAX_PARAM_LENGTH} can be "
                "stored.",
                field=name,
            )
    return params


def differing(wanted: Mapping[str, str], logged: Mapping[str, str]) -> list[str]:
    """Names of the params that are logged with another meaning than wanted.

    One that is logged empty was left open, and agrees with everything.
    """
    return [
        name
        for name, text in wanted.items()
        if parse_param(logged.get(name, "")) not in (None, parse_param(text))
    ]


def parse_param(text: str) -> object:
    """The value that a param's text stands for.

    `mlflow run` logs what was typed, quoted for the shell: `3e-4` for 0.0003, `true` for True,
    two quotes for an empty string (which means None here).
    """
    try:
        words = shlex.split(text)
    except ValueError:
        words = [text]
    plain = words[0] if len(words) == 1 else text if words else ""
    if plain.lower() in ("", "none", "null"):
        return None
    if plain.lower() in ("true", "false"):
        return plain.lower() == "true"
    try:
        return float(plain)
    except ValueError:
        pass
    # a JSON value: unquoted as we log it, or quoted for the shell
    for candidate in (plain, text):
        try:
            value: object = json.loads(candidate)
            return value
        except ValueError:
            continue
    return plain


def _text(value: object) -> str:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True)
    return str(value)


RUN_STATUS: Final[Mapping[JobStatus, str]] = {
    JobStatus.QUEUED: "SCHEDULED",
    JobStatus.RUNNING: "RUNNING",
    JobStatus.COMPLETED: "FINISHED",
    JobStatus.FAILED: "FAILED",
    JobStatus.STOPPED: "KILLED",
}
"""Status of the MLflow run of a job in each state."""

STOPPED_BY: Final = frozenset({"max_seconds", "target_return"})
"""What may complete a job before its `total_timesteps` are used."""

JOB_STATUS: Final = {run_status: status for status, run_status in RUN_STATUS.items()}
_T = TypeVar("_T")
_VERDICT: Final = TypeAdapter(Verdict)
_HINTS: Final[TypeAdapter[Mapping[str, str]]] = TypeAdapter(dict[str, str])
_STORED_INFINITY = 1.79e308  # what the SQL store writes for ±inf is ±1.797e308


class Held(Protocol):
    """What jobs and sweeps have in common: a run of ours that one process at a time holds."""

    @property
    def run_id(self) -> str:
        """The MLflow run."""

    @property
    def status(self) -> JobStatus:
        """As of the moment that it was read."""

    @property
    def start_time(self) -> datetime:
        """When it was submitted, UTC."""

    @property
    def stored_request(self) -> str:
        """The request as it is stored, to the letter: what was signed."""

    @property
    def signature(self) -> str:
        """Of whoever queued it; empty where that had no token."""

    @property
    def stop_requested(self) -> bool:
        """Whether it is to stop."""

    @property
    def is_claimed(self) -> bool:
        """Whether somebody has it, though it may be called queued for a moment still."""

    @property
    def holder(self) -> str | None:
        """`host:pid:start_time` of the process that holds it, or held it last."""

    @property
    def last_beat(self) -> tuple[int, int | None]:
        """Changes with each heartbeat of whoever holds it, and with each holder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord:
    """One job at the moment it was read."""

    job_id: str
    """The MLflow run id."""

    experiment_id: str
    """The MLflow experiment that holds the run."""

    experiment: str | None = None
    """Id of the experiment (a parent run) whose seed it trains; None where it stands alone."""

    status: JobStatus
    request: JobRequest

    request_error: str | None = None
    """Why the stored request cannot be trained (someone edited its tag); None when it can.

    `request` then holds what could still be read.
    """

    stored_request: str = ""
    """The request as it is stored, to the letter: what was signed."""

    signature: str = ""
    """Of whoever queued it; empty where that had no token."""

    start_time: datetime
    """When the job was submitted, UTC."""

    end_time: datetime | None = None
    """When it became terminal, UTC; None until then, also while a resumed job runs again."""

    error_message: str | None = None

    status_message: str | None = None
    """What a queued job waits for, beside its turn; None where there is nothing to say."""

    metrics: Mapping[str, float]
    """Latest value of each metric; finite values only."""

    current_timesteps: int = 0
    """Environment timesteps done, as last written to the store."""

    seconds: float = 0.0
    """Seconds trained over all attempts, with what was lost of them, as last written."""

    stopped_by: str | None = None
    """What completed it before its budget was used: `max_seconds` or `target_return`; else None."""

    attempt: int = 1
    """Number of the attempt that runs, or that a worker may claim next."""

    crashes: int = 0
    """Workers lost so far."""

    worker: str | None = None
    """`host:pid:start_time` of the worker that holds, or last held, the job."""

    claimed_by: str | None = None
    """Worker that claimed the present attempt; None while it can be claimed."""

    heartbeat_ms: int | None = None
    """When a worker last said it lives, unix milliseconds by its own clock."""

    stop_requested: bool = False
    verdict: Verdict | None = None
    """Whether its policy is better than random actions and than its start; None until completed,
    where that could not be told, and in jobs of earlier releases."""

    hints: Mapping[str, str] = field(default_factory=dict)
    """What goes wrong in the training, and what to try; by what it is."""

    model_name: str
    """Registered model that the job writes."""

    model_version: str | None = None
    """Version that the job made; None until it completed."""

    branching: Branching | None = None
    """How visited states are reached again; None until the training began."""

    branching_reason: str | None = None
    """Why so, in a sentence."""

    promoted: bool | None = None
    """Whether that version became champion; None until decided."""

    promotion_reason: str | None = None
    """Why, and who stays champion where it did not."""

    decision: str | None = None
    """The same with its figures, JSON; None until decided, and in jobs of earlier releases."""

    checkpoint: str | None = None
    """Artifact path of the newest verified checkpoint."""

    checkpoint_wanted_ms: int | None = None
    """When somebody who watches last asked for one more, unix milliseconds."""

    artifact_uri: str = ""
    deleted: bool = False
    """Someone deleted the run in MLflow."""

    @property
    def run_id(self) -> str:
        """See `Held`."""
        return self.job_id

    @property
    def is_claimed(self) -> bool:
        """Whether a worker claimed the present attempt."""
        return self.claimed_by is not None

    @property
    def holder(self) -> str | None:
        """Worker that has the job, or had it last."""
        return self.claimed_by or self.worker

    @property
    def last_beat(self) -> tuple[int, int | None]:
        """See `Held`."""
        return self.attempt, self.heartbeat_ms

    @property
    def total_timesteps(self) -> int:
        """Budget of the job, in environment timesteps."""
        return self.request.config.total_timesteps

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1; 1 when completed, also if it ended early."""
        if self.status is JobStatus.COMPLETED:
            return 1.0
        return min(1.0, self.current_timesteps / self.total_timesteps)


def finite(value: float) -> bool:
    """Whether JSON can carry the value: MLflow stores NaN, and infinities as the largest float."""
    return math.isfinite(value) and abs(value) < _STORED_INFINITY


def record_of(run: RunRow) -> JobRecord:
    """The job that a run of ours stands for."""
    tags = run.tags
    status = JOB_STATUS[run.status]
    attempt = _integer(tags.get(Tag.ATTEMPT)) or 1
    request, request_error = _request_of(tags)
    metrics = {key: value for key, value in run.metrics.items() if finite(value)}
    promoted, stopped_by = tags.get(Tag.PROMOTED), tags.get(Tag.STOPPED_BY)
    return JobRecord(
        job_id=run.run_id,
        experiment_id=run.experiment_id,
        experiment=tags.get(Tag.PARENT_RUN) if Tag.EXPERIMENT_SEED in tags else None,
        status=status,
        request=request,
        request_error=request_error,
        stored_request=tags.get(Tag.REQUEST, ""),
        signature=tags.get(Tag.SIGNATURE, ""),
        start_time=_instant(run.start_time),
        end_time=_instant(run.end_time) if status in TERMINAL and run.end_time else None,
        error_message=tags.get(Tag.ERROR) or None,
        status_message=(tags.get(Tag.STATUS_MESSAGE) or None)
        if status is JobStatus.QUEUED
        else None,
        metrics=metrics,
        current_timesteps=max(
            0, int(metrics.get(Metric.TIMESTEPS, 0)), _integer(tags.get(Tag.TIMESTEPS)) or 0
        ),
        seconds=_seconds(tags.get(Tag.SECONDS), metrics),
        stopped_by=stopped_by if stopped_by in STOPPED_BY else None,
        attempt=attempt,
        crashes=_integer(tags.get(Tag.CRASHES)) or 0,
        worker=tags.get(Tag.WORKER) or None,
        claimed_by=run.claims.get(attempt_claim(attempt)),
        heartbeat_ms=_integer(tags.get(Tag.HEARTBEAT)),
        stop_requested=tags.get(Tag.STOP_REQUESTED) == "true",
        verdict=_read(_VERDICT, tags.get(Tag.VERDICT)),
        hints=_read(_HINTS, tags.get(Tag.HINTS)) or {},
        model_name=request.model_name_for(run.run_id),
        model_version=tags.get(Tag.MODEL_VERSION) or None,
        branching=_branching(tags.get(Tag.BRANCHING)),
        branching_reason=tags.get(Tag.BRANCHING_REASON) or None,
        promoted=None if not promoted else promoted == "true",
        promotion_reason=tags.get(Tag.PROMOTION_REASON) or None,
        decision=tags.get(Tag.DECISION) or None,
        checkpoint=tags.get(Tag.CHECKPOINT) or None,
        checkpoint_wanted_ms=_integer(tags.get(Tag.CHECKPOINT_WANTED)),
        artifact_uri=run.artifact_uri,
        deleted=run.deleted,
    )


def _request_of(tags: Mapping[str, str]) -> tuple[JobRequest, str | None]:
    try:
        return JobRequest.from_json(tags.get(Tag.REQUEST, "")), None
    except (ConfigError, InvalidRequestError, TypeError, AttributeError, json.JSONDecodeError) as e:
        marked = (key.removeprefix(env_tag("")) for key in tags if key.startswith(env_tag("")))
        known = GRPOConfig(env_name=next(marked, "unknown"))
        reason = f"The job's stored request cannot be read: {e}"
        return JobRequest(config=known), reason


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _read(adapter: TypeAdapter[_T], text: str | None) -> _T | None:
    """What a tag's JSON holds; None also for what somebody else wrote there in MLflow."""
    try:
        return adapter.validate_json(text) if text else None
    except ValidationError:
        return None


def _branching(text: str | None) -> Branching | None:
    """None also for what somebody wrote there in MLflow."""
    return next((known for known in get_args(Branching) if known == text), None)


def _seconds(text: str | None, metrics: Mapping[str, float]) -> float:
    """As the tag says; runs of earlier releases have only the metric."""
    try:
        seconds = float(text or "")
    except ValueError:
        seconds = metrics.get(Metric.TIME_ELAPSED, 0.0)
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _integer(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
