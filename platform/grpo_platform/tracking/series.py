"""One metric's values, thinned to at most one point for each equal slice of the run."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["Series", "Value"]

_NONE: Final = -1

Value = tuple[float, int]
"""A value and its step, environment timesteps."""


class Series:
    """Values arrive in order of their steps; those of one slice become one value.

    Slice i holds the steps from i·stride + 1 to (i + 1)·stride. A slice's value is the mean of
    what arrived in it, or the last with `keep_last`; its step is that of its last value. It is
    given out when a later slice begins. NaN and infinite values are left out.

    Args:
        stride: length of a slice, environment timesteps.
        keep_last: the last value stands for the slice, not the mean.
    """

    __slots__ = ("_count", "_keep_last", "_slice", "_step", "_stride", "_sum")

    def __init__(self, stride: int, *, keep_last: bool = False) -> None:
        self._stride = stride
        self._keep_last = keep_last
        self._slice = _NONE
        self._sum = 0.0
        self._count = 0
        self._step = 0

    def add(self, value: float, step: int) -> Value | None:
        """Take one value; returns that of the slice it closes, if any."""
        if not np.isfinite(value):
            return None
        closed = self._enter((max(step, 1) - 1) // self._stride)
        self._put(float(value), 1, float(value), step)
        return closed

    def add_all(self, values: npt.NDArray[np.float64], steps: npt.NDArray[np.int64]) -> list[Value]:
        """Take values of shape (T,) at steps of shape (T,); returns those of closed slices."""
        good = np.isfinite(values)
        if not good.all():
            values, steps = values[good], steps[good]
        if len(values) == 0:
            return []
        slices = (np.maximum(steps, 1) - 1) // self._stride
        begins = np.flatnonzero(np.diff(slices, prepend=slices[0] - 1))
        ends = np.append(begins[1:], len(values))
        sums = np.add.reduceat(values, begins)
        closed = []
        for begin, end, total in zip(begins.tolist(), ends.tolist(), sums.tolist(), strict=True):
            if value := self._enter(int(slices[begin])):
                closed.append(value)
            self._put(total, end - begin, float(values[end - 1]), int(steps[end - 1]))
        return closed

    def pending(self) -> Value | None:
        """Value of the slice that is still open."""
        if self._count == 0:
            return None
        return (self._sum if self._keep_last else self._sum / self._count), self._step

    def state(self) -> list[Any]:
        """JSON values that `restore` takes; floats survive JSON exactly."""
        return [self._slice, self._sum, self._count, self._step]

    def restore(self, state: list[Any]) -> None:
        """Go on where another series was."""
        self._slice, self._sum, self._count, self._step = state

    def _enter(self, index: int) -> Value | None:
        if index == self._slice:
            return None
        closed = self.pending()
        self._slice, self._sum, self._count = index, 0.0, 0
        return closed

    def _put(self, total: float, count: int, last: float, step: int) -> None:
        self._sum = last if self._keep_last else self._sum + total
        self._count += count
        self._step = step
