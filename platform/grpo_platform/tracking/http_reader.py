"""Reads runs through MLflow's client: for stores that are an MLflow server."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.tracking import MlflowClient

from grpo_platform.core.names import JOB_READY, Tag
from grpo_platform.tracking.exceptions import retrying
from grpo_platform.tracking.pages import Cursor
from grpo_platform.tracking.reader import RunQuery, RunRow, claims_of

__all__ = ["HttpReader"]

_EXPERIMENTS_SECONDS: Final = 2.0
_MAX_EXPERIMENTS: Final = 1000
_MAX_PAGE: Final = 1000


class HttpReader:
    """Implements `RunReader`.

    Args:
        client: of the store.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._experiments: list[str] = []
        self._experiments_read = float("-inf")

    def find(self, query: RunQuery) -> list[RunRow]:
        """At most `query.limit` runs, in order."""
        found: list[RunRow] = []
        for run in self._walk(query):
            if query.after is None or _is_after(run, query.after):
                found.append(_row_of(run))
                if len(found) == query.limit:
                    break
        return found

    def get(self, run_id: str) -> RunRow:
        """One run, deleted or not.

        Raises:
            UnknownJobError: there is none.
        """
        return _row_of(retrying(lambda: self._client.get_run(run_id), run_id))

    def _walk(self, query: RunQuery) -> Iterator[Run]:
        clauses = [f"tags.`{key}` = '{JOB_READY}'" for key in query.tag_keys]
        if query.status is not None:
            clauses.append(f"attributes.status = '{query.status}'")
        if query.after is not None:
            clauses.append(f"attributes.start_time <= {query.after.rank}")
        order = f"attributes.start_time {'DESC' if query.newest_first else 'ASC'}"
        experiments = retrying(self._searched)
        token: str | None = None
        while True:
            page = retrying(
                partial(
                    self._client.search_runs,
                    experiments,
                    filter_string=" AND ".join(clauses),
                    run_view_type=ViewType.ACTIVE_ONLY,
                    max_results=min(query.limit, _MAX_PAGE),
                    order_by=[order],
                    page_token=token,
                )
            )
            yield from page
            token = page.token
            if not token:
                return

    def _searched(self) -> list[str]:
        """Experiments that may hold jobs: marked by us when we put the first one there."""
        if time.monotonic() - self._experiments_read > _EXPERIMENTS_SECONDS:
            found = self._client.search_experiments(
                filter_string=f"tags.`{Tag.JOB}` = '{JOB_READY}'", max_results=_MAX_EXPERIMENTS
            )
            self._experiments = [experiment.experiment_id for experiment in found]
            self._experiments_read = time.monotonic()
        return self._experiments


def _row_of(run: Run) -> RunRow:
    return RunRow(
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        status=run.info.status,
        start_time=run.info.start_time,
        end_time=run.info.end_time,
        artifact_uri=run.info.artifact_uri,
        deleted=run.info.lifecycle_stage == LifecycleStage.DELETED,
        tags=run.data.tags,
        metrics=run.data.metrics,
        claims=claims_of(run.data.tags, run.data.params),
    )


def _is_after(run: Run, cursor: Cursor) -> bool:
    """Whether the run comes after the cursor: older, or of the same moment with a later id."""
    start, run_id = run.info.start_time, run.info.run_id
    return (-start, run_id) > (-cursor.rank, cursor.key)
