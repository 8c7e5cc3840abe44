"""Distributions over actions in numpy, with their gradients written out.

What `MlpPolicy` acts and learns with on a CPU; `grpo.distributions` states the same ones in torch,
and tests hold the two equal. All arrays are feature-major: shape (outputs, B).
"""

import abc
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo.actions import (
    ActionSpec,
    BoxActions,
    DictActions,
    DiscreteActions,
    MultiDiscreteActions,
)
from grpo.network import FloatArray

__all__ = [
    "ClosedForm",
    "ClosedFormCategorical",
    "ClosedFormFactored",
    "ClosedFormGaussian",
    "closed_form",
]

_LOG_2PI = math.log(2.0 * math.pi)


class ClosedForm(abc.ABC):
    """A distribution in numpy, with its gradient.

    Attributes:
        outputs: numbers that the network gives for each observation.
        log_std: free parameters that do not depend on the observation.
    """

    outputs: int
    log_std: int

    @abc.abstractmethod
    def encode(self, actions: npt.NDArray[np.generic], dtype: npt.DTypeLike) -> FloatArray:
        """Actions of the policy, one a row, as columns that `log_prob` reads."""

    @abc.abstractmethod
    def sample(
        self, outputs: FloatArray, log_std: FloatArray, generator: np.random.Generator
    ) -> npt.NDArray[Any]:
        """One action per column, shape (B,) indices or (B, k) floats."""

    @abc.abstractmethod
    def mode(self, outputs: FloatArray) -> npt.NDArray[Any]:
        """Most probable action per column."""

    def probabilities(self, outputs: FloatArray) -> FloatArray | None:
        """Probability of each action of each choice, one after the other, shape (Σ n, B).

        None where nothing is chosen among actions.
        """
        del outputs
        return None

    @abc.abstractmethod
    def log_prob(
        self, outputs: FloatArray, log_std: FloatArray, encoded: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Log π(a|s), shape (B,), and what `gradient` needs to go on."""

    @abc.abstractmethod
    def entropy(self, outputs: FloatArray, log_std: FloatArray) -> FloatArray:
        """Entropy per column, shape (B,), in nats."""

    @abc.abstractmethod
    def gradient(
        self,
        intermediate: FloatArray,
        log_std: FloatArray,
        encoded: FloatArray,
        weight: FloatArray,
        entropy_weight: float,
    ) -> tuple[FloatArray, FloatArray]:
        """Gradient of −Σ weight·log π − entropy_weight·Σ H by outputs and by log σ."""


class ClosedFormCategorical(ClosedForm):
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


class ClosedFormGaussian(ClosedForm):
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


class ClosedFormFactored(ClosedForm):
    """Independent closed forms side by side: log π and entropy are their sums.

    Args:
        parts: each, and how many numbers of an action are its.
    """

    def __init__(self, parts: Sequence[tuple[ClosedForm, int]]) -> None:
        self._parts: list[tuple[ClosedForm, slice, slice, slice]] = []
        self.outputs = self.log_std = actions = 0
        for part, size in parts:
            own = slice(self.outputs, self.outputs + part.outputs)
            free = slice(self.log_std, self.log_std + part.log_std)
            self._parts.append((part, own, free, slice(actions, actions + size)))
            self.outputs, self.log_std = own.stop, free.stop
            actions += size

    def encode(self, actions: npt.NDArray[np.generic], dtype: npt.DTypeLike) -> FloatArray:
        """Each part's columns below each other."""
        return np.concatenate(
            [part.encode(_own(part, actions[:, chosen]), dtype) for part, *_, chosen in self._parts]
        )

    def sample(
        self, outputs: FloatArray, log_std: FloatArray, generator: np.random.Generator
    ) -> npt.NDArray[Any]:
        """Rows of actions, shape (B, k)."""
        drawn = [part.sample(outputs[z], log_std[s], generator) for part, z, s, _ in self._parts]
        return np.concatenate([_as_rows(each) for each in drawn], axis=1)

    def mode(self, outputs: FloatArray) -> npt.NDArray[Any]:
        """The parts' modes, shape (B, k)."""
        likeliest = [part.mode(outputs[z]) for part, z, _, _ in self._parts]
        return np.concatenate([_as_rows(each) for each in likeliest], axis=1)

    def probabilities(self, outputs: FloatArray) -> FloatArray | None:
        """See `ClosedForm.probabilities`."""
        told = [part.probabilities(outputs[z]) for part, z, _, _ in self._parts]
        found = [each for each in told if each is not None]
        return np.concatenate(found) if found else None

    def log_prob(
        self, outputs: FloatArray, log_std: FloatArray, encoded: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Sum over the parts; the intermediate is theirs below each other."""
        total, intermediate = np.zeros(outputs.shape[1], outputs.dtype), np.empty_like(outputs)
        for part, z, s, _ in self._parts:
            log_prob, intermediate[z] = part.log_prob(outputs[z], log_std[s], encoded[z])
            total += log_prob
        return total, intermediate

    def entropy(self, outputs: FloatArray, log_std: FloatArray) -> FloatArray:
        """Sum over the parts."""
        total = np.zeros(outputs.shape[1], outputs.dtype)
        for part, z, s, _ in self._parts:
            total += part.entropy(outputs[z], log_std[s])
        return total

    def gradient(
        self,
        intermediate: FloatArray,
        log_std: FloatArray,
        encoded: FloatArray,
        weight: FloatArray,
        entropy_weight: float,
    ) -> tuple[FloatArray, FloatArray]:
        """The parts' below each other, since each output belongs to one of them."""
        by_outputs, by_log_std = np.empty_like(intermediate), np.empty_like(log_std)
        for part, z, s, _ in self._parts:
            by_outputs[z], by_log_std[s] = part.gradient(
                intermediate[z], log_std[s], encoded[z], weight, entropy_weight
            )
        return by_outputs, by_log_std


def _own(part: ClosedForm, columns: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return columns[:, 0] if isinstance(part, ClosedFormCategorical) else columns


def _as_rows(actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return actions[:, None] if actions.ndim == 1 else actions


def closed_form(action: ActionSpec) -> ClosedForm:
    """The closed form of an action space's default distribution."""
    match action:
        case DiscreteActions():
            return ClosedFormCategorical(action.n)
        case BoxActions():
            return ClosedFormGaussian(action.size)
        case MultiDiscreteActions():
            return ClosedFormFactored([(ClosedFormCategorical(n), 1) for n in action.nvec])
        case DictActions():
            parts = [closed_form(part) for _, part in action.parts]
            return ClosedFormFactored(list(zip(parts, action.sizes, strict=True)))
