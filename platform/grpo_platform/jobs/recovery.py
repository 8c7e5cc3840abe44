"""Which running jobs have lost their worker: judged by process where it can be, else by heartbeat.

A heartbeat is a time on its worker's clock, so it is never compared with ours: we watch whether
it changes, on our own clock, and only while the store can be read and written.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from grpo_platform.jobs.process import Liveness
from grpo_platform.tracking.records import JobRecord

__all__ = ["Observer"]

SILENT_SECONDS: Final = 15.0
"""How long a heartbeat may stand still before its worker is suspected."""

CONFIRM_SECONDS: Final = 5.0
"""How long a suspect has after a write of ours showed that the store takes heartbeats."""


@dataclass(slots=True)
class _Sight:
    heartbeat: tuple[int, int | None]
    since: float
    suspected_at: float | None = None


class Observer:
    """Remembers when each running job's heartbeat was last seen to change.

    Args:
        recover: tells whether a worker is known to live.
        can_write: writes to a job's run, and returns whether the store took it.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        recover: Callable[[str], Liveness],
        can_write: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recover = recover
        self._can_write = can_write
        self._clock = clock
        self._seen: dict[str, _Sight] = {}

    def store_was_away(self) -> None:
        """Begin anew: workers could not have beaten either."""
        self._seen.clear()

    def lost(self, running: Iterable[JobRecord]) -> list[JobRecord]:
        """Those of all running jobs, as just read, whose worker is lost."""
        records = list(running)
        ids = {record.job_id for record in records}
        self._seen = {job_id: sight for job_id, sight in self._seen.items() if job_id in ids}
        return [record for record in records if self._is_lost(record)]

    def _is_lost(self, record: JobRecord) -> bool:
        worker = record.claimed_by or record.worker
        if worker is not None and self._recover(worker) is Liveness.DEAD:
            return True
        now = self._clock()
        heartbeat = (record.attempt, record.heartbeat_ms)
        sight = self._seen.get(record.job_id)
        if sight is None or sight.heartbeat != heartbeat:
            self._seen[record.job_id] = _Sight(heartbeat, now)
            return False
        if sight.suspected_at is not None:
            return now - sight.suspected_at > CONFIRM_SECONDS
        if now - sight.since > SILENT_SECONDS and self._can_write(record.job_id):
            sight.suspected_at = now
        return False
