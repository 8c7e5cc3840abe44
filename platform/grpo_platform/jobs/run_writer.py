"""What one attempt writes to its run while it trains: each point once, and checkpoints."""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from grpo_platform.core.errors import StoreError, StoreUnavailableError
from grpo_platform.core.names import Metric, Tag
from grpo_platform.jobs.clock import Clock
from grpo_platform.jobs.logs import WorkerLog
from grpo_platform.tracking.files import file_sha256
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.reporter import Point

__all__ = ["Checkpoints", "Progress", "RunWriter"]

_log = logging.getLogger(__name__)

_FOLDER: Final = "checkpoints"
_KEPT_BEFORE: Final = 1  # beside the newest, in case that one is damaged
_NAME: Final = re.compile(r"\d{12}-(?P<attempt>\d+)-(?P<sha256>[0-9a-f]{64})\.npz")
_POINTS_SECONDS: Final = 0.7
_LOG_SECONDS: Final = 2.0
_LONGEST_PAUSE_SECONDS: Final = 5.0
_PROGRESS_SECONDS: Final = 10.0
_FOREGROUND_PROGRESS_SECONDS: Final = 1.0


class Checkpoints:
    """Reads and writes the checkpoints of one job.

    A file's name is `<timesteps>-<attempt>-<SHA-256>.npz`: unique, in order, and its own proof.

    Args:
        jobs: the store.
        job_id: the job.
        attempt: number of the attempt that writes.
    """

    def __init__(self, jobs: JobStore, job_id: str, attempt: int) -> None:
        self._jobs = jobs
        self._job_id = job_id
        self._attempt = attempt

    def save(self, path: Path, timesteps: int) -> None:
        """Store a local checkpoint, verify it, point to it, and prune; the local file is removed.

        The run's metric points up to the checkpoint must be stored already: a resumed training
        never repeats what came before.

        Raises:
            StoreError: it cannot be stored; the earlier one still counts.
        """
        digest = file_sha256(path)
        named = path.with_name(f"{timesteps:012d}-{self._attempt}-{digest}.npz")
        path.rename(named)
        try:
            artifact = self._jobs.upload(self._job_id, named, _FOLDER, verify=True)
            self._jobs.set_tags(self._job_id, {Tag.CHECKPOINT: artifact})
        except StoreError:
            named.rename(path)  # so that the caller can try again
            raise
        named.unlink()
        self._prune([path for path in self._stored() if path != artifact][:-_KEPT_BEFORE])

    def fetch(self, pointed: str | None, folder: Path) -> Path | None:
        """Download the newest checkpoint that is whole, starting with the one pointed to.

        Args:
            pointed: artifact path from the run's tag.
            folder: existing local directory that receives the file.

        Raises:
            StoreUnavailableError: the store is away.
        """
        if pointed is None:
            return None
        stored = self._stored()
        for artifact in sorted(stored, key=lambda path: (path == pointed, path), reverse=True):
            try:
                path = self._jobs.download(self._job_id, artifact, folder)
            except StoreUnavailableError:
                raise
            except StoreError as error:
                _log.warning("Checkpoint %s cannot be read: %s", artifact, error)
                continue
            match = _NAME.fullmatch(PurePosixPath(artifact).name)
            if match and file_sha256(path) == match["sha256"]:
                return path
            _log.warning("Checkpoint %s is damaged; an earlier one is used.", artifact)
            self._prune([artifact])
        return None

    def remove_all(self) -> None:
        """Delete every checkpoint: the job is completed and has no use for them."""
        self._jobs.set_tags(self._job_id, {Tag.CHECKPOINT: ""})
        self._prune(self._stored())

    def _stored(self) -> list[str]:
        found = self._jobs.list_artifacts(self._job_id, _FOLDER)
        return sorted(path for path in found if _NAME.fullmatch(PurePosixPath(path).name))

    def _prune(self, artifacts: list[str]) -> None:
        for artifact in artifacts:
            try:
                self._jobs.delete_artifact(self._job_id, artifact)
            except StoreError as error:
                _log.warning("Checkpoint %s cannot be deleted: %s", artifact, error)


class RunWriter:
    """Buffers points, the newest checkpoint and the log, and writes them when they are due.

    Nothing that the store did not take is dropped: it is tried again, ever more slowly. An
    attempt after the first one skips the points that earlier ones have written.

    Args:
        jobs: the store.
        job_id: the job.
        attempt: the attempt that writes.
        log: this worker's log.
        clock: tells the time.
    """

    def __init__(
        self, jobs: JobStore, job_id: str, attempt: int, log: WorkerLog, clock: Clock
    ) -> None:
        self._jobs = jobs
        self._job_id = job_id
        self._attempt = attempt
        self._log_file = log
        self._clock = clock
        self._checkpoints = Checkpoints(jobs, job_id, attempt)
        self._points: list[Point] = []
        self._last_steps: dict[str, int] = {}
        self._checkpoint: tuple[Path, int] | None = None
        self._timesteps = self._written_timesteps = 0
        self._seconds = self._written_seconds = 0.0
        self._next_points = 0.0
        self._next_log = 0.0
        self._pause = 0.1

    def continue_at(self, timesteps: int, seconds: float) -> None:
        """Earlier attempts have got this far: progress is not written until it is more."""
        self._timesteps = self._written_timesteps = timesteps
        self._seconds = self._written_seconds = seconds

    def add(self, points: list[Point], timesteps: int, seconds: float) -> None:
        """Take points, each key's in order of its steps, the progress made and the time taken."""
        self._points += points
        self._timesteps = max(self._timesteps, timesteps)
        self._seconds = max(self._seconds, seconds)

    def add_checkpoint(self, path: Path, timesteps: int) -> None:
        """Take a local checkpoint file; one that waits still is replaced."""
        if self._checkpoint is not None and self._checkpoint[0] != path:
            self._checkpoint[0].unlink(missing_ok=True)
        self._checkpoint = (path, timesteps)

    def seconds_until_due(self) -> float:
        """Seconds until `write_due` has something to do."""
        has_work = self._points or self._checkpoint or self._timesteps > self._written_timesteps
        due = min(self._next_points, self._next_log) if has_work else self._next_log
        return max(0.0, due - self._clock.now())

    def write_due(self) -> None:
        """Write what is due; while the store is away, only remember to try again.

        Raises:
            StoreError: the store refused.
        """
        now = self._clock.now()
        try:
            if now >= self._next_points:
                self._next_points = now + _POINTS_SECONDS
                self.flush()
            if now >= self._next_log:
                self._next_log = now + _LOG_SECONDS
                self._log_file.upload(self._jobs, self._job_id)
            self._pause = 0.1
        except (StoreUnavailableError, OSError) as error:
            _log.warning("The run cannot be written now: %s", error)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
            self._next_points = self._next_log = self._clock.now() + self._pause

    def flush(self) -> None:
        """Write all points, then the checkpoint that relies on them.

        Raises:
            StoreError: the store refused, or is away; what was not written is kept.
        """
        points = self._unwritten()
        timesteps, seconds = self._timesteps, self._seconds
        if points or timesteps > self._written_timesteps or seconds > self._written_seconds:
            tags = {Tag.TIMESTEPS: str(timesteps), Tag.SECONDS: f"{seconds:.3f}"}
            self._jobs.log_points(self._job_id, points, tags)
        self._points = []
        self._written_timesteps, self._written_seconds = timesteps, seconds
        if self._checkpoint is not None:
            path, timesteps = self._checkpoint
            self._checkpoints.save(path, timesteps)
            self._checkpoint = None
            _log.info("Checkpoint at %s timesteps.", f"{timesteps:,}")

    def _unwritten(self) -> list[Point]:
        if self._attempt > 1:
            unknown = {point.key for point in self._points} - self._last_steps.keys()
            if unknown:
                found = self._jobs.last_steps(self._job_id, unknown)
                self._last_steps |= {key: found.get(key, -1) for key in unknown}
        return [p for p in self._points if p.step > self._last_steps.get(p.key, -1)]


class Progress:
    """Logs the progress now and then.

    Args:
        total_timesteps: budget of the job.
        foreground: someone watches: say it more often.
    """

    def __init__(self, total_timesteps: int, *, foreground: bool) -> None:
        self._total = total_timesteps
        self._pause = _FOREGROUND_PROGRESS_SECONDS if foreground else _PROGRESS_SECONDS
        self._next = 0.0
        self._return: float | None = None

    def show(self, points: Sequence[Point], timesteps: int) -> None:
        """Take what the trainer reported."""
        for point in points:
            if point.key == Metric.EPISODE_RETURN:
                self._return = point.value
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._pause
            _log.info("%s", self._line(timesteps))

    def summary(self, done: Mapping[str, Any]) -> str:
        """What the trainer's last message says."""
        found = done["evaluation"]
        return (
            f"{self._line(done['timesteps'])}; greedy return, {len(found['returns'])} episodes: "
            f"mean {found['mean']:.1f}, 95 % interval "
            f"{found['ci_low']:.1f} to {found['ci_high']:.1f}"
        )

    def _line(self, timesteps: int) -> str:
        share = f"{timesteps:,} of {self._total:,} timesteps ({timesteps / self._total:.0%})"
        return share if self._return is None else f"{share}, mean return {self._return:.1f}"
