"""Ends of the intervals of `grpo.statistics`, of R samples at once.

Shapes: samples are (n, R), a sample a column; ends are (R,). What is known of few values:

* Student's t is too short on the side of the long tail, of which few values show too little. How
  much longer an end must be there was found by simulation, on other seeds than those that
  `make bench-coverage` reports: see `_longer`.
* A value that came twice will come again, so that a sample of few different values shows more of
  its tail: by so much the less is added.
* Values that are all equal tell no spread. Beside other ones they do: as many as may lie elsewhere
  by the binomial distribution can lie as far away as the other ones, see `_elsewhere`.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from grpo.bootstrap import resampled_limits, student_quantile

__all__ = [
    "CONFIDENCE",
    "Limits",
    "difference_limits",
    "iqm_limits",
    "mean_limits",
    "probability_limits",
    "wilson_limits",
]

CONFIDENCE: Final = 0.95
"""Of an interval, unless asked otherwise."""

RESAMPLED_FROM: Final = 40
"""Values of a sample from which on its mean's interval is resampled, and ends at its extremes: the
mean lies between those of so many in all but one of a million samples even of log-normal values,
of three in three samples of four. Fewer have too few resamples, too."""

_NORMAL = NormalDist()

FloatArray = npt.NDArray[np.float64]
Limits = tuple[FloatArray, FloatArray]


def mean_limits(samples: FloatArray, confidence: float = CONFIDENCE) -> Limits:
    """Interval of the mean of each of R samples: Student's t, longer towards the long tail.

    From `RESAMPLED_FROM` values on the wider end of t and of a bootstrap: see `resampled_limits`.
    Fewer have too few resamples, and too often the mean beyond their extremes: see `_longer`.
    Equal samples give equal intervals.

    Args:
        samples: shape (n, R), one sample a column.
        confidence: share of intervals that hold the true mean.

    Returns:
        Lower and upper ends, shape (R,) each.
    """
    n = len(samples)
    if n >= RESAMPLED_FROM:
        return resampled_limits(samples, confidence)
    if n == 1:
        return samples[0], samples[0]
    t = float(student_quantile((1.0 + confidence) / 2.0, n - 1.0))
    side = _Side.of(np.sort(samples, axis=0))
    down, up = (_longer(skew, n, side.distinct) for skew in (-side.skew, side.skew))
    return side.mean - t * down * side.error, side.mean + t * up * side.error


class _Side(NamedTuple):
    """Means of R samples, shape (R,) each, and what their error follows from."""

    mean: FloatArray
    error: FloatArray
    """Standard error; 0 where all values are equal."""

    skew: FloatArray
    """Of the mean, from -1 to 1: third central moment by the error's cube."""

    distinct: FloatArray
    """Values that differ from the ones below them, of those that could: 0 to 1."""

    @classmethod
    def of(cls, ordered: FloatArray) -> "_Side":
        n = len(ordered)
        equal = ordered[0] == ordered[-1]
        mean = np.where(equal, ordered[0], ordered.mean(axis=0))  # which has round-off
        centred = ordered - mean
        error = np.sqrt((centred**2).sum(axis=0) / (n * (n - 1.0)))
        scaled = centred / np.where(error > 0.0, error, 1.0)
        cubes = (scaled**3).sum(axis=0)
        skew = cubes / (n * (n - 1.0) * max(n - 2.0, 1.0)) if n > 2 else 0.0 * cubes
        distinct = (ordered[1:] != ordered[:-1]).mean(axis=0)
        return cls(mean, error, skew, distinct)


def _longer(skew: FloatArray, n: int, distinct: FloatArray) -> FloatArray:
    """Times Student's t that an end of a mean's interval is away, on the side of a positive skew.

    1 for samples that are symmetric or lean to the other side; below 1 + 6.5/√n.
    """
    return 1.0 + distinct * 6.5 / math.sqrt(n) * (1.0 - 1.0 / n) * np.maximum(skew, 0.0) ** 0.75


def _longer_of_two(skew: FloatArray, n: int, distinct: FloatArray) -> FloatArray:
    """The same for one of two independent samples, whose difference is less skewed."""
    return 1.0 + distinct**2 * 6.0 / math.sqrt(n) * (1.0 - 2.0 / n) * np.maximum(skew, 0.0)


def iqm_limits(samples: FloatArray, confidence: float = CONFIDENCE) -> Limits:
    """Interval of the interquartile mean of each of R samples.

    Student's t of the trimmed mean with the Winsorised variance (Tukey & McLaughlin 1963), in
    Yuen's form (1974), as SciPy's, and longer towards the tail of the Winsorised values. Where
    these are all equal: see `_elsewhere`.

    Args:
        samples: shape (n, R), one sample a column.
        confidence: share of intervals that hold the true interquartile mean.

    Returns:
        Lower and upper ends, shape (R,) each.
    """
    n = len(samples)
    side = _Trimmed.of(samples)
    if n == 1:
        return side.mean, side.mean
    t = student_quantile((1.0 + confidence) / 2.0, side.freedom)
    inner = _Side.of(np.sort(side.winsorised, axis=0))
    down, up = (_longer(skew, n, side.distinct) for skew in (-inner.skew, inner.skew))
    below, above = side.elsewhere(samples.min(axis=0), samples.max(axis=0), confidence)
    flat = side.error == 0.0
    return (
        side.mean - np.where(flat, below, t * down * side.error),
        side.mean + np.where(flat, above, t * up * side.error),
    )


class _Trimmed(NamedTuple):
    """Interquartile means of R samples, shape (R,) each, and what their error follows from."""

    mean: FloatArray
    error: FloatArray
    freedom: float
    winsorised: FloatArray
    """Shape (n, R), in the order of the samples: the outer quarters moved to the inner ones."""

    ordered: FloatArray
    """Shape (n, R)."""

    distinct: FloatArray
    """As in `_Side`, of the sample itself."""

    @classmethod
    def of(cls, samples: FloatArray) -> "_Trimmed":
        n = len(samples)
        cut = n // 4
        kept = n - 2 * cut
        ordered = np.sort(samples, axis=0)
        least, most = ordered[cut], ordered[n - cut - 1]
        mean = np.clip(ordered[cut : n - cut].mean(axis=0), least, most)
        inner = np.clip(ordered, least, most)
        squares = np.where(least == most, 0.0, ((inner - inner.mean(axis=0)) ** 2).sum(axis=0))
        distinct = (ordered[1:] != ordered[:-1]).sum(axis=0) / max(n - 1.0, 1.0)
        return cls(
            mean,
            np.sqrt(squares / max(kept * (kept - 1.0), 1.0)),
            kept - 1.0,
            np.clip(samples, least, most),
            ordered,
            distinct,
        )

    def elsewhere(self, least: FloatArray, most: FloatArray, confidence: float) -> Limits:
        """Reach of a middle half that is all one value: what of it may lie at the extremes."""
        n = len(self.ordered)
        below = (self.ordered < self.mean).sum(axis=0)
        above = (self.ordered > self.mean).sum(axis=0)
        down, up = (
            np.clip((_elsewhere(count, n, confidence) - 0.25) / 0.5, 0.0, 1.0)
            for count in (below, above)
        )
        return down * (self.mean - least), up * (most - self.mean)


def _elsewhere(count: npt.NDArray[np.int64], n: int, confidence: float) -> FloatArray:
    """Upper mid-P limit of a share of which so many of n were seen (Lancaster 1961), any shape."""
    distinct, where = np.unique(count, return_inverse=True)
    alpha = (1.0 - confidence) / 2.0
    low, high = distinct / n, np.ones(len(distinct))
    terms = np.arange(distinct.max(initial=0) + 1)
    logs = np.array([math.lgamma(n + 1.0) - math.lgamma(k + 1.0) - math.lgamma(n - k + 1.0)
                     for k in terms])  # fmt: skip
    weights = (terms < distinct[:, None]) + 0.5 * (terms == distinct[:, None])
    for _ in range(50):
        middle = (low + high) / 2.0
        p = np.clip(middle, 1e-300, 1.0 - 1e-16)[:, None]
        chance = (weights * np.exp(logs + terms * np.log(p) + (n - terms) * np.log1p(-p))).sum(1)
        low, high = np.where(chance > alpha, middle, low), np.where(chance > alpha, high, middle)
    return high[where].reshape(count.shape)


def difference_limits(
    a: FloatArray, b: FloatArray, paired: bool, confidence: float = CONFIDENCE
) -> tuple[Limits, Limits]:
    """Intervals of the difference of means, and of that of interquartile means, of R pairs.

    Paired means: `mean_limits` of the differences. Means of independent samples: each side's ends
    as in `mean_limits`, their distances added as squares (Zou & Donner 2008, Statistics in Medicine
    27), with the degrees of freedom that Welch (1947) has without bias. Interquartile means: Yuen
    (1974), paired with the Winsorised covariance (Wilcox 2012, Introduction to Robust Estimation,
    section 5.9.5). Where all pairs differ by the same, they tell no spread, and count as
    independent samples.

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
    if not paired:
        return _mean_difference(a, b, confidence), _iqm_difference(a, b, one, other, confidence)
    differences = a - b
    means = mean_limits(differences, confidence)
    flat = differences.min(axis=0) == differences.max(axis=0)
    if len(a) < RESAMPLED_FROM and flat.any():
        _replace(means, flat, _mean_difference(a[:, flat], b[:, flat], confidence))
    joint = one.winsorised - other.winsorised
    squares = ((joint - joint.mean(axis=0)) ** 2).sum(axis=0)
    kept = one.freedom + 1.0
    reach = student_quantile(p, one.freedom) * np.sqrt(squares / (kept * one.freedom))
    iqms = apart - reach, apart + reach
    flat = joint.min(axis=0) == joint.max(axis=0)
    if flat.any():
        left, right = a[:, flat], b[:, flat]
        sides = _Trimmed.of(left), _Trimmed.of(right)
        _replace(iqms, flat, _iqm_difference(left, right, *sides, confidence))
    return means, iqms


def _mean_difference(a: FloatArray, b: FloatArray, confidence: float) -> Limits:
    """Ends of the difference of the means of independent samples."""
    n, m = len(a), len(b)
    one, other = _Side.of(np.sort(a, axis=0)), _Side.of(np.sort(b, axis=0))
    least = np.minimum(a.min(axis=0), b.min(axis=0))
    most = np.maximum(a.max(axis=0), b.max(axis=0))
    freedom = _welch(one.error**2, n, other.error**2, m)
    t = student_quantile((1.0 + confidence) / 2.0, freedom)

    def reach(side: _Side, size: int, up: bool) -> FloatArray:
        skew = side.skew if up else -side.skew
        spread = t * _longer_of_two(skew, size, side.distinct) * side.error
        away = most - side.mean if up else side.mean - least
        unseen = _elsewhere(np.zeros(1, np.int64), size, confidence)
        return np.where(side.error > 0.0, spread, unseen * away)

    apart = one.mean - other.mean
    return (
        apart - np.hypot(reach(one, n, up=False), reach(other, m, up=True)),
        apart + np.hypot(reach(one, n, up=True), reach(other, m, up=False)),
    )


def _iqm_difference(
    a: FloatArray, b: FloatArray, one: _Trimmed, other: _Trimmed, confidence: float
) -> Limits:
    """Ends of the difference of the interquartile means of independent samples."""
    p = (1.0 + confidence) / 2.0
    variances = one.error**2, other.error**2
    shares = variances[0] ** 2 / one.freedom + variances[1] ** 2 / other.freedom
    freedom = np.where(
        shares > 0.0,
        (variances[0] + variances[1]) ** 2 / np.where(shares > 0.0, shares, 1.0),
        one.freedom + other.freedom,
    )
    t = student_quantile(p, freedom)
    least = np.minimum(a.min(axis=0), b.min(axis=0))
    most = np.maximum(a.max(axis=0), b.max(axis=0))
    (low_a, high_a), (low_b, high_b) = (
        tuple(np.where(side.error > 0.0, t * side.error, flat)
              for flat in side.elsewhere(least, most, confidence))
        for side in (one, other)
    )  # fmt: skip
    apart = one.mean - other.mean
    return apart - np.hypot(low_a, high_b), apart + np.hypot(high_a, low_b)


def _replace(limits: Limits, chosen: npt.NDArray[np.bool_], others: Limits) -> None:
    for ends, instead in zip(limits, others, strict=True):
        ends[chosen] = instead


def _welch(a: FloatArray, n: int, b: FloatArray, m: int) -> FloatArray:
    """Degrees of freedom of a sum of two variances; all of them where both are 0."""
    shares = a**2 / (n + 1.0) + b**2 / (m + 1.0)
    freedom = (a + b) ** 2 / np.where(shares > 0.0, shares, 1.0) - 2.0
    return np.where(shares > 0.0, freedom, n + m - 2.0)


def probability_limits(
    a: FloatArray, b: FloatArray, paired: bool, confidence: float = CONFIDENCE
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Chances of improvement and their limits, shape (R,) each, for R pairs of samples.

    Independent samples: Mann & Whitney's estimate (1947), and the score interval on Hanley &
    McNeil's variance that Newcombe calls method 5 (2006, Statistics in Medicine 25), with the
    variance that is left beside ties, and Student's quantile in the normal one's place, so that
    three which beat three do not leave out a half. Paired: Wilson's score interval (1927) of the
    share of pairs, with the variance of a half where two are equal.
    Both have a width where one side wins everything.
    """
    n, m = len(a), len(b)
    if paired:
        sign = np.sign(a - b)
        estimate = 0.5 + sign.mean(axis=0) / 2.0
        z = _NORMAL.inv_cdf((1.0 + confidence) / 2.0)
        ties = (sign == 0.0).sum(axis=0) / (n + 2.0)
        return estimate, *wilson_limits(estimate, n, z, ties / 4.0)
    estimate = 0.5 + np.sign(a[:, None] - b[None]).mean(axis=(0, 1)) / 2.0
    pooled = np.concatenate([a, b])
    size = n + m
    equal = (pooled[:, None] == pooled[None]).sum(axis=0)
    distinct = 1.0 - (equal**2 - 1.0).sum(axis=0) / ((size + 1.0) ** 3 - size - 1.0)
    t = float(student_quantile((1.0 + confidence) / 2.0, max((n * m - 1.0) * size, 1.0)))

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


def wilson_limits(share: FloatArray, n: int, z: float, less: FloatArray | float = 0.0) -> Limits:
    """Wilson's score interval of a share of n, whose variance is p(1 − p) − less."""
    c = z**2 / n
    centre = (share + c / 2.0) / (1.0 + c)
    root = np.sqrt(np.maximum(centre**2 - (share**2 + c * less) / (1.0 + c), 0.0))
    return np.maximum(centre - root, 0.0), np.minimum(centre + root, 1.0)
