"""A job's log: what its worker and trainer print, kept as an artifact of the run."""

import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from grpo_platform.jobs.workdir import temporary_folder
from grpo_platform.tracking.jobs import JobStore

__all__ = ["LOG_ARTIFACT", "WorkerLog", "add_line", "read_log"]

LOG_ARTIFACT: Final = "logs/worker.log"
_KEEP_BYTES: Final = 1 << 20
_DROPPED: Final = b"[earlier lines were dropped]\n"


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
        if os.fstat(self._file).st_size > 4 * _KEEP_BYTES:
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
        file.seek(max(0, size - _KEEP_BYTES - 1))  # one more than is kept: it was longer
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
    with tempfile.TemporaryDirectory(dir=temporary_folder()) as folder:
        path = Path(folder) / Path(LOG_ARTIFACT).name
        path.write_bytes(_last(data))
        jobs.upload(job_id, path, str(Path(LOG_ARTIFACT).parent))


def _last(data: bytes) -> bytes:
    if len(data) <= _KEEP_BYTES:
        return data
    return _DROPPED + data[-_KEEP_BYTES:].partition(b"\n")[2]
