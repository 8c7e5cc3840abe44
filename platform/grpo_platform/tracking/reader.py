"""What is read of runs, page by page: from the database itself, or through MLflow's client."""

import base64
import binascii
import dataclasses
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_store
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    bindparam,
    or_,
    select,
)

from grpo_platform.core.errors import InvalidPageTokenError, UnknownJobError
from grpo_platform.core.names import CLAIM_PARAM, CLAIM_TAG, JOB_READY, Tag
from grpo_platform.tracking.exceptions import retrying

__all__ = [
    "Cursor",
    "HttpReader",
    "Page",
    "RunQuery",
    "RunReader",
    "RunRow",
    "SqlReader",
    "claims_of",
    "decode_token",
    "encode_token",
    "list_digest",
    "page_of",
]

_T = TypeVar("_T")
_MAX_TOKEN = 512
_MAX_RANK = 2**53


@dataclass(frozen=True, slots=True)
class Page(Generic[_T]):
    """Some items of a list."""

    items: list[_T]
    """In the list's order."""

    next_page_token: str | None
    """Leads to the following items; None at the end of the list."""


class Cursor(NamedTuple):
    """The last item of a page: the next page starts after it, whatever was added meanwhile."""

    rank: int
    """Its place in the list's order: when it started, in milliseconds, or how many came before."""

    key: str
    """Its id, or name, where items share a rank or have none."""


def list_digest(*filters: object) -> str:
    """Short fingerprint of a list's filters, so that a token only continues its own list."""
    return hashlib.sha256(repr(filters).encode()).hexdigest()[:12]


def encode_token(cursor: Cursor, digest: str) -> str:
    """Token for the items after `cursor` of the list with this digest."""
    text = json.dumps([digest, cursor.rank, cursor.key], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_token(token: str, digest: str) -> Cursor:
    """Inverse of `encode_token`.

    Raises:
        InvalidPageTokenError: not a token of this list.
    """
    try:
        if len(token) > _MAX_TOKEN:
            raise InvalidPageTokenError
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeError, binascii.Error, ValueError, RecursionError) as error:
        raise InvalidPageTokenError from error
    match values:
        case [str(found), int(rank), str(key)] if (
            found == digest and not isinstance(rank, bool) and 0 <= rank < _MAX_RANK
        ):
            return Cursor(rank, key)
    raise InvalidPageTokenError


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """One MLflow run."""

    run_id: str
    experiment_id: str
    status: str
    """MLflow's word."""

    start_time: int
    """Unix milliseconds."""

    end_time: int | None
    """Unix milliseconds; stays when a run goes on."""

    artifact_uri: str
    deleted: bool
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    """Latest value of each key, NaN and infinities included."""

    claims: Mapping[str, str]
    """Who holds what was claimed: by `attempt_claim`, `trial_claim` or `seed_claim`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunQuery:
    """Which runs, in which order: by start time, then by id."""

    tag_keys: tuple[str, ...]
    """Tags that a run must carry, whatever their values."""

    limit: int
    status: str | None = None
    """MLflow's word."""

    newest_first: bool = True
    after: Cursor | None = None
    """Only runs that come after this one; only with `newest_first`."""

    prefix: str = ""
    """What a run's id begins with; hexadecimal digits."""


class RunReader(Protocol):
    """Reads runs that nobody deleted; over HTTP or from the database."""

    def find(self, query: RunQuery) -> Sequence[RunRow]:
        """At most `query.limit` runs, in order."""

    def get(self, run_id: str) -> RunRow:
        """One run, deleted or not.

        Raises:
            UnknownJobError: there is none.
        """

    def get_all(self, run_ids: Sequence[str]) -> dict[str, RunRow]:
        """Many runs by id, deleted or not, in as few queries as can be; unknown ids are absent."""


def claims_of(tags: Mapping[str, str], params: Mapping[str, str]) -> dict[str, str]:
    """Claims on a run, by what is claimed.

    Args:
        tags: of the run.
        params: of the run; others than claims are left out.
    """
    return {
        key.removeprefix(prefix): holder
        for prefix, found in ((CLAIM_TAG, tags), (CLAIM_PARAM, params))
        for key, holder in found.items()
        if key.startswith(prefix)
    }


def page_of(
    rows: Sequence[RunRow], limit: int, digest: str, read: Callable[[RunRow], _T]
) -> Page[_T]:
    """The page that the first `limit` rows make; a row more says that another page follows.

    Args:
        rows: up to `limit + 1`, newest first.
        limit: most items of the page.
        digest: of the list.
        read: makes an item of a row.
    """
    items = [read(row) for row in rows[:limit]]
    if len(rows) <= limit:
        return Page(items, None)
    last = rows[limit - 1]
    return Page(items, encode_token(Cursor(last.start_time, last.run_id), digest))


_NAN: Final = float("nan")
_SPARE: Final = 16
"""Runs that are no jobs that a look may meet, beside as many as the jobs that it is for."""
_WINDOW: Final = 4
"""How many of the newest runs a filtered list looks at first, for each one that it is to give."""
_MANY: Final = 300
"""Runs with one tag that are too many to look each of them up."""

_IDS_A_STATEMENT: Final = 5000
"""Far below what any database takes."""

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
_JOBS: Final = select(_TAG.run_uuid).where(_TAG.run_uuid.in_(_IDS), _TAG.key == Tag.JOB)
_Runs = Sequence[Any]
_Values = defaultdict[str, dict[str, str]]


class SqlReader:
    """Reads runs from MLflow's own tables: for stores that are a database.

    MLflow's client builds an object for every param, tag and metric of every run that it lists,
    about 3 ms a job. These are the same rows, read as tuples, in a fraction of that; and they are
    chosen by the keys of tags alone, which MLflow's tables have an index for. Only reads; every
    write goes through MLflow.

    Args:
        tracking_uri: of a database that MLflow has opened in this process.
    """

    def __init__(self, tracking_uri: str) -> None:
        open_store: Callable[[str], Any] = _get_store
        self._engine: Engine = open_store(tracking_uri).engine

    def find(self, query: RunQuery) -> list[RunRow]:
        """At most `query.limit` runs, in order."""
        return self._read(partial(_choose, query))

    def get(self, run_id: str) -> RunRow:
        """One run, deleted or not.

        Raises:
            UnknownJobError: there is none.
        """
        found = self._read(partial(_run, select(*_COLUMNS).where(_RUN.run_uuid == run_id)))
        if not found:
            raise UnknownJobError(run_id)
        return found[0]

    def get_all(self, run_ids: Sequence[str]) -> dict[str, RunRow]:
        """Many runs by id, deleted or not; unknown ids are absent."""
        rows: list[RunRow] = []
        for begin in range(0, len(run_ids), _IDS_A_STATEMENT):
            some = select(*_COLUMNS).where(
                _RUN.run_uuid.in_(run_ids[begin : begin + _IDS_A_STATEMENT])
            )
            rows += self._read(partial(_run, some))
        return {row.run_id: row for row in rows}

    def _read(self, choose: Callable[[Connection], _Runs]) -> list[RunRow]:
        def read() -> list[RunRow]:
            with self._engine.connect() as connection:
                return list(_rows(connection, choose(connection)))

        return retrying(read)


def _run(statement: Select[Any], connection: Connection) -> _Runs:
    return connection.execute(statement).all()


def _choose(query: RunQuery, connection: Connection) -> _Runs:
    """The runs that a query asks for, before more is read of them than their own row."""
    if Tag.JOB not in query.tag_keys:
        return connection.execute(_statement(query)).all()
    # in most stores nearly every run is a job: looking is quicker than asking for the tag
    wider = dataclasses.replace(query, limit=2 * query.limit + _SPARE)
    kinds = [key for key in query.tag_keys if key != Tag.JOB]
    if query.newest_first and kinds and all(_is_frequent(connection, key) for key in kinds):
        # there are enough among the newest: no need to sort all of them
        runs = connection.execute(_among_newest(wider, exclude=Tag.JOB)).all()
        if len(jobs := _jobs_among(connection, runs)) >= query.limit:
            return jobs[: query.limit]
    runs = connection.execute(_statement(wider, exclude=Tag.JOB)).all()
    jobs = _jobs_among(connection, runs)
    if len(jobs) >= query.limit or len(runs) < wider.limit:
        return jobs[: query.limit]
    return connection.execute(_statement(query)).all()


def _jobs_among(connection: Connection, runs: _Runs) -> _Runs:
    found = connection.execute(_JOBS, {"ids": [run.run_uuid for run in runs]})
    jobs = set(found.scalars())
    return [run for run in runs if run.run_uuid in jobs]


def _is_frequent(connection: Connection, key: str) -> bool:
    some = select(_TAG.run_uuid).where(_TAG.key == key).limit(_MANY)
    return len(connection.execute(some).all()) == _MANY


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
    if query.prefix:
        clauses.append(_RUN.run_uuid.startswith(query.prefix))
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


def _rows(connection: Connection, runs: _Runs) -> Iterator[RunRow]:
    ids = [run.run_uuid for run in runs]
    tags: _Values = defaultdict(dict)
    params: _Values = defaultdict(dict)
    metrics: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for run_id, key, value in connection.execute(_TAGS, {"ids": ids}).all():
        tags[run_id][key] = value
    for run_id, key, value in connection.execute(_CLAIMS, {"ids": ids}).all():
        params[run_id][key] = value
    for run_id, key, number, is_nan in connection.execute(_METRICS, {"ids": ids}).all():
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


_EXPERIMENTS_SECONDS: Final = 2.0
_MAX_EXPERIMENTS: Final = 1000
_MAX_PAGE: Final = 1000
_IDS_A_CALL: Final = 200


class HttpReader:
    """Reads runs through MLflow's client: for stores that are an MLflow server.

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

    def get_all(self, run_ids: Sequence[str]) -> dict[str, RunRow]:
        """Many runs by id, deleted or not; unknown ids are absent."""
        found: list[Run] = []
        for begin in range(0, len(run_ids), _IDS_A_CALL):
            some = ", ".join(f"'{run_id}'" for run_id in run_ids[begin : begin + _IDS_A_CALL])
            found += retrying(
                partial(
                    self._client.search_runs,
                    retrying(self._searched),
                    filter_string=f"attributes.run_id IN ({some})",
                    run_view_type=ViewType.ALL,
                    max_results=_IDS_A_CALL,
                )
            )
        return {run.info.run_id: _row_of(run) for run in found}

    def _walk(self, query: RunQuery) -> Iterator[Run]:
        clauses = [f"tags.`{key}` = '{JOB_READY}'" for key in query.tag_keys]
        if query.status is not None:
            clauses.append(f"attributes.status = '{query.status}'")
        if query.prefix:
            clauses.append(f"attributes.run_id LIKE '{query.prefix}%'")
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
