"""Where jobs run: the interface that local processes and a cluster both fit."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from grpo_platform.core.process import Liveness
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import Settings
from grpo_platform.tracking.store import Store

__all__ = ["Backend", "BackendFactory", "Exit", "Wait", "WorkerTask", "drain"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerTask:
    """What a worker is started with; everything else it reads from the job's run."""

    job_id: str
    attempt: int
    """The attempt that the worker is to claim."""

    request: str
    """`JobRequest` as JSON, so that training can begin before the store answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exit:
    """A worker that has ended."""

    job_id: str
    attempt: int
    worker: str | None
    """`host:pid:start_time`; None where it ended before it was known."""

    reason: str | None
    """What ended it, to follow "its worker"; None where it ended by itself and in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Why a job that was submitted has no worker yet."""

    message: str
    """A sentence for the user."""

    hopeless: bool
    """No machine that is there now can ever run it; it keeps no place from other jobs."""


class Backend(Protocol):
    """Starts one worker a job. All methods may be called from any thread, `poll` from one only."""

    def check(self, request: JobRequest) -> None:
        """Refuse what can never run here.

        Raises:
            grpo.ConfigError: its device does not exist.
            InvalidRequestError: it asks for more than there will be.
        """

    def start(self) -> None:
        """Get ready to take jobs; may go on in the background."""

    def submit(self, task: WorkerTask) -> None:
        """Start a worker. Returns at once; a worker that cannot be started is an `Exit`."""

    def stop(self, job_id: str) -> None:
        """Make the job's worker look at its run now. Does nothing without such a worker."""

    def kill(self, job_id: str) -> None:
        """End the job's worker without asking. Does nothing without such a worker."""

    def poll(self, timeout_seconds: float) -> list[Exit]:
        """Workers that ended since the last call; waits for one, for `wake` or for the timeout."""

    def wake(self) -> None:
        """Let the present or next `poll` return at once."""

    def running(self) -> frozenset[str]:
        """Jobs that were submitted and whose `Exit` was not polled yet."""

    def waits(self) -> Mapping[str, Wait]:
        """Of these, the jobs that wait for room, as of the last `poll`."""

    def recover(self, worker: str) -> Liveness:
        """Whether a worker named by a run's tag, of an earlier or another server, lives."""

    def shutdown(self, timeout_seconds: float) -> None:
        """Ask all workers to leave their jobs to the next start, wait, and end those that stay."""


BackendFactory = Callable[[Store, Settings], Backend]
"""Makes a server's backend from its store, which every worker must reach, and its settings."""


def drain(backend: Backend, timeout_seconds: float) -> None:
    """Poll until every worker has ended, for so long at most."""
    deadline = time.monotonic() + timeout_seconds
    while backend.running() and time.monotonic() < deadline:
        backend.poll(min(0.5, deadline - time.monotonic()))
