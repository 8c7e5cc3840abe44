"""Jobs as threads of the server's own process: for tests, notebooks and debuggers.

All that a job is, is real: it trains, writes its run, keeps checkpoints, registers its version.
What only processes can do is missing. One job runs at a time; an environment that crashes or exits
takes the server with it; one that hangs is never ended; memory is not limited; what is printed is
not in the job's log; and while a job trains, the server answers more slowly.
"""

import contextlib
import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Final

from grpo_platform.core import process
from grpo_platform.core.errors import StoreUnavailableError
from grpo_platform.core.process import Liveness, worker_name
from grpo_platform.core.request import JobRequest
from grpo_platform.jobs.backend import Exit, Wait, WorkerTask, drain
from grpo_platform.jobs.resources import check_this_machine, temporary_folder
from grpo_platform.jobs.run_writer import WorkerLog
from grpo_platform.jobs.trainer_process import TrainerHandle, train
from grpo_platform.jobs.worker import Attempt
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.store import Store

__all__ = ["InMemoryBackend"]

_THREADS: Final = "worker"
"""How the names of a job's threads begin, those that an attempt starts included."""

_TURN: Final = Wait(
    message="It waits for the job before it: with GRPO_JOB_BACKEND=memory one runs at a time.",
    hopeless=False,
)


@dataclass(slots=True)
class _Job:
    """A job between `submit` and its `Exit`."""

    task: WorkerTask
    thread: threading.Thread | None = None
    trainer: "_TrainerThread | None" = None
    attempt: Attempt | None = None
    stop_asked: bool = False
    exit: Exit | None = None


class InMemoryBackend:
    """Implements `Backend` without processes.

    Args:
        store: where the jobs are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._worker = worker_name(os.getpid())
        self._changed = threading.Condition(threading.RLock())
        self._jobs: dict[str, _Job] = {}
        self._woken = self._closing = False

    def start(self) -> None:
        """See `Backend.start`; there is nothing to start."""

    def check(self, request: JobRequest) -> None:
        """See `Backend.check`."""
        check_this_machine(request)

    def submit(self, task: WorkerTask) -> None:
        """See `Backend.submit`; the job begins once those before it have ended."""
        with self._changed:
            self._jobs[task.job_id] = _Job(task)
            self._start_next()

    def stop(self, job_id: str) -> None:
        """See `Backend.stop`; a job that waits for its turn is not started any more."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None:
                return
            job.stop_asked = True
            if job.attempt is not None:
                job.attempt.interrupt()
            elif job.thread is None:
                self._ended(job, None)

    def kill(self, job_id: str) -> None:
        """End the job's training after the iteration that it is in: no thread can be killed."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is not None and job.trainer is not None:
                job.trainer.kill()

    def running(self) -> frozenset[str]:
        """See `Backend.running`."""
        with self._changed:
            return frozenset(self._jobs)

    def waits(self) -> Mapping[str, Wait]:
        """See `Backend.waits`."""
        with self._changed:
            waiting = [job_id for job_id, job in self._jobs.items() if job.thread is None]
            return dict.fromkeys(waiting, _TURN)

    def recover(self, worker: str) -> Liveness:
        """See `Backend.recover`; a server that is gone took its jobs with it."""
        return process.liveness(worker)

    def wake(self) -> None:
        """See `Backend.wake`."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def poll(self, timeout_seconds: float) -> list[Exit]:
        """See `Backend.poll`."""
        with self._changed:
            timeout = min(max(0.0, timeout_seconds), threading.TIMEOUT_MAX)
            self._changed.wait_for(lambda: self._woken or self._exits(), timeout)
            self._woken = False
            exits = self._exits()
            threads = [self._jobs.pop(ended.job_id).thread for ended in exits]
        for thread in threads:
            if thread is not None:
                thread.join()  # it has said so as its last act
        return exits

    def shutdown(self, timeout_seconds: float) -> None:
        """See `Backend.shutdown`; a thread that does not leave is left behind."""
        with self._changed:
            self._closing = True
            for job_id in self._jobs:
                self.stop(job_id)
        drain(self, timeout_seconds)

    # --- a job's thread ------------------------------------------------------------------

    def _exits(self) -> list[Exit]:
        return [job.exit for job in self._jobs.values() if job.exit is not None]

    def _start_next(self) -> None:
        going = [job for job in self._jobs.values() if job.exit is None]
        if going and going[0].thread is None and not self._closing:
            job = going[0]
            job.thread = threading.Thread(
                target=self._work, args=(job,), name=_THREADS, daemon=True
            )
            job.thread.start()

    def _work(self, job: _Job) -> None:
        reason = None
        try:
            self._run(job)
        except StoreUnavailableError:
            pass  # it left without claiming the job, which is found again
        except BaseException as error:  # noqa: BLE001 - the last frame of this thread
            reason = f"raised {type(error).__name__}: {error}"
        with self._changed:
            self._ended(job, reason)
            self._start_next()

    def _ended(self, job: _Job, reason: str | None) -> None:
        task, worker = job.task, None if job.attempt is None else self._worker
        job.exit = Exit(job_id=task.job_id, attempt=task.attempt, worker=worker, reason=reason)
        self._changed.notify_all()

    def _run(self, job: _Job) -> None:
        """As `run_worker`, without what only a process of its own may do."""
        task, request = job.task, JobRequest.from_json(job.task.request)
        with contextlib.ExitStack() as stack:
            made = tempfile.TemporaryDirectory(prefix="grpo-job-", dir=temporary_folder())
            folder = Path(stack.enter_context(made))
            log = WorkerLog(folder)
            stack.enter_context(log.taking_records_of(_THREADS))
            trainer = _TrainerThread(request, folder)
            stack.callback(trainer.close)
            attempt = Attempt(
                JobStore(self._store.tracking_uri, self._store.experiment_id),
                trainer, task.job_id, task.attempt, request, folder, log,
                foreground=False, own_process=False,
            )  # fmt: skip
            if task.attempt == 1 and request.init_from is None:
                trainer.begin()
            with self._changed:
                job.trainer, job.attempt = trainer, attempt
                if job.stop_asked:
                    attempt.interrupt()
            attempt.run()


class _TrainerThread(TrainerHandle):
    """A trainer in a thread of this process, at the other end of a pipe all the same."""

    def __init__(self, request: JobRequest, folder: Path) -> None:
        ours, theirs = Pipe(duplex=True)
        super().__init__(ours)

        def run() -> None:
            with theirs:
                train(theirs, request, folder)

        self._thread = threading.Thread(target=run, name=f"{_THREADS}-training", daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """End it after the iteration that it is in."""
        self._send({"kind": "kill"})

    def close(self) -> None:
        """End it, and wait for that."""
        self.kill()
        self._wait()

    def _wait(self) -> str | None:
        self._thread.join()
        return None
