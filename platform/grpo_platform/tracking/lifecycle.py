"""The life of a job or sweep: held by one process, and moved from state to state."""

import abc
from collections.abc import Mapping
from typing import ClassVar, Final, Generic, TypeVar

from grpo_platform.core.access import not_vouched_for
from grpo_platform.core.errors import ConflictError, StoreError
from grpo_platform.core.names import Tag, attempt_claim
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.tracking.records import RUN_STATUS, Held, JobRecord
from grpo_platform.tracking.runs import RunStore, now_ms

__all__ = ["TRANSITIONS", "JobLifecycle", "Lifecycle"]

_R = TypeVar("_R", bound=Held)

_MAX_ERROR_LENGTH: Final = 4000

TRANSITIONS: Final[Mapping[JobStatus, frozenset[JobStatus]]] = {
    # a queued job can fail without a worker: its attempts are spent, or its request is unreadable
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.STOPPED, JobStatus.FAILED}),
    # back to queued: its worker was lost, or the server shut down
    JobStatus.RUNNING: frozenset({JobStatus.QUEUED}) | TERMINAL,
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),  # resume
    JobStatus.STOPPED: frozenset({JobStatus.QUEUED}),  # resume
}


class Lifecycle(RunStore, abc.ABC, Generic[_R]):
    """Moves single runs along `TRANSITIONS`; raises what `RunStore` raises.

    Attributes:
        noun: what its runs are called in messages.
    """

    noun: ClassVar[str]

    @abc.abstractmethod
    def _find(self, run_id: str) -> _R:
        """The run as it stands in the store."""

    def start(self, run_id: str, holder: str) -> _R:
        """Say that this process holds the run.

        Raises:
            ConflictError: it is neither queued nor running, e.g. stopped meanwhile.
        """
        record = self._find(run_id)
        if record.status is not JobStatus.RUNNING:
            self._check(record, record.status, JobStatus.RUNNING)
        self.set_tags(run_id, {Tag.WORKER: holder, Tag.HEARTBEAT: str(now_ms())})
        if record.status is not JobStatus.RUNNING:
            self._set_status(run_id, JobStatus.RUNNING)
        return self._find(run_id)

    def beat(self, run_id: str) -> None:
        """Say that the process that holds the run lives."""
        self.set_tags(run_id, {Tag.HEARTBEAT: str(now_ms())})

    def takes_beats(self, run_id: str) -> bool:
        """Whether a beat could be written now, were there somebody to beat."""
        try:
            self.set_tags(run_id, {Tag.SUSPECTED: str(now_ms())})
        except StoreError:
            return False
        return True

    def finish(self, run_id: str, status: JobStatus, error_message: str | None = None) -> _R:
        """Make the run terminal; one that has this status already is left as it is.

        Raises:
            ConflictError: its present state does not allow it.
        """
        record = self._find(run_id)
        if record.status is status:
            return record
        current = record.status
        if current is JobStatus.QUEUED and record.is_claimed:
            current = JobStatus.RUNNING  # two servers queued it again, the later after the claim
        self._check(record, current, status)
        if error_message is not None:
            self.set_tags(run_id, {Tag.ERROR: _storable(error_message)})
        # not before it began, whatever the clock says
        ended = max(now_ms(), round(record.start_time.timestamp() * 1000))
        self._write(
            run_id,
            lambda: self._client.set_terminated(run_id, RUN_STATUS[status], end_time=ended),
        )
        return self._find(run_id)

    def request_stop(self, run_id: str) -> _R:
        """Ask for a stop; whoever holds the run sees the tag.

        Raises:
            ConflictError: it is finished.
        """
        record = self._find(run_id)
        if record.status in TERMINAL:
            raise ConflictError(f"{self.noun} {run_id} is {record.status.value} already.")
        self.set_tags(run_id, {Tag.STOP_REQUESTED: "true"})
        return record

    def _resumable(self, run_id: str) -> _R:
        """A run that `resume` may queue again.

        Raises:
            ConflictError: it is completed, or not finished, or not this server's to go on with.
        """
        record = self._find(run_id)
        if record.status not in (JobStatus.STOPPED, JobStatus.FAILED):
            raise ConflictError(
                f"{self.noun} {run_id} is {record.status.value}; it needs no resume."
            )
        if not self.vouches_for(record):
            raise ConflictError(not_vouched_for(run_id))
        return record

    def _check(self, record: _R, current: JobStatus, to: JobStatus) -> None:
        if to not in TRANSITIONS[current]:
            raise ConflictError(
                f"{self.noun} {record.run_id} is {current.value}; it cannot become {to.value}."
            )

    def _set_status(self, run_id: str, status: JobStatus) -> None:
        self._write(run_id, lambda: self._client.update_run(run_id, status=RUN_STATUS[status]))


class JobLifecycle(Lifecycle[JobRecord]):
    """Of jobs, which one worker at a time claims, attempt by attempt."""

    noun = "Job"

    def _find(self, run_id: str) -> JobRecord:
        return self.get(run_id)

    def claim(self, job_id: str, attempt: int, worker: str) -> bool:
        """Try to become the one worker of an attempt; True for exactly one of those that try."""
        return self._claim(job_id, attempt_claim(attempt), worker)

    def requeue(self, job_id: str, *, crashed: bool, attempt: int | None = None) -> JobRecord:
        """Give a job back to the queue, for the next attempt.

        Args:
            job_id: a running job, or a queued one whose claim is spent.
            crashed: its worker was lost; counts towards `max_attempts`.
            attempt: the attempt that is given up; when the job is past it already, nothing
                happens. One that nobody claimed is not given up, unless its worker crashed.

        Raises:
            ConflictError: the job is finished.
        """
        record = self.get(job_id)
        if record.status in TERMINAL:
            raise ConflictError(f"Job {job_id} is {record.status.value} already.")
        if attempt is not None and record.attempt != attempt:
            return record
        if record.status is JobStatus.RUNNING and not (record.is_claimed or crashed):
            return self._queue_again(job_id, {})  # who gave the last attempt up stopped half-way
        tags = {Tag.ATTEMPT: str(record.attempt + 1)}
        if crashed:
            tags[Tag.CRASHES] = str(record.crashes + 1)
        return self._queue_again(job_id, tags)

    def resume(self, job_id: str) -> JobRecord:
        """Take a stopped or failed job back into the queue; it goes on from its checkpoint.

        Raises:
            ConflictError: the job is completed, or not finished, or not this server's to train.
        """
        record = self._resumable(job_id)
        return self._queue_again(
            job_id,
            {
                Tag.ATTEMPT: str(record.attempt + 1),
                Tag.CRASHES: "0",
                Tag.STOP_REQUESTED: "false",
                Tag.ERROR: "",
            },
        )

    def _queue_again(self, job_id: str, tags: Mapping[str, str]) -> JobRecord:
        # the attempt first: who sees the job queued must find an attempt that nobody claimed
        self.set_tags(job_id, {**tags, Tag.STATUS_MESSAGE: ""})
        # another server may have done the same, and its worker have the job already
        if self.get(job_id).claimed_by is None:
            self._set_status(job_id, JobStatus.QUEUED)
        return self.get(job_id)


def _storable(text: str) -> str:
    """The text without what a database refuses: lone surrogates, as in odd file names, and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")[:_MAX_ERROR_LENGTH]
