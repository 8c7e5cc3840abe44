"""Histories of metrics, thinned: while they are logged, and to what a plot can show."""

from collections.abc import Sequence
from math import isfinite
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["Curve", "Group", "HistoryPoint", "thin"]

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
        """Go on where another group of the same keys was."""
        self._slice, self._step, sums, counts = state
        self._sums, self._counts = list(sums), list(counts)
