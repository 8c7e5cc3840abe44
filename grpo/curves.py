"""Histories of runs: brought to common steps, their height on the whole, when they are good."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grpo.errors import OutOfRangeError

__all__ = ["align_curves", "area_under_curve", "steps_to_threshold"]

FloatArray = npt.NDArray[np.float64]
Curve = tuple[npt.ArrayLike, npt.ArrayLike]


def align_curves(curves: Sequence[Curve], points: int) -> tuple[FloatArray, FloatArray]:
    """Several runs' histories at common steps; NaN where a run has none.

    Each is interpolated between its own points, and has no value beyond its own ends.

    Args:
        curves: (steps, values) of each of n runs, shape (k,) each; points that are not finite are
            left out, and of several at one step the last counts.
        points: common steps, evenly from the first of all to the last of all; those at which no
            run has a value are left out.

    Returns:
        Steps, shape (m,) with m at most `points`, and values, shape (n, m).

    Raises:
        OutOfRangeError: no history has a point.
    """
    runs = [run for run in (_curve(*curve) for curve in curves) if len(run[0])]
    if not runs:
        raise OutOfRangeError("No run has a point of this history.", field="curves")
    first, last = min(run[0][0] for run in runs), max(run[0][-1] for run in runs)
    steps = np.linspace(first, last, points) if last > first else np.array([first])
    values = np.array([np.interp(steps, *run, left=np.nan, right=np.nan) for run in runs])
    there = np.isfinite(values).any(axis=0)
    return steps[there], values[:, there]


def area_under_curve(steps: npt.ArrayLike, values: npt.ArrayLike, until: float) -> float:
    """Mean height of a history from step 0 to `until`, its ends held: how soon a run is good.

    Args:
        steps: shape (k,).
        values: shape (k,).
        until: last step that counts, above 0.

    Raises:
        OutOfRangeError: the history has no point, or `until` is not above 0.
    """
    at, heights = _curve(steps, values)
    if not len(at) or not until > 0.0:
        raise OutOfRangeError("An area needs a point, and a step above 0 to end at.", field="until")
    inside = at[(at > 0.0) & (at < until)]
    corners = np.concatenate([[0.0], inside, [float(until)]])
    return float(np.trapezoid(np.interp(corners, at, heights), corners) / until)


def steps_to_threshold(steps: npt.ArrayLike, values: npt.ArrayLike, threshold: float) -> int | None:
    """First step of a history, shape (k,), whose value is at least `threshold`; None if none is."""
    at, heights = _curve(steps, values)
    reached = at[heights >= threshold]
    return int(reached[0]) if len(reached) else None


def _curve(steps: npt.ArrayLike, values: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Finite points in the order of their steps; of several at one step the last."""
    at, heights = (np.asarray(x, dtype=np.float64).ravel() for x in (steps, values))
    finite = np.isfinite(at) & np.isfinite(heights)
    at, heights = at[finite][::-1], heights[finite][::-1]
    at, index = np.unique(at, return_index=True)
    return at, heights[index]
