"""Artifacts of a run: written, read back and verified, and deleted."""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, Protocol, cast

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from grpo_platform.core.errors import StoreError, StoreUnavailableError
from grpo_platform.tracking.exceptions import retrying
from grpo_platform.tracking.locations import ArtifactGuard, local_path

__all__ = ["RunFiles", "file_sha256"]

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

    Attributes:
        guard: knows whether their root is there.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri
        self.guard = ArtifactGuard(tracking_uri)
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
            FileNotFoundError: the source was taken away.
        """
        path = str(PurePosixPath(folder) / source.name)
        try:
            with self._repository(artifact_uri) as (repository, location):
                retrying(lambda: repository.log_artifact(str(source), folder or None))
                if verify and self._stored_sha256(location, path) != file_sha256(source):
                    raise StoreError(f"{path} was stored damaged; is the disk full?")
        except StoreError as error:
            if source.exists():
                raise
            missing = os.strerror(errno.ENOENT)
            raise FileNotFoundError(errno.ENOENT, missing, str(source)) from error
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
        with _file_errors(), self.guard.held(artifact_uri) as location:
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
                self.guard.require(artifact_uri)  # the root itself may be what is missing
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
