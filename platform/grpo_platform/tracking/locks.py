"""One process at a time prepares or upgrades a database: two that migrate break each other."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import Final

import sqlalchemy

from grpo_platform.tracking.boundary import store_errors
from grpo_platform.tracking.locations import sqlite_path

__all__ = ["alone"]

_POSTGRESQL_KEY: Final = 0x6772706F
"""Of PostgreSQL's advisory lock ("grpo" in ASCII)."""


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


@contextlib.contextmanager
def _file_lock(uri: str) -> Iterator[None]:
    # on the database's own folder: processes may differ in all else, as in TMPDIR
    folder = sqlite_path(uri).absolute().parent
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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
