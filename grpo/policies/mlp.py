"""The policy that everybody starts with: an MLP, and a value head with a trunk of its own.

It acts and learns in numpy, with its gradient written out: for networks of this size the time goes
into torch's calls, not into arithmetic. Torch sees the same weights, for CUDA and for export.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from grpo import network
from grpo.actions import BoxActions
from grpo.closed_forms import closed_form
from grpo.distributions import default_distribution, first_log_std
from grpo.errors import OutOfRangeError
from grpo.network import FloatArray, Layout, Parameters, Workspace
from grpo.policies.base import FORBIDDEN, BasePolicy, PolicyOutputs, check_mask
from grpo.policies.spec import PolicySpec, Prediction
from grpo.running_mean_std import standardize

__all__ = ["MLP_PARTS", "MlpPolicy"]

MLP_PARTS = frozenset({"log_std_init"})
"""What `MlpPolicy` takes in `policy_kwargs`."""

_POLICY_LAST_GAIN = 0.01
_SIZES_KEPT = 16


class MlpPolicy(BasePolicy):
    """Categorical or Gaussian policy and value head, tanh between the layers.

    `state_dict` has `policy_net.<i>.weight` and `.bias` per layer, the last one the head (logits
    or means), `value_net.<i>.…` alike, `log_std` for Box actions, and the buffers. With x the
    encoded observation, flattened:

        z = clip((x − observation_mean) / sqrt(observation_var + 1e-8), −1e6, 1e6)
        outputs = policy_net(z), value = value_mean + value_std · value_net(z)

    A Box action is `centre + half_range · a` clipped to the bounds, where
    a ~ N(outputs, exp(log_std)²).

    Args:
        spec: shapes of everything.
        seed: of the initial weights.
        dtype: of the weights: float32, or float64 for tests of the mathematics.
    """

    def __init__(self, spec: PolicySpec, seed: int = 0, dtype: npt.DTypeLike = np.float32) -> None:
        super().__init__(spec)
        if unknown := sorted(set(spec.policy_kwargs) - MLP_PARTS):
            raise OutOfRangeError(
                f"MlpPolicy takes log_std_init in policy_kwargs, not {unknown}: its widths "
                "are net_arch. Other parts go with ActorCriticPolicy.",
                field="policy_kwargs",
            )
        self.distribution = default_distribution(spec.action)(spec.action)
        check_mask(spec, self.distribution)
        self.head = closed_form(spec.action)
        trunk = (spec.observation_size, *spec.net_arch)
        policy_layout = Layout((*trunk, self.head.outputs), self.head.log_std)
        value_layout = Layout((*trunk, 1))
        self.flat = np.zeros(policy_layout.size + value_layout.size, dtype)
        self.policy_size = policy_layout.size
        self.policy_parameters = Parameters(policy_layout, self.flat[: policy_layout.size])
        self.value_parameters = Parameters(value_layout, self.flat[policy_layout.size :])
        # a small last gain starts the policy near uniform (Engstrom et al., 2005.12729)
        generator = np.random.default_rng(seed)
        network.initialize(self.policy_parameters, _POLICY_LAST_GAIN, generator)
        network.initialize(self.value_parameters, 1.0, generator)
        self.policy_parameters.log_std[:] = first_log_std(
            self.head.log_std, spec.policy_kwargs.get("log_std_init")
        )
        self.policy_net = _module(self.policy_parameters)
        self.value_net = _module(self.value_parameters)
        if self.head.log_std:
            self.log_std = nn.Parameter(torch.from_numpy(self.policy_parameters.log_std))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy by value: a plain deep copy would tear the views from the flat vector."""
        return _rebuild, (self.spec, self.flat.dtype.str, self.state_dict())

    # --- acting: numpy --------------------------------------------------------------------

    def actor(self, rng: np.random.Generator) -> "_Actor":
        """See `BasePolicy.actor`."""
        return _Actor(self, rng)

    def act(self, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `BasePolicy.act`."""
        return self.to_env(self.head.mode(self.forward_columns(self.encode(observations))))

    def predict(
        self,
        observations: npt.NDArray[Any],
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> Prediction:
        """See `BasePolicy.predict`."""
        columns = self.encode(observations)
        outputs, log_std = self.forward_columns(columns), self.policy_parameters.log_std
        if deterministic:
            actions: npt.NDArray[Any] = self.head.mode(outputs)
        else:
            actions = self.head.sample(outputs, log_std, rng or np.random.default_rng())
        told: dict[str, FloatArray] = {}
        action = self.spec.action
        probabilities = self.head.probabilities(outputs)
        if probabilities is not None:
            told["action_probs"] = np.ascontiguousarray(probabilities.T)
        if isinstance(action, BoxActions):
            shape = (-1, *action.shape)
            centre, half_range = action.scale
            std = np.broadcast_to(half_range * np.exp(log_std), outputs.T.shape)
            told["mean"] = (centre + half_range * outputs.T).reshape(shape)
            told["std"] = std.reshape(shape).copy()
        return Prediction(
            actions=self.to_env(actions),
            action_probs=told.get("action_probs"),
            mean=told.get("mean"),
            std=told.get("std"),
            values=self.values(columns),
            log_probs=_Outputs(self, outputs, log_std).log_prob(actions),
        )

    # --- learning: numpy ------------------------------------------------------------------

    def encode(self, observations: npt.NDArray[Any]) -> FloatArray:
        """What the network reads, as columns: (N, *shape) → (size + 1, N), the last row ones.

        Where rows tell which actions may be taken, that follows: (size + 1 + n_mask, N).

        Raises:
            IncompatibleError: the observations have another shape.
        """
        self._check_shape(observations)
        mean, scale = self.normalizer()
        size, n = len(mean), self._reads.n_mask
        columns = np.ones((size + 1 + n, len(observations)), self.flat.dtype)
        encoded = self.encoded_rows(observations)
        standardize(encoded.reshape(len(encoded), -1).T, mean, scale, columns[:size])
        if n:
            columns[size + 1 :] = self._reads.masks(observations).T
        return columns

    def outputs(self, encoded: FloatArray, weights: FloatArray | None = None) -> PolicyOutputs:
        """See `BasePolicy.outputs`."""
        layout = self.policy_parameters.layout
        parameters = self.policy_parameters if weights is None else Parameters(layout, weights)
        return _Outputs(self, self.forward_columns(encoded, parameters), parameters.log_std)

    def forward_columns(
        self, encoded: FloatArray, parameters: Parameters | None = None
    ) -> FloatArray:
        """The head's outputs, shape (outputs, N), at encoded observations."""
        parameters = self.policy_parameters if parameters is None else parameters
        work = Workspace(parameters.layout, encoded.shape[1], self.flat.dtype)
        outputs = network.forward(parameters, self.read(encoded), work)
        return self.mask_columns(outputs, encoded)

    def read(self, encoded: FloatArray) -> FloatArray:
        """The rows of columns that networks read, shape (size + 1, N)."""
        return encoded[: len(encoded) - self._reads.n_mask]

    def mask_columns(self, outputs: FloatArray, encoded: FloatArray) -> FloatArray:
        """Outputs, shape (outputs, N), with no chance left to actions that may not be taken."""
        n = self._reads.n_mask
        if not n:
            return outputs
        masked: FloatArray = np.where(encoded[-n:] > 0.0, outputs, outputs.dtype.type(FORBIDDEN))
        return masked

    def values(self, encoded: FloatArray) -> FloatArray:
        """See `BasePolicy.values`."""
        work = Workspace(self.value_parameters.layout, encoded.shape[1], self.flat.dtype)
        scaled = network.forward(self.value_parameters, self.read(encoded), work)[0]
        values: FloatArray = self.value_mean.numpy() + self.value_std.numpy() * scaled
        return values

    def _rescale_last_value_layer(self, shift: float, factor: float) -> None:
        last = self.value_parameters.layers[-1]
        last[:, -1] += shift
        last *= factor

    # --- torch: the reference, and what is exported ---------------------------------------

    def torch_inputs(self, encoded: FloatArray) -> FloatArray:
        """See `BasePolicy.torch_inputs`."""
        n = self._reads.n_mask
        return np.delete(encoded, -1 - n, axis=0).T if n else encoded[:-1].T

    def policy_outputs(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `BasePolicy.policy_outputs`."""
        log_std = self.log_std if self.head.log_std else inputs.new_zeros(0)
        outputs = _run(self.policy_net, self._rows(self.unmasked(inputs)))
        return self.masked(outputs, inputs), log_std

    def values_of(self, features: torch.Tensor) -> torch.Tensor:
        """See `BasePolicy.values_of`."""
        return _run(self.value_net, self._rows(features)).squeeze(-1)

    def _rows(self, inputs: torch.Tensor) -> torch.Tensor:
        is_flat = len(self._reads.encoded_shape) == 1
        return inputs if is_flat else inputs.reshape(-1, self.spec.observation_size)

    def policy_parameters_list(self) -> list[nn.Parameter]:
        """See `BasePolicy.policy_parameters_list`."""
        free = [self.log_std] if self.head.log_std else []
        return [*self.policy_net.parameters(), *free]

    def value_parameters_list(self) -> list[nn.Parameter]:
        """See `BasePolicy.value_parameters_list`."""
        return list(self.value_net.parameters())


class _Outputs:
    """See `PolicyOutputs`."""

    __slots__ = ("_log_std", "_outputs", "_policy")

    def __init__(self, policy: MlpPolicy, outputs: FloatArray, log_std: FloatArray) -> None:
        self._policy = policy
        self._outputs = outputs
        self._log_std = log_std

    def log_prob(self, actions: npt.NDArray[Any]) -> FloatArray:
        """See `PolicyOutputs.log_prob`."""
        head = self._policy.head
        encoded = head.encode(actions, self._policy.flat.dtype)
        return head.log_prob(self._outputs, self._log_std, encoded)[0]

    def entropy(self) -> FloatArray:
        """See `PolicyOutputs.entropy`."""
        return self._policy.head.entropy(self._outputs, self._log_std)


class _Actor:
    """See `Actor`."""

    def __init__(self, policy: MlpPolicy, rng: np.random.Generator) -> None:
        self._policy = policy
        self._parameters = policy.policy_parameters
        self._encoded_rows = policy.encoded_rows
        self._n_mask, self._masks = policy.spec.reads.n_mask, policy.spec.reads.masks
        self._rng = rng
        self._work = lru_cache(_SIZES_KEPT)(self._make_work)
        self.refresh()

    def refresh(self) -> None:
        """See `Actor.refresh`."""
        self._mean, self._scale = self._policy.normalizer()

    def sample(self, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Actor.sample`."""
        work = self._work(len(observations))
        encoded = self._encoded_rows(observations)
        columns = encoded.T if encoded.ndim == 2 else encoded.reshape(len(encoded), -1).T
        standardize(columns, self._mean, self._scale, work.inputs[:-1])
        outputs = network.forward(self._parameters, work.inputs, work)
        if self._n_mask:
            masks = self._masks(observations).T
            outputs = np.where(masks, outputs, outputs.dtype.type(FORBIDDEN))
        return self._policy.head.sample(outputs, self._parameters.log_std, self._rng)

    @property
    def states(self) -> FloatArray:
        """See `Actor.states`."""
        return np.empty((0, 0), np.float32)

    def _make_work(self, batch: int) -> Workspace:
        return Workspace(self._parameters.layout, batch, self._parameters.flat.dtype)


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


def _rebuild(spec: PolicySpec, dtype: str, state: dict[str, torch.Tensor]) -> MlpPolicy:
    policy = MlpPolicy(spec, dtype=dtype)
    policy.load_state_dict(state)
    return policy
