"""The process that runs one job: it owns the run in MLflow, and the trainer that feeds it."""

import contextlib
import logging
import os
import queue
import select
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Final

from grpo.errors import CheckpointError
from grpo_platform.core.errors import ConflictError, PlatformError, StoreUnavailableError
from grpo_platform.core.process import lower_priority, worker_name
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import TOKEN_VARIABLE
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.jobs.completion import Completion
from grpo_platform.jobs.failures import explain, files_away, lost
from grpo_platform.jobs.lease import Clock, GoneError, Heartbeat, LeftError, Order, Retry
from grpo_platform.jobs.resources import (
    FULL,
    PATIENCE_SECONDS,
    own_temporary_folder,
    patiently,
    restrict_memory,
)
from grpo_platform.jobs.run_writer import Checkpoints, Progress, RunWriter, WorkerLog
from grpo_platform.jobs.trainer_process import TrainerHandle, TrainerProcess
from grpo_platform.registry.models import Registry
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.records import JobRecord
from grpo_platform.tracking.reporter import Point
from grpo_platform.tracking.store import Store

__all__ = ["Attempt", "run_forked", "run_worker"]

_log = logging.getLogger(__name__)

STOP_GRACE_SECONDS: Final = 5.0
"""How long a trainer may take to answer a stop before it is killed."""

LEAVE_SECONDS: Final = 8.0
"""How long a worker may take to leave when its server shuts down or died."""

OVERTIME_SECONDS: Final = 60.0
"""How long after a job's `max_seconds` its trainer may take to come to the end of an iteration."""

_NICENESS: Final = 10
"""Of a worker's process while it draws: other jobs train meanwhile."""

_ANY_MODEL: Final = "any"
"""A name to ask the registry for where only its answering matters."""

_RANK: Final = (Order.LEAVE, Order.STOP, Order.FORGET)


class Attempt:
    """One worker's hold on a job, from the claim to the end of its state.

    Args:
        jobs: the store.
        trainer: perhaps training already.
        job_id: the job.
        attempt: the attempt to claim.
        request: what the job is to train.
        folder: work folder of this worker.
        log: the worker's log.
        foreground: an interrupt stops the job, and a lost trainer fails it.
        own_process: the process has nothing else to do: it ends when the worker must leave, and
            draws at a low priority.
        clock: tells the time.
    """

    def __init__(
        self,
        jobs: JobStore,
        trainer: TrainerHandle,
        job_id: str,
        attempt: int,
        request: JobRequest,
        folder: Path,
        log: WorkerLog,
        *,
        foreground: bool,
        own_process: bool,
        clock: Clock | None = None,
    ) -> None:
        self._jobs = jobs
        self._trainer = trainer
        self._job_id = job_id
        self._attempt = attempt
        self._request = request
        self._folder = folder
        self._log = log
        self._foreground = foreground
        self._own_process = own_process
        self._clock = clock = Clock() if clock is None else clock
        self._inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._heartbeat = Heartbeat(
            jobs, job_id, attempt, self._give, clock, trainer.save_checkpoint
        )
        self._writer = RunWriter(jobs, job_id, attempt, log, clock)
        self._completion = Completion(jobs, job_id, request, folder)
        self._progress = Progress(request.config.total_timesteps, foreground=foreground)
        self._hints: dict[str, str] = {}
        self._order: Order | None = None
        self._end: dict[str, Any] | None = None
        self._retry = Retry(self._heartbeat, clock)
        self._grace_ends = self._time_ends = float("inf")

    def run(self) -> int:
        """Go all the way; returns the exit code that `run_worker` describes."""
        threading.Thread(target=self._read_trainer, name="worker-trainer", daemon=True).start()
        status: JobStatus | None = None
        try:
            record = self._take()
            self._heartbeat.start(record.checkpoint_wanted_ms)
            if record.stop_requested:
                self._give(Order.STOP)
            trains = self._prepare(record)
            status = self._conclude(self._follow()) if trains else self._conclude_order()
        except GoneError:
            _log.info("The job is not this worker's any more.")
        except LeftError:
            _log.warning("No time left; the next start goes on with the job.")
        except Exception as error:  # noqa: BLE001 - whatever it is, the job must not hang
            _log.exception("The worker failed.")
            status = self._fail(error)
        finally:
            self._trainer.kill()
            self._heartbeat.stop()
        self._afterwards(status)
        return 1 if self._foreground and status is not JobStatus.COMPLETED else 0

    # --- orders --------------------------------------------------------------------------

    def interrupt(self) -> None:
        """SIGTERM or Ctrl-C came: stop, or leave where nobody asked for a stop.

        Safe in a signal handler, which runs between two instructions: it takes no lock.
        """
        self._retry.terminated = True
        if self._foreground:
            self._inbox.put({"kind": "order", "order": Order.STOP})
        else:
            self._heartbeat.look()

    def leave(self) -> None:
        """Its server has died: give the job back to the queue; for any thread."""
        self._retry.terminated = True
        self._give(Order.LEAVE)

    def hear(self, message: dict[str, Any]) -> None:
        """Take what the trainer says; for any thread."""
        self._inbox.put(message)

    def _read_trainer(self) -> None:
        for message in self._trainer.messages():
            self.hear(message)

    def _give(self, order: Order) -> None:
        """Take an order, from any thread; a weightier one replaces what was ordered before."""
        if self._order is not None and _RANK.index(order) <= _RANK.index(self._order):
            return
        self._order = order
        now = self._clock.now()
        if order is Order.LEAVE:
            self._retry.leave_by = now + LEAVE_SECONDS
            if self._own_process:
                hard_end = threading.Timer(LEAVE_SECONDS + 1.0, os._exit, [0])
                hard_end.daemon = True
                hard_end.start()
        if order is Order.FORGET:
            self._trainer.kill()
        else:
            self._grace_ends = now + STOP_GRACE_SECONDS
            self._trainer.stop()
        self._inbox.put({"kind": "order", "order": order})

    # --- the way of a job ----------------------------------------------------------------

    def _take(self) -> JobRecord:
        """Claim the job and say that it runs."""
        if self._order is not None:  # its server is gone already: the next one's worker claims it
            raise LeftError
        worker = worker_name(os.getpid())
        if not self._retry(lambda: self._jobs.claim(self._job_id, self._attempt, worker)):
            raise GoneError
        record = self._retry(lambda: self._jobs.get(self._job_id))
        if record.attempt != self._attempt or record.status in TERMINAL:
            raise GoneError
        try:
            record = self._retry(lambda: self._jobs.start(self._job_id, worker))
        except ConflictError as error:
            raise GoneError from error
        if record.attempt != self._attempt:  # given away while this process stood still
            raise GoneError
        return record

    def _prepare(self, record: JobRecord) -> bool:
        """Start the trainer where the last attempt left off; False where an order came first."""
        _log.info("Attempt %d of job %s.", self._attempt, self._job_id)
        limit = self._request.max_seconds
        if limit is not None:
            left = max(0.0, limit - record.seconds)
            self._time_ends = self._clock.now() + left + OVERTIME_SECONDS
        self._writer.continue_at(record.current_timesteps, record.seconds)
        self._hints = dict(record.hints)
        if self._attempt > 1:
            self._retry(lambda: self._log.continue_earlier(self._jobs, self._job_id))
        if self._attempt == 1 and self._request.init_from is None:
            return True  # it trains already
        stored = Checkpoints(self._jobs, self._job_id, self._attempt)
        checkpoint = self._retry(lambda: stored.fetch(record.checkpoint, self._folder))
        if checkpoint is not None:
            _log.info("It goes on from checkpoint %s.", checkpoint.name)
        weights = None
        reference = self._request.init_from
        if checkpoint is None and reference is not None:
            weights = self._retry(lambda: self._completion.fetch_initial_policy(reference))
        if self._order is not None:
            return False  # nothing was trained, so the earlier checkpoint is the newest
        self._trainer.begin(checkpoint=checkpoint, weights=weights, seconds=record.seconds)
        return True

    def _follow(self) -> dict[str, Any]:
        """Write down what the trainer says until it ends; returns its last message."""
        while self._end is None:
            self._collect(min(0.5, self._writer.seconds_until_due()))
            self._watch_trainer()
            if not self._retry.holds():
                raise GoneError
            self._writer.write_due()
        return self._end

    def _watch_trainer(self) -> None:
        """End a trainer that does not do what it must."""
        now = self._clock.now()
        if now > self._grace_ends:
            _log.warning("The trainer does not answer; it is killed.")
            self._grace_ends = float("inf")
            self._trainer.kill()
        limit = self._request.max_seconds
        if limit is not None and now > self._time_ends:
            # the time is used, so that the next attempt only has to evaluate the last checkpoint
            self._writer.add([], 0, limit)
            self._trainer.kill()
            self._end = {
                "kind": "ended",
                "reason": f"was busy with one iteration {OVERTIME_SECONDS:g} s after the job's "
                f"max_seconds={limit:g}",
            }

    def _collect(self, timeout_seconds: float) -> None:
        """Take what has arrived; waits for one message at most `timeout_seconds`."""
        with contextlib.suppress(queue.Empty):
            self._receive(self._clock.get(self._inbox, timeout_seconds))
            while True:
                self._receive(self._inbox.get_nowait())

    def _receive(self, message: dict[str, Any]) -> None:
        match message["kind"]:
            case "points":
                points = [Point(*point) for point in message["points"]]
                self._writer.add(points, message["timesteps"], message["seconds"])
                self._progress.show(points, message["timesteps"])
            case "checkpoint":
                self._writer.add_checkpoint(Path(message["path"]), message["timesteps"])
            case "checkpoint_failed":
                _log.warning("No checkpoint: %s", message["message"])
            case "environment":
                self._retry(lambda: self._completion.describe_start(message))
            case "hint" if message["hint"] not in self._hints:
                _log.warning("%s", message["text"])
                self._hints[message["hint"]] = message["text"]
                self._retry(lambda: self._completion.tell_hints(self._hints))
            case "finishing":
                _log.info("Its max_seconds have passed: the policy so far is evaluated.")
                self._time_ends = float("inf")
            case "order" if message["order"] is Order.FORGET:
                raise GoneError
            case "order":
                self._give(message["order"])
            case "done" | "failed" | "ended" if self._end is None:
                self._end = message

    def _conclude(self, end: dict[str, Any]) -> JobStatus | None:
        """Settle the job's state, which is returned; None when it went back to the queue."""
        match end["kind"]:
            case "failed":
                _log.error("%s\n%s", end["message"], end["traceback"])
                self._flush()
                return self._finish(JobStatus.FAILED, end["message"])
            case "ended":
                self._flush()
                return self._conclude_lost("trainer", end["reason"])
        unfinished = end["stopped"] or self._order is Order.STOP
        if unfinished:
            self._writer.add_checkpoint(Path(end["path"]), end["timesteps"])
        self._flush()
        if unfinished:
            return self._conclude_order()
        _log.info("%s", self._progress.summary(end))
        self._retry(lambda: self._completion.register(end, self._retry.confirm), PATIENCE_SECONDS)
        return self._finish(JobStatus.COMPLETED)

    def _flush(self) -> None:
        try:
            self._retry(self._writer.flush, PATIENCE_SECONDS)
        except (StoreUnavailableError, OSError) as error:
            _log.warning("The last checkpoint is lost, an earlier one counts: %s", error)

    def _conclude_order(self) -> JobStatus | None:
        match self._order:
            case Order.FORGET:
                raise GoneError
            case Order.LEAVE:
                # the look that a stop's signal asked for may have failed, and been taken for this
                if not self._retry(lambda: self._jobs.get(self._job_id)).stop_requested:
                    self._retry(lambda: self._requeue(crashed=False))
                    return None
        return self._finish(JobStatus.STOPPED)

    def _conclude_lost(self, who: str, reason: str) -> JobStatus | None:
        if self._order is not None:
            return self._conclude_order()
        crashes = self._retry(lambda: self._jobs.get(self._job_id)).crashes + 1
        _log.error("The %s %s.", who, reason)
        if self._foreground or crashes >= self._request.max_attempts:
            return self._finish(JobStatus.FAILED, lost(who, reason, crashes))
        _log.info("Another attempt follows.")
        self._retry(lambda: self._requeue(crashed=True))
        return None

    def _requeue(self, *, crashed: bool) -> None:
        self._upload_log()
        self._jobs.requeue(self._job_id, crashed=crashed, attempt=self._attempt)

    def _finish(self, status: JobStatus, error_message: str | None = None) -> JobStatus:
        self._retry(self._retry.confirm)  # a job that was given away is another's to end
        _log.info("The job is %s.", status.value)
        self._upload_log()
        self._heartbeat.stop()
        self._retry(lambda: self._jobs.finish(self._job_id, status, error_message))
        return status

    def _fail(self, error: Exception) -> JobStatus | None:
        """Fail the job; a store that refuses even that makes it a lost worker, which is counted.

        So do local files that were taken away: they may be back for the next attempt.

        Raises:
            StoreError: the store refused.
        """
        try:
            if isinstance(error, CheckpointError) and isinstance(error.__cause__, OSError):
                error = error.__cause__  # the trainer's last file, before it was read
            if isinstance(error, OSError) and error.errno not in FULL:
                return self._conclude_lost("worker", files_away(error))
            return self._finish(JobStatus.FAILED, explain(error))
        except (GoneError, LeftError, ConflictError, StoreUnavailableError):
            return None

    def _afterwards(self, status: JobStatus | None) -> None:
        """What may come after the job is completed; its place is free already."""
        if status is not JobStatus.COMPLETED:
            return
        try:
            if self._own_process:
                lower_priority(_NICENESS)  # no less: those of many short jobs would pile up
            self._completion.illustrate()
            Checkpoints(self._jobs, self._job_id, self._attempt).remove_all()
        except (PlatformError, OSError):
            _log.exception("The run's figures are not complete.")

    def _upload_log(self) -> None:
        try:
            self._log.upload(self._jobs, self._job_id)
        except (PlatformError, OSError) as error:
            _log.warning("The log cannot be stored: %s", error)


def run_forked(task: dict[str, Any], lifeline_fd: int) -> int:
    """Be the worker that a server's forkserver has just forked.

    Args:
        task: `WorkerTask` as a dict, `store`: `Store` as a dict, and `memory_bytes`: how much the
            job may take, 0 for no limit.
        lifeline_fd: becomes readable when the server has died.

    Returns:
        Exit code of the process.
    """
    request = JobRequest.from_json(task["request"])
    # a GPU's driver counts addresses as data that it only reserves
    restrict_memory(task["memory_bytes"] if request.config.device == "cpu" else 0)
    return run_worker(
        Store(**task["store"]), task["job_id"], task["attempt"], request, lifeline_fd=lifeline_fd
    )


def run_worker(
    store: Store,
    job_id: str,
    attempt: int,
    request: JobRequest,
    *,
    lifeline_fd: int | None = None,
) -> int:
    """Run one attempt of a job to its end; call it in a process without other threads.

    Args:
        store: where the job is.
        job_id: the job: queued, or adopted from `mlflow run` and thus running already.
        attempt: the attempt to claim.
        request: what the job is to train.
        lifeline_fd: of a server that gets the job back when this worker must leave; None in the
            foreground, where Ctrl-C stops the job, and a lost trainer fails it.

    Returns:
        Exit code: 0; in the foreground, 1 where this worker did not complete the job.
    """
    os.environ.pop(TOKEN_VARIABLE, None)  # plug-ins run in the trainer
    with own_temporary_folder() as folder:
        log = patiently(lambda: WorkerLog(folder))
        log.take_records() if lifeline_fd is None else log.take_output()
        # before anything else is opened: the trainer is a fork of this process
        trainer = TrainerProcess.fork(request, folder)
        if attempt == 1 and request.init_from is None:
            trainer.begin()
        work = Attempt(
            _open(store, lifeline_fd),
            trainer, job_id, attempt, request, folder, log,
            foreground=lifeline_fd is None, own_process=True,
        )  # fmt: skip
        _pass_on(work, lifeline_fd)
        return work.run()


def _pass_on(work: Attempt, lifeline_fd: int | None) -> None:
    """Let signals, and the end of the server, reach the attempt."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        work.interrupt()

    def watch(lifeline_fd: int) -> None:
        select.select([lifeline_fd], [], [])
        work.leave()

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt if lifeline_fd is None else signal.SIG_IGN)
    if lifeline_fd is not None:
        threading.Thread(target=watch, args=(lifeline_fd,), name="lifeline", daemon=True).start()


def _open(store: Store, lifeline_fd: int | None) -> JobStore:
    """The store, as soon as it is there; until then, the end of the server ends this process."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    while True:
        try:
            jobs = JobStore(store.tracking_uri, store.experiment_id)
            # MLflow opens the registry apart, and then waits ever longer for a store that is away
            Registry(store.tracking_uri).lookup(_ANY_MODEL)
            return jobs
        except StoreUnavailableError as error:
            _log.warning("The store is away: %s", error)
        lifelines = [] if lifeline_fd is None else [lifeline_fd]
        if select.select(lifelines, [], [], 1.0)[0]:
            sys.exit(0)
