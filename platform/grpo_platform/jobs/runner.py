"""Takes jobs, starts a worker for each in order, and sees to it that each one ends."""

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from grpo_platform.core.access import not_vouched_for
from grpo_platform.core.errors import (
    ConflictError,
    QueueFullError,
    StoreError,
    StoreUnavailableError,
    UnknownJobError,
)
from grpo_platform.core.names import Tag
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import Settings
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.jobs.backend import Backend, Exit, Wait, WorkerTask
from grpo_platform.jobs.failures import lost
from grpo_platform.jobs.recovery import Observer
from grpo_platform.jobs.resources import temporary_folder
from grpo_platform.jobs.run_writer import add_line
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.records import JobRecord

__all__ = ["JobQueue", "Runner", "WaitMessages", "hopeless", "pause_seconds"]

_log = logging.getLogger(__name__)

SCAN_SECONDS: Final = 2.0
"""Time between two looks at the store for jobs of other servers, and for lost workers."""

KILL_SECONDS: Final = 60.0
"""How long a worker that was told to stop may take, its own limits being far shorter."""

DRAWN_A_PLACE: Final = 4
"""Completed jobs for each place whose workers may still draw, beside those that train."""

_LONGEST_PAUSE_SECONDS: Final = 60.0
_FULL_SCAN_SECONDS: Final = 60.0
_PRESSED_SECONDS: Final = 0.5
_LOOK_AHEAD: Final = 32
_MANY: Final = 1000


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
    """Tells users what their jobs wait for, and remembers what it wrote last.

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


class Runner:
    """The queue of one server. The queue itself is in the store, so servers may share it.

    `submit`, `stop`, `resume` and `delete` are for any thread. Everything that follows happens in
    one thread of this object.

    Args:
        store: jobs in MLflow.
        backend: where workers run.
        settings: limits.
    """

    def __init__(self, store: JobStore, backend: Backend, settings: Settings) -> None:
        self._store = store
        self._backend = backend
        self._max_running = settings.max_concurrent_jobs
        self._max_waiting = settings.max_queued_jobs
        self._lock = threading.Lock()
        self._idempotency = threading.Lock()
        self._waiting = JobQueue()
        self._arriving = 0
        self._exits: deque[Exit] = deque()
        self._stops: dict[str, float] = {}
        self._settled: frozenset[str] = frozenset()
        self._messages = WaitMessages(store)
        self._observer = Observer(backend.recover, store.takes_beats)
        self._next_scan = self._next_full_scan = 0.0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="runner", daemon=True)

    def start(self) -> None:
        """Start the backend and this object's thread.

        Raises:
            PlatformError: jobs cannot be run on this system.
        """
        self._backend.start()
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether jobs are being started and watched."""
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        """Jobs of this server that are not finished and have a worker."""
        return len(self._busy())

    def _busy(self) -> frozenset[str]:
        """Jobs of this server that take a place."""
        return self._backend.running() - self._settled - hopeless(self._backend.waits())

    def _has_place(self) -> bool:
        """Whether another worker may start; drawing that piles up takes places too."""
        drawn = len(self._backend.running() & self._settled)
        piled_up = max(0, drawn - DRAWN_A_PLACE * self._max_running)
        return len(self._busy()) + piled_up < self._max_running

    @property
    def waiting(self) -> int:
        """Jobs that wait, as far as this server knows."""
        with self._lock:
            return len(self._waiting) + len(hopeless(self._backend.waits()))

    # --- calls of the API ----------------------------------------------------------------

    def check(self, request: JobRequest) -> None:
        """Refuse what can never run here; raises what `Backend.check` raises."""
        self._backend.check(request)

    def submit(self, request: JobRequest, *, idempotency_key: str | None = None) -> JobRecord:
        """Accept a job.

        Args:
            request: what to train.
            idempotency_key: a second call with the same key returns the job of the first one,
                whatever its request; the caller compares.

        Raises:
            QueueFullError: as many jobs wait as may.
            ConflictError: the server is shutting down.
            StoreUnavailableError: the job was not accepted; try again.
        """
        if idempotency_key is None:
            with self.room():
                record = self._store.create(request)
                self.enqueue(record)
            return record
        with self._idempotency:
            return self._submit_once(request, idempotency_key)

    def stop(self, job_id: str) -> JobRecord:
        """Stop a job: at once if it waits, else its worker is told.

        Raises:
            UnknownJobError: no such job.
            ConflictError: the job is finished.
        """
        record = self._store.request_stop(job_id)
        with self._lock:
            self._waiting.remove(job_id)
            self._stops.setdefault(job_id, time.monotonic() + KILL_SECONDS)
        if record.status is JobStatus.QUEUED:
            # a worker that claims it at this moment finds the tag, or the end, and leaves
            record = self._store.finish(job_id, JobStatus.STOPPED)
        self._backend.stop(job_id)
        return record

    def resume(self, job_id: str) -> JobRecord:
        """Put a stopped or failed job back into the queue; it goes on from its checkpoint.

        Raises:
            UnknownJobError: no such job.
            ConflictError: the job is completed, or not finished.
            QueueFullError: as many jobs wait as may.
        """
        with self.room():
            record = self._store.resume(job_id)
            self.enqueue(record)
        return record

    def delete(self, job_id: str) -> None:
        """Delete a finished job, its run, checkpoints and logs; not its model.

        Raises:
            UnknownJobError: no such job.
            ConflictError: the job is not finished.
        """
        if self._store.get(job_id).status in TERMINAL:
            self._backend.kill(job_id)  # it may still draw figures
        self._store.delete(job_id)

    def shutdown(self, timeout_seconds: float = 10.0) -> None:
        """Take no more jobs, let the workers leave theirs to the next start, and end.

        Args:
            timeout_seconds: how long to wait for the workers.
        """
        self._closing = True
        self._backend.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        self._backend.shutdown(timeout_seconds)

    def _submit_once(self, request: JobRequest, key: str) -> JobRecord:
        if earlier := self._store.find_idempotent(key):
            return earlier
        with self.room():
            record, is_new = self._store.create_once(request, key)
            if is_new:
                self.enqueue(record)
        return record

    @contextmanager
    def room(self, places: int = 1) -> Iterator[None]:
        """Hold places in the queue while as many jobs are written to the store.

        Raises:
            QueueFullError: as many jobs wait as may.
            ConflictError: the server is shutting down.
        """
        with self._lock:
            if self._closing:
                raise ConflictError("The server is shutting down and takes no jobs.")
            held = self._backend.running() - self._settled
            busy = len(self._waiting) + self._arriving + len(held)
            if busy + places > self._max_waiting + self._max_running:
                raise QueueFullError(self._max_waiting, places)
            self._arriving += places
        try:
            yield
        finally:
            with self._lock:
                self._arriving -= places

    def enqueue(self, record: JobRecord) -> None:
        """Take a job that is queued in the store already."""
        with self._lock:
            self._waiting.put(record)
        self._backend.wake()

    # --- the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            try:
                self._step()
            except StoreUnavailableError as error:
                _log.warning("Jobs wait for the store: %s", error)
                self._observer.store_was_away()
            except Exception:  # noqa: BLE001 - jobs must go on being watched
                _log.exception("The runner goes on after an error.")

    def _step(self) -> None:
        with self._lock:
            pause = self._waiting.seconds_until_ready()
        timeout = min(pause, max(0.0, self._next_scan - time.monotonic()))
        self._exits += self._backend.poll(timeout)
        self._kill_the_deaf()
        self._fill()
        while self._exits:
            self._settle(self._exits[0])
            self._exits.popleft()
        now = time.monotonic()
        # where jobs wait for room, some of this server's may be completed and only be drawn
        pressed = (
            len(self._waiting) > 0 and now >= self._next_scan - SCAN_SECONDS + _PRESSED_SECONDS
        )
        if now >= self._next_scan or pressed:
            self._next_scan = now + SCAN_SECONDS
            self._scan()
        self._fill()
        self._messages.tell(self._backend.waits())

    def _fill(self) -> None:
        """Start workers for the jobs that wait longest, as far as there is room."""
        busy = self._backend.running() | {exit_.job_id for exit_ in self._exits}
        while not self._closing and self._has_place():
            with self._lock:
                record = self._waiting.take()
                if record is None:
                    return
                if record.job_id in busy:
                    continue
                # a stop from before the job was resumed is not for the worker that follows
                self._stops.pop(record.job_id, None)
            if not self._may_train(record):
                continue
            if record.request_error is not None:
                self._store.finish(record.job_id, JobStatus.FAILED, record.request_error)
                continue
            self._backend.submit(
                WorkerTask(
                    job_id=record.job_id, attempt=record.attempt, request=record.request.to_json()
                )
            )

    def _settle(self, ended: Exit) -> None:
        """See to a job whose worker has ended."""
        with self._lock:
            self._stops.pop(ended.job_id, None)
        try:
            record = self._store.get(ended.job_id)
        except UnknownJobError:
            return  # deleted
        if record.status in TERMINAL or record.attempt != ended.attempt:
            self._next_scan = 0.0  # it may be queued again
            return
        if record.claimed_by is not None and record.claimed_by != ended.worker:
            return  # another server's worker has it
        if record.claimed_by is None and ended.reason is None:
            return  # it left without claiming; the scan finds the job
        self._lost(record, ended.reason)

    def _lost(self, record: JobRecord, reason: str | None) -> None:
        """A job's worker is gone and did not settle it; None: it had no time to."""
        crashes = record.crashes + (reason is not None)
        if reason is not None:
            said = f"The worker of attempt {record.attempt} {reason}."
            with suppress(StoreError, OSError):
                add_line(self._store, record.job_id, said)
        try:
            if record.stop_requested:
                self._store.finish(record.job_id, JobStatus.STOPPED)
            elif reason is not None and crashes >= record.request.max_attempts:
                message = lost("worker", reason, crashes)
                self._store.finish(record.job_id, JobStatus.FAILED, message)
            else:
                _log.warning("Job %s lost its worker and is queued again.", record.job_id)
                again = self._store.requeue(
                    record.job_id, crashed=reason is not None, attempt=record.attempt
                )
                if again.status is JobStatus.QUEUED:
                    self.enqueue(again)
        except (ConflictError, UnknownJobError):
            pass  # it ended, or was deleted, in this moment

    def _scan(self) -> None:
        """Find jobs that other servers queued or lost, and those that lost their worker."""
        with suppress(OSError):
            temporary_folder()  # MLflow, too, expects it to be there
        now = time.monotonic()
        full = now >= self._next_full_scan
        limit = self._max_waiting + _MANY if full else self._max_running + _LOOK_AHEAD
        with self._lock:
            known = self._waiting.snapshot()
        own = self._backend.running()
        queued, running = self._store.queued(limit), self._store.running()
        self._settled = own - {record.job_id for record in [*queued, *running]}
        own |= {ended.job_id for ended in self._exits}
        free = [r for r in queued if r.claimed_by is None and r.job_id not in own]
        free = [record for record in free if self._may_train(record)]
        with self._lock:
            self._waiting.reconcile(known, queued, free, complete=len(queued) < limit)
        if full:
            self._next_full_scan = now + _FULL_SCAN_SECONDS
        claimed = [record for record in queued if record.claimed_by is not None]
        for record in self._observer.lost([*running, *claimed]):
            if record.job_id in self._backend.running():
                _log.warning("The worker of job %s is silent; it is killed.", record.job_id)
                self._backend.kill(record.job_id)  # its `Exit` follows
            elif record.job_id not in own:
                # unclaimed: who saw to the loss of the last attempt is about to queue it, or died
                self._lost(record, "was not heard of any more" if record.is_claimed else None)

    def _may_train(self, record: JobRecord) -> bool:
        """Whether servers of ours queued the job; it waits, and says so, where others did."""
        if self._store.vouches_for(record):
            return True
        if record.status_message != (said := not_vouched_for(record.job_id)):
            _log.warning("Job %s: %s", record.job_id, said)
            with suppress(UnknownJobError):
                self._store.set_tags(record.job_id, {Tag.STATUS_MESSAGE: said})
        return False

    def _kill_the_deaf(self) -> None:
        """End workers that were told to stop long ago."""
        now = time.monotonic()
        with self._lock:
            due = [job_id for job_id, deadline in self._stops.items() if now > deadline]
            for job_id in due:
                del self._stops[job_id]
        for job_id in due:
            self._backend.kill(job_id)
