"""Paths and URIs, each made of the other; and a database or artifacts not at theirs any more.

This is the one place that knows what must be quoted: a folder may have any name. In a URI `%`, `?`
and `#` mean something, and each of SQLAlchemy, sqlite and MLflow reads another part of it.

sqlite makes a file that is not there, and goes on writing to one that was deleted: both would lose
what a user was told is saved. So each connection of this process to a database that was there once
is opened without leave to create it, and one whose file is not that of the path any more is closed.

A volume that is not mounted looks like an empty folder, or like none, which MLflow would make: new
artifacts would lie in another tree than what came before. So the folder of the jobs' experiment
holds a marker whose text the experiment knows, and whoever reads or writes an artifact looks for it
first, and holds the root open meanwhile.
"""

import contextlib
import os
import secrets
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import sqlalchemy
from mlflow.entities import Experiment
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy import Dialect, Engine, Pool, event, exc

from grpo_platform.core.errors import StoreError, StoreGoneError, StoreUnavailableError
from grpo_platform.core.names import EXPERIMENT, Tag
from grpo_platform.tracking.exceptions import retrying, when_granted

__all__ = [
    "MARKER",
    "ArtifactGuard",
    "adopt_artifacts",
    "local_path",
    "mark_artifacts",
    "require_database",
    "require_marker",
    "sqlite_argument_path",
    "sqlite_path",
    "sqlite_uri",
]

_QUOTED: Final = frozenset("%?")
"""What SQLAlchemy does not take as it is in the path of a database."""

MARKER: Final = ".grpo-store"
"""File in the folder of the jobs' experiment."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    folder: Path
    """Of the jobs' experiment; what lies beside it vanishes with it."""

    identity: str
    """Text of the marker."""


class ArtifactGuard:
    """Refuses artifacts of a store whose root is away.

    Args:
        tracking_uri: of the store; behind an MLflow server, artifacts are its own affair.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri
        self._place: _Place | None = None

    def require(self, artifact_uri: str) -> None:
        """Refuse a location that is away; one that is not of this machine's folders is fine.

        Raises:
            StoreGoneError: the root is away.
            StoreUnavailableError: the database is.
        """
        with self.held(artifact_uri):
            pass

    @contextlib.contextmanager
    def held(self, artifact_uri: str) -> Iterator[str]:
        """A location that stays what it is, even if the root is moved while it is being used.

        Its path goes through a descriptor of the root, so that who makes missing folders, as
        MLflow does, never makes the root. Yields the location itself where it is no folder of
        this machine, or the system has no /proc.

        Raises:
            StoreGoneError: the root is away.
            StoreUnavailableError: the database is.
        """
        path = local_path(artifact_uri)
        place = self._known() if path is not None else None
        if path is None or place is None or not path.is_relative_to(place.folder.parent):
            yield artifact_uri
            return
        root = place.folder.parent
        try:
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise StoreGoneError(_away(place.folder)) from error
        try:
            held = Path(f"/proc/self/fd/{descriptor}")
            if not held.exists():
                held = root
            if _read(held / place.folder.name) != place.identity:
                raise StoreGoneError(_away(place.folder))
            yield (held / path.relative_to(root)).as_uri()
        finally:
            os.close(descriptor)

    def require_writable(self) -> None:
        """Refuse a root that is away or takes no files, by writing one.

        Raises:
            StoreGoneError: it is away.
            StoreUnavailableError: it takes no files, or the database is away.
        """
        place = self._known()
        if place is None:
            return
        try:
            with (
                self.held(place.folder.as_uri()) as location,
                tempfile.TemporaryFile(dir=local_path(location)) as probe,
            ):
                probe.write(b"\0" * 4096)
        except OSError as error:
            raise StoreUnavailableError(f"Artifacts cannot be written now: {error}") from error

    def _known(self) -> _Place | None:
        if self._place is None and not self._tracking_uri.startswith("http"):
            client = MlflowClient(tracking_uri=self._tracking_uri)
            found = retrying(lambda: client.get_experiment_by_name(EXPERIMENT))
            self._place = _place_of(found) if found is not None else None
        return self._place


def require_marker(folder: Path, identity: str) -> None:
    """Refuse a folder of the jobs' experiment whose marker is not there, or is another store's.

    Raises:
        StoreGoneError: the folder is away.
    """
    if _read(folder) != identity:
        raise StoreGoneError(_away(folder))


def mark_artifacts(
    client: MlflowClient, experiment: Experiment, make: Callable[[Path], None]
) -> None:
    """At the start of a server: see that the root is the store's, or make it so the first time.

    Args:
        client: of the store.
        experiment: the jobs'.
        make: makes its folder, or refuses one that cannot be used; called the first time only.

    Raises:
        StoreGoneError: the root is away.
    """
    folder = local_path(experiment.artifact_location)
    if folder is None:
        return
    place = _place_of(experiment)
    if place is None:
        make(folder)
        identity = _read(folder) or _write(folder, secrets.token_hex(16))
        made = experiment.experiment_id
        when_granted(lambda: client.set_experiment_tag(made, Tag.ARTIFACTS, identity))
    elif _read(folder) != place.identity:
        raise StoreGoneError(
            f"{_away(folder)} If the whole directory was moved, move it back, or link the old path "
            "to the new one. If the files are lost for good, go on without them: grpo-platform "
            "store adopt"
        )


def adopt_artifacts(tracking_uri: str) -> Path:
    """Take the artifact root as it is now for the store's, whatever is missing in it.

    Returns:
        The folder of the jobs' experiment.

    Raises:
        StoreError: no server ever started on this store, or its artifacts are no local folder.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    experiment = retrying(lambda: client.get_experiment_by_name(EXPERIMENT))
    place = _place_of(experiment) if experiment is not None else None
    if place is None:
        raise StoreError("There is nothing to adopt: start the server, which says what it misses.")
    place.folder.mkdir(parents=True, exist_ok=True)
    _write(place.folder, place.identity)
    return place.folder


def _place_of(experiment: Experiment) -> _Place | None:
    folder = local_path(experiment.artifact_location)
    identity = experiment.tags.get(Tag.ARTIFACTS)
    return None if folder is None or not identity else _Place(folder=folder, identity=identity)


def _read(folder: Path) -> str | None:
    try:
        return (folder / MARKER).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _write(folder: Path, identity: str) -> str:
    """Write the marker as a whole, and so that it outlives a power cut."""
    written = folder / f"{MARKER}.{os.getpid()}"
    with written.open("w", encoding="ascii") as file:
        file.write(f"{identity}\n")
        file.flush()
        os.fsync(file.fileno())
    written.replace(folder / MARKER)
    return identity


def _away(folder: Path) -> str:
    return (
        f"The artifacts of this store are not at {folder}: is a volume not mounted, or was the "
        "folder moved? Once it is there again, all goes on; nothing new is made meanwhile."
    )
