"""Which runs have lost who held them: judged by process where it can be, else by heartbeat.

Jobs are held by their workers, sweeps by the servers that lead them. A heartbeat is a time on its
holder's clock, so it is never compared with ours: we watch whether
it changes, on our own clock, and only while the store can be read and written.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from grpo_platform.core.process import Liveness
from grpo_platform.tracking.records import Held

__all__ = ["Observer"]

_H = TypeVar("_H", bound=Held)

SILENT_SECONDS: Final = 15.0
"""How long a heartbeat may stand still before its holder is suspected."""

CONFIRM_SECONDS: Final = 5.0
"""How long a suspect has after a write of ours showed that the store takes heartbeats."""


@dataclass(slots=True)
class _Sight:
    heartbeat: tuple[int, int | None]
    since: float
    suspected_at: float | None = None


class Observer:
    """Remembers when each heartbeat was last seen to change.

    Args:
        recover: tells whether a holder is known to live.
        can_write: writes to a run, and returns whether the store took it.
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
        """Begin anew: nobody could have beaten either."""
        self._seen.clear()

    def lost(self, running: Iterable[_H]) -> list[_H]:
        """Those of all that somebody holds, as just read, whose holder is lost."""
        records = list(running)
        ids = {record.run_id for record in records}
        self._seen = {run_id: sight for run_id, sight in self._seen.items() if run_id in ids}
        return [record for record in records if self._is_lost(record)]

    def _is_lost(self, record: Held) -> bool:
        if record.holder is not None and self._recover(record.holder) is Liveness.DEAD:
            return True
        now = self._clock()
        sight = self._seen.get(record.run_id)
        if sight is None or sight.heartbeat != record.last_beat:
            self._seen[record.run_id] = _Sight(record.last_beat, now)
            return False
        if sight.suspected_at is not None:
            return now - sight.suspected_at > CONFIRM_SECONDS
        if now - sight.since > SILENT_SECONDS and self._can_write(record.run_id):
            sight.suspected_at = now
        return False
