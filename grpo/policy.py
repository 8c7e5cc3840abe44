"""The policy: an MLP over normalised observations, with a value head of its own trunk.

All weights lie in one flat numpy vector: the policy's, then the value head's. The torch module's
parameters are views of it, so numpy and torch work on the same memory: what one updates, the
other sees.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from grpo import network
from grpo.heads import CategoricalHead, make_head
from grpo.moments import (
    LARGEST_STANDARDIZED,
    VARIANCE_FLOOR,
    forgetting_moments,
    merge_moments,
    standardize,
)
from grpo.network import FloatArray, Layout, Parameters, Workspace
from grpo.spaces import ActionSpec, BoxActions, DiscreteActions, action_spec_from_dict

__all__ = ["Policy", "PolicySpec", "Prediction"]

_POLICY_LAST_GAIN = 0.01
_RETURN_FORGETTING = 0.1  # least share of an iteration in the running scale of returns
_LEAST_RETURN_STD = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySpec:
    """What has to be known to build a policy, apart from its weights."""

    observation_shape: tuple[int, ...]
    """Shape of one observation; flattened in C order before the first layer."""

    action: ActionSpec
    """Action space."""

    net_arch: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of each trunk."""

    normalize_observations: bool = True
    """Whether observations are standardised by their running moments."""

    @property
    def observation_size(self) -> int:
        """Number of components of one observation."""
        return math.prod(self.observation_shape)

    def layouts(self) -> tuple[Layout, Layout]:
        """Networks of the policy and of the value head."""
        head = make_head(self.action)
        trunk = (self.observation_size, *self.net_arch)
        return Layout((*trunk, head.outputs), head.log_std), Layout((*trunk, 1))

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `from_dict`."""
        return {
            "observation_shape": list(self.observation_shape),
            "action": self.action.to_dict(),
            "net_arch": list(self.net_arch),
            "normalize_observations": self.normalize_observations,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PolicySpec":
        """Inverse of `to_dict`."""
        return cls(
            observation_shape=tuple(int(n) for n in values["observation_shape"]),
            action=action_spec_from_dict(values["action"]),
            net_arch=tuple(int(n) for n in values["net_arch"]),
            normalize_observations=bool(values["normalize_observations"]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a policy says about N observations."""

    actions: npt.NDArray[Any]
    """Shape (N,) int64, indices from 0 (the environment may start its names at another number),
    or (N, *action shape) float, clipped to the bounds."""

    action_probs: FloatArray | None
    """Shape (N, n): probability of each action; None for Box actions."""

    mean: FloatArray | None
    """Shape (N, *action shape): the Gaussian's mean, before clipping; None if discrete."""

    std: FloatArray | None
    """Shape (N, *action shape): its standard deviation; None if discrete."""

    values: FloatArray
    """Shape (N,): estimated return, in the units of the reward trained on."""


class Policy(nn.Module):
    """Categorical or Gaussian policy and value head.

    `state_dict` has `policy_net.<i>.weight` and `.bias` per layer, the last one the head (logits
    or means), `value_net.<i>.…` alike, `log_std` for Box actions, and the buffers
    `observation_mean`, `observation_var`, `observation_count`, `value_mean`, `value_std`,
    `value_count`, in float64. With x the flattened observation:

        z = clip((x − observation_mean) / sqrt(observation_var + 1e-8), −1e6, 1e6)
        outputs = policy_net(z), value = value_mean + value_std · value_net(z)

    with tanh between the layers. A Box action is `centre + half_range · a` clipped to the
    bounds, where a ~ N(outputs, exp(log_std)²); centre and half range are 0 and 1 for a
    component without two finite bounds.

    Args:
        spec: shapes of everything.
        seed: of the initial weights.
        dtype: of the weights: float32, or float64 for tests of the mathematics.
    """

    observation_mean: torch.Tensor
    observation_var: torch.Tensor
    observation_count: torch.Tensor
    value_mean: torch.Tensor
    value_std: torch.Tensor
    value_count: torch.Tensor

    def __init__(self, spec: PolicySpec, seed: int = 0, dtype: npt.DTypeLike = np.float32) -> None:
        super().__init__()
        self.spec = spec
        self.head = make_head(spec.action)
        policy_layout, value_layout = spec.layouts()
        self.flat: FloatArray = np.zeros(policy_layout.size + value_layout.size, dtype)
        self.policy_parameters = Parameters(policy_layout, self.flat[: policy_layout.size])
        self.value_parameters = Parameters(value_layout, self.flat[policy_layout.size :])
        # a small last gain starts the policy near uniform (Engstrom et al., 2005.12729)
        generator = np.random.default_rng(seed)
        network.initialize(self.policy_parameters, _POLICY_LAST_GAIN, generator)
        network.initialize(self.value_parameters, 1.0, generator)
        self.policy_net = _module(self.policy_parameters)
        self.value_net = _module(self.value_parameters)
        if self.head.log_std:
            self.log_std = nn.Parameter(torch.from_numpy(self.policy_parameters.log_std))
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
        self._centre, self._half_range = _action_scale(spec.action)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy by value: a plain deep copy would tear the views from the flat vector."""
        return _rebuild, (self.spec, self.flat.dtype.str, self.state_dict())

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.parameters()).dtype

    # --- torch: the reference, and what is exported ---------------------------------------

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Head outputs (logits, or means in units of the policy), and values.

        Args:
            observations: shape (N, *observation shape).

        Returns:
            Shape (N, outputs), and shape (N,).
        """
        flat = observations.reshape(-1, self.spec.observation_size).to(torch.float64)
        std = torch.sqrt(self.observation_var + VARIANCE_FLOOR)
        normalized = ((flat - self.observation_mean) / std).clamp(
            -LARGEST_STANDARDIZED, LARGEST_STANDARDIZED
        )
        outputs, scaled = self.evaluate_normalized(normalized.to(self.dtype))
        return outputs, (self.value_mean + self.value_std * scaled).to(self.dtype)

    def evaluate_normalized(self, normalized: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The two networks on observations, shape (N, size), that are normalised already."""
        return _run(self.policy_net, normalized), _run(self.value_net, normalized).squeeze(-1)

    # --- numpy: what acts ----------------------------------------------------------------

    def normalizer(self) -> tuple[FloatArray, FloatArray]:
        """Mean and reciprocal deviation of observations, each of shape (size, 1), float64."""
        scale = 1.0 / np.sqrt(self.observation_var.numpy() + VARIANCE_FLOOR)
        return self.observation_mean.numpy()[:, None].copy(), scale[:, None]

    def normalize(self, observations: npt.NDArray[Any]) -> FloatArray:
        """Normalised observations as columns: (N, *shape) → (size + 1, N), the last row ones."""
        mean, scale = self.normalizer()
        inputs = np.ones((len(mean) + 1, len(observations)), self.flat.dtype)
        columns = observations.reshape(len(observations), -1).T
        standardize(columns, mean, scale, inputs[:-1])
        return inputs

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
        last = self.value_parameters.layers[-1]
        last[:, -1] += (old_mean - mean) / old_std
        last *= old_std / std
        for buffer, value in (
            (self.value_mean, mean), (self.value_std, std), (self.value_count, self.value_count + 1)
        ):  # fmt: skip
            buffer.fill_(value)
        scaled: FloatArray = ((returns - mean) / std).astype(self.flat.dtype)
        return scaled

    def outputs(self, inputs: FloatArray) -> FloatArray:
        """The head's outputs, shape (outputs, N), from normalised inputs, shape (size + 1, N)."""
        layout = self.policy_parameters.layout
        work = Workspace(layout, inputs.shape[1], self.flat.dtype)
        return network.forward(self.policy_parameters, inputs, work)

    def values(self, inputs: FloatArray) -> FloatArray:
        """Estimated returns, shape (N,), from normalised inputs, shape (size + 1, N)."""
        work = Workspace(self.value_parameters.layout, inputs.shape[1], self.flat.dtype)
        scaled = network.forward(self.value_parameters, inputs, work)[0]
        values: FloatArray = self.value_mean.numpy() + self.value_std.numpy() * scaled
        return values

    def act(self, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Most probable actions for observations, shape (N, *shape), without the value head."""
        return self.scale_actions(self.head.mode(self.outputs(self.normalize(observations))))

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
        """
        inputs = self.normalize(observations)
        outputs = self.outputs(inputs)
        if deterministic:
            actions: npt.NDArray[Any] = self.head.mode(outputs)
        else:
            rng = np.random.default_rng() if rng is None else rng
            actions = self.head.sample(outputs, self.policy_parameters.log_std, rng)
        probabilities, mean, std = None, None, None
        if isinstance(self.head, CategoricalHead):
            probabilities = np.ascontiguousarray(self.head.probabilities(outputs).T)
        else:
            shape = (-1, *self._action_shape)
            mean = (self._centre + self._half_range * outputs.T).reshape(shape)
            sigma = self._half_range * np.exp(self.policy_parameters.log_std)
            std = np.broadcast_to(sigma, (len(outputs.T), sigma.size)).reshape(shape).copy()
        return Prediction(
            actions=self.scale_actions(actions),
            action_probs=probabilities,
            mean=mean,
            std=std,
            values=self.values(inputs),
        )

    def scale_actions(self, actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Actions of the policy as `VecEnv.step` takes them: indices, or arrays within the bounds.

        Where the environment takes whole numbers, the nearest ones.
        """
        action = self.spec.action
        if isinstance(action, DiscreteActions):
            return actions
        scaled = np.clip(self._centre + self._half_range * actions, action.low, action.high)
        if action.integer:
            np.rint(scaled, out=scaled)
        bounded: npt.NDArray[np.float64] = scaled.reshape(-1, *action.shape)
        return bounded

    @property
    def _action_shape(self) -> tuple[int, ...]:
        return self.spec.action.shape if isinstance(self.spec.action, BoxActions) else ()


def _module(parameters: Parameters) -> nn.ModuleList:
    """Linear layers whose weights and biases are views of the flat vector."""
    layers = nn.ModuleList()
    for affine in parameters.layers:
        layer = nn.Linear(affine.shape[1] - 1, affine.shape[0], device="meta")
        layer.weight = nn.Parameter(torch.from_numpy(affine[:, :-1]))
        layer.bias = nn.Parameter(torch.from_numpy(affine[:, -1]))
        layers.append(layer)
    return layers


def _run(layers: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
    for layer in layers[:-1]:
        x = torch.tanh(layer(x))
    outputs: torch.Tensor = layers[-1](x)
    return outputs


def _own_contiguous_copies(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    """Copies, since file formats refuse tensors that share one buffer."""
    if any(isinstance(value, nn.Parameter) for value in state.values()):
        return  # keep_vars=True asks for the parameters themselves
    for name, value in state.items():
        state[name] = value.clone(memory_format=torch.contiguous_format)


def _rebuild(spec: PolicySpec, dtype: str, state: dict[str, torch.Tensor]) -> Policy:
    policy = Policy(spec, dtype=dtype)
    policy.load_state_dict(state)
    return policy


def _action_scale(action: ActionSpec) -> tuple[FloatArray, FloatArray]:
    """Centre and half range per component, flattened; 0 and 1 where a bound is infinite."""
    if isinstance(action, DiscreteActions):
        return np.zeros(0), np.ones(0)
    low, high = np.array(action.low, np.float64), np.array(action.high, np.float64)
    bounded = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    return (low + high) / 2.0, (high - low) / 2.0
