"""Artifacts of a run: written, read back and verified, deleted, and never in a root made anew.

A volume that is not mounted looks like an empty folder, or like none, which MLflow would make:
what a user was told is saved would lie in another tree than what came before. So the folder of the
jobs' experiment holds a marker whose text the experiment knows, and whoever reads or writes an
artifact looks for it first, and holds the root open meanwhile.
"""

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Protocol, cast

from mlflow.entities import Experiment, FileInfo
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from grpo_platform.core.errors import StoreError, StoreGoneError, StoreUnavailableError
from grpo_platform.core.names import EXPERIMENT, Tag
from grpo_platform.tracking.exceptions import retrying, when_granted
from grpo_platform.tracking.locations import local_path

__all__ = [
    "MARKER",
    "ArtifactGuard",
    "RunFiles",
    "adopt_artifacts",
    "file_sha256",
    "mark_artifacts",
    "require_marker",
]

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


_CHUNK: Final = 1 << 20
_MAX_REPOSITORIES: Final = 256
_MOVED: Final = "outside the artifact directory"
"""MLflow says so where its root was moved between two of its looks: our paths lead nowhere else."""


class _Repository(Protocol):
    """The part of MLflow's ArtifactRepository that is used here, with types."""

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None: ...
    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None: ...
    def _download_file(self, remote_file_path: str, local_path: str) -> None: ...
    def _create_download_destination(self, src_artifact_path: str, dst_local_dir_path: str) -> str:
        """Refuses a path that leads out of the folder; makes the folders that it needs."""

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]: ...
    def delete_artifacts(self, artifact_path: str | None = None) -> None: ...


class RunFiles:
    """The artifacts of runs, each named by the run's artifact URI.

    Args:
        tracking_uri: of the store; `mlflow-artifacts:` locations go through it.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri
        self._guard = ArtifactGuard(tracking_uri)
        self._repositories: dict[str, _Repository] = {}

    def upload(self, artifact_uri: str, source: Path, folder: str, *, verify: bool) -> str:
        """Store a file; with `verify`, read it back and compare.

        Args:
            artifact_uri: of the run.
            source: the file.
            folder: artifact folder that receives it; empty for the top.
            verify: compare the SHA-256 of what is stored with the source's.

        Returns:
            Its artifact path.

        Raises:
            StoreUnavailableError: the place for artifacts is away or full.
            StoreError: what is stored differs from the source.
        """
        path = str(PurePosixPath(folder) / source.name)
        with self._repository(artifact_uri) as (repository, location):
            retrying(lambda: repository.log_artifact(str(source), folder or None))
            if verify and self._stored_sha256(location, path) != file_sha256(source):
                raise StoreError(f"{path} was stored damaged; is the disk full?")
        return path

    def upload_folder(self, artifact_uri: str, source: Path) -> None:
        """Store all files of a folder, at the top.

        Raises:
            StoreUnavailableError: the place for artifacts is away or full.
        """
        with self._repository(artifact_uri) as (repository, _):
            retrying(lambda: repository.log_artifacts(str(source)))

    def download(self, artifact_uri: str, path: str, destination: Path) -> Path:
        """Fetch a file or folder below `destination`, an existing directory.

        Raises:
            StoreUnavailableError: the place for artifacts is away.
            StoreError: there is no such artifact.
        """
        with self._repository(artifact_uri) as (repository, _):
            retrying(lambda: _fetch(repository, path, destination))
        return destination / path

    def names(self, artifact_uri: str, folder: str = "") -> list[str]:
        """Artifact paths of the files and folders directly in a folder, sorted."""
        with self._repository(artifact_uri) as (repository, _):
            return sorted(info.path for info in _listed(repository, folder))

    def sizes(self, artifact_uri: str, most: int = 1000) -> dict[str, int]:
        """Bytes of every file, by artifact path; of `most` files and some at least."""
        found = dict[str, int]()
        with self._repository(artifact_uri) as (repository, _):
            for file in _files(repository, ""):
                if len(found) > most:
                    break
                found[file.path] = file.file_size or 0
        return found

    def delete(self, artifact_uri: str, path: str | None = None) -> None:
        """Delete one artifact, or all of a run's; what does not exist is fine."""
        with self._repository(artifact_uri) as (repository, location):
            if path is not None and path not in self.names(artifact_uri, _parent(path)):
                return
            retrying(lambda: repository.delete_artifacts(path))
            if path is None and (folder := local_path(location)):
                with contextlib.suppress(OSError):  # not empty: something else lies there
                    folder.parent.rmdir()

    def require(self, artifact_uri: str) -> None:
        """Refuse a location whose root is away: nothing is read, made or deleted there.

        Raises:
            StoreGoneError: it is not where it was.
        """
        self._guard.require(artifact_uri)

    def require_writable(self) -> None:
        """Refuse a root that takes no files, where it is a folder of this machine.

        Raises:
            StoreUnavailableError: it is away, full, or not to be written.
        """
        with _file_errors():
            self._guard.require_writable()

    def _stored_sha256(self, location: str, path: str) -> str:
        folder = local_path(location)
        if folder is not None and (folder / path).is_file():
            with (folder / path).open("rb") as stored:
                os.fsync(stored.fileno())  # a checkpoint must outlive a power cut
            return file_sha256(folder / path)
        with tempfile.TemporaryDirectory() as scratch:
            return file_sha256(self.download(location, path, Path(scratch)))

    @contextlib.contextmanager
    def _repository(self, artifact_uri: str) -> Iterator[tuple[_Repository, str]]:
        """What reads and writes a location, and the location as it is held meanwhile."""
        with _file_errors(), self._guard.held(artifact_uri) as location:
            repository = self._repositories.get(location)
            if repository is None:
                repository = cast(
                    _Repository, get_artifact_repository(location, tracking_uri=self._tracking_uri)
                )
                if location == artifact_uri:  # a connection, which is worth keeping
                    if len(self._repositories) >= _MAX_REPOSITORIES:
                        self._repositories.clear()
                    self._repositories[location] = repository
            try:
                yield repository, location
            except FileNotFoundError:
                self.require(artifact_uri)  # the root itself may be what is missing
                raise
            except StoreError as error:
                if _MOVED not in str(error.__cause__):  # all of it: of ours, one line is enough
                    raise
                raise StoreUnavailableError("The artifacts are being moved; try again.") from error


def _listed(repository: _Repository, folder: str) -> list[FileInfo]:
    return retrying(lambda: repository.list_artifacts(folder or None))


def _files(repository: _Repository, folder: str) -> Iterator[FileInfo]:
    """Every file in a folder and below."""
    for info in _listed(repository, folder):
        if info.is_dir:
            yield from _files(repository, info.path)
        else:
            yield info


def _fetch(repository: _Repository, path: str, destination: Path) -> None:
    """Fetch one file after the other: of several at once, MLflow tells no failure's cause."""
    found = [file.path for file in _files(repository, path)] or ([path] if path else [])
    for name in found:
        target = repository._create_download_destination(name, str(destination))
        repository._download_file(name, target)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _parent(path: str) -> str:
    parent = str(PurePosixPath(path).parent)
    return "" if parent == "." else parent


@contextlib.contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, FileNotFoundError):
            raise StoreError(f"No such artifact: {error}") from error
        raise StoreUnavailableError(f"Artifacts cannot be read or written now: {error}") from error
