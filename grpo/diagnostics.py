"""What to say about an iteration's updates: pure functions over all of its transitions."""

import numpy as np

from grpo.network import FloatArray

__all__ = ["clip_fraction", "explained_variance", "k3_old_new", "surrogate_loss"]


def surrogate_loss(
    log_ratio: FloatArray, advantages: FloatArray, clip_low: float, clip_high: float
) -> float:
    """−mean min(ρ A, clip(ρ) A); both of shape (N,). As `grpo.losses.clipped_surrogate`."""
    ratio = np.exp(log_ratio)
    clipped = np.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    return -float(np.minimum(ratio * advantages, clipped * advantages).mean())


def k3_old_new(log_ratio: FloatArray) -> float:
    """Mean of ρ − 1 − log ρ ≥ 0: estimates KL(π_old ‖ π) from π_old's samples; shape (N,)."""
    return float((np.expm1(log_ratio) - log_ratio).mean())


def clip_fraction(log_ratio: FloatArray, clip_low: float, clip_high: float) -> float:
    """Share of transitions whose ratio lies outside the clip range; shape (N,)."""
    ratio = np.exp(log_ratio)
    return float(((ratio < 1.0 - clip_low) | (ratio > 1.0 + clip_high)).mean())


def explained_variance(values: FloatArray, returns: FloatArray) -> float:
    """1 − Var(R − V) / Var(R), 0 where all returns are equal; both of shape (N,)."""
    variance = float(returns.var())
    return 1.0 - float((returns - values).var()) / variance if variance > 0.0 else 0.0
