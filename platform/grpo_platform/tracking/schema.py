"""The schema of a store's database: which it has, and how it gets that of the installed MLflow."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import sqlalchemy
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from mlflow.store.db.base_sql_model import Base
from mlflow.store.db.utils import _get_alembic_config, _upgrade_db
from sqlalchemy.schema import CreateTable

from grpo_platform.core.errors import InvalidRequestError, StoreError
from grpo_platform.tracking.backup import copy_database
from grpo_platform.tracking.exceptions import store_errors
from grpo_platform.tracking.locations import sqlite_path
from grpo_platform.tracking.locks import alone, prove_unused

__all__ = ["Schema", "SchemaState", "create_schema", "read_schema", "upgrade_schema"]

_VERSION_TABLE: Final = "alembic_version"
_migrations_of: Final[Callable[[str], Config]] = _get_alembic_config
_migrate: Final[Callable[[sqlalchemy.Engine], None]] = _upgrade_db


class SchemaState(StrEnum):
    """A database's schema beside the one that the installed MLflow works with."""

    CURRENT = "current"
    OLDER = "older"
    EMPTY = "empty"
    """Nothing in it yet: the first start of the server makes the tables."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """What `read_schema` found."""

    state: SchemaState

    found: str | None
    """Alembic revision of the database; None where it is empty."""

    expected: str
    """Revision of the installed MLflow."""

    migrations: int
    """Steps from the one to the other."""

    @property
    def is_older(self) -> bool:
        """Whether it has to be upgraded before a server can start."""
        return self.state is SchemaState.OLDER


def read_schema(uri: str) -> Schema:
    """Which schema a database has; changes nothing.

    Args:
        uri: absolute, sqlite:///file or postgresql://….

    Raises:
        InvalidRequestError: the store is an MLflow server, whose database is its own affair.
        StoreUnavailableError: the database cannot be reached.
        StoreError: it is not MLflow's, or of a newer MLflow than the installed one.
    """
    _check_kind(uri)
    scripts = ScriptDirectory.from_config(_migrations_of(""))
    expected = scripts.get_current_head() or ""
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    try:
        with store_errors(), engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            found = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    if not tables:
        return Schema(state=SchemaState.EMPTY, found=None, expected=expected, migrations=0)
    if found is None:
        raise StoreError(
            f"This database is not MLflow's: it has tables, but no {_VERSION_TABLE}. Is the "
            "address right?"
        )
    known = {script.revision for script in scripts.walk_revisions()}
    if found not in known:
        raise StoreError(
            f"This database has schema {found}, which the installed MLflow does not know: it was "
            "made by a newer MLflow. Install that one, or go back to a backup."
        )
    migrations = len(list(scripts.iterate_revisions(expected, found)))
    state = SchemaState.OLDER if migrations else SchemaState.CURRENT
    return Schema(state=state, found=found, expected=expected, migrations=migrations)


def create_schema(uri: str) -> None:
    """Make the tables that the installed MLflow works with, at once, without any index.

    For a store that is soon thrown away: MLflow's own migrations, which others get, take a second.

    Args:
        uri: of an empty database.

    Raises:
        StoreError: they cannot be made here.
    """
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    try:
        with store_errors(), engine.begin() as connection:
            for table in Base.metadata.sorted_tables:
                connection.execute(CreateTable(table))
            scripts = ScriptDirectory.from_config(_migrations_of(""))
            MigrationContext.configure(connection).stamp(scripts, "head")
    finally:
        engine.dispose()


def upgrade_schema(uri: str) -> Path | None:
    """Bring a database of an older MLflow to the schema of the installed one.

    A sqlite file is copied first, and must not be open anywhere else. Of PostgreSQL, the caller
    has a backup.

    Args:
        uri: as for `read_schema`.

    Returns:
        The copy of the database as it was; None on PostgreSQL, and where nothing was to be done.

    Raises:
        InvalidRequestError: as for `read_schema`.
        ConflictError: another process has the sqlite file open.
        StoreUnavailableError: the database cannot be reached.
        StoreError: it cannot be upgraded; the copy, if any, is named.
    """
    with alone(uri):
        schema = read_schema(uri)
        if schema.state is not SchemaState.OLDER:
            return None
        backup = _back_up(uri, f"before-{schema.expected[:8]}") if _is_sqlite(uri) else None
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
        try:
            with store_errors():
                _migrate(engine)
        except StoreError as error:
            kept = f" The database as it was is {backup}." if backup else ""
            raise StoreError(f"{error}{kept}") from error
        finally:
            engine.dispose()
    return backup


def _check_kind(uri: str) -> None:
    if uri.startswith(("http://", "https://")):
        raise InvalidRequestError(
            "The store is an MLflow server: upgrade its database where it runs, with "
            "`mlflow db upgrade`, after a backup."
        )
    if _is_sqlite(uri) and not sqlite_path(uri).exists():
        raise StoreError(
            f"There is no database {sqlite_path(uri)}. Call it where "
            "mlflow.db is, or set MLFLOW_TRACKING_URI."
        )


def _back_up(uri: str, label: str) -> Path:
    """A consistent copy of a sqlite database beside it.

    Raises:
        ConflictError: another process has it open.
        StoreError: there is no room for the copy.
    """
    path = sqlite_path(uri)
    backup = path.with_name(f"{path.name}.{label}-{time.strftime('%Y%m%d-%H%M%S')}")
    prove_unused(path)
    copy_database(path, backup)
    return backup


def _is_sqlite(uri: str) -> bool:
    return uri.startswith("sqlite:")
