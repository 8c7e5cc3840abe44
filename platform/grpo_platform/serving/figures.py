"""What is served: how much, how fast, and of what kind, beside what the evaluation saw.

Each loaded model's latest calls are kept in arrays of fixed size, in this process alone. Times are
kept of every call; observations and actions are looked at 20 times a second at most, so that
inference does not notice.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from grpo_platform.serving.cache import Key
from grpo_platform.serving.model import LoadedModel

__all__ = ["MOST_FEATURES", "Histogram", "ServedFigures", "ServedModel", "Steps", "histograms"]

_log = logging.getLogger(__name__)

MOST_FEATURES: Final = 64
"""Numbers of an observation, or of an action, that histograms are made of; none of larger ones."""

_CALLS: Final = 4096
_STEPS: Final = 1000
_MODELS: Final = 64
_BINS: Final = 20
_PAUSE_SECONDS: Final = 0.05
_RATE_SECONDS: Final = 60.0
_OF_A_BATCH: Final = 16
_MOST: Final = 1e30  # that a float32 holds, and the width of a histogram a float64


@dataclass(frozen=True, slots=True)
class Steps:
    """What was observed and done, a row a step."""

    observations: npt.NDArray[np.float32]
    """Shape (T, n); n is 0 where an observation has more than `MOST_FEATURES` numbers."""

    actions: npt.NDArray[np.float32]
    """Shape (T, m); likewise, and where actions are nested."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """One version's figures, of the latest calls since this server loaded it."""

    name: str
    version: int
    since: float
    """Time of the first call, unix seconds."""

    latest: float
    """Time of the last one."""

    requests: int
    """Calls since then, batches counted once."""

    observations: int
    """Observations answered since then."""

    requests_per_second: float
    """Over the last minute, or the latest 4,096 calls where these took less."""

    latency_p50_ms: float
    """Median time to predict, loading included, over the latest 4,096 calls, milliseconds."""

    latency_p95_ms: float
    latency_p99_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """One number of the observations or actions: how often it was where."""

    name: str
    low: float
    """Lower end of the first bin."""

    high: float
    """Upper end of the last bin."""

    served: list[float]
    """Share of what was served in each bin, all equally wide; none where nothing was."""

    evaluation: list[float] | None
    """Share of the evaluation's steps in each; null where they are not known."""

    distance: float | None
    """Total variation distance of the two: 0 where they are equal, 1 where nothing is shared."""


class _Record:
    """One loaded model's arrays; written by the event loop alone."""

    __slots__ = ("ends", "first", "next_look", "observations", "requests", "rows", "seconds",
                 "steps")  # fmt: skip

    def __init__(self) -> None:
        self.first = time.time()
        self.requests = self.observations = self.steps = 0
        self.ends = np.zeros(_CALLS)
        self.seconds = np.zeros(_CALLS)
        self.next_look = 0.0
        self.rows: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None = None

    def look(self, observations: npt.NDArray[Any], actions: npt.NDArray[Any]) -> None:
        if self.rows is None:
            shapes = (observations.shape[1], actions.shape[1])
            self.rows = (
                np.zeros((_STEPS, shapes[0]), np.float32),
                np.zeros((_STEPS, shapes[1]), np.float32),
            )
        if any(
            kept.shape[1] != new.shape[1]
            for kept, new in zip(self.rows, (observations, actions), strict=True)
        ):
            return  # actions are nested in JSON, and rows in tensors
        places = np.arange(self.steps, self.steps + len(observations)) % _STEPS
        self.rows[0][places] = observations
        self.rows[1][places] = actions
        self.steps += len(observations)


class ServedFigures:
    """Figures of all models that this process serves; `note` is for the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: OrderedDict[Key, _Record] = OrderedDict()

    def note(
        self,
        model: LoadedModel,
        started: float,
        observations: object,
        actions: object,
        n: int | None = None,
    ) -> float:
        """Note a call that was just answered; returns the seconds that it took.

        Args:
            model: that answered.
            started: when the call came, on the clock of `time.perf_counter`.
            observations: as the model took them.
            actions: as the model gave them.
            n: how many there were; None for one that is no batch.
        """
        now = time.perf_counter()
        seconds = now - started
        record = self._records.get(model.ref.key)
        if record is None:
            record = self._begin(model.ref.key)
        place = record.requests % _CALLS
        record.ends[place] = now
        record.seconds[place] = seconds
        record.requests += 1
        record.observations += 1 if n is None else n
        if now >= record.next_look and n != 0:
            record.next_look = now + _PAUSE_SECONDS
            try:
                record.look(*_sample(model, observations, actions, n))
            except Exception:  # noqa: BLE001 - the call is answered, whatever its figures are
                _log.warning("What %s answered is not looked at.", model.ref, exc_info=True)
        return seconds

    def _begin(self, key: Key) -> _Record:
        record = _Record()
        with self._lock:
            self._records[key] = record
            while len(self._records) > _MODELS:
                self._records.popitem(last=False)
        return record

    def asked(self) -> list[Key]:
        """Of the models that were asked, the latest that was first asked first."""
        with self._lock:
            return list(self._records)[::-1]

    def of(self, key: Key) -> ServedModel | None:
        """A model's figures; None where it was not asked."""
        record = self._records.get(key)
        if record is None:
            return None
        n = min(record.requests, _CALLS)
        ends, seconds = record.ends[:n].copy(), record.seconds[:n].copy()
        now = time.perf_counter()
        recent = ends[ends > now - _RATE_SECONDS]
        is_full = len(recent) == _CALLS
        window = max(now - recent.min(), 1e-3) if is_full else _RATE_SECONDS
        window = min(window, max(time.time() - record.first, 1.0))
        p50, p95, p99 = np.percentile(seconds * 1000.0, [50, 95, 99]).tolist()
        return ServedModel(
            name=key[0],
            version=key[1],
            since=record.first,
            latest=time.time() - (now - float(ends.max())),
            requests=record.requests,
            observations=record.observations,
            requests_per_second=len(recent) / window,
            latency_p50_ms=p50,
            latency_p95_ms=p95,
            latency_p99_ms=p99,
        )

    def steps(self, key: Key) -> Steps | None:
        """The latest observations and actions that were looked at; None where there are none."""
        record = self._records.get(key)
        if record is None or record.rows is None:
            return None
        n = min(record.steps, _STEPS)
        return Steps(record.rows[0][:n].copy(), record.rows[1][:n].copy())


def _sample(
    model: LoadedModel,
    observations: Any,  # noqa: ANN401 - as the model took them
    actions: object,
    n: int | None,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Rows of a few of them, (k, n) and (k, m)."""
    if n is None:
        rows = model.rows([observations])
        done = np.zeros((1, 0)) if _is_nested(actions) else np.array([actions], np.float64)
    else:
        chosen = slice(0, n, max(1, n // _OF_A_BATCH))
        if isinstance(observations, Mapping):
            rows = model.rows({name: part[chosen] for name, part in observations.items()})
        else:
            rows = model.rows(observations[chosen])
        done = np.asarray(actions, np.float64)[chosen]
    return _few(rows), _few(done)


def _is_nested(action: object) -> bool:
    return isinstance(action, dict | tuple) or (
        isinstance(action, list) and any(isinstance(part, list | dict) for part in action)
    )


def _few(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    flat = rows.reshape(len(rows), -1)
    if flat.shape[1] > MOST_FEATURES:
        return flat[:, :0]
    finite: npt.NDArray[Any] = np.clip(np.nan_to_num(flat), -_MOST, _MOST)
    return finite


def histograms(
    names: Sequence[str],
    served: npt.NDArray[Any],
    evaluation: npt.NDArray[Any] | None,
    choices: range | None,
) -> list[Histogram]:
    """A histogram of each column.

    Args:
        names: of the columns.
        served: shape (T, n).
        evaluation: shape (S, n), or None.
        choices: where the one column is a choice, what may be chosen: a bin each; else None.
    """
    found = []
    for i, name in enumerate(names[: served.shape[1]]):
        mine = served[:, i]
        its = evaluation[:, i] if evaluation is not None and evaluation.shape[1] > i else None
        together = mine if its is None else np.concatenate([mine, its])
        if not len(together):
            continue
        low, high = _ends(together)
        if choices is not None:
            low, high = choices.start - 0.5, choices.stop - 0.5
        bins = _BINS if choices is None else len(choices)
        shares, other = _shares(mine, low, high, bins), None
        if its is not None and len(its):
            other = _shares(its, low, high, bins)
        distance = None
        if other is not None and len(mine):
            distance = float(np.abs(shares - other).sum() / 2)
        found.append(
            Histogram(
                name=name, low=float(low), high=float(high), served=shares.tolist(),
                evaluation=None if other is None else other.tolist(), distance=distance,
            )
        )  # fmt: skip
    return found


def _ends(values: npt.NDArray[Any]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high > low:
        return low, high
    around = max(0.5, abs(low) / 100)
    return low - around, high + around


def _shares(
    values: npt.NDArray[Any], low: float, high: float, bins: int
) -> npt.NDArray[np.float64]:
    counts, _ = np.histogram(np.clip(values, low, high), bins, (low, high))
    shares: npt.NDArray[np.float64] = counts / max(1, len(values))
    return shares
