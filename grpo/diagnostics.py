"""What to say about an iteration's updates: pure functions over all of its transitions."""

import numpy as np

from grpo.network import FloatArray

__all__ = ["clip_fraction", "explained_variance", "k3_old_new", "mean", "surrogate_loss"]


def surrogate_loss(
    log_ratio: FloatArray, advantages: FloatArray, clip_low: float, clip_high: float
) -> float:
    """−mean min(ρ A, clip(ρ) A); both of shape (N,). As `grpo.losses.clipped_surrogate`."""
    ratio = np.exp(log_ratio)
    clipped = np.minimum(np.maximum(ratio, 1.0 - clip_low), 1.0 + clip_high)
    return -mean(np.minimum(ratio * advantages, clipped * advantages))


def k3_old_new(log_ratio: FloatArray) -> float:
    """Mean of ρ − 1 − log ρ ≥ 0: estimates KL(π_old ‖ π) from π_old's samples; shape (N,)."""
    return mean(np.expm1(log_ratio) - log_ratio)


def clip_fraction(log_ratio: FloatArray, clip_low: float, clip_high: float) -> float:
    """Share of transitions whose ratio lies outside the clip range; shape (N,)."""
    ratio = np.exp(log_ratio)
    outside = (ratio < 1.0 - clip_low) | (ratio > 1.0 + clip_high)
    return int(np.count_nonzero(outside)) / len(outside)


def explained_variance(values: FloatArray, returns: FloatArray) -> float:
    """1 − Var(R − V) / Var(R), 0 where all returns are equal; both of shape (N,)."""
    variance = _variance(returns)
    return 1.0 - _variance(returns - values) / variance if variance > 0.0 else 0.0


def mean(values: FloatArray) -> float:
    """As `values.mean()` of a vector, without its overhead, which counts at each iteration."""
    return float(np.add.reduce(values)) / len(values)


def _variance(values: FloatArray) -> float:
    centred = values - mean(values)
    return float(np.dot(centred, centred)) / len(values)
