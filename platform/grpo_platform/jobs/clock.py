"""Time as the parts of a worker see it; in their tests it passes when the test says."""

import queue
import time
from typing import Final, TypeVar

__all__ = ["Clock"]

_T = TypeVar("_T")

# a machine that sleeps must find its lease spent when it wakes
_WITH_SLEEP: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The machine's own time, in seconds."""

    def now(self) -> float:
        """Since some moment; stands still while the machine sleeps."""
        return time.monotonic()

    def now_with_sleep(self) -> float:
        """Since some moment, the machine's sleep included where the system can tell."""
        return time.clock_gettime(_WITH_SLEEP)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def get(self, inbox: "queue.SimpleQueue[_T]", timeout_seconds: float) -> _T:
        """The next thing in a queue, as soon as it is there.

        Raises:
            queue.Empty: nothing came in time.
        """
        return inbox.get(timeout=timeout_seconds)
