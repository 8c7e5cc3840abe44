"""Where a path becomes a URI, and a URI a path: the one place that knows what must be quoted.

A folder may have any name. In a URI `%`, `?` and `#` mean something, and each of SQLAlchemy, sqlite
and MLflow reads another part of it.
"""

from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import sqlalchemy
from mlflow.utils.file_utils import local_file_uri_to_path

__all__ = ["local_path", "sqlite_argument_path", "sqlite_path", "sqlite_uri"]

_QUOTED: Final = frozenset("%?")
"""What SQLAlchemy does not take as it is in the path of a database."""


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
