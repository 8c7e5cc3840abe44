"""MLflow's databases, made once in a process and copied: its migrations take a second for each."""

import atexit
import functools
import shutil
import sqlite3
import tempfile
from pathlib import Path

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

__all__ = ["put_database"]


def put_database(path: Path, artifact_root: str) -> None:
    """Put a database where an MLflow of this release made it before, with nothing in it yet.

    Args:
        path: of the file; one that is there is left alone.
        artifact_root: URI below which experiment 0 keeps its artifacts.
    """
    if path.exists():
        return
    shutil.copyfile(_made(), path)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (f"{artifact_root}/0",))
    connection.close()


@functools.cache
def _made() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="grpo-database-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", folder.as_uri()).engine.dispose()
    return folder / "mlflow.db"
