"""Resampling, and the quantiles beside it: what the intervals of `grpo.statistics` are made of."""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = [
    "iqm",
    "resampled_limits",
    "stratified_bootstrap_interval",
    "student_quantile",
    "student_series",
]

_RESAMPLES = 4_000
_CHUNK = 2**18  # draws at once: little memory, and a product that no BLAS spreads over threads
_NORMAL = NormalDist()
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)

FloatArray = npt.NDArray[np.float64]


def iqm(values: npt.ArrayLike, axis: int | None = None) -> npt.NDArray[np.float64] | float:
    """Interquartile mean: of what is left when the lowest and the highest quarter are dropped.

    Args:
        values: any shape.
        axis: reduce along it; None takes all values together.

    Returns:
        A float, or an array without that axis.
    """
    data = np.asarray(values, dtype=np.float64)
    if axis is None:
        data, axis = data.ravel(), 0
    n = data.shape[axis]
    cut = n // 4
    data = np.moveaxis(data, axis, -1)
    if cut:
        data = np.partition(data, (cut, n - cut - 1), axis=-1)[..., cut : n - cut]
    result = data.mean(axis=-1)
    return float(result) if result.ndim == 0 else result


def resampled_limits(samples: FloatArray, confidence: float) -> tuple[FloatArray, FloatArray]:
    """Interval of the mean of each of R samples, by Student's t and by BCa: the wider end of both.

    BCa is the bias-corrected and accelerated bootstrap (Efron 1987; Efron & Tibshirani 1993,
    chapter 14), its quantiles expanded for small samples (Hesterberg 2015, arXiv 1411.5279). No end
    lies beyond the sample's own extremes.

    Args:
        samples: shape (n, R), one sample a column.
        confidence: share of intervals that hold the true mean.

    Returns:
        Lower and upper ends, shape (R,) each.
    """
    n = len(samples)
    least, most = samples.min(axis=0), samples.max(axis=0)
    mean = np.clip(samples.mean(axis=0), least, most)
    t = student_series(1.0 - (1.0 - confidence) / 2.0, n - 1)
    reach = t * samples.std(axis=0, ddof=1) / np.sqrt(n)
    low, high = _bca(samples, t * np.sqrt(n / (n - 1.0)))
    return (
        np.clip(np.minimum(low, mean - reach), least, mean),
        np.clip(np.maximum(high, mean + reach), mean, most),
    )


def _bca(samples: FloatArray, z: float) -> tuple[FloatArray, FloatArray]:
    """Ends of BCa intervals that would be ±z standard errors wide were the means normal.

    Args:
        samples: shape (n, R), one sample a column.
        z: standard errors.

    Returns:
        Lower and upper ends, shape (R,) each.
    """
    mean = samples.mean(axis=0)
    scale = np.abs(samples - mean).max(axis=0)
    centred = (samples - mean) / np.where(scale > 0.0, scale, 1.0)
    means = _resampled_means(centred)
    equal = np.abs(means) <= 1e-9  # but for round-off
    below = ((means < 0.0) & ~equal).mean(axis=0) + equal.mean(axis=0) / 2.0
    edge = 0.5 / _RESAMPLES
    bias = np.array([_NORMAL.inv_cdf(p) for p in np.clip(below, edge, 1.0 - edge)])
    squares = np.maximum((centred**2).sum(axis=0), 1.0)  # at least 1 where they differ at all
    acceleration = (centred**3).sum(axis=0) / (6.0 * squares**1.5)
    means.sort(axis=0)
    columns = np.arange(samples.shape[1])
    ends = []
    for sign in (-1.0, 1.0):
        shifted = bias + sign * z
        shrink = 1.0 - acceleration * shifted
        # where the correction has a pole, nothing inside the resamples is far enough out
        corrected = np.where(shrink > 0.0, bias + shifted / np.maximum(shrink, 1e-9), sign * 99.0)
        rank = np.array([_NORMAL.cdf(q) for q in corrected]) * (_RESAMPLES + 1)
        index = (np.floor(rank) if sign < 0 else np.ceil(rank)).astype(np.int64) - 1
        ends.append(mean + scale * means[np.clip(index, 0, _RESAMPLES - 1), columns])
    return ends[0], ends[1]


def _resampled_means(samples: FloatArray) -> FloatArray:
    """Means of resamples with replacement, the same for each column: (n, R) → (resamples, R)."""
    n, width = samples.shape
    generator = np.random.default_rng(0)
    means = np.empty((_RESAMPLES, width))
    rows = max(1, _CHUNK // n)
    for start in range(0, _RESAMPLES, rows):
        count = min(rows, _RESAMPLES - start)
        picks = generator.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        times = np.bincount(picks.ravel(), minlength=count * n).reshape(count, n)
        means[start : start + count] = times @ samples / n
    return means


def stratified_bootstrap_interval(
    scores: npt.ArrayLike, *, confidence: float = 0.95, resamples: int = 2_000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the IQM over all scores.

    Runs are drawn with replacement within each task, so that each resample holds every task as
    often as the data does (Agarwal et al. 2021, section 4.1). Equal scores give equal intervals.

    Args:
        scores: shape (runs, tasks).
        confidence: share of resamples inside.
        resamples: how many.

    Returns:
        Lower and upper end.
    """
    data = np.asarray(scores, dtype=np.float64)
    runs, tasks = data.shape
    picks = np.random.default_rng(0).integers(0, runs, (resamples, runs, tasks))
    drawn = np.take_along_axis(data[None], picks, axis=1)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(iqm(drawn.reshape(resamples, -1), axis=1), (tail, 1.0 - tail))
    return float(low), float(high)


def student_quantile(p: float, freedom: npt.ArrayLike) -> FloatArray:
    """Quantile of Student's t, p above 0.5, for degrees of freedom of at least 1, any shape.

    With t = √ν tan θ the distribution is an integral of cos^(ν−1) from 0 to θ, which is concave:
    Newton's steps from the left never pass the root.
    """
    nu = np.asarray(freedom, dtype=np.float64)
    distinct, where = np.unique(nu, return_inverse=True)
    logs = np.array([math.lgamma(v / 2.0) - math.lgamma((v + 1.0) / 2.0) for v in distinct])
    target = (2.0 * p - 1.0) * math.sqrt(math.pi) / 2.0 * np.exp(logs)
    theta = target.copy()
    for _ in range(200):
        nodes = np.cos(theta[:, None] * (_NODES + 1.0) / 2.0)
        area = theta / 2.0 * (nodes ** (distinct[:, None] - 1.0) @ _WEIGHTS)
        step = (target - area) / np.cos(theta) ** (distinct - 1.0)
        theta = theta + step
        if np.all(np.abs(step) <= 1e-13 * theta):
            break
    quantiles: FloatArray = np.sqrt(distinct) * np.tan(theta)
    return quantiles[where].reshape(nu.shape)


def student_series(p: float, freedom: int) -> float:
    """Student's quantile from the normal one (Abramowitz & Stegun 1964, 26.7.5).

    From 39 degrees of freedom on it differs from `student_quantile` by less than 1e-7; evaluations
    were logged with it, and are to be reproduced bit for bit.
    """
    x = _NORMAL.inv_cdf(p)
    terms = (
        (x**3 + x) / 4.0,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96.0,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384.0,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160.0,
    )
    quantile: float = x + sum(term / freedom**k for k, term in enumerate(terms, start=1))
    return quantile
