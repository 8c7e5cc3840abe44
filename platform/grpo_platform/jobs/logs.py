"""A job's log: what its worker and trainer print, kept as an artifact of the run."""

import logging
import os
import sys
import tempfile
import time
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
        capture: send this process's standard output and error there; else only log records.
    """

    def __init__(self, folder: Path, *, capture: bool) -> None:
        path = folder / "worker.log"
        # read by its descriptor, which outlives a folder that somebody removes
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._earlier = b""
        self._uploaded_size = -1
        if capture:
            for standard, stream in ((1, sys.stdout), (2, sys.stderr)):
                stream.flush()
                os.dup2(self._file, standard)
                stream.reconfigure(  # type: ignore[union-attr]
                    encoding="utf-8", errors="backslashreplace", line_buffering=True
                )
            handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
        else:
            handlers = [
                logging.FileHandler(path, encoding="utf-8"),
                logging.StreamHandler(sys.stdout),
            ]
        formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s")
        formatter.converter = time.gmtime
        for handler in handlers:
            handler.setFormatter(formatter)
        for ours in (logging.getLogger("grpo"), logging.getLogger("grpo_platform")):
            ours.handlers = handlers
            ours.setLevel(logging.INFO)
            ours.propagate = False

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
