"""Histories of one metric of many runs at once: from the database itself, or through MLflow."""

from collections.abc import Callable, Mapping, Sequence
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

__all__ = ["History", "read_histories"]

_Points = list[tuple[int, int, float]]
"""Step, time and value of each."""


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
