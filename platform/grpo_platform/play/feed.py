"""What brings a job's checkpoints to those who watch it train, and asks the job for more."""

import logging
import threading
import time
from typing import Final

from grpo.errors import GRPOError
from grpo_platform.core.errors import NotFoundError, PlatformError, StoreError, UnknownJobError
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.run_writer import Checkpoints
from grpo_platform.play.helper import Message
from grpo_platform.play.play_session import PlaySession, handing_over
from grpo_platform.registry.models import Registry
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.records import JobRecord

__all__ = ["CheckpointWishes", "Feed"]

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0


class CheckpointWishes:
    """Asks jobs for checkpoints, each no more often than may be, whoever watches it.

    Args:
        jobs: the store, through which a job's worker hears of it.
        seconds: between two that a job is asked for.
    """

    def __init__(self, jobs: JobStore, seconds: float) -> None:
        self._jobs = jobs
        self._seconds = seconds
        self._lock = threading.Lock()
        self._asked: dict[str, float] = {}

    def ask(self, job: JobRecord) -> None:
        """Ask a job, unless it was asked just before.

        Args:
            job: that runs, as it was just read.

        Raises:
            StoreError: the store refused.
        """
        with self._lock:  # of its sessions, one asks
            now = time.monotonic()
            self._asked = {id: at for id, at in self._asked.items() if now - at < self._seconds}
            # another server may have asked, whose clock may be another
            since = abs(time.time() - (job.checkpoint_wanted_ms or 0) / 1000)
            if job.job_id in self._asked or since < self._seconds:
                return
            self._asked[job.job_id] = now
        self._jobs.ask_for_checkpoint(job.job_id)


class Feed:
    """Brings a session each checkpoint that its job makes, and tells how the job stands.

    Args:
        session: that plays the job.
        jobs: has it.
        registry: has its version, once it is completed.
        wishes: asks for checkpoints while somebody watches.
    """

    def __init__(
        self,
        session: PlaySession,
        jobs: JobStore,
        registry: Registry,
        wishes: CheckpointWishes,
    ) -> None:
        self._session = session
        self._jobs = jobs
        self._registry = registry
        self._wishes = wishes
        self._job_id = session.source.job_id or ""
        self._brought: set[str] = set()

    def run(self) -> None:
        """Look at the job until the session ends."""
        told: Message = {}
        while not self._session.is_closed:
            try:
                job = self._jobs.get(self._job_id)
                self._bring(job)
                said = {
                    "type": "job",
                    "job_id": self._job_id,
                    "status": job.status.value,
                    "timesteps": job.current_timesteps,
                    "total_timesteps": job.request.config.total_timesteps,
                }
                if said != told:
                    told = said
                    self._session.publish(said)
                # a script that has opened a session waits for the first one; then who looks counts
                is_wanted = self._session.viewers or not self._brought
                if job.status is JobStatus.RUNNING and is_wanted:
                    self._wishes.ask(job)
            except UnknownJobError:
                self._session.close("The job was deleted.")
            except NotFoundError:  # the session has ended, or a version was deleted
                pass
            except (StoreError, GRPOError, PlatformError, OSError) as error:
                if not self._session.is_closed:
                    _log.warning("A checkpoint of %s is not shown: %s", self._job_id, error)
            self._session.wait_closed(_LOOK_SECONDS)

    def _bring(self, job: JobRecord) -> None:
        artifact = job.checkpoint
        if artifact and artifact not in self._brought:
            timesteps = artifact.rpartition("/")[2].partition("-")[0].lstrip("0") or "0"
            with handing_over() as folder:
                checkpoints = Checkpoints(self._jobs, self._job_id, job.attempt)
                path = checkpoints.fetch_one(artifact, folder)
                if path is not None:
                    self._session.add_policy(timesteps, path)
            self._brought.add(artifact)
        if job.status is JobStatus.COMPLETED and job.model_version is not None:
            name = f"version {job.model_version}"
            if name not in self._brought:
                ref = self._registry.resolve(f"{job.model_name}/{job.model_version}")
                self._session.add_policy(name, self._registry.read(ref)._asdict())
                self._brought.add(name)
