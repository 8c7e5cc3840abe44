"""What is read of parent runs with numbered jobs nested under them: sweeps and experiments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from pydantic import TypeAdapter, ValidationError

from grpo_platform.core.names import Tag
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.tracking.reader import RunRow
from grpo_platform.tracking.records import JOB_STATUS, JobRecord

__all__ = ["GroupKind", "GroupMember", "GroupRecord", "GroupRequest", "group_fields"]

_RESUMING: Final = TypeAdapter(dict[int, int])


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupKind:
    """How the parents and the jobs of one kind of group are told in the store."""

    mark: str
    """Tag of the parents; set in the last call that makes one."""

    request: str
    """Tag of a parent: its request as JSON."""

    resuming: str
    """Tag of a parent that was resumed: which jobs are to go on, JSON, their attempts by number."""

    member: str
    """Tag of the jobs."""

    claim: Callable[[int], str]
    """What the job of a number claims of its parent."""

    members: Callable[[str], str]
    """Key of the tag that marks the jobs of one parent, by its id."""

    def numbers(self, claims: Mapping[str, str]) -> dict[int, str]:
        """The jobs that claims of a parent name, by number."""
        prefix = self.claim(0)[:-1]
        found = {
            key.removeprefix(prefix): job_id
            for key, job_id in claims.items()
            if key.startswith(prefix)
        }
        return {int(number): job_id for number, job_id in found.items() if number.isdecimal()}


class GroupRequest(Protocol):
    """What a group is made of."""

    @property
    def env_name(self) -> str:
        """Environment of all its jobs."""

    def model_name_for(self, group_id: str, /) -> str:
        """The model that gets what it finds."""

    def params(self) -> dict[str, str]:
        """What the MLflow UI shows as the parent's params."""

    def to_json(self) -> str:
        """For the request tag."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupRecord:
    """One parent at the moment it was read."""

    group_id: str
    """The MLflow run id of the parent."""

    status: JobStatus
    request_error: str | None = None
    """Why the stored request cannot be read (someone edited its tag); None when it can."""

    stored_request: str
    """The request as it is stored, to the letter: what was signed."""

    signature: str
    """Of whoever queued it; empty where that had no token."""

    start_time: datetime
    end_time: datetime | None
    error_message: str | None
    jobs: Mapping[int, str]
    """Job of each number that was given away."""

    owner: str | None
    """Server that leads it, or led it last."""

    heartbeat_ms: int | None
    stop_requested: bool
    resuming: Mapping[int, int]
    """Jobs that are to go on since the parent was resumed: their attempts then, by number."""

    artifact_uri: str = ""

    @property
    def run_id(self) -> str:
        """See `grpo_platform.tracking.records.Held`."""
        return self.group_id

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


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupMember:
    """One numbered job of a parent at the moment it was read."""

    number: int
    job_id: str
    job: JobRecord | None
    """None where its run was deleted, or is still being made."""

    state: str
    """A word; `queued` and `running` mean that it will change by itself."""

    @property
    def ended(self) -> bool:
        """Whether it will not change by itself."""
        return self.state not in ("queued", "running")

    @property
    def progress(self) -> float:
        """Share of its budget that is spent, 0 to 1."""
        return 0.0 if self.job is None else self.job.progress

    @property
    def resumable(self) -> bool:
        """Whether its job can be taken up again."""
        if self.job is None or self.state not in ("stopped", "failed"):
            return False
        return self.job.status in (JobStatus.STOPPED, JobStatus.FAILED)

    def waits_in(self, group: GroupRecord) -> bool:
        """Whether the parent was resumed with this job, which is not resumed yet."""
        attempt = group.resuming.get(self.number)
        return self.resumable and self.job is not None and self.job.attempt == attempt


def group_fields(row: RunRow, kind: GroupKind) -> dict[str, Any]:
    """Fields of a `GroupRecord`, but for its request."""
    tags, status = row.tags, JOB_STATUS[row.status]
    ended = row.end_time if status in TERMINAL else None
    heartbeat = tags.get(Tag.HEARTBEAT, "")
    return {
        "group_id": row.run_id,
        "status": status,
        "stored_request": tags.get(kind.request, ""),
        "signature": tags.get(Tag.SIGNATURE, ""),
        "start_time": datetime.fromtimestamp(row.start_time / 1000, UTC),
        "end_time": datetime.fromtimestamp(ended / 1000, UTC) if ended else None,
        "error_message": tags.get(Tag.ERROR) or None,
        "jobs": kind.numbers(row.claims),
        "owner": tags.get(Tag.WORKER) or None,
        "heartbeat_ms": int(heartbeat) if heartbeat.isdecimal() else None,
        "stop_requested": tags.get(Tag.STOP_REQUESTED) == "true",
        "resuming": _resuming(tags.get(kind.resuming, "")),
        "artifact_uri": row.artifact_uri,
    }


def _resuming(text: str) -> dict[int, int]:
    try:
        return _RESUMING.validate_json(text)
    except ValidationError:
        return {}  # never resumed, or somebody edited the tag
