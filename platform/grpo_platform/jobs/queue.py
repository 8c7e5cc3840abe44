"""The jobs that wait: those known, in order, and what users are told they wait for."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from grpo_platform.core.errors import UnknownJobError
from grpo_platform.core.names import Tag
from grpo_platform.jobs.backend import Wait
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.records import JobRecord

__all__ = ["JobQueue", "WaitMessages", "hopeless", "pause_seconds"]

_LONGEST_PAUSE_SECONDS: Final = 60.0


def pause_seconds(crashes: int) -> float:
    """How long a job waits that has lost so many workers: 1 s, 5 s, 25 s, and then a minute.

    What took the last one, such as a folder that is away, would take the next at once.
    """
    return min(_LONGEST_PAUSE_SECONDS, 5.0 ** (crashes - 1)) if crashes else 0.0


class JobQueue:
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


def hopeless(waits: Mapping[str, Wait]) -> frozenset[str]:
    """Jobs that no machine there is can run."""
    return frozenset(job_id for job_id, wait in waits.items() if wait.hopeless)


class WaitMessages:
    """Remembers what was written last.

    Args:
        store: jobs in MLflow.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._told: dict[str, str] = {}

    def tell(self, waits: Mapping[str, Wait]) -> None:
        """Write what has changed.

        Raises:
            StoreError: the store refused, or is away; call it again.
        """
        for job_id in waits.keys() | self._told.keys():
            text = waits[job_id].message if job_id in waits else ""
            if text == self._told.get(job_id, ""):
                continue
            with contextlib.suppress(UnknownJobError):
                self._store.set_tags(job_id, {Tag.STATUS_MESSAGE: text})
            self._told[job_id] = text
        self._told = {job_id: text for job_id, text in self._told.items() if text}
