"""Distributions over actions: what the numbers that a network gives mean.

Each is stated once in torch, as the papers state it: that is what trains any torch policy and
what is exported for serving. The two that `MlpPolicy` trains without autograd have a closed form in
numpy beside it, feature-major; tests hold the two equal.

To add one, subclass `Distribution` and hand the class to a policy: `GRPO(env,
policy_kwargs={"distribution_class": MyDistribution})`.
"""

import abc
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from grpo.errors import IncompatibleError
from grpo.network import FloatArray
from grpo.spaces import ActionSpec, BoxActions, DiscreteActions

__all__ = [
    "Categorical",
    "ClosedForm",
    "ClosedFormCategorical",
    "ClosedFormGaussian",
    "DiagGaussian",
    "Distribution",
    "closed_form",
    "default_distribution",
]

_LOG_2PI = math.log(2.0 * math.pi)


class Distribution(abc.ABC):
    """A family of distributions over the actions of one space, in torch.

    It holds no weights: it is a function of a network's outputs, shape (B, n_outputs), and of free
    parameters beside the network, shape (n_log_std,). Actions are the policy's own, which the
    action space turns into the environment's (`to_env`).

    Args:
        action: the space; raise `IncompatibleError` for one that does not fit.

    Attributes:
        n_outputs: numbers that the network gives for each observation.
        n_log_std: free parameters that do not depend on the observation; 0 for most.
        n_noise: uniform numbers that one sample is made from.
    """

    n_outputs: int
    n_log_std: int = 0
    n_noise: int

    @abc.abstractmethod
    def __init__(self, action: ActionSpec) -> None: ...

    @abc.abstractmethod
    def sample(
        self, outputs: torch.Tensor, log_std: torch.Tensor, uniform: torch.Tensor
    ) -> torch.Tensor:
        """Actions made from `uniform`, shape (B, n_noise), in (0, 1): equal noise, equal actions.

        Returns:
            Shape (B,) int64, or (B, k).
        """

    @abc.abstractmethod
    def mode(self, outputs: torch.Tensor) -> torch.Tensor:
        """Most probable actions; the mean where that is what one takes. Shaped as samples."""

    @abc.abstractmethod
    def log_prob(
        self, outputs: torch.Tensor, log_std: torch.Tensor, actions: torch.Tensor
    ) -> torch.Tensor:
        """Log π(a|s) of actions shaped as samples, shape (B,)."""

    @abc.abstractmethod
    def entropy(self, outputs: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
        """Entropy in nats, or an estimate that gradients flow through; shape (B,)."""

    def describe(self, outputs: torch.Tensor, log_std: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """What a reply tells beside the action, by name: each of shape (B, …).

        `action_probs` (B, n), or `mean` and `std` (B, *action shape) in the environment's units.
        """
        del outputs, log_std
        return {}


class Categorical(Distribution):
    """π(a|s) = softmax(outputs), for Discrete actions."""

    n_noise = 1

    def __init__(self, action: ActionSpec) -> None:
        space: DiscreteActions = _expect(action, DiscreteActions, "Categorical")
        self.n_outputs = space.n

    def sample(
        self, outputs: torch.Tensor, log_std: torch.Tensor, uniform: torch.Tensor
    ) -> torch.Tensor:
        """Inversion of the cumulative distribution; the last action takes what rounding leaves."""
        del log_std
        cumulative = torch.softmax(outputs, dim=-1).cumsum(dim=-1)
        index: torch.Tensor = (uniform * cumulative[:, -1:] >= cumulative[:, :-1]).sum(dim=-1)
        return index

    def mode(self, outputs: torch.Tensor) -> torch.Tensor:
        """The largest logit; the first of equals."""
        index: torch.Tensor = outputs.argmax(dim=-1)
        return index

    def log_prob(
        self, outputs: torch.Tensor, log_std: torch.Tensor, actions: torch.Tensor
    ) -> torch.Tensor:
        """Log softmax at the actions: (B, n), (B,) int64 → (B,)."""
        del log_std
        return torch.log_softmax(outputs, dim=1).gather(1, actions[:, None]).squeeze(1)

    def entropy(self, outputs: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
        """−Σ p log p."""
        del log_std
        log_p = torch.log_softmax(outputs, dim=1)
        return -(log_p.exp() * log_p).sum(dim=1)

    def describe(self, outputs: torch.Tensor, log_std: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`action_probs`, shape (B, n)."""
        del log_std
        return {"action_probs": torch.softmax(outputs, dim=-1)}


class DiagGaussian(Distribution):
    """π(a|s) = N(outputs, diag σ²), for Box actions; log σ does not depend on the state."""

    def __init__(self, action: ActionSpec) -> None:
        self._action: BoxActions = _expect(action, BoxActions, "DiagGaussian")
        self.n_outputs = self.n_log_std = self.n_noise = self._action.size

    def sample(
        self, outputs: torch.Tensor, log_std: torch.Tensor, uniform: torch.Tensor
    ) -> torch.Tensor:
        """μ + σ Φ⁻¹(u), shape (B, k)."""
        noise = math.sqrt(2.0) * torch.erfinv(2.0 * uniform - 1.0)
        return outputs + log_std.exp() * noise

    def mode(self, outputs: torch.Tensor) -> torch.Tensor:
        """The mean, shape (B, k)."""
        return outputs

    def log_prob(
        self, outputs: torch.Tensor, log_std: torch.Tensor, actions: torch.Tensor
    ) -> torch.Tensor:
        """Log density, summed over the components: (B, k), (k,), (B, k) → (B,)."""
        deviation = (actions - outputs) / log_std.exp()
        return (-0.5 * deviation.square() - log_std - 0.5 * _LOG_2PI).sum(dim=1)

    def entropy(self, outputs: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
        """Σ log σ + k/2 (1 + log 2π), the same for each of the B rows."""
        constant = 0.5 * outputs.shape[1] * (1.0 + _LOG_2PI)
        return (log_std.sum() + constant).expand(outputs.shape[0])

    def describe(self, outputs: torch.Tensor, log_std: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`mean` before clipping, and `std`, in the environment's units."""
        centre, half_range = map(torch.from_numpy, self._action.scale)
        centre, half_range = centre.to(outputs.dtype), half_range.to(outputs.dtype)
        mean = centre + half_range * outputs
        std = (half_range * log_std.exp()).expand_as(mean)
        shape = (-1, *self._action.shape)
        return {"mean": mean.reshape(shape), "std": std.reshape(shape)}


def default_distribution(action: ActionSpec) -> type[Distribution]:
    """The distribution that fits an action space when none is named."""
    return Categorical if isinstance(action, DiscreteActions) else DiagGaussian


def _expect(action: ActionSpec, kind: type[Any], name: str) -> Any:  # noqa: ANN401
    if not isinstance(action, kind):
        raise IncompatibleError(
            f"{name} is for {kind.__name__}, not for {type(action).__name__}.", field="policy"
        )
    return action


# --- closed forms, in numpy -----------------------------------------------------------------


class ClosedForm(abc.ABC):
    """A distribution in numpy, with its gradient: what `MlpPolicy` acts and learns with on a CPU.

    All arrays are feature-major: shape (outputs, B).
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


def closed_form(action: ActionSpec) -> ClosedFormCategorical | ClosedFormGaussian:
    """The closed form of an action space's default distribution."""
    if isinstance(action, DiscreteActions):
        return ClosedFormCategorical(action.n)
    return ClosedFormGaussian(action.size)
