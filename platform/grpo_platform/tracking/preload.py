"""Opens and uses a database once, so that the next store opens fast in every forked process."""

from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from grpo import GRPOConfig
from grpo_platform.core.request import JobRequest
from grpo_platform.tracking.exceptions import store_errors
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.locations import sqlite_uri
from grpo_platform.tracking.reporter import Point
from grpo_platform.tracking.runs import RunStore
from grpo_platform.tracking.schema import create_schema

__all__ = ["open_throwaway_store"]


def open_throwaway_store() -> None:
    """Write a job to a new database, and delete it; leaves no connection open.

    Raises:
        StoreError: MLflow cannot make a database here.
    """
    with TemporaryDirectory() as folder:
        uri = sqlite_uri(Path(folder) / "mlflow.db")
        create_schema(uri)
        with store_errors():
            store = SqlAlchemyStore(uri, Path(folder).as_uri())  # type: ignore[no-untyped-call]
        try:
            jobs = JobStore(uri, "0")
            job = jobs.create(JobRequest(config=GRPOConfig()))
            RunStore(uri).log_points(job.job_id, [Point("warm", 0.0, 0, 0)])
            jobs.claim(job.job_id, 1, "warm")
            jobs.start(job.job_id, "warm")
        finally:
            # a forked process must not share a connection
            store.engine.dispose()
