"""Turns what a trainer reports into metric points, thinned; imports no MLflow."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import psutil

from grpo.evaluation import Evaluation
from grpo.reporting import Reporter, RolloutStats, UpdateStats
from grpo.verdict import Verdict
from grpo_platform.core.names import SYSTEM_METRICS_PREFIX, Metric

__all__ = [
    "Curve",
    "Group",
    "HistoryPoint",
    "Point",
    "SystemMonitor",
    "TrackingReporter",
    "evaluation_figures",
    "thin",
    "verdict_figures",
]

_T = TypeVar("_T")


class HistoryPoint(NamedTuple):
    """One logged value of a metric."""

    step: int
    """Environment timesteps."""

    value: float
    timestamp_ms: int
    """Unix time when it was measured."""


def thin(items: Sequence[_T], most: int) -> list[_T]:
    """At most `most` of the items, evenly spaced, the first and the last always among them.

    Args:
        items: in order.
        most: at least 2, unless there are fewer items.
    """
    count = len(items)
    if count <= most:
        return list(items)
    if most < 2:
        return list(items[-most:]) if most else []
    return [items[round(i * (count - 1) / (most - 1))] for i in range(most)]


_NONE: Final = -1


class Curve:
    """One metric, of which many values arrive at once; a slice's value is their mean.

    Args:
        stride: length of a slice, environment timesteps.
    """

    __slots__ = ("_count", "_slice", "_step", "_stride", "_sum")

    def __init__(self, stride: int) -> None:
        self._stride = stride
        self._slice = _NONE
        self._sum = 0.0
        self._count = 0
        self._step = 0

    def add(
        self, values: npt.NDArray[np.float64], steps: npt.NDArray[np.int64]
    ) -> list[tuple[float, int]]:
        """Take values of shape (T,) at rising steps, shape (T,).

        Returns:
            Value and step of each slice that they close.
        """
        if not isfinite(values.sum()):  # quicker than looking at each
            good = np.isfinite(values)
            values, steps = values[good], steps[good]
        if len(values) == 0:
            return []
        slices = (steps - 1) // self._stride
        begins = np.flatnonzero(slices[1:] != slices[:-1]) + 1
        starts = [0, *begins.tolist()]
        ends = [*starts[1:], len(values)]
        sums = np.add.reduceat(values, starts).tolist()
        closed = []
        for start, end, total in zip(starts, ends, sums, strict=True):
            index = int(slices[start])
            if index != self._slice:
                if self._count:
                    closed.append((self._sum / self._count, self._step))
                self._slice, self._sum, self._count = index, 0.0, 0
            self._sum += total
            self._count += end - start
            self._step = int(steps[end - 1])
        return closed

    def pending(self) -> tuple[float, int] | None:
        """Value and step of the slice that is still open."""
        return (self._sum / self._count, self._step) if self._count else None

    def state(self) -> list[Any]:
        """JSON values that `restore` takes; floats survive JSON exactly."""
        return [self._slice, self._sum, self._count, self._step]

    def restore(self, state: list[Any]) -> None:
        """Go on where another curve was."""
        self._slice, self._sum, self._count, self._step = state


class Group:
    """Metrics that arrive together, one value each at one step.

    Args:
        stride: length of a slice, environment timesteps.
        keys: of the metrics, in the order of their values.
        keep_last: those of them whose last value stands for a slice, not the mean.
    """

    __slots__ = ("_counts", "_keep_last", "_keys", "_slice", "_step", "_stride", "_sums")

    def __init__(
        self, stride: int, keys: Sequence[str], keep_last: frozenset[str] = frozenset()
    ) -> None:
        self._stride = stride
        self._keys = tuple(keys)
        self._keep_last = tuple(key in keep_last for key in keys)
        self._slice = _NONE
        self._step = 0
        self._sums = [0.0] * len(self._keys)
        self._counts = [0] * len(self._keys)

    def add(self, values: Sequence[float], step: int) -> list[tuple[str, float, int]]:
        """Take a value for each key.

        Returns:
            Key, value and step of what the values close, if they begin a new slice.
        """
        index = (step - 1) // self._stride
        closed = []
        if index != self._slice:
            closed = self.pending()
            self._slice = index
            self._sums = [0.0] * len(self._keys)
            self._counts = [0] * len(self._keys)
        self._step = step
        sums, counts = self._sums, self._counts
        for i, value in enumerate(values):
            if isfinite(value):
                if self._keep_last[i]:
                    sums[i], counts[i] = float(value), 1
                else:
                    sums[i] += value
                    counts[i] += 1
        return closed

    def pending(self) -> list[tuple[str, float, int]]:
        """Key, value and step of what the open slice holds."""
        step = self._step
        return [
            (key, total / count, step)
            for key, total, count in zip(self._keys, self._sums, self._counts, strict=True)
            if count
        ]

    def state(self) -> list[Any]:
        """JSON values that `restore` takes; floats survive JSON exactly."""
        return [self._slice, self._step, list(self._sums), list(self._counts)]

    def restore(self, state: list[Any]) -> None:
        """Go on where another group of the same keys was, or of the first of them."""
        self._slice, self._step, sums, counts = state
        new = len(self._keys) - len(sums)
        self._sums, self._counts = [*sums, *[0.0] * new], [*counts, *[0] * new]


_MEGABYTE: Final = 1 << 20


class SystemMonitor:
    """Samples this process and its machine; shares of time are since the last sample."""

    keys = tuple(
        SYSTEM_METRICS_PREFIX + name
        for name in (
            "cpu_utilization_percentage",
            "system_memory_usage_megabytes",
            "system_memory_usage_percentage",
            "trainer_cpu_percentage",
            "trainer_memory_megabytes",
        )
    )
    """Metric keys of a sample: shares in percent, of one core for the process; memory in MiB."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.sample()  # the first shares of time mean nothing

    def sample(self) -> tuple[float, ...]:
        """Values of `keys` now."""
        memory = psutil.virtual_memory()
        return (
            psutil.cpu_percent(),
            memory.used / _MEGABYTE,
            memory.percent,
            self._process.cpu_percent(),
            self._process.memory_info().rss / _MEGABYTE,
        )


_EPISODES: Final = 100
"""Episodes that `rollout/ep_rew_mean` is the mean of, as in Stable-Baselines3."""

_RESERVE: Final = 20
"""One point in so many is kept for the unfinished slices that are written at a stop."""

_SYSTEM_SECONDS: Final = 2.0
"""Time between two samples of the machine; those of one slice become one point."""

_UPDATE_KEYS: Final = (
    Metric.DEGENERATE_FRACTION, Metric.POLICY_LOSS, Metric.VALUE_LOSS, Metric.ENTROPY,
    Metric.APPROX_KL, Metric.CLIP_FRACTION, Metric.GRAD_NORM, Metric.EXPLAINED_VARIANCE,
    Metric.N_UPDATES, Metric.TIMESTEPS, Metric.TIME_ELAPSED, Metric.FPS, Metric.RETURN_STD,
    Metric.SIBLING_FRACTION, Metric.SHARED_VARIANCE,
)  # fmt: skip
"""A new one comes last: checkpoints of earlier releases have the first of them."""

_EPISODE_KEYS: Final = (Metric.EPISODE_RETURN, Metric.EPISODE_LENGTH)
_LAST: Final = frozenset(
    {*_EPISODE_KEYS, Metric.N_UPDATES, Metric.TIMESTEPS, Metric.TIME_ELAPSED, Metric.FPS}
)
"""Metrics whose last value stands for a slice of the run; of the others it is the mean."""

_NAN: Final = float("nan")


class Point(NamedTuple):
    """One value of one metric, ready to be logged."""

    key: str
    value: float
    step: int
    """Environment timesteps of the run."""

    timestamp_ms: int
    """Unix time when it was measured."""


def evaluation_figures(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation as metrics; those that are finite."""
    figures = {
        Metric.EVAL_MEAN: evaluation.mean,
        Metric.EVAL_STD: evaluation.std,
        Metric.EVAL_IQM: evaluation.iqm,
        Metric.EVAL_CI_LOW: evaluation.ci_low,
        Metric.EVAL_CI_HIGH: evaluation.ci_high,
        Metric.EVAL_LENGTH: float(evaluation.lengths.mean()),
    }
    return {key: float(value) for key, value in figures.items() if math.isfinite(value)}


def verdict_figures(verdict: Verdict) -> dict[str, float]:
    """A verdict as metrics: differences with their intervals; those that are finite."""
    figures = {
        Metric.OVER_RANDOM: verdict.random.difference,
        Metric.OVER_RANDOM_CI_LOW: verdict.random.ci_low,
        Metric.OVER_RANDOM_CI_HIGH: verdict.random.ci_high,
        Metric.OVER_START: verdict.start.difference,
        Metric.OVER_START_CI_LOW: verdict.start.ci_low,
        Metric.OVER_START_CI_HIGH: verdict.start.ci_high,
    }
    return {key: value for key, value in figures.items() if math.isfinite(value)}


class TrackingReporter(Reporter):
    """Collects points for whoever drains them, at most `max_points` for each metric.

    The run is cut into equal slices, and a metric gets one point for each. What a slice holds
    so far is in `state_dict`, so a run that goes on from a checkpoint makes the same points as
    one that was never interrupted.

    Args:
        total_timesteps: budget of the run, environment timesteps.
        max_points: most points of one metric, at least 2.
        clock: seconds that pass, whatever the machine's time is set to.
        wall_clock: unix time in seconds, for the points' timestamps alone.
    """

    def __init__(
        self,
        total_timesteps: int,
        max_points: int,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._total = total_timesteps
        self._reserve = max(1, max_points // _RESERVE)
        self._slices = max(1, max_points - self._reserve)
        self._stride = math.ceil(total_timesteps / self._slices)
        self._clock = clock
        self._wall_clock = wall_clock
        self._monitor = SystemMonitor()
        self._rewards = Curve(self._stride)
        self._groups = {
            "update": Group(self._stride, _UPDATE_KEYS, _LAST),
            "episodes": Group(self._stride, _EPISODE_KEYS, _LAST),
            "system": Group(self._stride, self._monitor.keys),
        }
        self._update = self._groups["update"]
        self._points: list[Point] = []
        self._evaluated_slice = -1
        self._late_evaluation: list[tuple[str, float, int]] = []
        self._degenerate_fraction = _NAN
        self._siblings = (_NAN, _NAN)
        self._returns: deque[float] = deque(maxlen=_EPISODES)
        self._lengths: deque[int] = deque(maxlen=_EPISODES)
        self._tails = 0
        self._timesteps = 0
        self._begin_timesteps = 0
        self._elapsed_before = 0.0
        self._begun = clock()
        self._next_sample = self._begun + _SYSTEM_SECONDS

    @property
    def timesteps(self) -> int:
        """Environment timesteps of the run so far."""
        return self._timesteps

    @property
    def seconds(self) -> float:
        """Seconds trained so far, over all attempts."""
        return self._elapsed_before + self._clock() - self._begun

    def count_earlier(self, seconds: float) -> None:
        """Earlier attempts trained so long, with what came after their last checkpoint."""
        self._elapsed_before = max(self._elapsed_before, seconds)

    def on_rollout(self, stats: RolloutStats) -> None:
        """Take the rewards and episodes of one iteration, and how its members compare."""
        if closed := self._rewards.add(stats.rewards, stats.timesteps):
            self._emit((Metric.REWARD, value, step) for value, step in closed)
        common = _NAN if stats.shared_variance is None else stats.shared_variance
        self._degenerate_fraction = stats.degenerate_fraction
        self._siblings = stats.sibling_fraction, common
        if stats.episodes:
            self._returns.extend(episode.episode_return for episode in stats.episodes)
            self._lengths.extend(episode.length for episode in stats.episodes)
            count = len(self._returns)
            means = (sum(self._returns) / count, sum(self._lengths) / count)
            self._emit(self._groups["episodes"].add(means, int(stats.timesteps[-1])))

    def on_update(self, stats: UpdateStats) -> None:
        """Take the figures of one iteration, its rollouts' among them, and of the clock."""
        self._timesteps = steps = stats.timesteps
        now = self._clock()
        seconds = now - self._begun
        figures = (
            self._degenerate_fraction, stats.policy_loss, stats.value_loss, stats.entropy,
            stats.approx_kl, stats.clip_fraction, stats.grad_norm, stats.explained_variance,
            stats.n_updates, steps, self._elapsed_before + seconds,
            (steps - self._begin_timesteps) / seconds if seconds > 0 else _NAN, stats.return_std,
            *self._siblings,
        )  # fmt: skip
        if closed := self._update.add(figures, steps):
            self._emit(closed)
        if now >= self._next_sample:
            self._next_sample = now + _SYSTEM_SECONDS
            self._emit(self._groups["system"].add(self._monitor.sample(), steps))

    def on_evaluation(self, timesteps: int, evaluation: Evaluation) -> None:
        """Take an evaluation: the first of a slice is shown at once, a later one at `finish`.

        So is the first of the last slice of all.
        """
        values = [(k, v, timesteps) for k, v in evaluation_figures(evaluation).items()]
        index = (timesteps - 1) // self._stride
        # those kept for stops are used up by stops; the end needs one too
        is_last = index + 1 >= self._slices
        if index == self._evaluated_slice or is_last:
            self._late_evaluation = values
        else:
            self._evaluated_slice = index
            self._late_evaluation = []
            self._emit(values)

    def on_verdict(self, verdict: Verdict) -> None:
        """Take what the last evaluation is compared with."""
        self._emit((key, value, self._timesteps) for key, value in verdict_figures(verdict).items())

    def drain(self) -> list[Point]:
        """The points made since the last call, in order."""
        points, self._points = self._points, []
        return points

    def finish(self) -> list[Point]:
        """Points of the slices that are still open, for a run that ends or is stopped here.

        Take the state for a checkpoint after this, not before: it counts these points. Not for a
        run that goes on by itself, e.g. after a restart of the server: it makes them later.
        """
        if self._timesteps < self._total:
            if self._tails >= self._reserve:
                return []
            self._tails += 1
        reward = self._rewards.pending()
        rows = [] if reward is None else [(Metric.REWARD, *reward)]
        for group in self._groups.values():
            rows += group.pending()
        now = self._now_ms()
        return [Point(*row, now) for row in rows + self._late_evaluation]

    def state_dict(self) -> dict[str, Any]:
        """JSON values from which `load_state_dict` goes on; points must be drained before."""
        return {
            "rewards": self._rewards.state(),
            "groups": {name: group.state() for name, group in self._groups.items()},
            "evaluated_slice": self._evaluated_slice,
            "late_evaluation": [list(row) for row in self._late_evaluation],
            "returns": list(self._returns),
            "lengths": list(self._lengths),
            "tails": self._tails,
            "timesteps": self._timesteps,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the reporter of an earlier attempt was."""
        self._rewards.restore(state["rewards"])
        for name, values in state["groups"].items():
            self._groups[name].restore(values)
        self._evaluated_slice = state["evaluated_slice"]
        self._late_evaluation = [
            (key, value, step) for key, value, step in state["late_evaluation"]
        ]
        self._returns.extend(state["returns"])
        self._lengths.extend(state["lengths"])
        self._tails = state["tails"]
        self._timesteps = self._begin_timesteps = state["timesteps"]
        self._elapsed_before = state["seconds"]
        self._begun = self._clock()

    def _emit(self, rows: Iterable[tuple[str, float, int]]) -> None:
        now = self._now_ms()
        self._points.extend([Point(key, value, step, now) for key, value, step in rows])

    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000)
