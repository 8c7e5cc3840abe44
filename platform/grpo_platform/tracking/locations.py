"""Paths and URIs, each made of the other; and a sqlite database that is not at its path any more.

This is the one place that knows what must be quoted: a folder may have any name. In a URI `%`, `?`
and `#` mean something, and each of SQLAlchemy, sqlite and MLflow reads another part of it.

sqlite makes a file that is not there, and goes on writing to one that was deleted: both would lose
what a user was told is saved. So each connection of this process to a database that was there once
is opened without leave to create it, and one whose file is not that of the path any more is closed.
"""

import os
import sqlite3
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import sqlalchemy
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy import Dialect, Engine, Pool, event, exc

from grpo_platform.core.errors import StoreGoneError

__all__ = ["local_path", "require_database", "sqlite_argument_path", "sqlite_path", "sqlite_uri"]

_QUOTED: Final = frozenset("%?")
"""What SQLAlchemy does not take as it is in the path of a database."""

_required: Final[set[str]] = set()
_IDENTITY: Final = "grpo.database"


def sqlite_uri(path: Path, query: str = "") -> str:
    """The URI under which SQLAlchemy and MLflow open a database file, and nothing else.

    Args:
        path: absolute; any name.
        query: options, as in a URI.
    """
    if not _QUOTED & set(str(path)):
        # as it is: MLflow makes the parent folder of the quoted spelling too, a stray one
        return f"sqlite:///{path}" + (f"?{query}" if query else "")
    # sqlite's own spelling inside SQLAlchemy's, with no "/" left for MLflow to make a folder of
    spelled = quote(quote(str(path)), safe="")
    return f"sqlite:///file:{spelled}?uri=true" + (f"&{query}" if query else "")


def sqlite_path(uri: str) -> Path:
    """The database file that a sqlite URI names; relative where the URI is.

    Args:
        uri: sqlite:///….
    """
    url = sqlalchemy.make_url(uri)
    return sqlite_argument_path(url.database or "", is_uri=bool(url.query.get("uri")))


def sqlite_argument_path(argument: str, *, is_uri: bool) -> Path:
    """The file that `sqlite3.connect(argument, uri=is_uri)` opens."""
    if is_uri and argument.startswith("file:"):
        return Path(unquote(urlsplit(argument).path))
    return Path(argument)


def local_path(uri: str) -> Path | None:
    """The folder of this machine that an artifact location names, as MLflow reads it.

    Returns:
        None where the location is not a path or `file:` URI.
    """
    if urlsplit(uri).scheme not in ("", "file"):
        return None
    path: str = local_file_uri_to_path(uri)  # type: ignore[no-untyped-call]
    return Path(path)


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
