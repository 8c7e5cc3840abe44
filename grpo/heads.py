"""What a policy head's outputs mean: a categorical or a Gaussian distribution, in numpy.

All arrays are feature-major: shape (outputs, B). Each class is the closed form of what
`grpo.losses` states in torch; tests hold the two equal.
"""

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from grpo.network import FloatArray
from grpo.spaces import ActionSpec, DiscreteActions

__all__ = ["CategoricalHead", "GaussianHead", "Head", "make_head"]

_LOG_2PI = math.log(2.0 * math.pi)


class Head(Protocol):
    """A distribution over actions, as a function of the head's outputs and log σ."""

    outputs: int
    log_std: int

    def encode(self, actions: npt.NDArray[np.generic], dtype: npt.DTypeLike) -> FloatArray:
        """Actions of the policy, one a row, as columns that `log_prob` reads."""

    def sample(
        self, outputs: FloatArray, log_std: FloatArray, generator: np.random.Generator
    ) -> npt.NDArray[np.generic]:
        """One action per column, shape (B,) indices or (B, k) floats."""

    def mode(self, outputs: FloatArray) -> npt.NDArray[np.generic]:
        """Most probable action per column."""

    def log_prob(
        self, outputs: FloatArray, log_std: FloatArray, encoded: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Log π(a|s), shape (B,), and what `gradient` needs to go on."""

    def entropy(self, outputs: FloatArray, log_std: FloatArray) -> FloatArray:
        """Entropy per column, shape (B,), in nats."""

    def gradient(
        self,
        intermediate: FloatArray,
        log_std: FloatArray,
        encoded: FloatArray,
        weight: FloatArray,
        entropy_weight: float,
    ) -> tuple[FloatArray, FloatArray]:
        """Gradient of −Σ weight·log π − entropy_weight·Σ H by outputs and by log σ."""


class CategoricalHead:
    """π(a|s) = softmax(outputs)."""

    def __init__(self, n: int) -> None:
        self.outputs = n
        self.log_std = 0

    def encode(self, actions: npt.NDArray[np.generic], dtype: npt.DTypeLike) -> FloatArray:
        """One-hot columns, shape (n, B)."""
        one_hot: FloatArray = (np.arange(self.outputs)[:, None] == actions).astype(dtype)
        return one_hot

    def sample(
        self, outputs: FloatArray, log_std: FloatArray, generator: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Inversion of the cumulative distribution; the last action takes what rounding leaves.

        Of two actions the second is taken where logistic noise is below z_1 − z_0, which is the
        same in fewer calls.
        """
        if self.outputs == 2:
            noise = generator.logistic(size=outputs.shape[1])
            second: npt.NDArray[np.int64] = (noise < outputs[1] - outputs[0]).astype(np.int64)
            return second
        cumulative = np.exp(outputs - outputs.max(axis=0)).cumsum(axis=0)
        threshold = generator.random(outputs.shape[1]) * cumulative[-1]
        actions: npt.NDArray[np.int64] = (threshold >= cumulative[:-1]).sum(axis=0)
        return actions

    def mode(self, outputs: FloatArray) -> npt.NDArray[np.int64]:
        """The largest logit; the first of equals."""
        actions: npt.NDArray[np.int64] = outputs.argmax(axis=0)
        return actions

    def probabilities(self, outputs: FloatArray) -> FloatArray:
        """Shape (n, B); columns sum to one."""
        exp = np.exp(outputs - outputs.max(axis=0))
        probabilities: FloatArray = exp / exp.sum(axis=0)
        return probabilities

    def log_prob(
        self, outputs: FloatArray, log_std: FloatArray, encoded: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Log softmax at the action; the intermediate is π, shape (n, B)."""
        shifted = outputs - outputs.max(axis=0)
        exp = np.exp(shifted)
        total = exp.sum(axis=0)
        shifted *= encoded
        log_prob = shifted.sum(axis=0)
        log_prob -= np.log(total)
        exp /= total
        return log_prob, exp

    def entropy(self, outputs: FloatArray, log_std: FloatArray) -> FloatArray:
        """H = log Σ exp z − Σ p z."""
        shifted = outputs - outputs.max(axis=0)
        exp = np.exp(shifted)
        total = exp.sum(axis=0)
        entropy: FloatArray = np.log(total) - (exp * shifted).sum(axis=0) / total
        return entropy

    def gradient(
        self,
        intermediate: FloatArray,
        log_std: FloatArray,
        encoded: FloatArray,
        weight: FloatArray,
        entropy_weight: float,
    ) -> tuple[FloatArray, FloatArray]:
        """∂log p_a/∂z = 1_a − p; ∂H/∂z = −p ⊙ (log p + H)."""
        by_outputs = intermediate - encoded
        by_outputs *= weight
        if entropy_weight:
            log_p = np.log(np.maximum(intermediate, np.finfo(intermediate.dtype).tiny))
            entropy = -(intermediate * log_p).sum(axis=0)
            by_outputs += entropy_weight * intermediate * (log_p + entropy)
        return by_outputs, log_std


class GaussianHead:
    """π(a|s) = N(outputs, diag σ²), with a log σ that does not depend on the state."""

    def __init__(self, k: int) -> None:
        self.outputs = k
        self.log_std = k

    def encode(self, actions: npt.NDArray[np.generic], dtype: npt.DTypeLike) -> FloatArray:
        """The actions themselves, shape (k, B)."""
        return np.ascontiguousarray(actions.T, dtype=dtype)

    def sample(
        self, outputs: FloatArray, log_std: FloatArray, generator: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """μ + σ ε, shape (B, k)."""
        noise = generator.standard_normal(outputs.shape)
        actions: npt.NDArray[np.float64] = (outputs + np.exp(log_std)[:, None] * noise).T
        return actions

    def mode(self, outputs: FloatArray) -> FloatArray:
        """The mean, shape (B, k)."""
        return outputs.T

    def log_prob(
        self, outputs: FloatArray, log_std: FloatArray, encoded: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Sum over the components; the intermediate is (a − μ)/σ, shape (k, B)."""
        deviation = (encoded - outputs) * np.exp(-log_std)[:, None]
        log_prob: FloatArray = -0.5 * (deviation * deviation).sum(axis=0)
        log_prob -= log_std.sum() + outputs.dtype.type(0.5 * _LOG_2PI * self.outputs)
        return log_prob, deviation

    def entropy(self, outputs: FloatArray, log_std: FloatArray) -> FloatArray:
        """H = Σ log σ + k/2 (1 + log 2π), the same in every state."""
        entropy = log_std.sum() + outputs.dtype.type(0.5 * self.outputs * (1.0 + _LOG_2PI))
        return np.full(outputs.shape[1], entropy, outputs.dtype)

    def gradient(
        self,
        intermediate: FloatArray,
        log_std: FloatArray,
        encoded: FloatArray,
        weight: FloatArray,
        entropy_weight: float,
    ) -> tuple[FloatArray, FloatArray]:
        """∂log π/∂μ = (a − μ)/σ²; ∂log π/∂log σ = ((a − μ)/σ)² − 1; ∂H/∂log σ = 1."""
        by_outputs = intermediate * np.exp(-log_std)[:, None]
        by_outputs *= -weight
        by_log_std = ((1.0 - intermediate * intermediate) * weight).sum(axis=1)
        by_log_std -= entropy_weight * weight.shape[0]
        return by_outputs, by_log_std


def make_head(actions: ActionSpec) -> CategoricalHead | GaussianHead:
    """The head that fits an action space."""
    if isinstance(actions, DiscreteActions):
        return CategoricalHead(actions.n)
    return GaussianHead(actions.size)
