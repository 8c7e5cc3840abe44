"""Jobs on a Ray cluster: one actor a job, which runs the worker on the node that Ray chooses.

MLflow stays the truth. Where the driver process or the cluster is lost, this server's jobs leave
its sight: their workers give them back, or their heartbeats stand still, and the runner queues
them again.
"""

import dataclasses
import importlib.util
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from grpo_platform.core import process
from grpo_platform.core.errors import PlatformError
from grpo_platform.core.process import Liveness, Supervisor
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import child_environment
from grpo_platform.jobs.backend import Exit, Wait, WorkerTask, drain
from grpo_platform.jobs.resources import resources_of
from grpo_platform.tracking.store import Store

__all__ = ["RayBackend", "require_ray"]

_log = logging.getLogger(__name__)

_CONNECT_SECONDS: Final = 60.0
_RESTART_PAUSE_SECONDS: Final = 2.0
_CLOSE_SECONDS: Final = 5.0
_ENVIRONMENT: Final = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}


def require_ray() -> None:
    """Refuse to go on without Ray, which is an extra.

    Raises:
        PlatformError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise PlatformError(
            "GRPO_JOB_BACKEND=ray needs Ray, which is not installed: pip install "
            "'grpo-platform[ray]', or leave the variable unset to run jobs on this machine."
        )


@dataclass(slots=True)
class _Job:
    task: WorkerTask
    worker: str | None = None
    wait: Wait | None = None


class RayBackend:
    """Implements `Backend` on the cluster that `RAY_ADDRESS` names, or that this machine is in.

    Args:
        store: handed to every worker; every node must reach it.
    """

    def __init__(self, store: Store) -> None:
        self._store = dataclasses.asdict(store)
        self._lock = threading.RLock()
        self._jobs: dict[str, _Job] = {}
        self._trouble = ""
        self._driver = Supervisor(
            "grpo_platform.jobs.ray_driver",
            lambda: _ENVIRONMENT | child_environment(),
            _RESTART_PAUSE_SECONDS,
        )

    def start(self) -> None:
        """Connect to the cluster; does nothing when that was done.

        Raises:
            PlatformError: there is no cluster, or it cannot be reached.
        """
        with self._lock:
            if self._driver.ready:
                return
            self._driver.start()
            deadline = time.monotonic() + _CONNECT_SECONDS
            while self._driver.running and not self._driver.ready:
                if time.monotonic() > deadline:
                    self._trouble = f"it did not answer for {_CONNECT_SECONDS:g} s"
                    break
                self._driver.wait(1.0)
                self._receive()
            if not self._driver.ready:
                self._driver.close(_CLOSE_SECONDS)
                raise PlatformError(
                    f"The Ray cluster cannot be used: {self._trouble or 'its driver ended'}. "
                    "Start one with `ray start --head`, or set RAY_ADDRESS to a running one's."
                )

    def check(self, request: JobRequest) -> None:
        """See `Backend.check`: a cluster may grow, so nothing is refused; `waits` tells."""

    def submit(self, task: WorkerTask) -> None:
        """See `Backend.submit`; the job waits in Ray until a node has room."""
        with self._lock:
            job = self._jobs[task.job_id] = _Job(task)
            self._submit(job)

    def stop(self, job_id: str) -> None:
        """See `Backend.stop`; a worker that waits for room is not started any more."""
        self._order("stop", job_id)

    def kill(self, job_id: str) -> None:
        """See `Backend.kill`."""
        self._order("kill", job_id)

    def running(self) -> frozenset[str]:
        """See `Backend.running`; those that wait for a node's resources included."""
        with self._lock:
            return frozenset(self._jobs)

    def waits(self) -> Mapping[str, Wait]:
        """See `Backend.waits`."""
        with self._lock:
            return {id_: job.wait for id_, job in self._jobs.items() if job.wait is not None}

    def recover(self, worker: str) -> Liveness:
        """See `Backend.recover`; certain on this machine, elsewhere the heartbeat tells."""
        return process.liveness(worker)

    def wake(self) -> None:
        """See `Backend.wake`."""
        self._driver.wake()

    def poll(self, timeout_seconds: float) -> list[Exit]:
        """See `Backend.poll`; also connects again after the cluster was lost."""
        self._driver.wait(timeout_seconds)
        with self._lock:
            exits = self._receive()
            self._driver.start_again()
            return exits

    def shutdown(self, timeout_seconds: float) -> None:
        """See `Backend.shutdown`; the thread that polls must have ended."""
        for job_id in self.running():
            self.stop(job_id)
        if self._driver.ready:
            drain(self, timeout_seconds)
        with self._lock:
            self._driver.close(_CLOSE_SECONDS)

    # --- the driver ----------------------------------------------------------------------

    def _order(self, event: str, job_id: str) -> None:
        with self._lock:
            if job_id in self._jobs:
                self._driver.send({"event": event, "job_id": job_id})

    def _submit(self, job: _Job) -> None:
        asked = resources_of(JobRequest.from_json(job.task.request))
        task = dataclasses.asdict(job.task)
        where = {"store": self._store, "resources": asked}
        self._driver.send({"event": "submit", "task": task} | where)

    def _receive(self) -> list[Exit]:
        return [exit_ for event, _ in self._driver.receive() for exit_ in self._hear(event)]

    def _hear(self, event: dict[str, Any]) -> list[Exit]:
        match event["event"]:
            case "ready":
                self._trouble = ""
                for waiting in self._jobs.values():
                    self._submit(waiting)
            case "failed":
                if event["message"] != self._trouble:
                    _log.warning("The Ray cluster cannot be reached: %s", event["message"])
                self._trouble = event["message"]
            case "gone":
                return self._driver_ended() if event["was_ready"] else []
            case _:
                job = self._jobs.get(event["job_id"])
                if job is not None and job.task.attempt == event["attempt"]:
                    return self._hear_of(job, event)
        return []

    def _hear_of(self, job: _Job, event: dict[str, Any]) -> list[Exit]:
        match event["event"]:
            case "waits":
                job.wait = Wait(message=event["message"], hopeless=event["hopeless"])
            case "placed":
                job.wait = None
            case "started":
                job.worker = event["worker"]
            case "ended":
                job.worker = event.get("worker") or job.worker
                return [self._forget(job, event["reason"])]
        return []

    def _driver_ended(self) -> list[Exit]:
        """What was submitted is out of sight: the store tells what becomes of it."""
        _log.warning("The Ray cluster was lost; it is connected again as soon as it is there.")
        lost = list(self._jobs.values())
        for job in lost:
            job.worker = None
        return [self._forget(job, None) for job in lost]

    def _forget(self, job: _Job, reason: str | None) -> Exit:
        del self._jobs[job.task.job_id]
        task = job.task
        return Exit(job_id=task.job_id, attempt=task.attempt, worker=job.worker, reason=reason)
