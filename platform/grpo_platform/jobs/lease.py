"""A worker's hold on its job: it may write only while it is seen to, and then until it is heard."""

import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final, TypeVar

from grpo_platform.core.errors import (
    StoreError,
    StoreGoneError,
    StoreUnavailableError,
    UnknownJobError,
)
from grpo_platform.core.states import TERMINAL
from grpo_platform.jobs.resources import PATIENCE_SECONDS, temporary_folder
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.records import JobRecord

__all__ = ["Clock", "GoneError", "Heartbeat", "LeftError", "Order", "Retry"]

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

# a machine that sleeps must find its lease spent when it wakes
_WITH_SLEEP: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

BEAT_SECONDS: Final = 2.0
LEASE_SECONDS: Final = 10.0
"""How long one look at the run is good for; less than what makes a runner give the job away."""


class Clock:
    """The machine's own time, in seconds; in tests it passes when the test says."""

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


class Order(StrEnum):
    """Why a worker is to end before its trainer has finished."""

    STOP = "stop"
    """The user asked."""

    LEAVE = "leave"
    """The server shuts down or died: give the job back to the queue."""

    FORGET = "forget"
    """The run was deleted, or the job is another worker's now: write nothing more."""


class Heartbeat:
    """Beats every `BEAT_SECONDS`, and looks at the run at the same time.

    Args:
        jobs: the store.
        job_id: the job that is held.
        attempt: the attempt that was claimed.
        give: called with an order, from the thread of this object; may be called repeatedly.
        clock: tells the time.
        on_wanted: called, from there too, when a checkpoint was asked for.
    """

    def __init__(
        self,
        jobs: JobStore,
        job_id: str,
        attempt: int,
        give: Callable[[Order], None],
        clock: Clock,
        on_wanted: Callable[[], None] = lambda: None,
    ) -> None:
        self._jobs = jobs
        self._job_id = job_id
        self._attempt = attempt
        self._give = give
        self._on_wanted = on_wanted
        self._wanted_ms: int | None = None
        self._clock = clock
        # a SimpleQueue may be put to from a signal handler; an Event may not be set there
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._ended = False
        self._held_until = math.inf
        self._thread = threading.Thread(target=self._run, name="worker-heartbeat", daemon=True)

    def start(self, wanted_ms: int | None = None) -> None:
        """Begin to beat; the job was just started by this process.

        Args:
            wanted_ms: when a checkpoint was last asked for before.
        """
        self._wanted_ms = wanted_ms
        self._held_until = self._clock.now_with_sleep() + LEASE_SECONDS
        self._thread.start()

    def look(self) -> None:
        """SIGTERM came: look for a stop at once, and take none for a shutdown."""
        self._wake.put(True)

    def stop(self) -> None:
        """Beat no more; waits for a beat that is under way."""
        self._ended = True
        self._wake.put(False)
        if self._thread.is_alive():
            self._thread.join()

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._thread.ident is not None

    @property
    def fresh(self) -> bool:
        """Whether the last look at the run, and the last beat, are recent."""
        return self._clock.now_with_sleep() < self._held_until

    def holds(self) -> bool:
        """Whether this worker may write now; looks at the run when the last look is old.

        Raises:
            StoreError: the run cannot be read now.
        """
        return self.fresh or self._beat() is not Order.FORGET

    def confirm(self) -> bool:
        """Whether this worker may write now, as the run says, however fresh the last look is.

        Raises:
            StoreError: the run cannot be read now.
            UnknownJobError: it was deleted.
        """
        return self._look() is not None

    def _run(self) -> None:
        while not self._ended:
            try:
                signalled = self._clock.get(self._wake, BEAT_SECONDS)
            except queue.Empty:
                signalled = False
            if not self._ended:
                self._look_and_say(signalled)

    def _look_and_say(self, signalled: bool) -> None:
        order: Order | None = None
        try:
            order = self._beat()
        except StoreError as error:
            _log.warning("No heartbeat: %s", error)
        if signalled and order is None:
            order = Order.LEAVE
        if order is not None:
            self._give(order)

    def _beat(self) -> Order | None:
        """Look, then beat: a job that was given away must not look alive again."""
        began = self._clock.now_with_sleep()
        with contextlib.suppress(UnknownJobError):
            if record := self._look():
                self._jobs.beat(self._job_id)
                self._held_until = began + LEASE_SECONDS
                if record.checkpoint_wanted_ms != self._wanted_ms:
                    self._wanted_ms = record.checkpoint_wanted_ms
                    self._on_wanted()
                return Order.STOP if record.stop_requested else None
        self._held_until = -math.inf
        return Order.FORGET

    def _look(self) -> JobRecord | None:
        """The job, if it is this worker's.

        Raises:
            UnknownJobError: it was deleted.
        """
        record = self._jobs.get(self._job_id)
        held = record.attempt == self._attempt and record.status not in TERMINAL
        return record if held else None


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
