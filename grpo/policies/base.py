"""What a policy is to the rest of the library, and what all of ours have in common.

The collector, the learner, evaluation and packaging know a policy by `BasePolicy` alone: nothing
outside `grpo.policies` and the updaters asks which networks are inside.
"""

import abc
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from grpo.actions import ActionSpec, BoxActions, DictActions, DiscreteActions
from grpo.distributions import Distribution
from grpo.encoding import ObservationEncoder, encode, layout_of
from grpo.errors import IncompatibleError
from grpo.network import FloatArray
from grpo.observations import NEXT_STATE
from grpo.policies.spec import PolicySpec, Prediction
from grpo.running_mean_std import (
    LARGEST_STANDARDIZED,
    VARIANCE_FLOOR,
    forgetting_moments,
    merge_moments,
)

__all__ = [
    "FORBIDDEN",
    "Actor",
    "BasePolicy",
    "PolicyOutputs",
    "ServedPolicy",
    "check_mask",
]

FORBIDDEN = -1e9
"""Logit of an action that may not be taken: its probability is 0, and no number is infinite."""

_RETURN_FORGETTING = 0.1  # least share of an iteration in the running scale of returns
_LEAST_RETURN_STD = 1e-6


class Actor(Protocol):
    """A policy's way of sampling actions in rollouts, with buffers of its own."""

    def refresh(self) -> None:
        """Look at the normaliser again, once the policy was updated."""

    def sample(self, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An action of the policy for each observation, shape (n, *shape)."""

    @property
    def states(self) -> FloatArray:
        """What a policy with memory remembers after the last `sample`, shape (n, n_state)."""


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
        self._reads = spec.reads
        self._is_plain = spec.observation is None
        layout = layout_of(self._reads)
        learned = layout.learned if spec.normalize_observations else np.zeros(1, np.bool_)
        self._learns = bool(learned.any())
        self._learned: Any = ... if learned.all() else learned
        is_encoded = bool(self._reads.added) or any(leaf.categories for leaf in self._reads.leaves)
        self.encoder = ObservationEncoder(self._reads) if is_encoded else None
        for name, initial in (
            ("observation_mean", torch.tensor(layout.centre)),
            ("observation_var", torch.tensor(layout.scale**2)),
            ("observation_count", torch.zeros((), dtype=torch.float64)),
            ("value_mean", torch.zeros((), dtype=torch.float64)),
            ("value_std", torch.ones((), dtype=torch.float64)),
            ("value_count", torch.zeros((), dtype=torch.float64)),
        ):
            self.register_buffer(name, initial)
        self.register_state_dict_post_hook(_own_contiguous_copies)  # type: ignore[no-untyped-call]

    # --- memory ---------------------------------------------------------------------------

    @classmethod
    def state_size(cls, policy_kwargs: Mapping[str, Any]) -> int:
        """Numbers that a policy built with these remembers from step to step; most remember none.

        Raises:
            OutOfRangeError: it cannot be built so.
        """
        del policy_kwargs
        return 0

    def next_states(self, observations: npt.NDArray[Any]) -> FloatArray:
        """What is remembered after N observations, shape (N, n_state); before, see `reads`."""
        return np.empty((len(observations), 0), np.float32)

    def recall(
        self,
        encoded: FloatArray,
        alive: npt.NDArray[np.bool_],
        weights: FloatArray | None = None,
    ) -> FloatArray:
        """Encoded observations of whole segments, with what is remembered at each step now.

        Args:
            encoded: of N transitions, in the order of time, then of member. What is remembered
                at a member's first one stays, and the rest follows from it.
            alive: shape (T, members): who took a step when.
            weights: as for `outputs`.

        Returns:
            The same where there is no memory.
        """
        del alive, weights
        return encoded

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

    def outputs_and_values(
        self, encoded: FloatArray, value_features: torch.Tensor | None = None
    ) -> tuple[PolicyOutputs, FloatArray]:
        """`outputs` and `values`, in one pass where they share networks or features are known."""
        del value_features
        return self.outputs(encoded), self.values(encoded)

    def observe(self, observations: npt.NDArray[Any]) -> None:
        """Add observations, shape (N, *shape), to the normaliser's moments."""
        if not self._learns:
            return
        mean, var = self.observation_mean.numpy(), self.observation_var.numpy()
        count = self.observation_count.numpy()
        encoded = self.encoded_rows(observations).reshape(len(observations), -1)
        seen_mean, seen_var, count[...] = merge_moments(mean, var, float(count), encoded)
        mean[self._learned] = seen_mean[self._learned]
        var[self._learned] = seen_var[self._learned]

    def encoded_rows(self, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """As `grpo.encoding.encode`."""
        return observations if self._is_plain else encode(self._reads, observations)

    def normalizer(self) -> tuple[FloatArray, FloatArray]:
        """Mean and reciprocal deviation of observations, each of shape (size, 1), float64."""
        scale = 1.0 / np.sqrt(self.observation_var.numpy() + VARIANCE_FLOOR)
        return self.observation_mean.numpy()[:, None].copy(), scale[:, None]

    def return_moments(self, returns: npt.NDArray[np.float64]) -> tuple[float, float]:
        """Running mean and standard deviation of returns with these, shape (N,), among them."""
        known = (float(self.value_mean), float(self.value_std), float(self.value_count))
        mean, std = forgetting_moments(*known, returns, _RETURN_FORGETTING)
        return mean, max(std, _LEAST_RETURN_STD)

    def rescale_values(
        self,
        returns: npt.NDArray[np.float64],
        moments: tuple[float, float] | None = None,
        *,
        keep: bool = True,
    ) -> FloatArray:
        """Follow the scale of returns, shape (N,), and give them in the value network's units.

        The value network's last layer is changed so that no value changes (PopArt, van Hasselt
        et al., arXiv 1602.07714).

        Args:
            returns: of the N transitions.
            moments: what `return_moments` gave for them, where it was asked before.
            keep: whether values are to stay; else the network's outputs do, which have learned
                nothing yet.
        """
        old_mean, old_std = float(self.value_mean), float(self.value_std)
        mean, std = moments or self.return_moments(returns)
        if keep:
            self._rescale_last_value_layer((old_mean - mean) / old_std, old_std / std)
        self.value_mean.numpy()[...] = mean
        self.value_std.numpy()[...] = std
        count = self.value_count.numpy()
        count += 1.0
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
        """What `distribution` reads, (B, n_outputs) and (n_log_std,), from standardised inputs.

        A policy with memory takes whole segments, too: (T, M, …) → (T · M, n_outputs), of which
        only the first inputs tell what is remembered.
        """

    def memories(self, inputs: torch.Tensor) -> torch.Tensor:
        """What is remembered after inputs, as `policy_outputs` takes them: (B, n_state)."""
        return inputs.new_zeros(len(inputs), 0)

    def scaled_values(self, inputs: torch.Tensor) -> torch.Tensor:
        """The value network, shape (B,), in its own units, from B standardised inputs."""
        return self.values_of(self.value_features(inputs))

    def value_features(self, inputs: torch.Tensor) -> torch.Tensor:
        """What the value network reads of B inputs, which its training does not change."""
        return self.unmasked(inputs)

    @abc.abstractmethod
    def values_of(self, features: torch.Tensor) -> torch.Tensor:
        """The value network, shape (B,), in its own units, from what it reads."""

    @abc.abstractmethod
    def policy_parameters_list(self) -> list[nn.Parameter]:
        """The policy's parameters, in the order of `flat`."""

    @abc.abstractmethod
    def value_parameters_list(self) -> list[nn.Parameter]:
        """The value estimate's parameters, in the order of `flat`."""

    def standardize(self, observations: torch.Tensor) -> torch.Tensor:
        """What the networks read: (N, *shape) → (N, *encoded shape), standardised.

        What rows tell beside what is observed, n_state + n_mask numbers, is at the end as it is.
        """
        inputs = self._standardized(observations)
        if not self._reads.added:
            return inputs
        added = observations[:, self._reads.observed :].to(self.dtype)
        return torch.cat([inputs.reshape(-1, self.spec.observation_size), added], dim=1)

    def _standardized(self, observations: torch.Tensor) -> torch.Tensor:
        if self.encoder is not None:
            observations = self.encoder(observations)
        shape, layout = self._reads.encoded_shape, layout_of(self._reads)
        mean, var = self.observation_mean, self.observation_var
        if len(shape) != 1:  # each operation that is exported takes its time
            mean, var = mean.reshape(shape), var.reshape(shape)
        std = torch.sqrt(var + VARIANCE_FLOOR)
        if not layout.learned.any():  # small numbers all
            mean, std = mean.to(self.dtype), std.to(self.dtype)
        standardized = (observations.to(mean.dtype) - mean) / std
        return standardized.clamp(-LARGEST_STANDARDIZED, LARGEST_STANDARDIZED).to(self.dtype)

    def unmasked(self, inputs: torch.Tensor) -> torch.Tensor:
        """What is observed of inputs, (B, *encoded shape)."""
        if not self._reads.added:
            return inputs
        own = inputs[:, : self.spec.observation_size]
        return own.reshape(-1, *self._reads.encoded_shape)

    def masked(self, outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """A network's outputs, with no chance left to actions that may not be taken."""
        if not self._reads.n_mask:
            return outputs
        return torch.where(inputs[:, -self._reads.n_mask :] > 0.0, outputs, FORBIDDEN)

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
        for name, value in _to_env_tensors(policy.spec.action).items():
            self.register_buffer(name, value)

    def forward(
        self, observations: torch.Tensor, uniform: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The most probable action, and a sampled one where there is noise to make it from.

        Args:
            observations: shape (N, *observation shape), float32.
            uniform: shape (N, n_noise), in (0, 1).

        Returns:
            `action`, `value`, what the distribution tells (`action_probs`, or `mean` and `std`),
            `sample` with `uniform`, and `next_policy_state` of a policy with memory.
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
        if self.policy.spec.reads.n_state:
            reply[NEXT_STATE] = self.policy.memories(inputs)
        return reply

    def _to_env(self, actions: torch.Tensor) -> torch.Tensor:
        action = self.policy.spec.action
        if isinstance(action, DiscreteActions):
            return actions + action.start
        if "start" in self._buffers:
            return (actions + self.get_buffer("start")).reshape(-1, *action.shape)
        scaled = self.get_buffer("centre") + self.get_buffer("half_range") * actions
        scaled = torch.clamp(scaled, self.get_buffer("low"), self.get_buffer("high"))
        if "whole" in self._buffers:
            scaled = torch.where(self.get_buffer("whole"), torch.round(scaled), scaled)
        return scaled.reshape(-1, *action.shape)


def check_mask(spec: PolicySpec, distribution: Distribution) -> None:
    """Refuse a distribution that masks do not fit.

    Raises:
        IncompatibleError: it has not one output for each action.
    """
    n = spec.reads.n_mask
    if n and n != distribution.n_outputs:
        raise IncompatibleError(
            f"The environment says which of {n} actions may be taken; "
            f"{type(distribution).__name__} has {distribution.n_outputs} outputs for them.",
            field="policy_kwargs",
        )


def _to_env_tensors(action: ActionSpec) -> dict[str, torch.Tensor]:
    """What `ServedPolicy` turns the policy's actions into the environment's with."""
    if isinstance(action, DiscreteActions):
        return {}
    parts: Any = action.parts if isinstance(action, DictActions) else (((), action),)
    starts: list[int] = []
    rows: dict[str, list[float]] = {name: [] for name in ("low", "high", "centre", "half_range")}
    whole: list[bool] = []
    for _, part in parts:
        if isinstance(part, BoxActions):
            centre, half_range = (values.tolist() for values in part.scale)
            bounds = [*part.low], [*part.high], centre, half_range
            whole += [part.integer] * part.size
        else:
            first = [part.start] if isinstance(part, DiscreteActions) else list(part.start)
            starts += first
            free = [math.inf] * len(first)
            bounds = [-inf for inf in free], free, [*map(float, first)], [1.0] * len(first)
            whole += [True] * len(first)
        for name, values in zip(rows, bounds, strict=True):
            rows[name] += values
    if len(starts) == len(whole):
        return {"start": torch.tensor(starts)}
    tensors = {name: torch.tensor(row, dtype=torch.float32) for name, row in rows.items()}
    return tensors | ({"whole": torch.tensor(whole)} if any(whole) else {})


def _own_contiguous_copies(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    """Copies, since file formats refuse tensors that share one buffer."""
    if any(isinstance(value, nn.Parameter) for value in state.values()):
        return  # keep_vars=True asks for the parameters themselves
    for name, value in state.items():
        state[name] = value.clone(memory_format=torch.contiguous_format)
