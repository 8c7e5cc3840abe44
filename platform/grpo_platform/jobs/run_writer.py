"""What one attempt writes to its run, in a safe order: points, checkpoints, and what it printed."""

import contextlib
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from grpo_platform.core.errors import StoreError, StoreUnavailableError
from grpo_platform.core.names import Metric, Tag
from grpo_platform.jobs.lease import Clock
from grpo_platform.jobs.resources import temporary_folder
from grpo_platform.jobs.serialization import verdict_from_json
from grpo_platform.tracking.files import file_sha256
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.reporter import Point

__all__ = [
    "LOG_ARTIFACT",
    "Checkpoints",
    "Progress",
    "RunWriter",
    "WorkerLog",
    "add_line",
    "read_log",
]

_log = logging.getLogger(__name__)

LOG_ARTIFACT: Final = "logs/worker.log"
_LOG_BYTES: Final = 1 << 20
_DROPPED: Final = b"[earlier lines were dropped]\n"
_CHECKPOINT_FOLDER: Final = "checkpoints"
_CHECKPOINTS_BEFORE: Final = 1  # beside the newest, in case that one is damaged
_CHECKPOINT_NAME: Final = re.compile(r"\d{12}-(?P<attempt>\d+)-(?P<sha256>[0-9a-f]{64})\.npz")
_POINTS_SECONDS: Final = 0.7
_LOG_SECONDS: Final = 2.0
_LONGEST_PAUSE_SECONDS: Final = 5.0
_PROGRESS_SECONDS: Final = 10.0
_FOREGROUND_PROGRESS_SECONDS: Final = 1.0


class WorkerLog:
    """The log file of this process and of those that it forks.

    An environment may print at every step: only the last mebibyte is kept.

    Args:
        folder: existing local directory for the file.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "worker.log"
        # read by its descriptor, which outlives a folder that somebody removes
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._earlier = b""
        self._uploaded_size = -1

    def take_output(self) -> None:
        """Send this process's standard output and error there, and its log records."""
        for standard, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            os.dup2(self._file, standard)
            stream.reconfigure(  # type: ignore[union-attr]
                encoding="utf-8", errors="backslashreplace", line_buffering=True
            )
        _handle_alone(logging.StreamHandler(sys.stderr))

    def take_records(self) -> None:
        """Write this process's log records there, and print them."""
        _handle_alone(
            logging.FileHandler(self._path, encoding="utf-8"), logging.StreamHandler(sys.stdout)
        )

    @contextlib.contextmanager
    def taking_records_of(self, threads: str) -> Iterator[None]:
        """Write log records of some threads there too, in a process that has others; then close.

        Args:
            threads: how the names of these threads begin.
        """
        handler = logging.FileHandler(self._path, encoding="utf-8")
        handler.setFormatter(_formatter())
        handler.addFilter(lambda record: (record.threadName or "").startswith(threads))
        levels = [(ours, ours.level) for ours in _loggers()]
        for ours, _ in levels:
            ours.addHandler(handler)
            ours.setLevel(logging.INFO)
        try:
            yield
        finally:
            for ours, level in levels:
                ours.removeHandler(handler)
                ours.setLevel(level)
            handler.close()
            os.close(self._file)

    def continue_earlier(self, jobs: JobStore, job_id: str) -> None:
        """Put the log of earlier attempts before this one's."""
        self._earlier = read_log(jobs, job_id)

    def upload(self, jobs: JobStore, job_id: str) -> None:
        """Store the log as an artifact, where it has changed.

        Raises:
            StoreError: the artifact cannot be written.
            OSError: the local disk is full.
        """
        self._shorten()
        data = self._read()
        if len(data) == self._uploaded_size:
            return
        _store(jobs, job_id, self._earlier + data)
        self._uploaded_size = len(data)

    def _shorten(self) -> None:
        if os.fstat(self._file).st_size > 4 * _LOG_BYTES:
            data = self._read()
            os.ftruncate(self._file, 0)  # writers append, so they go on at the new end
            os.write(self._file, _last(data))

    def _read(self) -> bytes:
        return os.pread(self._file, os.fstat(self._file).st_size, 0)


def _loggers() -> tuple[logging.Logger, logging.Logger]:
    return logging.getLogger("grpo"), logging.getLogger("grpo_platform")


def _formatter() -> logging.Formatter:
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s")
    formatter.converter = time.gmtime
    return formatter


def _handle_alone(*handlers: logging.Handler) -> None:
    """Send the log records of this process nowhere else."""
    for handler in handlers:
        handler.setFormatter(_formatter())
    for ours in _loggers():
        ours.handlers = list(handlers)
        ours.setLevel(logging.INFO)
        ours.propagate = False


def read_log(jobs: JobStore, job_id: str) -> bytes:
    """The log of a job as last stored, all attempts; empty while there is none.

    Raises:
        UnknownJobError: no such job.
        StoreUnavailableError: the store is away.
    """
    if LOG_ARTIFACT not in jobs.list_artifacts(job_id, str(Path(LOG_ARTIFACT).parent)):
        return b""
    with (
        tempfile.TemporaryDirectory(dir=temporary_folder()) as folder,
        jobs.download(job_id, LOG_ARTIFACT, Path(folder)).open("rb") as file,
    ):
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LOG_BYTES - 1))  # one more than is kept: it was longer
        return _last(file.read())


def add_line(jobs: JobStore, job_id: str, text: str) -> None:
    """Write into a job's log what its worker cannot say itself, such as what ended it.

    Raises:
        StoreError: the log cannot be read or written.
        OSError: there is no room for a temporary file.
    """
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())}Z WARNING {text}\n"
    _store(jobs, job_id, read_log(jobs, job_id) + line.encode())


def _store(jobs: JobStore, job_id: str, data: bytes) -> None:
    try:
        _store_once(jobs, job_id, data)
    except FileNotFoundError:  # the temporary folder was removed meanwhile
        _store_once(jobs, job_id, data)


def _store_once(jobs: JobStore, job_id: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=temporary_folder()) as folder:
        path = Path(folder) / Path(LOG_ARTIFACT).name
        path.write_bytes(_last(data))
        jobs.upload(job_id, path, str(Path(LOG_ARTIFACT).parent))


def _last(data: bytes) -> bytes:
    if len(data) <= _LOG_BYTES:
        return data
    return _DROPPED + data[-_LOG_BYTES:].partition(b"\n")[2]


class Checkpoints:
    """Reads and writes the checkpoints of one job: verified before they count, older ones pruned.

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
            artifact = self._jobs.upload(self._job_id, named, _CHECKPOINT_FOLDER, verify=True)
            self._jobs.set_tags(self._job_id, {Tag.CHECKPOINT: artifact})
        except StoreError:
            named.rename(path)  # so that the caller can try again
            raise
        named.unlink()
        self._prune([path for path in self._stored() if path != artifact][:-_CHECKPOINTS_BEFORE])

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
                path = self.fetch_one(artifact, folder)
            except StoreUnavailableError:
                raise
            except StoreError as error:
                _log.warning("Checkpoint %s cannot be read: %s", artifact, error)
                continue
            if path is not None:
                return path
            _log.warning("Checkpoint %s is damaged; an earlier one is used.", artifact)
            self._prune([artifact])
        return None

    def fetch_one(self, artifact: str, folder: Path) -> Path | None:
        """Download a checkpoint; None where it is not what was stored.

        Raises:
            StoreError: it cannot be read.
        """
        path = self._jobs.download(self._job_id, artifact, folder)
        match = _CHECKPOINT_NAME.fullmatch(PurePosixPath(artifact).name)
        return path if match and file_sha256(path) == match["sha256"] else None

    def remove_all(self) -> None:
        """Delete every checkpoint: the job is completed and has no use for them."""
        self._jobs.set_tags(self._job_id, {Tag.CHECKPOINT: ""})
        self._prune(self._stored())

    def _stored(self) -> list[str]:
        found = self._jobs.list_artifacts(self._job_id, _CHECKPOINT_FOLDER)
        return sorted(
            path for path in found if _CHECKPOINT_NAME.fullmatch(PurePosixPath(path).name)
        )

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
            f"{found['ci_low']:.1f} to {found['ci_high']:.1f}{_told(done['verdict'])}"
        )

    def _line(self, timesteps: int) -> str:
        share = f"{timesteps:,} of {self._total:,} timesteps ({timesteps / self._total:.0%})"
        return share if self._return is None else f"{share}, mean return {self._return:.1f}"


def _told(verdict: Mapping[str, Any] | None) -> str:
    return "" if verdict is None else f". {verdict_from_json(verdict).sentence}"
