"""Running means and variances: of observations over all time, of returns over recent time."""

import math

import numpy as np
import numpy.typing as npt

__all__ = ["forgetting_moments", "merge_moments"]

Float64Array = npt.NDArray[np.float64]


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
