"""Who may have a store: servers share it; one process alone prepares, upgrades or restores it."""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import sqlalchemy

from grpo_platform.core.errors import ConflictError
from grpo_platform.tracking.exceptions import store_errors
from grpo_platform.tracking.locations import sqlite_path

__all__ = ["alone", "prove_unused", "share"]

_POSTGRESQL_KEY: Final = 0x6772706F
"""Of PostgreSQL's advisory lock ("grpo" in ASCII)."""

_shared: Final[list[int]] = []
"""Folders that this process shares; closed when it ends."""


@contextlib.contextmanager
def alone(uri: str) -> Iterator[None]:
    """Hold the lock of a database; it ends with this process.

    Args:
        uri: sqlite:///file, in a folder that exists, or postgresql://….

    Raises:
        StoreUnavailableError: the database cannot be reached.
    """
    with _file_lock(uri) if uri.startswith("sqlite:") else _advisory_lock(uri):
        yield


def share(folder: Path) -> None:
    """Say, until this process ends, that a server uses the artifacts in a folder."""
    _shared.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    fcntl.flock(_shared[-1], fcntl.LOCK_SH)


def prove_unused(path: Path) -> None:
    """Prove that no process has a sqlite database open, or shares a folder; none there is fine.

    Raises:
        ConflictError: one does.
        sqlite3.DatabaseError: the database is damaged, so nothing is proven.
    """
    try:
        if path.is_dir():
            with _opened(path) as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif path.exists():
            with contextlib.closing(sqlite3.connect(path, timeout=1.0)) as connection:
                # only who is alone may leave write-ahead mode
                connection.execute("PRAGMA journal_mode=DELETE")
    except (BlockingIOError, sqlite3.OperationalError) as error:
        raise ConflictError(
            f"{path} is in use: stop the server, its jobs and the MLflow UI first."
        ) from error


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def _file_lock(uri: str) -> Iterator[None]:
    # on the database's own folder: processes may differ in all else, as in TMPDIR
    with _opened(sqlite_path(uri).absolute().parent) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _advisory_lock(uri: str) -> Iterator[None]:
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    try:
        with store_errors():
            connection = engine.connect()
        with connection:
            with store_errors():
                connection.execute(
                    sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": _POSTGRESQL_KEY}
                )
            yield
    finally:
        engine.dispose()
