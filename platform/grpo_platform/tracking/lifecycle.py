"""The life of a job: claimed by one worker, and moved from state to state."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from grpo_platform.core.errors import ConflictError
from grpo_platform.core.names import Tag, attempt_claim
from grpo_platform.core.signing import not_vouched_for
from grpo_platform.core.states import TERMINAL, JobStatus, check_transition
from grpo_platform.tracking.records import RUN_STATUS, JobRecord
from grpo_platform.tracking.runs import RunStore

__all__ = ["JobLifecycle", "end_ms", "now_ms", "storable_error"]

_MAX_ERROR_LENGTH: Final = 4000


class JobLifecycle(RunStore):
    """Moves single jobs along `TRANSITIONS`; raises what `RunStore` raises."""

    def claim(self, job_id: str, attempt: int, worker: str) -> bool:
        """Try to become the one worker of an attempt; True for exactly one of those that try."""
        return self._claim(job_id, attempt_claim(attempt), worker)

    def start(self, job_id: str, worker: str) -> JobRecord:
        """Say that this worker runs the job.

        Raises:
            ConflictError: the job is neither queued nor running, e.g. stopped meanwhile.
        """
        record = self.get(job_id)
        if record.status is not JobStatus.RUNNING:
            check_transition(job_id, record.status, JobStatus.RUNNING)
        self.set_tags(job_id, {Tag.WORKER: worker, Tag.HEARTBEAT: str(now_ms())})
        if record.status is not JobStatus.RUNNING:
            self._set_status(job_id, JobStatus.RUNNING)
        return self.get(job_id)

    def beat(self, job_id: str, timesteps: int | None = None) -> None:
        """Say that the job's worker lives, and how far it is, in environment timesteps."""
        tags = {Tag.HEARTBEAT: str(now_ms())}
        if timesteps is not None:
            tags[Tag.TIMESTEPS] = str(timesteps)
        self.set_tags(job_id, tags)

    def requeue(self, job_id: str, *, crashed: bool, attempt: int | None = None) -> JobRecord:
        """Give a job back to the queue, for the next attempt.

        Args:
            job_id: a running job, or a queued one whose claim is spent.
            crashed: its worker was lost; counts towards `max_attempts`.
            attempt: the attempt that is given up; when the job is past it already, nothing
                happens.

        Raises:
            ConflictError: the job is finished.
        """
        record = self.get(job_id)
        if record.status in TERMINAL:
            check_transition(job_id, JobStatus.COMPLETED, JobStatus.QUEUED)
        if attempt is not None and record.attempt != attempt:
            return record
        tags = {Tag.ATTEMPT: str(record.attempt + 1)}
        if crashed:
            tags[Tag.CRASHES] = str(record.crashes + 1)
        return self._queue_again(job_id, tags)

    def resume(self, job_id: str) -> JobRecord:
        """Take a stopped or failed job back into the queue; it goes on from its checkpoint.

        Raises:
            ConflictError: the job is completed, or not finished, or not this server's to train.
        """
        record = self.get(job_id)
        check_transition(job_id, record.status, JobStatus.QUEUED)
        if record.status not in TERMINAL:
            raise ConflictError(f"Job {job_id} is {record.status.value}; it needs no resume.")
        if not self.vouches_for(record):
            raise ConflictError(not_vouched_for(job_id))
        return self._queue_again(
            job_id,
            {
                Tag.ATTEMPT: str(record.attempt + 1),
                Tag.CRASHES: "0",
                Tag.STOP_REQUESTED: "false",
                Tag.ERROR: "",
            },
        )

    def finish(self, job_id: str, status: JobStatus, error_message: str | None = None) -> JobRecord:
        """Make the job terminal; a job that has this status already is left as it is.

        Raises:
            ConflictError: its present state does not allow it.
        """
        record = self.get(job_id)
        if record.status is status:
            return record
        current = record.status
        if current is JobStatus.QUEUED and record.claimed_by is not None:
            current = JobStatus.RUNNING  # two servers queued it again, the later after the claim
        check_transition(job_id, current, status)
        if error_message is not None:
            self.set_tags(job_id, {Tag.ERROR: storable_error(error_message)})
        ended = end_ms(record.start_time)
        self._write(
            job_id,
            lambda: self._client.set_terminated(job_id, RUN_STATUS[status], end_time=ended),
        )
        return self.get(job_id)

    def request_stop(self, job_id: str) -> JobRecord:
        """Ask for the job to stop; whoever runs it sees the tag.

        Raises:
            ConflictError: the job is finished.
        """
        record = self.get(job_id)
        if record.status in TERMINAL:
            raise ConflictError(f"Job {job_id} is {record.status.value} already.")
        self.set_tags(job_id, {Tag.STOP_REQUESTED: "true"})
        return record

    def _set_status(self, job_id: str, status: JobStatus) -> None:
        self._write(job_id, lambda: self._client.update_run(job_id, status=RUN_STATUS[status]))

    def _queue_again(self, job_id: str, tags: Mapping[str, str]) -> JobRecord:
        # the attempt first: who sees the job queued must find an attempt that nobody claimed
        self.set_tags(job_id, {**tags, Tag.STATUS_MESSAGE: ""})
        # another server may have done the same, and its worker have the job already
        if self.get(job_id).claimed_by is None:
            self._set_status(job_id, JobStatus.QUEUED)
        return self.get(job_id)


def storable_error(text: str) -> str:
    """The text without what a database refuses: lone surrogates, as in odd file names, and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")[:_MAX_ERROR_LENGTH]


def end_ms(begun: datetime) -> int:
    """When what ends now ended, unix milliseconds: not before it began, whatever the clock says."""
    return max(now_ms(), round(begun.timestamp() * 1000))


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
