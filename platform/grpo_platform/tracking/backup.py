"""A sqlite store copied whole, database and artifacts, while it is in use; and put back.

A backup is a folder: `mlflow.db`, what sqlite's own backup made of the database; `artifacts/<n>/`,
the folders that its experiments name; and `manifest.json`, with the SHA-256 of every file. The
database is copied first, so that no version in it lacks its files.
"""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from grpo_platform.core.errors import InvalidRequestError, StoreError
from grpo_platform.core.names import Tag
from grpo_platform.tracking.exceptions import DAMAGED
from grpo_platform.tracking.files import file_sha256
from grpo_platform.tracking.locations import local_path, require_marker, sqlite_path
from grpo_platform.tracking.locks import alone, prove_unused

__all__ = ["Manifest", "RestoredStore", "back_up_store", "copy_database", "restore_store"]

_FORMAT: Final = 1
_DATABASE: Final = "mlflow.db"
_MANIFEST: Final = "manifest.json"
_ARTIFACTS: Final = "artifacts"
_CHUNK: Final = 1 << 20
_UNFINISHED: Final = ".artifact.uploading."
"""How MLflow's own files begin that are not whole yet."""


_MARKED: Final = (
    "SELECT artifact_location, value FROM experiments"
    " JOIN experiment_tags USING (experiment_id) WHERE key = ?"
)


class Manifest(BaseModel):
    """What a backup holds, and where it came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    made_at: datetime
    platform: str
    """Version of grpo-platform that made it."""

    database: str
    """Path of the database that was copied; a backup goes back to where it came from."""

    artifacts: tuple[str, ...]
    """Paths of the folders under `artifacts/0`, `artifacts/1`, …"""

    files: dict[str, str]
    """SHA-256 of each file, by its path in the backup."""

    missing: tuple[str, ...]
    """Models in the database whose files were not there to be copied."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoredStore:
    """What `restore_store` put in place."""

    manifest: Manifest
    kept: tuple[Path, ...]
    """What was there before, under its new name."""


def back_up_store(uri: str, target: Path) -> Manifest:
    """Copy a store, in use or not, into a new folder.

    Args:
        uri: of the store, absolute.
        target: made; it appears as a whole or not at all.

    Raises:
        InvalidRequestError: the store is no sqlite file, or there is something at the target.
        StoreError: database or artifacts cannot be copied whole.
    """
    database = _database_of(uri)
    target = target.absolute()
    if target.exists():
        raise InvalidRequestError(f"{target} exists already: name a folder that is to be made.")
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700, parents=True)  # it holds all that the store does
        manifest = _fill(database, unfinished)
        unfinished.rename(target)
    except OSError as error:
        raise StoreError(f"The backup cannot be written to {target}: {error}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


def restore_store(uri: str, source: Path) -> RestoredStore:
    """Put a backup in the place of its store; what is there now is kept under another name.

    Args:
        uri: of the store, absolute.
        source: the backup's folder.

    Raises:
        InvalidRequestError: this is no backup, or one of another store.
        ConflictError: a server, a job or an MLflow UI uses the store.
        StoreError: the backup is damaged, or there is no room.
    """
    database = _database_of(uri)
    manifest = _read_manifest(source)
    if manifest.database != str(database):
        raise InvalidRequestError(
            f"This is a backup of {manifest.database}, not of {database}, and artifact locations "
            f"are absolute: restore it from {Path(manifest.database).parent}."
        )
    _verify(source, manifest)
    suffix = f"before-restore-{time.strftime('%Y%m%d-%H%M%S')}"
    folders = [Path(path) for path in manifest.artifacts]
    with contextlib.ExitStack() as stack:
        database.parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(alone(uri))
        _prove_unused(database, folders)
        try:
            staged = _stage(source, database, folders, stack)
            kept = _swap(staged, database, suffix)
        except OSError as error:
            raise StoreError(f"The backup cannot be put in place: {error}.") from error
    return RestoredStore(manifest=manifest, kept=tuple(kept))


def copy_database(path: Path, copy: Path) -> None:
    """A consistent copy of a sqlite database, which may be in use.

    Raises:
        StoreError: the copy cannot be written, or what was copied is damaged.
    """
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            (found,) = target.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        copy.unlink(missing_ok=True)
        raise StoreError(f"The database {path} cannot be copied to {copy}: {error}.") from error
    if found != "ok":
        copy.unlink()
        raise StoreError(DAMAGED.format(found))


def _database_of(uri: str) -> Path:
    if not uri.startswith("sqlite:"):
        raise InvalidRequestError(
            "Only a sqlite store is copied by this command. Of PostgreSQL, use pg_dump, then copy "
            "the artifact root; of an MLflow server, back up its database and artifacts there."
        )
    return sqlite_path(uri)


# --- back up -----------------------------------------------------------------------------------


def _fill(database: Path, folder: Path) -> Manifest:
    if not database.exists():
        raise StoreError(f"There is no database {database}: call this where mlflow.db is.")
    copy_database(database, folder / _DATABASE)
    os.chmod(folder / _DATABASE, 0o600)
    locations, models = _locations(folder / _DATABASE)
    files = {_DATABASE: file_sha256(folder / _DATABASE)}
    for number, path in enumerate(locations):
        if folder.is_relative_to(path):
            raise InvalidRequestError(f"The backup would lie in what it copies, {path}.")
        copied = f"{_ARTIFACTS}/{number}"
        for name, digest in _copy_tree(path, folder / copied):
            files[f"{copied}/{name}"] = digest
    manifest = Manifest(
        format=_FORMAT,
        made_at=datetime.now(UTC),
        platform=version("grpo-platform"),
        database=str(database),
        artifacts=tuple(str(path) for path in locations),
        files=files,
        missing=tuple(str(path) for path in models if not path.exists()),
    )
    _write(folder / _MANIFEST, manifest.model_dump_json(indent=1))
    return manifest


def _locations(copy: Path) -> tuple[list[Path], list[Path]]:
    """Folders of the experiments, none within another; and of the models."""
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        marked = connection.execute(_MARKED, [Tag.ARTIFACTS]).fetchall()
        experiments = _paths(connection, "SELECT artifact_location FROM experiments")
        models = _paths(
            connection,
            "SELECT artifact_location FROM logged_models"
            " WHERE lifecycle_stage = 'active' AND status = 2",  # LoggedModelStatus.READY
        )
    for location, identity in marked:
        require_marker(local_path(location) or copy, identity)
    outermost: list[Path] = []
    for path in experiments:
        if not any(path.is_relative_to(outer) for outer in outermost):
            outermost.append(path)
    return [path for path in outermost if path.is_dir()], models


def _paths(connection: sqlite3.Connection, query: str) -> list[Path]:
    found = (local_path(location) for (location,) in connection.execute(query))
    return sorted({path for path in found if path is not None})


def _copy_tree(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    """Copy regular files; yields the relative name and SHA-256 of each.

    What a job deletes meanwhile, such as an older checkpoint, is left out.
    """
    for folder, _, names in os.walk(source):
        for name in names:
            path = Path(folder, name)
            if name.startswith(_UNFINISHED) or path.is_symlink():
                continue
            relative = path.relative_to(source)
            with contextlib.suppress(FileNotFoundError):
                yield str(PurePosixPath(relative)), _copy(path, target / relative)


def _copy(source: Path, target: Path) -> str:
    """Copy one file, for this account only; returns its SHA-256."""
    with source.open("rb") as reader:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as writer:
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
                writer.write(chunk)
    return digest.hexdigest()


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


# --- restore -----------------------------------------------------------------------------------


def _read_manifest(source: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json((source / _MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidRequestError(
            f"{source} is no backup of `grpo-platform store backup`: {_MANIFEST} is not there or "
            "not whole."
        ) from error
    if manifest.format != _FORMAT:
        raise InvalidRequestError(f"{source} was made by a newer grpo-platform: use that one.")
    return manifest


def _verify(source: Path, manifest: Manifest) -> None:
    for name, digest in manifest.files.items():
        path = source / name
        if not path.resolve().is_relative_to(source.resolve()):
            raise InvalidRequestError(f"{source} is no backup: it names {name}.")
        try:
            found = file_sha256(path)
        except OSError as error:
            raise StoreError(f"The backup is damaged: {name} cannot be read ({error}).") from error
        if found != digest:
            raise StoreError(f"The backup is damaged: {name} is not what was copied.")


def _prove_unused(database: Path, folders: Sequence[Path]) -> None:
    for folder in folders:
        prove_unused(folder)
    try:
        if database.exists():
            prove_unused(database)
    except sqlite3.DatabaseError:
        pass  # damaged, which is why there is a restore; the folders' locks told who is there


def _stage(
    source: Path, database: Path, folders: Sequence[Path], stack: contextlib.ExitStack
) -> dict[Path, Path]:
    """Copy all of it beside where it belongs: what takes time, and may fail, changes nothing."""
    staged = {path: path.with_name(f".{path.name}.restoring") for path in [*folders, database]}
    for copy in staged.values():
        stack.callback(shutil.rmtree, copy, ignore_errors=True)
        shutil.rmtree(copy, ignore_errors=True)
        copy.unlink(missing_ok=True)
    for number, folder in enumerate(folders):
        folder.parent.mkdir(parents=True, exist_ok=True)
        copied = source / _ARTIFACTS / str(number)
        if copied.is_dir():
            shutil.copytree(copied, staged[folder], copy_function=shutil.copyfile)
        else:
            staged[folder].mkdir()  # it held no file
    shutil.copyfile(source / _DATABASE, staged[database])
    with staged[database].open("rb") as file:
        os.fsync(file.fileno())
    return staged


def _swap(staged: dict[Path, Path], database: Path, suffix: str) -> list[Path]:
    """Put the copies in place, the database last; returns what was there, renamed."""
    kept = []
    for path, copy in staged.items():
        aside = path.with_name(f"{path.name}.{suffix}")
        if path == database:
            # a log left by a crash is the old database's: beside the new one it would destroy it
            for end in ("-wal", "-shm", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
        if path.exists():
            path.rename(aside)
            kept.append(aside)
        copy.rename(path)
    return kept
