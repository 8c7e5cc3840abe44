"""An artifact root that vanishes while it is in use is away, and never made anew.

A volume that is not mounted looks like an empty folder, or like none, which MLflow would make:
what a user was told is saved would lie in another tree than what came before. So the folder of the
jobs' experiment holds a marker whose text the experiment knows, and whoever reads or writes an
artifact looks for it first, and holds the root open meanwhile.
"""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlflow.entities import Experiment
from mlflow.tracking import MlflowClient

from grpo_platform.core.errors import StoreError, StoreGoneError
from grpo_platform.core.names import EXPERIMENT, Tag
from grpo_platform.tracking.exceptions import retrying, when_granted
from grpo_platform.tracking.locations import local_path

__all__ = ["MARKER", "ArtifactGuard", "adopt_artifacts", "mark_artifacts", "require_marker"]

MARKER: Final = ".grpo-store"
"""File in the folder of the jobs' experiment."""


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
            OSError: it takes no files.
        """
        place = self._known()
        if place is not None:
            with (
                self.held(place.folder.as_uri()) as location,
                tempfile.TemporaryFile(dir=local_path(location)) as probe,
            ):
                probe.write(b"\0" * 4096)

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
