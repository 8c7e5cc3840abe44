"""Intervals of returns: of a mean, of an interquartile mean, of what two of them differ by.

The mean is what training maximises, and what a rare disaster shows in. The interquartile mean drops
the worst quarter, and is for comparing algorithms over seeds (Agarwal et al. 2021, arXiv
2108.13264). All is written in numpy, so that nothing heavy is imported; the tests hold it equal to
SciPy's, and `make bench-coverage` measures how often the intervals hold the truth.

Nothing here draws at random: equal inputs give equal bits, in whatever order the values stand
(of `mean_interval` and `mean_limits` from 40 values on, but for the resampling).
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from grpo.bootstrap import (
    iqm,
    stratified_bootstrap_interval,
    student_quantile,
)
from grpo.curves import Curve, align_curves, area_under_curve, steps_to_threshold
from grpo.errors import OutOfRangeError
from grpo.limits import (
    CONFIDENCE,
    difference_limits,
    iqm_limits,
    mean_limits,
    probability_limits,
    wilson_limits,
)

__all__ = [
    "CONFIDENCE",
    "Curves",
    "Difference",
    "Interval",
    "Profile",
    "aggregate_curves",
    "area_under_curve",
    "difference",
    "difference_limits",
    "holm",
    "iqm",
    "iqm_interval",
    "iqm_limits",
    "mean_interval",
    "mean_limits",
    "p_value",
    "performance_profile",
    "probability_limits",
    "probability_of_improvement",
    "steps_to_threshold",
    "stratified_bootstrap_interval",
    "student_quantile",
]

_NORMAL = NormalDist()

FloatArray = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with its interval, all in the estimate's unit; 95 % unless asked otherwise."""

    estimate: float
    """Such as a mean."""

    low: float
    """Lower end of the interval."""

    high: float
    """Upper end of the interval."""


class Difference(NamedTuple):
    """By how much one sample's returns exceed another's."""

    mean: Interval
    """Mean minus mean."""

    iqm: Interval
    """Interquartile mean minus interquartile mean."""


class Profile(NamedTuple):
    """Shares of runs that scored more than each threshold; shape (m,) each."""

    thresholds: FloatArray
    shares: FloatArray
    low: FloatArray
    high: FloatArray


class Curves(NamedTuple):
    """Several runs' histories at common steps; shape (points,) each."""

    steps: FloatArray
    iqm: FloatArray
    low: FloatArray
    high: FloatArray
    count: npt.NDArray[np.int64]  # type: ignore[assignment]  # tuples have a method of this name
    """Runs that reach the step: the others are not counted there."""


def mean_interval(values: npt.ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The mean of a sample, shape (n,), and the interval of `mean_limits`.

    Raises:
        OutOfRangeError: there is no value, or one that is not finite.
    """
    data = _sample(values)
    low, high = mean_limits(data[:, None], confidence)
    mean = np.clip(data.mean(), low[0], high[0])  # equal values: their mean has round-off
    return Interval(float(mean), float(low[0]), float(high[0]))


def iqm_interval(scores: npt.ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The interquartile mean of the scores of n seeds, shape (n,), and that of `iqm_limits`.

    Raises:
        OutOfRangeError: there is no score, or one that is not finite.
    """
    data = np.sort(_sample(scores))
    low, high = iqm_limits(data[:, None], confidence)
    return _interval(float(iqm(data)), low, high)


def difference(
    a: npt.ArrayLike, b: npt.ArrayLike, *, paired: bool, confidence: float = CONFIDENCE
) -> Difference:
    """By how much a's returns exceed b's: of the means and of the interquartile means.

    Args:
        a: shape (n,).
        b: shape (m,); where paired (n,), its values belong to a's in the same order.
        paired: whether the two share seeds, so that what a seed does to both cancels.
        confidence: share of intervals that hold the true difference.

    Raises:
        OutOfRangeError: there is no value, one that is not finite, or a pair is not whole.
    """
    one, other = _pair(a, b, paired)
    mean, iqms = difference_limits(one[:, None], other[:, None], paired, confidence)
    apart = (one - other).mean() if paired else one.mean() - other.mean()
    return Difference(
        _interval(float(apart), *mean), _interval(float(iqm(one)) - float(iqm(other)), *iqms)
    )


def probability_of_improvement(
    a: npt.ArrayLike, b: npt.ArrayLike, *, paired: bool = False, confidence: float = CONFIDENCE
) -> Interval:
    """Chance that a return of a's exceeds one of b's; an equal one counts half.

    Args:
        a: shape (n,).
        b: shape (m,); where paired (n,), only returns in the same place are set against each other.
        paired: whether the two share seeds.
        confidence: share of intervals that hold the true chance.

    Raises:
        OutOfRangeError: there is no value, one that is not finite, or a pair is not whole.
    """
    one, other = _pair(a, b, paired)
    estimate, low, high = probability_limits(one[:, None], other[:, None], paired, confidence)
    return _interval(float(estimate[0]), low, high)


def performance_profile(
    scores: npt.ArrayLike, thresholds: npt.ArrayLike, confidence: float = CONFIDENCE
) -> Profile:
    """Shares of runs that score more than each threshold (Agarwal et al. 2021, section 4.2).

    Args:
        scores: of n runs, shape (n,).
        thresholds: shape (m,).
        confidence: of the band, at each threshold by itself: Wilson's score interval (1927).

    Raises:
        OutOfRangeError: there is no score, or one that is not finite.
    """
    data = _sample(scores)
    at = np.asarray(thresholds, dtype=np.float64)
    shares = (data[:, None] > at).mean(axis=0)
    z = _NORMAL.inv_cdf((1.0 + confidence) / 2.0)
    return Profile(at, shares, *wilson_limits(shares, len(data), z))


def aggregate_curves(
    curves: Sequence[Curve],
    points: int = 100,
    confidence: float = CONFIDENCE,
) -> Curves:
    """Interquartile mean of several runs' histories at common steps, with `iqm_limits`.

    Where a run stopped early, fewer are left: see `align_curves`.

    Args:
        curves: (steps, values) of each run, shape (k,) each.
        points: common steps, at most.
        confidence: of the band, at each step by itself.

    Raises:
        OutOfRangeError: no history has a point.
    """
    steps, values = align_curves(curves, points)
    there = np.isfinite(values)
    bands = [
        iqm_interval(column[inside], confidence)
        for column, inside in zip(values.T, there.T, strict=True)
    ]
    middle, low, high = np.array(bands).T
    return Curves(steps, middle, low, high, there.sum(axis=0))


def p_value(interval: Callable[[float], Interval], null: float = 0.0) -> float:
    """The least level at which an interval leaves the null value out, by bisection; from 1e-6.

    Args:
        interval: gives the interval for a confidence.
        null: what is doubted.
    """

    def leaves_out(p: float) -> bool:
        _, low, high = interval(1.0 - p)
        return not low <= null <= high

    held, out = -6.0, 0.0
    if leaves_out(10.0**held):
        return math.pow(10.0, held)
    for _ in range(20):
        middle = (held + out) / 2.0
        held, out = (held, middle) if leaves_out(10.0**middle) else (middle, out)
    return math.pow(10.0, out)


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Adjusted p-values of k comparisons, shape (k,) in and out (Holm 1979).

    Their chance of one or more below 0.05 is 5 % where there is no difference at all.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def _sample(values: npt.ArrayLike) -> FloatArray:
    data = np.asarray(values, dtype=np.float64).ravel()
    if not data.size or not np.isfinite(data).all():
        raise OutOfRangeError(
            "An interval needs at least one value, and only finite ones.", field="values"
        )
    return data


def _pair(a: npt.ArrayLike, b: npt.ArrayLike, paired: bool) -> tuple[FloatArray, FloatArray]:
    """Two samples in an order of their own, so that none of it is left in what is summed."""
    one, other = _sample(a), _sample(b)
    if not paired:
        return np.sort(one), np.sort(other)
    if len(one) != len(other):
        raise OutOfRangeError("Paired samples must have equally many values.", field="b")
    order = np.lexsort([other, one - other])
    return one[order], other[order]


def _interval(
    estimate: float, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]
) -> Interval:
    """Round-off never leaves the estimate outside its interval."""
    return Interval(estimate, min(float(low[0]), estimate), max(float(high[0]), estimate))
