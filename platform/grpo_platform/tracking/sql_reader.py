"""Reads runs from MLflow's own tables: for stores that are a database.

MLflow's client builds an object for every param, tag and metric of every run that it lists,
about 3 ms a job. These are the same rows, read as tuples, in a fraction of that; and they are
chosen by the keys of tags alone, which MLflow's tables have an index for. Only reads; every
write goes through MLflow.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from mlflow.entities import LifecycleStage
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
from mlflow.tracking._tracking_service.utils import _get_store
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    and_,
    bindparam,
    or_,
    select,
)

from grpo_platform.core.errors import UnknownJobError
from grpo_platform.core.names import CLAIM_PARAM, Tag
from grpo_platform.tracking.exceptions import retrying
from grpo_platform.tracking.reader import RunQuery, RunRow, claims_of

__all__ = ["SqlReader"]

_NAN: Final = float("nan")
_SPARE: Final = 16
"""Runs that are no jobs, such as promotions, that a look may meet among the jobs it is for."""

_WINDOW: Final = 4
"""How many of the newest runs a filtered list looks at first, for each one that it is to give."""

_MANY: Final = 300
"""Runs with one tag that are too many to look each of them up."""

_RUN: Final[Any] = SqlRun.__table__.c
_TAG: Final[Any] = SqlTag.__table__.c
_PARAM: Final[Any] = SqlParam.__table__.c
_METRIC: Final[Any] = SqlLatestMetric.__table__.c
_COLUMNS: Final = (
    _RUN.run_uuid, _RUN.experiment_id, _RUN.status, _RUN.start_time, _RUN.end_time,
    _RUN.artifact_uri, _RUN.lifecycle_stage,
)  # fmt: skip

_IDS: Final[BindParameter[Any]] = bindparam("ids", expanding=True)
_TAGS: Final = select(_TAG.run_uuid, _TAG.key, _TAG.value).where(_TAG.run_uuid.in_(_IDS))
_CLAIMS: Final = select(_PARAM.run_uuid, _PARAM.key, _PARAM.value).where(
    _PARAM.run_uuid.in_(_IDS), _PARAM.key.startswith(CLAIM_PARAM, autoescape=True)
)
_METRICS: Final = select(_METRIC.run_uuid, _METRIC.key, _METRIC.value, _METRIC.is_nan).where(
    _METRIC.run_uuid.in_(_IDS)
)
_Values = defaultdict[str, dict[str, str]]


class SqlReader:
    """Implements `RunReader`.

    Args:
        tracking_uri: of a database that MLflow has opened in this process.
    """

    def __init__(self, tracking_uri: str) -> None:
        open_store: Callable[[str], Any] = _get_store
        self._engine: Engine = open_store(tracking_uri).engine

    def find(self, query: RunQuery) -> list[RunRow]:
        """At most `query.limit` runs, in order."""
        if Tag.JOB not in query.tag_keys:
            return self._read(_statement(query))
        # in most stores nearly every run is a job: looking is quicker than asking for the tag
        wider = dataclasses.replace(query, limit=query.limit + _SPARE)
        kinds = [key for key in query.tag_keys if key != Tag.JOB]
        if query.newest_first and kinds and all(self._is_frequent(key) for key in kinds):
            # there are enough among the newest: no need to sort all of them
            rows = self._read(_among_newest(wider, exclude=Tag.JOB))
            jobs = [row for row in rows if Tag.JOB in row.tags]
            if len(jobs) >= query.limit:
                return jobs[: query.limit]
        rows = self._read(_statement(wider, exclude=Tag.JOB))
        jobs = [row for row in rows if Tag.JOB in row.tags]
        if len(jobs) >= query.limit or len(rows) < wider.limit:
            return jobs[: query.limit]
        return self._read(_statement(query))

    def get(self, run_id: str) -> RunRow:
        """One run, deleted or not.

        Raises:
            UnknownJobError: there is none.
        """
        found = self._read(select(*_COLUMNS).where(_RUN.run_uuid == run_id))
        if not found:
            raise UnknownJobError(run_id)
        return found[0]

    def _is_frequent(self, key: str) -> bool:
        some = select(_TAG.run_uuid).where(_TAG.key == key).limit(_MANY)

        def count() -> int:
            with self._engine.connect() as connection:
                return len(connection.execute(some).all())

        return retrying(count) == _MANY

    def _read(self, statement: Select[Any]) -> list[RunRow]:
        def read() -> list[RunRow]:
            with self._engine.connect() as connection:
                return list(_rows(connection, connection.execute(statement).all()))

        return retrying(read)


def _statement(query: RunQuery, exclude: str | None = None) -> Select[Any]:
    """The runs that a query asks for, but for one of its tags."""
    tagged = [_carries(key) for key in query.tag_keys if key != exclude]
    chosen = select(*_COLUMNS).where(*_plain_clauses(query), *tagged)
    return chosen.order_by(*_order(query)).limit(query.limit)


def _among_newest(query: RunQuery, exclude: str) -> Select[Any]:
    """Those of the newest runs that carry the tags: perhaps fewer than there are."""
    newest = select(_RUN.run_uuid).where(*_plain_clauses(query))
    newest = newest.order_by(*_order(query)).limit(_WINDOW * query.limit)
    tagged = [_carries_itself(key) for key in query.tag_keys if key != exclude]
    chosen = select(*_COLUMNS).where(_RUN.run_uuid.in_(newest), *tagged)
    return chosen.order_by(*_order(query)).limit(query.limit)


def _plain_clauses(query: RunQuery) -> list[ColumnElement[bool]]:
    """What a query asks of the run itself."""
    clauses: list[ColumnElement[bool]] = [_RUN.lifecycle_stage == LifecycleStage.ACTIVE]
    if query.status is not None:
        clauses.append(_RUN.status == query.status)
    if query.after is not None:
        time, run_id = query.after
        same_moment = and_(_RUN.start_time == time, _RUN.run_uuid > run_id)
        clauses.append(or_(_RUN.start_time < time, same_moment))
    return clauses


def _order(query: RunQuery) -> tuple[Any, Any]:
    return (_RUN.start_time.desc() if query.newest_first else _RUN.start_time, _RUN.run_uuid)


def _carries(key: str) -> ColumnElement[bool]:
    if key == Tag.JOB:  # most runs carry it: look each run up, in the order of the list
        return _carries_itself(key)
    tagged = select(_TAG.run_uuid).where(_TAG.key == key)
    carriers: ColumnElement[bool] = _RUN.run_uuid.in_(tagged)
    return carriers


def _carries_itself(key: str) -> ColumnElement[bool]:
    tagged = select(_TAG.run_uuid).where(_TAG.key == key, _TAG.run_uuid == _RUN.run_uuid)
    return tagged.exists()


def _rows(connection: Connection, runs: Sequence[Row[Any]]) -> Iterator[RunRow]:
    ids = [run.run_uuid for run in runs]
    tags: _Values = defaultdict(dict)
    params: _Values = defaultdict(dict)
    metrics: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for run_id, key, value in connection.execute(_TAGS, {"ids": ids}):
        tags[run_id][key] = value
    for run_id, key, value in connection.execute(_CLAIMS, {"ids": ids}):
        params[run_id][key] = value
    for run_id, key, number, is_nan in connection.execute(_METRICS, {"ids": ids}):
        metrics[run_id][key] = _NAN if is_nan else number
    for run in runs:
        yield RunRow(
            run_id=run.run_uuid,
            experiment_id=str(run.experiment_id),
            status=run.status,
            start_time=run.start_time,
            end_time=run.end_time,
            artifact_uri=run.artifact_uri,
            deleted=run.lifecycle_stage == LifecycleStage.DELETED,
            tags=tags[run.run_uuid],
            metrics=metrics[run.run_uuid],
            claims=claims_of(tags[run.run_uuid], params[run.run_uuid]),
        )
