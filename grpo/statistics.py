"""Intervals of returns: of a mean, of an interquartile mean, of what two of them differ by.

The mean is what training maximises, and what a rare disaster shows in. The interquartile mean drops
the worst quarter, and is for comparing algorithms over seeds (Agarwal et al. 2021, arXiv
2108.13264). All is written in numpy, so that nothing heavy is imported; the tests hold it equal to
SciPy's, and `make bench-coverage` measures how often the intervals hold the truth.

Nothing here draws at random: equal inputs give equal bits, in whatever order the values stand
(of `mean_interval` and `mean_limits` from `RESAMPLED_FROM` values on, but for the resampling).
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from grpo.bootstrap import (
    iqm,
    resampled_limits,
    stratified_bootstrap_interval,
    student_quantile,
)
from grpo.curves import Curve, align_curves, area_under_curve, steps_to_threshold
from grpo.errors import OutOfRangeError

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

CONFIDENCE: Final = 0.95
"""Of an interval, unless asked otherwise."""

RESAMPLED_FROM: Final = 40
"""Values of a sample from which on its mean's interval is resampled, and ends at its extremes: the
mean lies between those of so many in all but one of a million samples even of log-normal values,
of three in three samples of four. Fewer have too few resamples, too."""

_MOST_SKEWED = 2.0  # times Student's t: further out few values say nothing of their own skew
_NORMAL = NormalDist()

FloatArray = npt.NDArray[np.float64]
Limits = tuple[FloatArray, FloatArray]


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


def mean_limits(samples: FloatArray, confidence: float = CONFIDENCE) -> Limits:
    """Interval of the mean of each of R samples: the wider end of Student's t and one for skew.

    Student's t is too short on skewed samples, towards the long tail: a disaster in one of a
    hundred episodes. What follows the skew is too short where both tails are heavy, which t is not.
    From `RESAMPLED_FROM` values on it is a bootstrap, see `resampled_limits`. Fewer values have too
    few resamples, and too often the mean beyond their extremes: there it is Hall's transformation,
    see `_wider`. Equal samples give equal intervals.

    Args:
        samples: shape (n, R), one sample a column.
        confidence: share of intervals that hold the true mean.

    Returns:
        Lower and upper ends, shape (R,) each.
    """
    n = len(samples)
    if n >= RESAMPLED_FROM:
        return resampled_limits(samples, confidence)
    least, most = samples.min(axis=0), samples.max(axis=0)
    if n == 1:
        return least, most
    t = float(student_quantile((1.0 + confidence) / 2.0, n - 1.0))
    moments = _Moments.of(np.sort(samples, axis=0))
    low, high = _wider(moments.mean, moments.variance, moments.third, t)
    equal = least == most
    return np.where(equal, least, low), np.where(equal, least, high)


class _Moments(NamedTuple):
    """Of the means of R samples, shape (R,) each."""

    mean: FloatArray
    variance: FloatArray
    third: FloatArray
    """Third central moment; 0 where two values cannot tell it."""

    @classmethod
    def of(cls, samples: FloatArray) -> "_Moments":
        n = len(samples)
        mean = samples.mean(axis=0)
        centred = samples - mean
        third = n / ((n - 1.0) * (n - 2.0)) * (centred**3).sum(axis=0) if n > 2 else 0.0 * mean
        return cls(mean, (centred**2).sum(axis=0) / (n * (n - 1.0)), third / n**2)


def _wider(
    centre: FloatArray, variance: FloatArray, third: FloatArray, t: float | FloatArray
) -> Limits:
    """The wider end of Student's t and of Hall's transformation of it, which takes out the skew.

    Hall (1992, Journal of the Royal Statistical Society B 54), his monotone cubic; no end is more
    than twice as far out as Student's t has it.

    Args:
        centre: an estimate, shape (R,).
        variance: of the estimate, shape (R,).
        third: its third central moment, shape (R,).
        t: Student's quantile.
    """
    error = np.sqrt(variance)
    skew = third / np.where(error > 0.0, error, 1.0) ** 3
    skewed = np.abs(skew) > 1e-6
    skew = np.where(skewed, skew, 1.0)

    def studentized(quantile: float | FloatArray) -> FloatArray:
        root = np.cbrt(1.0 + skew * (quantile - skew / 6.0))
        return np.where(skewed, (root - 1.0) * 3.0 / skew, quantile)

    return (
        centre - error * np.clip(studentized(t), t, _MOST_SKEWED * t),
        centre + error * np.clip(-studentized(-t), t, _MOST_SKEWED * t),
    )


def iqm_interval(scores: npt.ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The interquartile mean of the scores of n seeds, shape (n,), and that of `iqm_limits`.

    Raises:
        OutOfRangeError: there is no score, or one that is not finite.
    """
    data = np.sort(_sample(scores))
    low, high = iqm_limits(data[:, None], confidence)
    return _interval(float(iqm(data)), low, high)


def iqm_limits(samples: FloatArray, confidence: float = CONFIDENCE) -> Limits:
    """Interval of the interquartile mean of each of R samples.

    Student's t of the trimmed mean with the Winsorised variance (Tukey & McLaughlin 1963), in
    Yuen's form (1974), as SciPy's: a bootstrap of few values is too short. Where the Winsorised
    values are skewed it is Hall's transformation of it, whichever end is wider.

    Args:
        samples: shape (n, R), one sample a column.
        confidence: share of intervals that hold the true interquartile mean.

    Returns:
        Lower and upper ends, shape (R,) each.
    """
    trimmed = _Trimmed.of(samples)
    if len(samples) == 1:
        return trimmed.mean, trimmed.mean
    t = student_quantile((1.0 + confidence) / 2.0, trimmed.freedom)
    third = _Moments.of(np.sort(trimmed.winsorised, axis=0)).third
    share = (trimmed.freedom + 1.0) / len(samples)
    return _wider(trimmed.mean, trimmed.variance, third / share**3, t)


class _Trimmed(NamedTuple):
    """Interquartile means of R samples, shape (R,) each, and what their error follows from."""

    mean: FloatArray
    variance: FloatArray
    freedom: float
    winsorised: FloatArray
    """Shape (n, R), in the order of the samples: the outer quarters moved to the inner ones."""

    @classmethod
    def of(cls, samples: FloatArray) -> "_Trimmed":
        n = len(samples)
        cut = n // 4
        kept = n - 2 * cut
        ordered = np.sort(samples, axis=0)
        winsorised = np.clip(samples, ordered[cut], ordered[n - cut - 1])
        mean = np.clip(ordered[cut : n - cut].mean(axis=0), ordered[cut], ordered[n - cut - 1])
        inner = np.clip(ordered, ordered[cut], ordered[n - cut - 1])
        squares = ((inner - inner.mean(axis=0)) ** 2).sum(axis=0)
        squares = np.where(ordered[cut] == ordered[n - cut - 1], 0.0, squares)
        return cls(mean, squares / max(kept * (kept - 1.0), 1.0), kept - 1.0, winsorised)


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


def difference_limits(
    a: FloatArray, b: FloatArray, paired: bool, confidence: float = CONFIDENCE
) -> tuple[Limits, Limits]:
    """Intervals of the difference of means, and of that of interquartile means, of R pairs.

    Paired means: `mean_limits` of the differences. Means of independent samples: Welch (1947),
    with Hall's transformation as in `mean_limits`. Interquartile means: Yuen (1974), paired with
    the Winsorised covariance (Wilcox 2012, Introduction to Robust Estimation, section 5.9.5).

    Args:
        a: shape (n, R), a sample a column.
        b: shape (m, R).
        paired: whether values in the same place share a seed.
        confidence: share of intervals that hold the truth.
    """
    p = (1.0 + confidence) / 2.0
    one, other = _Trimmed.of(a), _Trimmed.of(b)
    apart = one.mean - other.mean
    if min(len(a), len(b)) == 1:
        means = mean_limits(a - b) if paired else (a.mean(axis=0) - b.mean(axis=0),) * 2
        return means, (apart, apart)
    if paired:
        kept = one.freedom + 1.0
        joint = one.winsorised - other.winsorised
        squares = ((joint - joint.mean(axis=0)) ** 2).sum(axis=0)
        reach = student_quantile(p, one.freedom) * np.sqrt(squares / (kept * one.freedom))
        return mean_limits(a - b, confidence), (apart - reach, apart + reach)
    left, right = _Moments.of(a), _Moments.of(b)
    t = student_quantile(p, _welch(left.variance, len(a) - 1.0, right.variance, len(b) - 1.0))
    means = _wider(
        left.mean - right.mean, left.variance + right.variance, left.third - right.third, t
    )
    freedom = _welch(one.variance, one.freedom, other.variance, other.freedom)
    reach = student_quantile(p, freedom) * np.sqrt(one.variance + other.variance)
    return means, (apart - reach, apart + reach)


def _welch(a: FloatArray, freedom_a: float, b: FloatArray, freedom_b: float) -> FloatArray:
    """Welch's degrees of freedom of a sum of two variances; all of them where both are 0."""
    shares = a**2 / freedom_a + b**2 / freedom_b
    total = freedom_a + freedom_b
    return np.where(shares > 0.0, (a + b) ** 2 / np.where(shares > 0.0, shares, 1.0), total)


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


def probability_limits(
    a: FloatArray, b: FloatArray, paired: bool, confidence: float = CONFIDENCE
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Chances of improvement and their limits, shape (R,) each, for R pairs of samples.

    Independent samples: Mann & Whitney's estimate (1947), and the score interval on Hanley &
    McNeil's variance that Newcombe calls method 5 (2006, Statistics in Medicine 25), with Student's
    quantile for the number of pairs and the variance that is left beside ties. Paired: Wilson's
    score interval (1927) of the share of pairs, with the variance of a half where two are equal.
    Both have a width where one side wins everything.
    """
    n, m = len(a), len(b)
    if paired:
        sign = np.sign(a - b)
        estimate = 0.5 + sign.mean(axis=0) / 2.0
        z = _NORMAL.inv_cdf((1.0 + confidence) / 2.0)
        ties = (sign == 0.0).sum(axis=0) / (n + z**2)
        return estimate, *_wilson(estimate, n, z, ties / 4.0)
    estimate = 0.5 + np.sign(a[:, None] - b[None]).mean(axis=(0, 1)) / 2.0
    pooled = np.concatenate([a, b])
    size = n + m
    equal = (pooled[:, None] == pooled[None]).sum(axis=0)
    distinct = 1.0 - (equal**2 - 1.0).sum(axis=0) / ((size + 1.0) ** 3 - size - 1.0)
    t = float(student_quantile((1.0 + confidence) / 2.0, max(n * m - 1.0, 1.0)))

    def reach(theta: FloatArray) -> FloatArray:
        more = (size / 2.0 - 1.0) * ((1.0 - theta) / (2.0 - theta) + theta / (1.0 + theta))
        variance: FloatArray = distinct * theta * (1.0 - theta) * (1.0 + more) / (n * m)
        return t * np.sqrt(variance)

    return estimate, *(_score_end(estimate, end, reach) for end in (0.0, 1.0))


def _score_end(
    estimate: FloatArray, end: float, reach: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """Where between an estimate and 0 or 1 the estimate is just within reach, by bisection."""
    near, far = estimate, np.full_like(estimate, end)
    for _ in range(50):
        middle = (near + far) / 2.0
        within = np.abs(estimate - middle) <= reach(middle)
        near, far = np.where(within, middle, near), np.where(within, far, middle)
    return near


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
    return Profile(at, shares, *_wilson(shares, len(data), z))


def _wilson(share: FloatArray, n: int, z: float, less: FloatArray | float = 0.0) -> Limits:
    """Wilson's score interval of a share of n, whose variance is p(1 − p) − less."""
    c = z**2 / n
    centre = (share + c / 2.0) / (1.0 + c)
    root = np.sqrt(np.maximum(centre**2 - (share**2 + c * less) / (1.0 + c), 0.0))
    return np.maximum(centre - root, 0.0), np.minimum(centre + root, 1.0)


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


def _interval(estimate: float, low: Any, high: Any) -> Interval:  # noqa: ANN401
    """Round-off never leaves the estimate outside its interval."""
    return Interval(estimate, min(float(low[0]), estimate), max(float(high[0]), estimate))
