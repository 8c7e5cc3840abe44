"""What the routes work with: one object that holds every service, built in the entry point."""

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from grpo_platform.environments import Environments
from grpo_platform.errors import ConflictError, NotReadyError
from grpo_platform.isolation import Isolation
from grpo_platform.jobs.runner import Runner
from grpo_platform.jobs.states import JobStatus
from grpo_platform.registry.models import Registry
from grpo_platform.serving.service import ServingService
from grpo_platform.settings import Settings
from grpo_platform.sweeps.runner import SweepRunner
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.records import JobRecord
from grpo_platform.tracking.sweeps import SweepStore
from grpo_platform.ui import MlflowUI

__all__ = ["Services"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """Everything behind the routes."""

    settings: Settings
    store: JobStore
    jobs: Runner
    sweeps: SweepStore
    sweep_runner: SweepRunner
    registry: Registry
    serving: ServingService
    ui: MlflowUI
    isolation: Isolation
    environments: Environments
    closing: threading.Event = field(default_factory=threading.Event)
    """Set when the server begins to shut down: whoever streams ends."""

    def job(self, job_id: str) -> JobRecord:
        """A job; once it is told to be promoted, its version answers under the bare name.

        Raises:
            UnknownJobError: no such job.
            StoreError: the store cannot be reached.
        """
        record = self.store.get(job_id)
        if record.promoted and record.end_time is not None:
            # a clock that was set back must not make every call look the name up again
            ago = max(0.0, (datetime.now(UTC) - record.end_time).total_seconds())
            self.serving.refresh(record.model_name, since=time.monotonic() - ago)
        return record

    def unfinished_jobs(self) -> dict[str, int]:
        """Number of queued and of running jobs.

        Raises:
            StoreError: the store cannot be reached.
        """
        # a job that was just handed to a worker waits no more, and is not marked running yet
        running = max(self.jobs.running, len(self.store.running()))
        return {JobStatus.QUEUED: self.jobs.waiting, JobStatus.RUNNING: running}

    def check_ready(self) -> None:
        """Whether a job could be taken now: the store can be read and written.

        Raises:
            NotReadyError: jobs are not taken.
            StoreError: the store cannot be used.
        """
        if not self.jobs.alive:
            raise NotReadyError
        self.store.check_writable()

    def delete_model(self, name: str) -> None:
        """Delete a model from memory, registry and disk.

        Raises:
            UnknownModelError: no such model of ours.
            ConflictError: a job will write it.
        """
        for status in (JobStatus.QUEUED, JobStatus.RUNNING):
            for job in self.store.list(status=status, model_name=name, limit=1).items:
                raise ConflictError(
                    f"Job {job.job_id} is {status.value} and will write model {name!r}; wait for "
                    "it, or stop it first."
                )
        self.registry.delete(name)
        self.serving.evict(name)
