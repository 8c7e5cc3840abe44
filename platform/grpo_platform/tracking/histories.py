"""Histories of one metric of many runs at once: from the database itself, or through MLflow."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from mlflow.store.tracking.dbmodels.models import SqlMetric
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_store
from sqlalchemy import BindParameter, Engine, bindparam, select

from grpo_platform.tracking.exceptions import retrying
from grpo_platform.tracking.records import finite

__all__ = ["History", "HistoryCache", "read_histories"]

_Points = list[tuple[int, int, float]]
"""Step, time and value of each."""


_EMPTY_POINTS: Final = 32
"""What a history takes beside its points, in points."""


class History(NamedTuple):
    """Points of one metric of one run, in order of their steps; shape (k,) each."""

    steps: npt.NDArray[np.int64]
    """Environment timesteps, each once."""

    values: npt.NDArray[np.float64]
    """Finite; of several at one step the last that was written."""

    def held_until(self, step: int) -> "History":
        """With its last value at `step` too, where it ends before: no episode ended in between."""
        if not len(self.steps) or step <= self.steps[-1]:
            return self
        return History(np.append(self.steps, step), np.append(self.values, self.values[-1]))


class HistoryCache:
    """Histories of runs that are written no more: those used last; safe from several threads.

    Args:
        max_points: of all histories together; 16 bytes each.
    """

    def __init__(self, max_points: int = 1_000_000) -> None:
        self._max_points = max_points
        self._points = 0
        self._kept: OrderedDict[tuple[str, str], History] = OrderedDict()
        self._lock = threading.Lock()

    def read(
        self,
        run_ids: Sequence[str],
        key: str,
        settled: Collection[str],
        read: Callable[[list[str]], dict[str, History]],
    ) -> dict[str, History]:
        """The history of a metric of each run; runs without a finite point are absent.

        Args:
            run_ids: of runs.
            key: of the metric.
            settled: those of the runs that are written no more.
            read: reads what is not kept.
        """
        with self._lock:
            found = {i: self._kept[i, key] for i in run_ids if (i, key) in self._kept}
            for run_id in found:
                self._kept.move_to_end((run_id, key))
        missing = [run_id for run_id in run_ids if run_id not in found]
        fresh = read(missing) if missing else {}
        for run_id in settled:
            if run_id in missing:
                self._keep((run_id, key), fresh.get(run_id, _history([])))
        found |= fresh
        return {i: found[i] for i in run_ids if i in found and len(found[i].steps)}

    def _keep(self, name: tuple[str, str], history: History) -> None:
        for points in history:
            points.flags.writeable = False  # several read it
        with self._lock:
            if name not in self._kept:
                self._kept[name] = history
                self._points += _size(history)
            while self._points > self._max_points:
                self._points -= _size(self._kept.popitem(last=False)[1])


def _size(history: History) -> int:
    return len(history.steps) + _EMPTY_POINTS


def read_histories(
    tracking_uri: str, client: MlflowClient, run_ids: Sequence[str], key: str
) -> dict[str, History]:
    """The history of a metric of each run; runs without a finite point are absent.

    Args:
        tracking_uri: of the store. A database is asked once for all of them, as `SqlReader` does.
        client: of the same store.
        run_ids: of runs.
        key: of the metric.

    Raises:
        StoreError: the store refused, or is away.
    """
    if not run_ids:
        return {}
    read = _over_http if tracking_uri.startswith("http") else _from_database
    found = read(tracking_uri, client, run_ids, key)
    histories = {run_id: _history(points) for run_id, points in found.items()}
    return {run_id: history for run_id, history in histories.items() if len(history.steps)}


def _history(points: _Points) -> History:
    latest = {step: value for step, _, value in sorted(points) if finite(value)}
    return History(np.array(list(latest), np.int64), np.array(list(latest.values()), np.float64))


_POINT: Final[Any] = SqlMetric.__table__.c
_IDS: Final[BindParameter[Any]] = bindparam("ids", expanding=True)
_STATEMENT: Final = select(
    _POINT.run_uuid, _POINT.step, _POINT.timestamp, _POINT.value
).where(_POINT.run_uuid.in_(_IDS), _POINT.key == bindparam("metric"), ~_POINT.is_nan)  # fmt: skip


def _from_database(
    tracking_uri: str, client: MlflowClient, run_ids: Sequence[str], key: str
) -> Mapping[str, _Points]:
    del client
    open_store: Callable[[str], Any] = _get_store
    engine: Engine = open_store(tracking_uri).engine

    def read() -> dict[str, _Points]:
        found: dict[str, _Points] = {}
        with engine.connect() as connection:
            rows = connection.execute(_STATEMENT, {"ids": list(run_ids), "metric": key})
            for run_id, step, timestamp, value in rows:
                found.setdefault(run_id, []).append((step, timestamp, value))
        return found

    return retrying(read)


def _over_http(
    tracking_uri: str, client: MlflowClient, run_ids: Sequence[str], key: str
) -> Mapping[str, _Points]:
    del tracking_uri
    found: dict[str, _Points] = {}
    for run_id in run_ids:
        points = retrying(partial(client.get_metric_history, run_id, key), run_id)
        found[run_id] = [(point.step, point.timestamp, point.value) for point in points]
    return found
