"""Lines of a job's log that say how far it is."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from grpo_platform.tracking.names import Metric
from grpo_platform.tracking.reporter import Point

__all__ = ["Progress"]

_log = logging.getLogger(__name__)

_SECONDS: Final = 10.0
_FOREGROUND_SECONDS: Final = 1.0


class Progress:
    """Logs the progress now and then.

    Args:
        total_timesteps: budget of the job.
        foreground: someone watches: say it more often.
    """

    def __init__(self, total_timesteps: int, *, foreground: bool) -> None:
        self._total = total_timesteps
        self._pause = _FOREGROUND_SECONDS if foreground else _SECONDS
        self._next = 0.0
        self._return: float | None = None

    def show(self, points: Sequence[Point], timesteps: int) -> None:
        """Take what the trainer reported."""
        for point in points:
            if point.key == Metric.EPISODE_RETURN:
                self._return = point.value
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._pause
            _log.info("%s", self._line(timesteps))

    def summary(self, done: Mapping[str, Any]) -> str:
        """What the trainer's last message says."""
        found = done["evaluation"]
        return (
            f"{self._line(done['timesteps'])}; greedy return, {len(found['returns'])} episodes: "
            f"mean {found['mean']:.1f}, 95 % interval "
            f"{found['ci_low']:.1f} to {found['ci_high']:.1f}"
        )

    def _line(self, timesteps: int) -> str:
        share = f"{timesteps:,} of {self._total:,} timesteps ({timesteps / self._total:.0%})"
        return share if self._return is None else f"{share}, mean return {self._return:.1f}"
