"""The MLflow store, prepared once before any other process opens it."""

import contextlib
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from mlflow.entities import Experiment
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient

from grpo_platform.core.errors import StoreError, StoreUnavailableError
from grpo_platform.core.names import EXPERIMENT, JOB_READY, Tag
from grpo_platform.core.settings import Settings, kind_of_store
from grpo_platform.tracking.addresses import (
    OLDER_SCHEMA,
    absolute_uri,
    probe_database,
)
from grpo_platform.tracking.exceptions import DAMAGED, store_errors, when_granted
from grpo_platform.tracking.experiments import ensure_experiment
from grpo_platform.tracking.locations import local_path, mark_artifacts, sqlite_path
from grpo_platform.tracking.locks import alone, share
from grpo_platform.tracking.provenance import code_version
from grpo_platform.tracking.schema import SchemaState, read_schema
from grpo_platform.tracking.ui_view import keep_view

__all__ = [
    "Store",
    "check_artifacts_reachable",
    "close_to_others",
    "configure_mlflow",
    "hold_store",
    "prepare_store",
]

_log = logging.getLogger(__name__)

_CREATION_SECONDS: Final = 600.0
"""After this time nobody is still creating a job that is half-created."""

_MISREAD: Final = frozenset("%?#")
"""What MLflow takes for more than a letter in a path that is no `file:` URI."""

_ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # MLflow's defaults block a call for minutes while its server is away
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # PostgreSQL's driver would wait for as long as the network does
    "PGCONNECT_TIMEOUT": "10",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """Where runs and artifacts are; small, and safe to hand to another process."""

    tracking_uri: str
    """Absolute: a child in another working directory reaches the same store."""

    experiment_id: str
    """Experiment in which the API creates jobs."""

    artifact_location: str
    """Of that experiment."""

    @property
    def is_local(self) -> bool:
        """Whether the store is a sqlite file."""
        return self.tracking_uri.startswith("sqlite:")


def configure_mlflow() -> None:
    """Set what this process and its children want of MLflow, unless the user set it.

    For every process that opens a store and is no child of one that did.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def prepare_store(settings: Settings) -> Store:
    """Create what is missing: database, WAL mode, experiment. Call it before any child starts.

    Args:
        settings: names the store; its relative paths are taken from the working directory.

    Raises:
        StoreUnavailableError: the store cannot be reached.
        StoreError: it cannot be used, with what to do.
    """
    configure_mlflow()
    code_version()  # of the code that runs from now on, whatever is checked out later
    kind = kind_of_store(settings.tracking_uri)
    uri = absolute_uri(settings.tracking_uri)
    if kind == "sqlite":
        return _prepare_sqlite(uri)
    if kind in ("http", "https"):
        return _prepare_experiment(uri, None)
    probe_database(uri)
    root = settings.artifact_root
    with alone(uri):
        return _prepare_database(uri, f"{_absolute_location(root)}/grpo" if root else None)


def close_to_others(store: Store) -> None:
    """Take from other accounts what an earlier start let them read of a sqlite store."""
    if not store.is_local:
        return  # who reads a database, or shares a folder, is its administrator's affair
    database, artifacts = sqlite_path(store.tracking_uri), local_path(store.artifact_location)
    files = [database, *(database.with_name(f"{database.name}-{s}") for s in ("wal", "shm"))]
    for path in [*files, Path.cwd() / "mlruns", *([artifacts] if artifacts else [])]:
        with contextlib.suppress(FileNotFoundError):
            rights = stat.S_IMODE(path.stat().st_mode)
            try:
                if rights & 0o077:
                    path.chmod(rights & 0o700)
            except PermissionError:
                _log.warning("Other accounts may read %s: it is not this one's to close.", path)


def hold_store(store: Store) -> None:
    """Say, until this process ends, that a server uses the store: none is restored under it."""
    folder = local_path(store.artifact_location)
    if store.is_local and folder is not None:
        share(folder)


def check_artifacts_reachable(tracking_uri: str, artifact_uri: str) -> None:
    """Refuse a run whose artifacts this process could not write.

    Raises:
        StoreError: the run keeps its artifacts behind an MLflow server that we do not talk to.
    """
    if _MISREAD & set(artifact_uri) and not urlsplit(artifact_uri).scheme:
        raise StoreError(
            f"This experiment keeps its artifacts in {artifact_uri}, a path that MLflow reads as "
            "a URI, so they would land elsewhere. Start the server here once, then use its "
            f"experiment: --experiment-name {EXPERIMENT}."
        )
    if artifact_uri.startswith("mlflow-artifacts:") and not tracking_uri.startswith("http"):
        raise StoreError(
            "This experiment was created by an `mlflow server` or `mlflow ui` that serves "
            "artifacts itself, so they cannot be written without it. Use another experiment "
            f"(--experiment-name {EXPERIMENT}), or set MLFLOW_TRACKING_URI to that server's "
            "address."
        )


def _prepare_sqlite(uri: str) -> Store:
    path = sqlite_path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    artifacts = Path.cwd() / "mlruns"
    with alone(uri):
        _write_ahead(path)
        if read_schema(uri).state is SchemaState.EMPTY:
            _create_tables(uri, artifacts.as_uri())
        store = _prepare_database(uri, f"{artifacts.as_uri()}/{EXPERIMENT}")
        _analyze(path)
    return store


def _create_tables(uri: str, artifact_root: str) -> None:
    """Make the database; left to its client, MLflow would give experiment 0 a bare path."""
    with store_errors():
        SqlAlchemyStore(uri, artifact_root).engine.dispose()  # type: ignore[no-untyped-call]


def _prepare_database(uri: str, artifact_location: str | None) -> Store:
    # MLflow itself would migrate some older databases, without a copy of what was
    if read_schema(uri).state is SchemaState.OLDER:
        raise StoreError(OLDER_SCHEMA)
    return _prepare_experiment(uri, artifact_location)


def _prepare_experiment(uri: str, artifact_location: str | None) -> Store:
    with store_errors():
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            experiment = _create_experiment(client, uri, artifact_location)
        else:
            experiment = ensure_experiment(client, EXPERIMENT)
        if experiment.tags.get(Tag.JOB) is None:
            made = experiment.experiment_id
            when_granted(lambda: client.set_experiment_tag(made, Tag.JOB, JOB_READY))
        keep_view(client, experiment)
        _remove_half_created(client, experiment.experiment_id)
    _check_artifacts(client, uri, experiment)
    return Store(
        tracking_uri=uri,
        experiment_id=experiment.experiment_id,
        artifact_location=experiment.artifact_location,
    )


def _create_experiment(client: MlflowClient, uri: str, location: str | None) -> Experiment:
    if location is None and not uri.startswith("http"):
        raise StoreError(
            "A PostgreSQL store needs a place for artifacts: set GRPO_ARTIFACT_ROOT to a "
            "directory or URI that every server and worker can reach."
        )
    folder = local_path(location) if location is not None else None
    if folder is not None:
        # only now: a folder that vanishes later may be a mount that is away
        folder.mkdir(parents=True, exist_ok=True)
    return ensure_experiment(client, EXPERIMENT, location=location)


def _remove_half_created(client: MlflowClient, experiment_id: str) -> None:
    """Delete the runs that a server left half-created when it was killed in between."""
    before = int((time.time() - _CREATION_SECONDS) * 1000)
    for status in ("RUNNING", "SCHEDULED"):
        begun = client.search_runs(
            [experiment_id],
            filter_string=f"tags.`{Tag.CREATING}` = '{JOB_READY}' AND "
            f"attributes.status = '{status}' AND attributes.start_time < {before}",
        )
        for run in begun:
            if not run.data.tags.keys() & {Tag.JOB, Tag.SWEEP, Tag.EXPERIMENT}:
                client.delete_run(run.info.run_id)


def _check_artifacts(client: MlflowClient, uri: str, experiment: Experiment) -> None:
    location = experiment.artifact_location
    check_artifacts_reachable(uri, location)
    folder = local_path(location)
    if folder is None or uri.startswith("http"):
        return
    mark_artifacts(client, experiment, _make_artifacts)
    if not folder.is_relative_to(Path.cwd()):
        _log.warning("Artifacts go to %s, where this store was created.", folder)


def _make_artifacts(folder: Path) -> None:
    """Make the folder of the jobs' experiment, the first time that a server starts on a store."""
    ours = folder.is_relative_to(Path.cwd())
    with contextlib.suppress(OSError):
        if ours:
            folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise StoreError(
            f"This store keeps its artifacts in {folder}, which cannot be used from here. Was the "
            "directory moved? Move it back, link the old path to the new one, or start afresh by "
            "renaming mlflow.db (or with another database)."
        )


def _write_ahead(path: Path) -> None:
    """Readers no longer wait for writers; the mode stays in the file."""
    with _raw_errors(path), contextlib.closing(sqlite3.connect(path, timeout=20.0)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        _log.warning("%s stays in journal mode %s; its file system cannot do WAL.", path, mode)


def _analyze(path: Path) -> None:
    """Give the query planner figures; without them, lists take seconds in a large store."""
    with _raw_errors(path), contextlib.closing(sqlite3.connect(path, timeout=20.0)) as connection:
        connection.execute("PRAGMA analysis_limit=1000")
        connection.execute("ANALYZE")
        connection.commit()


@contextlib.contextmanager
def _raw_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreUnavailableError(
            f"The database {path} cannot be written ({error}): start the server in a directory "
            "that it may write to, or set MLFLOW_TRACKING_URI to another store."
        ) from error
    except sqlite3.DatabaseError as error:
        raise StoreError(DAMAGED.format(error)) from error


def _absolute_location(root: str) -> str:
    if urlsplit(root).scheme:
        return root.rstrip("/")
    return Path(root).absolute().as_uri()
