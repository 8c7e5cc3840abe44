"""Turns what a trainer reports into metric points; imports no MLflow."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from grpo.evaluation import Evaluation
from grpo.reporting import Reporter, RolloutStats, UpdateStats
from grpo_platform.tracking.names import Metric
from grpo_platform.tracking.series import Series, Value
from grpo_platform.tracking.system import SystemMonitor

__all__ = ["Point", "TrackingReporter"]

_EPISODES: Final = 100
"""Episodes that `rollout/ep_rew_mean` is the mean of, as in Stable-Baselines3."""

_RESERVE: Final = 20
"""One point in so many is kept for the unfinished slices that are written at a stop."""

_SYSTEM_SECONDS: Final = 2.0
"""Time between two samples of the machine; those of one slice become one point."""

_LAST: Final = frozenset(
    {
        Metric.EPISODE_RETURN,
        Metric.EPISODE_LENGTH,
        Metric.N_UPDATES,
        Metric.TIMESTEPS,
        Metric.FPS,
        Metric.TIME_ELAPSED,
    }
)
"""Metrics whose last value stands for a slice of the run; of the others it is the mean."""

_UPDATE: Final = (
    (Metric.POLICY_LOSS, "policy_loss"),
    (Metric.VALUE_LOSS, "value_loss"),
    (Metric.ENTROPY, "entropy"),
    (Metric.APPROX_KL, "approx_kl"),
    (Metric.CLIP_FRACTION, "clip_fraction"),
    (Metric.GRAD_NORM, "grad_norm"),
    (Metric.EXPLAINED_VARIANCE, "explained_variance"),
    (Metric.N_UPDATES, "n_updates"),
)
_EVALUATION: Final = (
    (Metric.EVAL_MEAN, "mean"),
    (Metric.EVAL_STD, "std"),
    (Metric.EVAL_IQM, "iqm"),
    (Metric.EVAL_CI_LOW, "ci_low"),
    (Metric.EVAL_CI_HIGH, "ci_high"),
)


class Point(NamedTuple):
    """One value of one metric, ready to be logged."""

    key: str
    value: float
    step: int
    """Environment timesteps of the run."""

    timestamp_ms: int
    """Unix time when it was measured."""


class TrackingReporter(Reporter):
    """Collects points for whoever drains them, at most `max_points` for each metric.

    The run is cut into equal slices, and a metric gets one point for each. What a slice holds
    so far is in `state_dict`, so a run that goes on from a checkpoint makes the same points as
    one that was never interrupted.

    Args:
        total_timesteps: budget of the run, environment timesteps.
        max_points: most points of one metric, at least 2.
        clock: unix time in seconds.
    """

    def __init__(
        self,
        total_timesteps: int,
        max_points: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._total = total_timesteps
        self._reserve = max(1, max_points // _RESERVE)
        self._stride = math.ceil(total_timesteps / max(1, max_points - self._reserve))
        self._clock = clock
        self._series: dict[str, Series] = {}
        self._evaluated: dict[str, int] = {}
        self._points: list[Point] = []
        self._returns: deque[float] = deque(maxlen=_EPISODES)
        self._lengths: deque[int] = deque(maxlen=_EPISODES)
        self._tails = 0
        self._timesteps = 0
        self._begin_timesteps = 0
        self._elapsed_before = 0.0
        self._begun = clock()
        self._monitor = SystemMonitor()
        self._next_sample = self._begun + _SYSTEM_SECONDS

    @property
    def timesteps(self) -> int:
        """Environment timesteps of the run so far."""
        return self._timesteps

    @property
    def seconds(self) -> float:
        """Seconds trained so far, over all attempts."""
        return self._elapsed_before + self._clock() - self._begun

    def on_rollout(self, stats: RolloutStats) -> None:
        """Take the rewards, episodes and share of degenerate groups of one iteration."""
        step = int(stats.timesteps[-1]) if len(stats.timesteps) else self._timesteps
        closed = self._of(Metric.REWARD).add_all(stats.rewards, stats.timesteps)
        self._emit(Metric.REWARD, closed)
        self._add(Metric.DEGENERATE_FRACTION, stats.degenerate_fraction, step)
        if stats.episodes:
            self._returns.extend(episode.episode_return for episode in stats.episodes)
            self._lengths.extend(episode.length for episode in stats.episodes)
            self._add(Metric.EPISODE_RETURN, float(np.mean(self._returns)), step)
            self._add(Metric.EPISODE_LENGTH, float(np.mean(self._lengths)), step)

    def on_update(self, stats: UpdateStats) -> None:
        """Take the figures of one iteration's updates, and of the clock."""
        self._timesteps = stats.timesteps
        for key, name in _UPDATE:
            self._add(key, getattr(stats, name), stats.timesteps)
        seconds = self._clock() - self._begun
        self._add(Metric.TIMESTEPS, stats.timesteps, stats.timesteps)
        self._add(Metric.TIME_ELAPSED, self._elapsed_before + seconds, stats.timesteps)
        if seconds > 0:
            fps = (stats.timesteps - self._begin_timesteps) / seconds
            self._add(Metric.FPS, fps, stats.timesteps)
        if self._clock() >= self._next_sample:
            self._next_sample = self._clock() + _SYSTEM_SECONDS
            for key, value in self._monitor.sample().items():
                self._add(key, value, stats.timesteps)

    def on_evaluation(self, timesteps: int, evaluation: Evaluation) -> None:
        """Take an evaluation: shown at once, one in each slice; the last one is always shown."""
        for key, name in _EVALUATION:
            self._evaluate(key, float(getattr(evaluation, name)), timesteps)
        self._evaluate(Metric.EVAL_LENGTH, float(np.mean(evaluation.lengths)), timesteps)

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
        now = self._now_ms()
        return [
            Point(key, value[0], value[1], now)
            for key, series in self._series.items()
            if (value := series.pending()) is not None
        ]

    def state_dict(self) -> dict[str, Any]:
        """JSON values from which `load_state_dict` goes on; points must be drained before."""
        return {
            "series": {key: series.state() for key, series in self._series.items()},
            "evaluated": dict(self._evaluated),
            "returns": list(self._returns),
            "lengths": list(self._lengths),
            "tails": self._tails,
            "timesteps": self._timesteps,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the reporter of an earlier attempt was."""
        for key, values in state["series"].items():
            self._of(key).restore(values)
        self._evaluated = dict(state["evaluated"])
        self._returns.extend(state["returns"])
        self._lengths.extend(state["lengths"])
        self._tails = state["tails"]
        self._timesteps = self._begin_timesteps = state["timesteps"]
        self._elapsed_before = state["seconds"]
        self._begun = self._clock()

    def _of(self, key: str) -> Series:
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series(self._stride, keep_last=key in _LAST)
        return series

    def _add(self, key: str, value: float, step: int) -> None:
        closed = self._of(key).add(value, step)
        if closed is not None:
            self._emit(key, [closed])

    def _emit(self, key: str, values: list[Value]) -> None:
        if values:
            now = self._now_ms()
            self._points.extend(Point(key, value, step, now) for value, step in values)

    def _evaluate(self, key: str, value: float, step: int) -> None:
        """Emit the first of a slice at once; a later one waits in its series for `finish`."""
        index = (max(step, 1) - 1) // self._stride
        if self._evaluated.get(key, -1) != index:
            self._evaluated[key] = index
            self._series.pop(key, None)
            if math.isfinite(value):
                self._emit(key, [(value, step)])
        else:
            series = self._series[key] = Series(self._stride, keep_last=True)
            series.add(value, step)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
