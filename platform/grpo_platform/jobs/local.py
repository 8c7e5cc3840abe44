"""Jobs as processes of this machine, forked from one that has everything imported. Linux only."""

import contextlib
import dataclasses
import logging
import os
import select
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grpo_platform.core import process
from grpo_platform.core.errors import PlatformError
from grpo_platform.core.process import Liveness, Supervisor, ending, pid_of
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import child_environment
from grpo_platform.jobs import resources
from grpo_platform.jobs.backend import Exit, Wait, WorkerTask, drain
from grpo_platform.jobs.resources import check_this_machine, default_memory_bytes
from grpo_platform.tracking.store import Store

__all__ = ["LocalBackend"]

_log = logging.getLogger(__name__)

_FORK_SERVER_ENVIRONMENT = {
    # a forked child has none of its parent's threads, so the parent must not have any
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # pyarrow, which MLflow imports, brings a jemalloc that cleans up in a thread
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
_RESTART_PAUSE_SECONDS = 1.0
_WARMING = Wait(
    message="The server is still importing what jobs need; this takes some seconds, once.",
    hopeless=False,
)


@dataclass(slots=True)
class _Job:
    """A job between `submit` and its `Exit`."""

    task: WorkerTask
    worker: str | None = None
    pidfd: int | None = None
    orphan: bool = False
    """The forkserver that it came from is dead."""
    stop_asked: bool = False
    kill_asked: bool = False


class LocalBackend:
    """Implements `Backend` with worker processes of this machine.

    A worker outlives the process it was forked from: when that one dies, the worker goes on and
    its end is seen through its pidfd; only the reason of that end is lost.

    Args:
        store: handed to every worker.
        max_memory_bytes: what a job may take beyond what a worker has to begin with; 0 is no
            limit, None most of what this machine has.
    """

    def __init__(self, store: Store, max_memory_bytes: int | None = None) -> None:
        self._store = dataclasses.asdict(store)
        self._memory = default_memory_bytes() if max_memory_bytes is None else max_memory_bytes
        self._lock = threading.RLock()
        self._jobs: dict[str, _Job] = {}
        self._groups: set[int] = set()
        lifeline_read, self._lifeline_write = os.pipe()
        self._forkserver = Supervisor(
            "grpo_platform.jobs.forkserver",
            lambda: child_environment() | _FORK_SERVER_ENVIRONMENT,
            _RESTART_PAUSE_SECONDS,
            [lifeline_read],
        )

    def start(self) -> None:
        """Start the process that workers are forked from; it warms up in the background.

        Raises:
            PlatformError: this system cannot run it.
        """
        if not hasattr(os, "pidfd_open"):
            raise PlatformError("Local jobs need Linux (pidfd_open, kernel 5.3 or newer).")
        resources.remove_abandoned()
        self._forkserver.start()

    def check(self, request: JobRequest) -> None:
        """See `Backend.check`."""
        check_this_machine(request)

    def submit(self, task: WorkerTask) -> None:
        """See `Backend.submit`; the worker starts once the forkserver is warm."""
        with self._lock:
            self._jobs[task.job_id] = _Job(task)
            self._send(task)

    def stop(self, job_id: str) -> None:
        """Send SIGTERM, on which a worker looks at its run."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is not None:
                job.stop_asked = True
                self._signal(job, signal.SIGTERM)

    def kill(self, job_id: str) -> None:
        """Send SIGKILL; the worker's trainer dies with it."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is not None:
                job.kill_asked = True
                self._signal(job, signal.SIGKILL)

    def running(self) -> frozenset[str]:
        """See `Backend.running`."""
        with self._lock:
            return frozenset(self._jobs)

    def waits(self) -> Mapping[str, Wait]:
        """See `Backend.waits`; a job has a worker at once, once the forkserver is warm."""
        with self._lock:
            if self._forkserver.ready:
                return {}
            return {job_id: _WARMING for job_id, job in self._jobs.items() if job.pidfd is None}

    def worker_of(self, job_id: str) -> str | None:
        """Name of a running job's worker, once it is known."""
        with self._lock:
            job = self._jobs.get(job_id)
            return None if job is None else job.worker

    def recover(self, worker: str) -> Liveness:
        """See `Backend.recover`; certain for workers of this machine."""
        return process.liveness(worker)

    def wake(self) -> None:
        """See `Backend.wake`."""
        self._forkserver.wake()

    def poll(self, timeout_seconds: float) -> list[Exit]:
        """See `Backend.poll`; also restarts the forkserver when it has died."""
        with self._lock:
            orphans = [fd for _, fd in self._orphans()]
        self._forkserver.wait(timeout_seconds, orphans)
        with self._lock:
            heard = [self._hear(event, fds) for event, fds in self._forkserver.receive()]
            exits = [exit_ for exit_ in heard if exit_ is not None] + self._ended_orphans()
            self._reap()
            self._forkserver.start_again()
            return exits

    def shutdown(self, timeout_seconds: float) -> None:
        """See `Backend.shutdown`; the thread that polls must have ended."""
        for job_id in self.running():
            self.stop(job_id)
        drain(self, timeout_seconds)
        for job_id in self.running():
            self.kill(job_id)
        drain(self, 2.0)
        with self._lock:
            os.close(self._lifeline_write)
            self._forkserver.close(2.0)

    # --- what the forkserver says --------------------------------------------------------

    def _send(self, task: WorkerTask) -> None:
        given = {"store": self._store, "memory_bytes": self._memory}
        self._forkserver.send(dataclasses.asdict(task) | given)

    def _hear(self, event: dict[str, Any], descriptors: list[int]) -> Exit | None:
        match event["event"]:
            case "ready":
                for job in self._jobs.values():
                    if job.pidfd is None:
                        self._send(job.task)
                return None
            case "gone":
                for job in self._jobs.values():
                    job.orphan = job.pidfd is not None
                said = "The forkserver ended with status %s; it is started again."
                _log.warning(said, event["status"])
                return None
        known = self._jobs.get(event["job_id"])
        if known is None or known.task.attempt != event["attempt"]:
            for descriptor in descriptors:
                os.close(descriptor)
        elif event["event"] == "started":
            self._started(known, event["worker"], descriptors[0])
        else:
            reason = ending(event["status"])
            said = f" ({event['said']})" if event["said"] else ""
            return self._ended(known, reason and f"{reason}{said}")
        return None

    def _started(self, job: _Job, worker: str, pidfd: int) -> None:
        job.worker, job.pidfd = worker, pidfd
        if job.kill_asked:
            self._signal(job, signal.SIGKILL)
        elif job.stop_asked:
            self._signal(job, signal.SIGTERM)

    def _orphans(self) -> list[tuple[_Job, int]]:
        jobs = self._jobs.values()
        return [(job, job.pidfd) for job in jobs if job.orphan and job.pidfd is not None]

    def _ended_orphans(self) -> list[Exit]:
        """Workers whose end nobody reports; their pidfds tell it."""
        poller = select.poll()
        found = {fd: job for job, fd in self._orphans()}
        for fd in found:
            poller.register(fd, select.POLLIN)
        return [self._ended(found[fd], _ending_of_orphan(found[fd])) for fd, _ in poller.poll(0)]

    def _reap(self) -> None:
        """Wait for what ended workers left behind, where that falls to us: as a container's init.

        A worker and its trainer are a process group of the worker's number.
        """
        for group in tuple(self._groups):
            try:
                while os.waitpid(-group, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                self._groups.discard(group)

    def _ended(self, job: _Job, reason: str | None) -> Exit:
        if job.pidfd is not None:
            os.close(job.pidfd)
        if job.worker is not None:
            self._groups.add(pid_of(job.worker))
        del self._jobs[job.task.job_id]
        return Exit(
            job_id=job.task.job_id, attempt=job.task.attempt, worker=job.worker, reason=reason
        )

    def _signal(self, job: _Job, number: signal.Signals) -> None:
        if job.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(job.pidfd, number)


def _ending_of_orphan(job: _Job) -> str | None:
    """Why a worker ended whose forkserver is dead; known where its end is told to this process."""
    unseen = "ended unseen, after the forkserver had died"
    if job.worker is None:
        return unseen
    try:
        pid, status = os.waitpid(pid_of(job.worker), os.WNOHANG)
    except ChildProcessError:
        return unseen
    return ending(status) if pid else unseen
