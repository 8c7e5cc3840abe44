"""Finding jobs: only runs that carry our tag, in whatever experiment they are."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Final

from mlflow.entities import Run, ViewType
from mlflow.store.entities.paged_list import PagedList
from mlflow.tracking import MlflowClient

from grpo_platform.errors import UnknownJobError
from grpo_platform.jobs.states import JobStatus
from grpo_platform.tracking.boundary import retrying
from grpo_platform.tracking.names import JOB_READY, Tag
from grpo_platform.tracking.pages import Cursor, Page, decode_token, encode_token, list_digest
from grpo_platform.tracking.records import RUN_STATUS, JobRecord, record_of

__all__ = ["JobSearch", "require_job_id"]

_JOB_ID = re.compile(r"[0-9a-f]{32}")
_QUOTABLE = re.compile(r"[\w./:-]{1,250}")
_EXPERIMENTS_SECONDS: Final = 2.0
_MAX_EXPERIMENTS: Final = 1000
_NEWEST_FIRST: Final = ("attributes.start_time DESC",)
_OLDEST_FIRST: Final = ("attributes.start_time ASC",)


def require_job_id(text: str) -> None:
    """Refuse what has not the form of a run id; nothing else is ever handed to MLflow.

    Raises:
        UnknownJobError: it is not an id.
    """
    if not _JOB_ID.fullmatch(text):
        raise UnknownJobError(text)


class JobSearch:
    """Reads lists of jobs; the runs of others are never seen.

    Args:
        client: of the store.
        experiment_id: an experiment that is always searched.
    """

    def __init__(self, client: MlflowClient, experiment_id: str | None) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._experiments: tuple[str, ...] = ()
        self._experiments_read = float("-inf")

    def page(
        self,
        *,
        status: JobStatus | None,
        env_name: str | None,
        model_name: str | None,
        limit: int,
        page_token: str | None,
    ) -> Page[JobRecord]:
        """One page of jobs, newest first.

        Raises:
            InvalidPageTokenError: the token is not one that this list gave out.
        """
        digest = list_digest(status, env_name, model_name)
        cursor = decode_token(page_token, digest) if page_token is not None else None
        names = [name for name in (env_name, model_name) if name is not None]
        if not all(_QUOTABLE.fullmatch(name) for name in names):
            return Page([], None)  # no job can carry such a name, and a filter cannot quote it
        clauses = []
        if status is not None:
            clauses.append(f"attributes.status = '{RUN_STATUS[status]}'")
        if env_name is not None:
            clauses.append(_tagged(Tag.ENV_NAME, env_name))
        if model_name is not None:
            clauses.append(_tagged(Tag.MODEL_NAME, model_name))
        if cursor is not None:
            clauses.append(f"attributes.start_time <= {cursor.start_time_ms}")
        runs: list[Run] = []
        for run in self._walk(clauses, _NEWEST_FIRST, limit + 1):
            if cursor is not None and not _after(run, cursor):
                continue
            runs.append(run)
            if len(runs) > limit:
                break
        items = [record_of(run) for run in runs[:limit]]
        if len(runs) <= limit:
            return Page(items, None)
        last = runs[limit - 1].info
        return Page(items, encode_token(Cursor(last.start_time, last.run_id), digest))

    def oldest(self, status: JobStatus, limit: int | None = None) -> list[JobRecord]:
        """Jobs of one status, oldest first; all of them when `limit` is None."""
        clauses = [f"attributes.status = '{RUN_STATUS[status]}'"]
        found: list[JobRecord] = []
        for run in self._walk(clauses, _OLDEST_FIRST, 200 if limit is None else limit):
            if limit is not None and len(found) >= limit:
                break
            found.append(record_of(run))
        return found

    def tagged(self, key: str, value: str) -> JobRecord | None:
        """The oldest job that carries the tag; the value must need no quoting."""
        run = next(self._walk([_tagged(key, value)], _OLDEST_FIRST, 1), None)
        return None if run is None else record_of(run)

    def _walk(self, clauses: list[str], order: tuple[str, ...], page_size: int) -> Iterator[Run]:
        text = " AND ".join([_tagged(Tag.JOB, JOB_READY), *clauses])
        token: str | None = None
        while True:
            page = retrying(self._search(text, order, page_size, token))
            yield from page
            token = page.token
            if not token:
                return

    def _search(
        self, text: str, order: tuple[str, ...], page_size: int, token: str | None
    ) -> Callable[[], PagedList[Run]]:
        return lambda: self._client.search_runs(
            experiment_ids=list(self._searched()),
            filter_string=text,
            run_view_type=ViewType.ACTIVE_ONLY,
            max_results=page_size,
            order_by=list(order),
            page_token=token,
        )

    def _searched(self) -> tuple[str, ...]:
        """Experiments that may hold jobs: marked by us when we put the first one there."""
        if time.monotonic() - self._experiments_read > _EXPERIMENTS_SECONDS:
            found = self._client.search_experiments(
                filter_string=_tagged(Tag.JOB, JOB_READY), max_results=_MAX_EXPERIMENTS
            )
            known = {experiment.experiment_id for experiment in found}
            if self._experiment_id is not None:
                known.add(self._experiment_id)
            self._experiments = tuple(sorted(known))
            self._experiments_read = time.monotonic()
        return self._experiments


def _tagged(key: str, value: str) -> str:
    return f"tags.`{key}` = '{value}'"


def _after(run: Run, cursor: Cursor) -> bool:
    """Whether the run comes after the cursor: older, or of the same moment with a later id."""
    start, run_id = run.info.start_time, run.info.run_id
    return (-start, run_id) > (-cursor.start_time_ms, cursor.run_id)
