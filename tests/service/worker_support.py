"""A worker's parts with time and a trainer that do what a test says, on a real store."""

import queue
import threading
from collections.abc import Callable

import pytest

from grpo_platform.core.errors import StoreError, StoreUnavailableError
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.lease import Clock
from grpo_platform.jobs.run_writer import WorkerLog
from grpo_platform.jobs.trainer_process import TrainerHandle
from grpo_platform.jobs.worker import Attempt
from grpo_platform.tracking.jobs import JobStore
from tests.service.tracking_support import request

COMES = object()
"""Returned by an event after which another thread puts something into the queue, soon."""

_FOREVER = 100_000.0
_REAL_SECONDS = 30.0


class ScriptedClock(Clock):
    """Time that passes only where somebody waits, and what happens meanwhile.

    A heartbeat's thread hears only what it is told: it never waits here for its next beat.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.asleep = 0.0
        self._events: list[tuple[float, Callable[[], object]]] = []

    def at(self, time: float, event: Callable[[], object]) -> None:
        """Let something happen; at one time, in the order of these calls."""
        self._events.append((time, event))
        self._events.sort(key=lambda found: found[0])

    @property
    def events(self) -> int:
        """Number of those that have not happened yet."""
        return len(self._events)

    def now(self) -> float:
        return self.time

    def now_with_sleep(self) -> float:
        return self.time + self.asleep

    def sleep(self, seconds: float) -> None:
        end = self.time + seconds
        while self._events and self._events[0][0] <= end:
            self._happen()
        self._pass_until(end)

    def get(self, inbox, timeout_seconds):
        if threading.current_thread().name == "worker-heartbeat":
            return inbox.get()
        end = self.time + timeout_seconds
        while inbox.empty() and self._events and self._events[0][0] <= end:
            if self._happen() is COMES:
                return inbox.get(timeout=_REAL_SECONDS)
        if not inbox.empty():
            return inbox.get_nowait()
        self._pass_until(end)
        raise queue.Empty

    def _happen(self) -> object:
        time, event = self._events.pop(0)
        self._pass_until(time)
        return event()

    def _pass_until(self, time: float) -> None:
        self.time = max(self.time, time)
        if self.time > _FOREVER:
            pytest.fail("It waits for ever.")


class TroubledStore(JobStore):
    """A store that is away, or refuses, while a test says so."""

    def __init__(self, tracking_uri, experiment_id) -> None:
        super().__init__(tracking_uri, experiment_id)
        self.trouble: Exception | None = None
        self.upload_trouble: Exception | None = None

    def away(self) -> None:
        self.trouble = StoreUnavailableError("it is away")

    def refuse(self) -> None:
        self.trouble = StoreError("it refuses")

    def back(self) -> None:
        self.trouble = self.upload_trouble = None

    def get(self, job_id, *, include_deleted=False):
        self._meet_trouble()
        return super().get(job_id, include_deleted=include_deleted)

    def upload(self, job_id, source, folder="", *, verify=False):
        if self.upload_trouble is not None and folder == "checkpoints":
            raise self.upload_trouble
        return super().upload(job_id, source, folder, verify=verify)

    def _write(self, job_id, call) -> None:
        self._meet_trouble()
        super()._write(job_id, call)

    def _meet_trouble(self) -> None:
        if self.trouble is not None:
            raise self.trouble


class FakeTrainer(TrainerHandle):
    """A trainer at no pipe: it says what a test lets it say, to whom it belongs."""

    def __init__(self, clock: ScriptedClock) -> None:
        self._clock = clock
        self.hear: Callable[[dict[str, object]], None]
        self.orders: list[str] = []
        self.begun: dict[str, object] | None = None
        self.killed_at: float | None = None
        self.stopped_at: float | None = None
        self.when_stopped: Callable[[], object] = lambda: None
        self._ended = False

    def begin(self, *, checkpoint=None, weights=None, seconds=0.0) -> None:
        self.begun = {"checkpoint": checkpoint, "weights": weights, "seconds": seconds}

    def stop(self) -> None:
        if self.stopped_at is None:
            self.stopped_at = self._clock.time
            self.when_stopped()

    def save_checkpoint(self) -> None:
        self.orders.append("checkpoint")

    def kill(self) -> None:
        if not self._ended:
            self.killed_at = self._clock.time
            self.end("was killed by signal 9 (out of memory?)")

    def end(self, reason: str) -> None:
        if not self._ended:
            self._ended = True
            self.hear({"kind": "ended", "reason": reason})

    def messages(self):
        return iter(())

    def _wait(self) -> None:
        return None


class World:
    """One attempt of a job, and all that can happen to it.

    Args:
        place: the store.
        folder: of the worker.
        **fields: of the job.
    """

    def __init__(self, place, folder, *, foreground=False, attempt=1, **fields) -> None:
        self.clock = ScriptedClock()
        self.jobs = TroubledStore(place.tracking_uri, place.experiment_id)
        self.trainer = FakeTrainer(self.clock)
        self.folder = folder
        self.request = request(**{"total_timesteps": 600, "seed": 5} | fields)
        self.job_id = self.jobs.create(self.request).job_id
        for earlier in range(1, attempt):
            self.jobs.claim(self.job_id, earlier, "earlier:1:1")
            self.jobs.start(self.job_id, "earlier:1:1")
            self.jobs.requeue(self.job_id, crashed=False)
        self.attempt = Attempt(
            self.jobs, self.trainer, self.job_id, attempt, self.request, folder,
            WorkerLog(folder), foreground=foreground, own_process=False, clock=self.clock,
        )  # fmt: skip
        self.trainer.hear = self.attempt.hear

    @property
    def record(self):
        return self.jobs.get(self.job_id)

    @property
    def status(self) -> JobStatus:
        return self.record.status

    def run(self):
        """The attempt, to its end; returns its exit code."""
        code = self.attempt.run()
        assert self.clock.events == 0, "it ended before all had happened"
        return code

    def says(self, time, kind, **values) -> None:
        self.clock.at(time, lambda: self.attempt.hear({"kind": kind, **values}))

    def stop(self, time) -> None:
        """The user asks for a stop, and the runner tells the worker."""
        self.clock.at(time, self._stop)

    def leave(self, time) -> None:
        """The server dies."""
        self.clock.at(time, self.attempt.leave)

    def sigterm(self, time) -> None:
        """The server shuts down."""
        self.clock.at(time, self._interrupt)

    def _stop(self) -> object:
        self.jobs.request_stop(self.job_id)
        return self._interrupt()

    def _interrupt(self) -> object:
        self.attempt.interrupt()
        return COMES
