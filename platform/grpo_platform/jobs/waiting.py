"""The jobs known to wait, in order; the store holds the truth, this only avoids asking it."""

import math
import time
from collections.abc import Callable
from typing import Final

from grpo_platform.tracking.records import JobRecord

__all__ = ["WaitingJobs", "pause_seconds"]

_LONGEST_PAUSE_SECONDS: Final = 60.0


def pause_seconds(crashes: int) -> float:
    """How long a job waits that has lost so many workers: 1 s, 5 s, 25 s, and then a minute.

    What took the last one, such as a folder that is away, would take the next at once.
    """
    return min(_LONGEST_PAUSE_SECONDS, 5.0 ** (crashes - 1)) if crashes else 0.0


class WaitingJobs:
    """First in, first out, by the time of submission, among those whose pause is over.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: dict[str, JobRecord] = {}
        self._ready: dict[str, float] = {}

    def __len__(self) -> int:
        """Number of jobs that wait."""
        return len(self._records)

    def put(self, record: JobRecord) -> None:
        """Add a job, or replace what is known of it; its pause begins with its attempt."""
        known = self._records.get(record.job_id)
        if known is None or known.attempt != record.attempt:
            self._ready[record.job_id] = self._clock() + pause_seconds(record.crashes)
        self._records[record.job_id] = record

    def remove(self, job_id: str) -> None:
        """Forget a job, if it is known."""
        self._records.pop(job_id, None)
        self._ready.pop(job_id, None)

    def take(self) -> JobRecord | None:
        """Remove and return the job that waits longest; None while none may start."""
        now = self._clock()
        ready = [r for r in self._records.values() if self._ready[r.job_id] <= now]
        oldest = min(ready, key=lambda r: (r.start_time, r.job_id), default=None)
        if oldest is not None:
            self.remove(oldest.job_id)
        return oldest

    def seconds_until_ready(self) -> float:
        """Seconds until the next pause is over; infinite where there is none."""
        now = self._clock()
        return min((at - now for at in self._ready.values() if at > now), default=math.inf)

    def snapshot(self) -> dict[str, JobRecord]:
        """The jobs that are known now."""
        return dict(self._records)

    def reconcile(
        self,
        known: dict[str, JobRecord],
        queued: list[JobRecord],
        free: list[JobRecord],
        *,
        complete: bool,
    ) -> None:
        """Take what the store says.

        Args:
            known: `snapshot` before the store was read.
            queued: the oldest queued jobs in the store, oldest first.
            free: those of them that can be started.
            complete: whether `queued` are all that there are.
        """
        fresh = {record.job_id for record in free}
        for job_id, record in known.items():
            # beyond the last one that was read, nothing is known to have changed
            read = complete or record.start_time < queued[-1].start_time
            if read and job_id not in fresh:
                self.remove(job_id)
        for record in free:
            self.put(record)
