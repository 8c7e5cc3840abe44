"""A sqlite database that vanishes while it is in use is away, and never made anew.

sqlite makes a file that is not there, and goes on writing to one that was deleted: both would lose
what a user was told is saved. So each connection of this process to a database that was there once
is opened without leave to create it, and one whose file is not that of the path any more is closed.
"""

import os
import sqlite3
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Dialect, Engine, Pool, event, exc

from grpo_platform.core.errors import StoreGoneError
from grpo_platform.tracking.locations import sqlite_argument_path, sqlite_path

__all__ = ["require_database"]

_required: Final[set[str]] = set()
_IDENTITY: Final = "grpo.database"


def require_database(tracking_uri: str) -> None:
    """Refuse a sqlite file that is not there, now and at each later connection of this process.

    Raises:
        StoreGoneError: it vanished, be it for a moment (a mount that is away).
    """
    if not tracking_uri.startswith("sqlite:"):
        return
    path = sqlite_path(tracking_uri).absolute()
    if not path.exists():
        raise _gone(path)
    _required.add(str(path))


@event.listens_for(Engine, "do_connect")
def _connect(
    dialect: Dialect, _record: object, arguments: list[Any], options: dict[str, Any]
) -> sqlite3.Connection | None:
    if dialect.name != "sqlite" or not arguments:
        return None
    path = sqlite_argument_path(arguments[0], is_uri=bool(options.get("uri")))
    if str(path) not in _required:
        return None
    if not path.exists():
        raise _gone(path)
    existing = f"file:{quote(str(path))}?mode=rw"
    connection: sqlite3.Connection = sqlite3.connect(existing, **(options | {"uri": True}))
    return connection


@event.listens_for(Pool, "connect")
def _remember(connection: Any, record: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own
    if not isinstance(connection, sqlite3.Connection):
        return
    path = next((row[2] for row in connection.execute("PRAGMA database_list")), "")
    if path:
        record.info[_IDENTITY] = (path, _identity(path))


@event.listens_for(Pool, "checkout")
def _verify(_connection: object, record: Any, _proxy: object) -> None:  # noqa: ANN401
    path, identity = record.info.get(_IDENTITY, ("", None))
    if path in _required and _identity(path) != identity:
        raise exc.DisconnectionError(f"{path} is not the file that it was.")


def _gone(path: Path) -> StoreGoneError:
    return StoreGoneError(
        f"The database {path} is gone. Put it back there, and all goes on; if it is lost, stop the "
        "server and use `grpo-platform store restore`, or start again with an empty one."
    )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
