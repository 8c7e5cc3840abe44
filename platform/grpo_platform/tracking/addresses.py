"""Which store an address names, and whether there is one: nothing here makes any."""

from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import sqlalchemy

from grpo_platform.core.errors import StoreError
from grpo_platform.core.settings import Settings, kind_of_store
from grpo_platform.tracking.exceptions import store_errors
from grpo_platform.tracking.locations import sqlite_path, sqlite_uri
from grpo_platform.tracking.schema import SchemaState, read_schema

__all__ = [
    "OLDER_SCHEMA",
    "absolute_uri",
    "existing_store_uri",
    "named_store_uri",
    "probe_database",
]

OLDER_SCHEMA: Final = (
    "This store's database is of an older MLflow. Stop whatever else uses it, then run: "
    "grpo-platform store upgrade"
)


def absolute_uri(uri: str) -> str:
    """The URI of the same store from any directory; a relative sqlite path is of this one.

    Raises:
        StoreError: a sqlite store that is not a file.
    """
    if not uri.startswith("sqlite:"):
        return uri
    url = sqlalchemy.make_url(uri)
    if not url.database or url.database == ":memory:":
        raise StoreError("A sqlite store must be a file, since several processes share it.")
    options = {name: value for name, value in url.query.items() if name != "uri"}
    return sqlite_uri(Path.cwd() / sqlite_path(uri), urlencode(options, doseq=True))


def named_store_uri(settings: Settings) -> str:
    """Absolute URI of the store that the settings name, of whatever MLflow it is.

    Raises:
        StoreUnavailableError: a PostgreSQL server cannot be reached.
        StoreError: no kind of store that is supported, or a sqlite store that is not a file.
    """
    kind = kind_of_store(settings.tracking_uri)
    uri = absolute_uri(settings.tracking_uri)
    if kind == "postgresql":
        probe_database(uri)
    return uri


def existing_store_uri(settings: Settings) -> str:
    """As `named_store_uri`, of a store that others have prepared.

    Raises:
        StoreUnavailableError: a PostgreSQL server cannot be reached.
        StoreError: there is none, or one that a server would not start on, with what to do.
    """
    uri = named_store_uri(settings)
    if kind_of_store(uri) in ("http", "https"):
        return uri
    # MLflow itself would make or migrate what is not there
    state = read_schema(uri).state
    if state is SchemaState.OLDER:
        raise StoreError(OLDER_SCHEMA)
    if state is SchemaState.EMPTY:
        raise StoreError(
            "This store's database is empty: set MLFLOW_TRACKING_URI to the one that the server "
            "uses."
        )
    return uri


def probe_database(uri: str) -> None:
    """Connect once: MLflow itself would go on trying for 100 seconds.

    Raises:
        StoreUnavailableError: the database cannot be reached.
        StoreError: its driver is missing.
    """
    with store_errors():
        try:
            engine = sqlalchemy.create_engine(uri)
        except ImportError as error:
            raise StoreError(
                "PostgreSQL needs a driver, which the extra `postgres` brings: "
                f"pip install 'grpo-platform[postgres]'. ({error})"
            ) from error
        try:
            engine.connect().close()
        finally:
            engine.dispose()
