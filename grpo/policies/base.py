"""What a policy is to the rest of the library, and what all of ours have in common.

The collector, the learner, evaluation and packaging know a policy by `BasePolicy` alone: nothing
outside `grpo.policies` and the updaters asks which networks are inside.
"""

import abc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from grpo.distributions import Distribution
from grpo.errors import IncompatibleError
from grpo.network import FloatArray
from grpo.running_mean_std import (
    LARGEST_STANDARDIZED,
    VARIANCE_FLOOR,
    forgetting_moments,
    merge_moments,
)
from grpo.spaces import ActionSpec, BoxActions, action_spec_from_dict

__all__ = ["Actor", "BasePolicy", "PolicyOutputs", "PolicySpec", "Prediction", "ServedPolicy"]

_RETURN_FORGETTING = 0.1  # least share of an iteration in the running scale of returns
_LEAST_RETURN_STD = 1e-6
_SMALL = 500_000  # weights, below which a second thread costs more than it brings


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySpec:
    """What has to be known to build a policy, apart from its weights."""

    observation_shape: tuple[int, ...]
    """Shape of one observation."""

    action: ActionSpec
    """Action space."""

    net_arch: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of each trunk."""

    normalize_observations: bool = True
    """Whether observations are standardised by their running moments."""

    policy: str = "MlpPolicy"
    """Name of the policy's class; `<module.Class>` of one that was handed in."""

    policy_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """What its class is built with beside this; classes in it by name, as `policy`."""

    @property
    def observation_size(self) -> int:
        """Number of components of one observation."""
        return math.prod(self.observation_shape)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `from_dict`."""
        return {
            "observation_shape": list(self.observation_shape),
            "action": self.action.to_dict(),
            "net_arch": list(self.net_arch),
            "normalize_observations": self.normalize_observations,
            "policy": self.policy,
            "policy_kwargs": dict(self.policy_kwargs),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PolicySpec":
        """Inverse of `to_dict`; what knows no `policy` was made when there was but one."""
        return cls(
            observation_shape=tuple(int(n) for n in values["observation_shape"]),
            action=action_spec_from_dict(values["action"]),
            net_arch=tuple(int(n) for n in values["net_arch"]),
            normalize_observations=bool(values["normalize_observations"]),
            policy=str(values.get("policy", "MlpPolicy")),
            policy_kwargs=dict(values.get("policy_kwargs", {})),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a policy says about N observations."""

    actions: npt.NDArray[Any]
    """Shape (N,) int64, or (N, *action shape) float, clipped to the bounds: as the environment
    takes them."""

    action_probs: FloatArray | None
    """Shape (N, n): probability of each action; None for Box actions."""

    mean: FloatArray | None
    """Shape (N, *action shape): the distribution's mean before clipping, in the environment's
    units; None if it has none to tell."""

    std: FloatArray | None
    """Shape (N, *action shape): its standard deviation, in the same units; None likewise."""

    values: FloatArray
    """Shape (N,): estimated return, in the units of the reward trained on."""


class Actor(Protocol):
    """A policy's way of sampling actions in rollouts, with buffers of its own."""

    def refresh(self) -> None:
        """Look at the normaliser again, once the policy was updated."""

    def sample(self, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An action of the policy for each observation, shape (n, *shape)."""


class PolicyOutputs(Protocol):
    """The distribution over actions in each of N encoded observations."""

    def log_prob(self, actions: npt.NDArray[Any]) -> FloatArray:
        """Log π(a|s) of actions of the policy, shape (N,)."""

    def entropy(self) -> FloatArray:
        """Entropy in nats, shape (N,)."""


class BasePolicy(nn.Module, abc.ABC):
    """A stochastic policy and a value estimate, with everything that travels with them.

    All weights lie in one flat numpy vector, the policy's first, then the value estimate's; the
    module's parameters are views of it, so numpy and torch work on the same memory. Observations
    are standardised by running moments, and values scaled by the returns', which are buffers of
    the module: `observation_mean`, `observation_var`, `observation_count`, `value_mean`,
    `value_std`, `value_count`, in float64.

    A policy acts in units of its own; `to_env` makes them the environment's.

    Attributes:
        spec: what it was built from.
        distribution: over its actions, in torch.
        flat: shape (n,), all weights; float32 but in tests of the mathematics.
        policy_size: how many of them are the policy's; the rest is the value estimate's.
    """

    spec: PolicySpec
    distribution: Distribution
    flat: FloatArray
    policy_size: int
    observation_mean: torch.Tensor
    observation_var: torch.Tensor
    observation_count: torch.Tensor
    value_mean: torch.Tensor
    value_std: torch.Tensor
    value_count: torch.Tensor

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self.spec = spec
        size = spec.observation_size
        for name, initial in (
            ("observation_mean", torch.zeros(size, dtype=torch.float64)),
            ("observation_var", torch.ones(size, dtype=torch.float64)),
            ("observation_count", torch.zeros((), dtype=torch.float64)),
            ("value_mean", torch.zeros((), dtype=torch.float64)),
            ("value_std", torch.ones((), dtype=torch.float64)),
            ("value_count", torch.zeros((), dtype=torch.float64)),
        ):
            self.register_buffer(name, initial)
        self.register_state_dict_post_hook(_own_contiguous_copies)  # type: ignore[no-untyped-call]

    # --- acting ---------------------------------------------------------------------------

    @abc.abstractmethod
    def actor(self, rng: np.random.Generator) -> Actor:
        """What samples actions in rollouts."""

    @abc.abstractmethod
    def act(self, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Most probable actions, as `Prediction.actions`, without the value estimate."""

    @abc.abstractmethod
    def predict(
        self,
        observations: npt.NDArray[Any],
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> Prediction:
        """Choose an action for each observation.

        Args:
            observations: shape (N, *observation shape).
            deterministic: take the most probable action, else sample.
            rng: source of the samples; a fresh, unseeded one if None.

        Raises:
            IncompatibleError: the observations have another shape.
        """

    def to_env(self, actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Actions of the policy as the environment takes them."""
        return self.spec.action.to_env(actions)

    # --- learning -------------------------------------------------------------------------

    @abc.abstractmethod
    def encode(self, observations: npt.NDArray[Any]) -> FloatArray:
        """Observations, shape (N, *shape), as this policy's networks read them.

        Raises:
            IncompatibleError: the observations have another shape.
        """

    @abc.abstractmethod
    def outputs(self, encoded: FloatArray, weights: FloatArray | None = None) -> PolicyOutputs:
        """The distribution at encoded observations, of the policy or of other weights of it.

        Args:
            encoded: what `encode` gave.
            weights: shape (policy_size,); None for the present ones.
        """

    @abc.abstractmethod
    def values(self, encoded: FloatArray) -> FloatArray:
        """Estimated returns, shape (N,), of encoded observations."""

    def observe(self, observations: npt.NDArray[Any]) -> None:
        """Add observations, shape (N, *shape), to the normaliser's moments."""
        if not self.spec.normalize_observations:
            return
        mean, var, count = self.observation_mean, self.observation_var, self.observation_count
        merged = merge_moments(
            mean.numpy(), var.numpy(), float(count), observations.reshape(len(observations), -1)
        )
        for buffer, value in zip((mean, var, count), merged, strict=True):
            buffer.numpy()[...] = value

    def normalizer(self) -> tuple[FloatArray, FloatArray]:
        """Mean and reciprocal deviation of observations, each of shape (size, 1), float64."""
        scale = 1.0 / np.sqrt(self.observation_var.numpy() + VARIANCE_FLOOR)
        return self.observation_mean.numpy()[:, None].copy(), scale[:, None]

    def rescale_values(self, returns: npt.NDArray[np.float64]) -> FloatArray:
        """Follow the scale of returns, shape (N,), and give them in the value network's units.

        The value network's last layer is changed so that no value changes (PopArt, van Hasselt
        et al., arXiv 1602.07714).
        """
        old_mean, old_std = float(self.value_mean), float(self.value_std)
        mean, std = forgetting_moments(
            old_mean, old_std, float(self.value_count), returns, _RETURN_FORGETTING
        )
        std = max(std, _LEAST_RETURN_STD)
        self._rescale_last_value_layer((old_mean - mean) / old_std, old_std / std)
        for buffer, value in (
            (self.value_mean, mean), (self.value_std, std), (self.value_count, self.value_count + 1)
        ):  # fmt: skip
            buffer.fill_(value)
        scaled: FloatArray = ((returns - mean) / std).astype(self.flat.dtype)
        return scaled

    @abc.abstractmethod
    def _rescale_last_value_layer(self, shift: float, factor: float) -> None:
        """Make the value network give (v + shift) · factor for what was v."""

    # --- torch ----------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.parameters()).dtype

    @abc.abstractmethod
    def torch_inputs(self, encoded: FloatArray) -> FloatArray:
        """Encoded observations as `forward_encoded` takes them: one a row, contiguous or not."""

    @abc.abstractmethod
    def policy_outputs(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What `distribution` reads, (B, n_outputs) and (n_log_std,), from standardised inputs."""

    @abc.abstractmethod
    def scaled_values(self, inputs: torch.Tensor) -> torch.Tensor:
        """The value network, shape (B,), in its own units, from B standardised inputs."""

    @abc.abstractmethod
    def policy_parameters_list(self) -> list[nn.Parameter]:
        """The policy's parameters, in the order of `flat`."""

    @abc.abstractmethod
    def value_parameters_list(self) -> list[nn.Parameter]:
        """The value estimate's parameters, in the order of `flat`."""

    def standardize(self, observations: torch.Tensor) -> torch.Tensor:
        """Standardised observations, shape (N, *shape) as they came."""
        shape = self.spec.observation_shape
        mean, std = self.observation_mean, torch.sqrt(self.observation_var + VARIANCE_FLOOR)
        if len(shape) != 1:  # each operation that is exported takes its time
            mean, std = mean.reshape(shape), std.reshape(shape)
        standardized = (observations.to(torch.float64) - mean) / std
        return standardized.clamp(-LARGEST_STANDARDIZED, LARGEST_STANDARDIZED).to(self.dtype)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The distribution's outputs, shape (N, n_outputs), and values, shape (N,).

        Args:
            observations: shape (N, *observation shape).
        """
        inputs = self.standardize(observations)
        outputs, _ = self.policy_outputs(inputs)
        values = self.value_mean + self.value_std * self.scaled_values(inputs)
        return outputs, values.to(self.dtype)

    def export(self) -> "ServedPolicy":
        """A module that answers requests, for packaging; a copy that later updates don't change."""
        return ServedPolicy(self)

    @contextmanager
    def fitting_threads(self) -> Iterator[None]:
        """Let torch use one thread where the networks are small: more of them only wait."""
        before = torch.get_num_threads()
        if self.flat.size < _SMALL:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    # --- what all of them share -------------------------------------------------------------

    def _check_shape(self, observations: npt.NDArray[Any]) -> None:
        if observations.shape[1:] != self.spec.observation_shape:
            expected = ", ".join(map(str, ("N", *self.spec.observation_shape)))
            raise IncompatibleError(
                f"Expected observations of shape ({expected}), not {observations.shape}."
            )


class ServedPolicy(nn.Module):
    """A policy as it answers: an action, what it is likely to be, and the value, in torch.

    Args:
        policy: on the CPU.
    """

    def __init__(self, policy: BasePolicy) -> None:
        super().__init__()
        self.policy = policy
        self.distribution = policy.distribution
        action = policy.spec.action
        self.bounded = isinstance(action, BoxActions)
        if isinstance(action, BoxActions):
            centre, half_range = action.scale
            for name, value in (
                ("low", action.low), ("high", action.high), ("centre", centre),
                ("half_range", half_range),
            ):  # fmt: skip
                self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))

    def forward(
        self, observations: torch.Tensor, uniform: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The most probable action, and a sampled one where there is noise to make it from.

        Args:
            observations: shape (N, *observation shape), float32.
            uniform: shape (N, n_noise), in (0, 1).

        Returns:
            `action`, `value`, what the distribution tells (`action_probs`, or `mean` and `std`),
            and `sample` with `uniform`.
        """
        inputs = self.policy.standardize(observations)
        outputs, log_std = self.policy.policy_outputs(inputs)
        value = self.policy.value_mean + self.policy.value_std * self.policy.scaled_values(inputs)
        reply = {
            "action": self._to_env(self.distribution.mode(outputs)),
            **self.distribution.describe(outputs, log_std),
            "value": value.to(torch.float32),
        }
        if uniform is not None:
            reply["sample"] = self._to_env(self.distribution.sample(outputs, log_std, uniform))
        return reply

    def _to_env(self, actions: torch.Tensor) -> torch.Tensor:
        action = self.policy.spec.action
        if not isinstance(action, BoxActions):
            return actions + action.start
        scaled = self.get_buffer("centre") + self.get_buffer("half_range") * actions
        scaled = torch.clamp(scaled, self.get_buffer("low"), self.get_buffer("high"))
        if action.integer:
            scaled = torch.round(scaled)
        return scaled.reshape(-1, *action.shape)


def _own_contiguous_copies(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    """Copies, since file formats refuse tensors that share one buffer."""
    if any(isinstance(value, nn.Parameter) for value in state.values()):
        return  # keep_vars=True asks for the parameters themselves
    for name, value in state.items():
        state[name] = value.clone(memory_format=torch.contiguous_format)
