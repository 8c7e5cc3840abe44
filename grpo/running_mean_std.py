"""Running means and variances: of observations over all time, of returns over recent time.

And what the first are for: `standardize` is the one rule by which an observation becomes the
input of a network, in training, evaluation and serving. The exported torch graph and the loader
that travels with models write it anew; tests hold all of them equal.
"""

import math

import numpy as np
import numpy.typing as npt

__all__ = [
    "LARGEST_STANDARDIZED",
    "VARIANCE_FLOOR",
    "forgetting_moments",
    "merge_moments",
    "standardize",
]

Float64Array = npt.NDArray[np.float64]

VARIANCE_FLOOR = 1e-8
"""Added to a variance before its root is taken."""

LARGEST_STANDARDIZED = 1e6
"""Bound of a standardised observation: a finite one, however absurd, gets a finite answer."""

# each step of training clips by them: as arrays they need not be converted there
_LARGEST, _SMALLEST = np.array(LARGEST_STANDARDIZED), np.array(-LARGEST_STANDARDIZED)
_FLOAT64 = np.dtype(np.float64)


def standardize(
    values: npt.NDArray[np.floating],
    mean: npt.NDArray[np.floating],
    scale: npt.NDArray[np.floating],
    out: npt.NDArray[np.floating],
) -> None:
    """Write clip((values − mean) · scale, ±`LARGEST_STANDARDIZED`) to `out`.

    Args:
        values: shape (D, N), one observation a column.
        mean: shape (D, 1).
        scale: shape (D, 1): 1 / sqrt(variance + `VARIANCE_FLOOR`).
        out: shape (D, N), of the networks' type.
    """
    if values.dtype is not _FLOAT64:
        standardized = values - mean
        standardized *= scale
    else:
        with np.errstate(over="ignore"):  # which a float32 cannot here; what does is clipped
            standardized = values - mean
            standardized *= scale
    standardized.clip(_SMALLEST, _LARGEST, out=out, casting="same_kind")


def merge_moments(
    mean: Float64Array, var: Float64Array, count: float, batch: npt.NDArray[np.floating]
) -> tuple[Float64Array, Float64Array, float]:
    """Moments of all samples so far and a batch together.

    Chan, Golub & LeVeque, "Algorithms for computing the sample variance", 1983.

    Args:
        mean: shape (D,).
        var: shape (D,), population variance.
        count: samples so far.
        batch: shape (N, D), N ≥ 1.

    Returns:
        Mean, variance and count of all of them.
    """
    n = len(batch)
    batch_mean = np.add.reduce(batch, axis=0, dtype=np.float64) / n
    centred = batch - batch_mean
    batch_var = np.einsum("nd,nd->d", centred, centred) / n
    total = count + n
    delta = batch_mean - mean
    merged = (var * count + batch_var * n + delta * delta * (count * n / total)) / total
    return mean + delta * (n / total), merged, total


def forgetting_moments(
    mean: float, std: float, count: float, batch: Float64Array, slowest: float
) -> tuple[float, float]:
    """Mean and deviation of the mixture of what was and a batch.

    The batch's share α is 1/(count + 1), so early batches weigh the same, and never below
    `slowest`. Since the batch is in the mixture before it is standardised, no standardised
    value exceeds about 1/√(α(1 − α)).

    Args:
        mean: so far.
        std: so far.
        count: batches so far.
        batch: shape (N,), N ≥ 1.
        slowest: least α.
    """
    alpha = max(slowest, 1.0 / (count + 1.0))
    batch_mean = float(np.add.reduce(batch)) / len(batch)
    centred = batch - batch_mean
    batch_var = float(np.dot(centred, centred)) / len(batch)
    delta = batch_mean - mean
    variance = (1.0 - alpha) * (std * std + alpha * delta * delta) + alpha * batch_var
    return mean + alpha * delta, math.sqrt(variance)
