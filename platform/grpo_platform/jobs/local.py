"""Jobs as processes of this machine, forked from one that has everything imported. Linux only."""

import array
import contextlib
import dataclasses
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from grpo_platform.core.errors import PlatformError
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import child_environment
from grpo_platform.jobs import process, workdir
from grpo_platform.jobs.backend import Exit, Wait, WorkerTask
from grpo_platform.jobs.forkserver import MAX_MESSAGE
from grpo_platform.jobs.process import Liveness, ending, pid_of
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
_MAX_DESCRIPTORS = 4
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
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._started_at = 0.0
        self._warm = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._lifeline_read, self._lifeline_write = os.pipe()
        self._groups: set[int] = set()
        self._closed = False

    def start(self) -> None:
        """Start the process that workers are forked from; it warms up in the background.

        Raises:
            PlatformError: this system cannot run it.
        """
        if not hasattr(os, "pidfd_open"):
            raise PlatformError("Local jobs need Linux (pidfd_open, kernel 5.3 or newer).")
        workdir.remove_abandoned()
        with self._lock:
            self._launch()

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
            if self._warm:
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
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"w")

    def poll(self, timeout_seconds: float) -> list[Exit]:
        """See `Backend.poll`; also restarts the forkserver when it has died."""
        poller = select.poll()
        with self._lock:
            control = self._control
            watched = [self._wake_read, *(fd for _, fd in self._orphans())]
            if control is not None:
                watched.append(control.fileno())
            elif not self._closed:
                timeout_seconds = min(timeout_seconds, self._until_restart())
        for descriptor in watched:
            poller.register(descriptor, select.POLLIN)
        poller.poll(max(0.0, timeout_seconds) * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        with self._lock:
            exits = self._receive() + self._ended_orphans()
            self._reap()
            if self._control is None and not self._closed and self._until_restart() == 0.0:
                self._launch()
            return exits

    def shutdown(self, timeout_seconds: float) -> None:
        """See `Backend.shutdown`; the thread that polls must have ended."""
        with self._lock:
            for job_id in self._jobs:
                self.stop(job_id)
        self._drain(timeout_seconds)
        with self._lock:
            for job_id in self._jobs:
                self.kill(job_id)
        self._drain(2.0)
        self._close()

    # --- the forkserver ------------------------------------------------------------------

    def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = (str(theirs.fileno()), str(self._lifeline_read))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "grpo_platform.jobs.forkserver", *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._lifeline_read),
                env=child_environment() | _FORK_SERVER_ENVIRONMENT,
                start_new_session=True,
            )
        self._control = ours
        self._started_at = time.monotonic()
        for job in self._jobs.values():
            if job.pidfd is None:
                self._send(job.task)

    def _until_restart(self) -> float:
        return max(0.0, self._started_at + _RESTART_PAUSE_SECONDS - time.monotonic())

    def _send(self, task: WorkerTask) -> None:
        if self._control is None:
            return  # sent by the next launch
        given = {"store": self._store, "memory_bytes": self._memory}
        message = dataclasses.asdict(task) | given
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(json.dumps(message).encode())

    def _receive(self) -> list[Exit]:
        """Read what the forkserver said; notices its end."""
        exits: list[Exit] = []
        while (control := self._control) is not None:
            data, descriptors = _receive_message(control)
            if data is None:
                break
            if not data:
                self._forkserver_died()
                break
            event = json.loads(data)
            if event["event"] == "ready":
                self._warm = True
                continue
            job = self._jobs.get(event["job_id"])
            if job is None or job.task.attempt != event["attempt"]:
                for descriptor in descriptors:
                    os.close(descriptor)
            elif event["event"] == "started":
                self._started(job, event["worker"], descriptors[0])
            else:
                reason = ending(event["status"])
                said = f" ({event['said']})" if event["said"] else ""
                exits.append(self._ended(job, reason and f"{reason}{said}"))
        return exits

    def _started(self, job: _Job, worker: str, pidfd: int) -> None:
        job.worker, job.pidfd = worker, pidfd
        if job.kill_asked:
            self._signal(job, signal.SIGKILL)
        elif job.stop_asked:
            self._signal(job, signal.SIGTERM)

    def _forkserver_died(self) -> None:
        if self._control is None or self._process is None:
            return
        self._control.close()
        self._control = None
        self._warm = False
        for job in self._jobs.values():
            job.orphan = job.pidfd is not None
        status = self._process.wait()
        if not self._closed:
            _log.warning("The forkserver ended with status %s; it is started again.", status)

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

    def _drain(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while self.running() and time.monotonic() < deadline:
            self.poll(min(0.5, deadline - time.monotonic()))

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            if self._control is not None:
                self._control.close()
                self._control = None
            os.close(self._lifeline_write)
            if self._process is not None:
                try:
                    self._process.wait(2.0)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()


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


def _receive_message(control: socket.socket) -> tuple[bytes | None, list[int]]:
    """One message and its descriptors, without waiting: None where there is none, empty at the end.

    Not `socket.recv_fds`: that one ignores flags, and waits.
    """
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    descriptors = array.array("i")
    try:
        data, ancillary, _, _ = control.recvmsg(
            MAX_MESSAGE, socket.CMSG_LEN(_MAX_DESCRIPTORS * descriptors.itemsize), flags
        )
    except BlockingIOError:
        return None, []
    except ConnectionResetError:
        return b"", []
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return data, list(descriptors)
