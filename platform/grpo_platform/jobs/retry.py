"""Write to the store until it takes it, for as long as the job is this worker's."""

import contextlib
import logging
from collections.abc import Callable
from typing import TypeVar

from grpo_platform.core.errors import StoreGoneError, StoreUnavailableError, UnknownJobError
from grpo_platform.jobs.clock import Clock
from grpo_platform.jobs.heartbeat import Heartbeat
from grpo_platform.jobs.workdir import PATIENCE_SECONDS, temporary_folder

__all__ = ["GoneError", "LeftError", "Retry"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class GoneError(Exception):
    """The job is not ours (any more): nothing more is written."""


class LeftError(Exception):
    """There is no more time: the next start finds the job as it is."""


class Retry:
    """Repeats what the store does not take yet.

    Args:
        heartbeat: says whether the job is still this worker's.
        clock: tells the time.

    Attributes:
        leave_by: time of that clock by which this worker must have left.
        terminated: SIGTERM came, or the server died.
    """

    def __init__(self, heartbeat: Heartbeat, clock: Clock) -> None:
        self._heartbeat = heartbeat
        self._clock = clock
        self.leave_by = float("inf")
        self.terminated = False

    def holds(self) -> bool:
        """Whether the job is this worker's, as far as the store can be asked."""
        try:
            return self._heartbeat.holds()
        except StoreUnavailableError:
            return True  # then nothing can be written either

    def confirm(self) -> None:
        """Look at the run now, before what cannot be undone.

        Raises:
            GoneError: the job is not ours any more.
            UnknownJobError: it was deleted.
            StoreError: the run cannot be read now.
        """
        if not self._heartbeat.confirm():
            raise GoneError

    def __call__(self, write: Callable[[], _T], patience_seconds: float = float("inf")) -> _T:
        """Write until the store takes it.

        Args:
            write: may be called repeatedly.
            patience_seconds: how long to go on while the run, but not this, can be written; what
                is not where it was is waited for.

        Raises:
            GoneError: the job is not ours any more.
            LeftError: this worker must leave now.
            StoreUnavailableError: the patience has ended.
        """
        pause = 0.1
        while True:
            try:
                if not self._heartbeat.holds():
                    raise GoneError
                return write()
            except UnknownJobError as error:
                raise GoneError from error
            except (StoreUnavailableError, OSError) as error:
                _log.warning("The store is away: %s", error)
                if isinstance(error, OSError):
                    patience_seconds = min(patience_seconds, PATIENCE_SECONDS)
                    with contextlib.suppress(OSError):
                        temporary_folder()
                if self._heartbeat.fresh and not isinstance(error, StoreGoneError):
                    patience_seconds -= pause
                if patience_seconds <= 0:
                    raise
            if self._clock.now() + pause > self.leave_by or (
                self.terminated and not self._heartbeat.started
            ):
                raise LeftError
            self._clock.sleep(pause)
            pause = min(2 * pause, 5.0)
