"""A policy of any torch networks: features extractor, hidden layers, distribution; value apart.

What Stable-Baselines3's `ActorCriticPolicy` is there. It acts and learns in torch, on any device,
by `grpo.torch_updater`.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import nn

from grpo.distributions import Distribution, default_distribution, first_log_std
from grpo.errors import OutOfRangeError
from grpo.network import FloatArray
from grpo.policies.base import BasePolicy, PolicyOutputs, check_mask
from grpo.policies.spec import PolicySpec, Prediction

__all__ = ["ActorCriticPolicy", "FlattenExtractor", "Outputs"]

_POLICY_LAST_GAIN = 0.01


class FlattenExtractor(nn.Module):
    """The observation itself, flattened; what is used where no extractor is named.

    An extractor is any module that is built from an `observation_space`, maps standardised
    observations, shape (B, *shape), to shape (B, features_dim), and says its `features_dim`, as
    Stable-Baselines3's do.
    """

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__()
        self.features_dim = math.prod(observation_space.shape)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(B, *shape) → (B, features_dim)."""
        return observations.reshape(-1, self.features_dim)


class ActorCriticPolicy(BasePolicy):
    """Policy and value networks of the same make, which share no weights.

    Subclass it and override `make_network` for networks that are not put together so.

    Args:
        spec: shapes of everything.
        seed: of the initial weights.
        features_extractor_class: see `FlattenExtractor`.
        features_extractor_kwargs: what it is built with beside the space.
        activation_fn: class of the module between the hidden layers.
        distribution_class: over the actions; by default the one that fits the space.
        ortho_init: orthogonal weights of the hidden layers.
        log_std_init: log σ of continuous actions at first; see `first_log_std`.

    Raises:
        IncompatibleError: the distribution does not fit the action space.
        OutOfRangeError: an extractor without `features_dim`.
    """

    def __init__(
        self,
        spec: PolicySpec,
        seed: int = 0,
        *,
        features_extractor_class: type[nn.Module] = FlattenExtractor,
        features_extractor_kwargs: Mapping[str, Any] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        distribution_class: type[Distribution] | None = None,
        ortho_init: bool = True,
        log_std_init: float | None = None,
    ) -> None:
        super().__init__(spec)
        self._extractor = features_extractor_class, dict(features_extractor_kwargs or {})
        self._activation_fn = activation_fn
        self._ortho_init = ortho_init
        make = default_distribution(spec.action) if distribution_class is None else (
            distribution_class
        )  # fmt: skip
        self.distribution = make(spec.action)
        check_mask(spec, self.distribution)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy_net = self.make_network(self.distribution.n_outputs, _POLICY_LAST_GAIN)
            self.value_net = self.make_value_network()
        if n := self.distribution.n_log_std:
            self.log_std = nn.Parameter(torch.full((n,), first_log_std(n, log_std_init)))
        self._tie()

    def make_network(self, n_outputs: int, last_gain: float) -> nn.Module:
        """A network from standardised observations, (B, *shape), to (B, n_outputs).

        It is called once for the policy and once for the value. The last module must be an
        `nn.Linear`, which the value's scale is kept in.

        Args:
            n_outputs: numbers for each observation.
            last_gain: of the orthogonal weights of the last layer; a small one starts a policy
                near uniform (Engstrom et al., 2005.12729).
        """
        return self.stack(self.make_extractor(), n_outputs, last_gain)

    def make_value_network(self) -> nn.Module:
        """The value's network, from `value_features` to (B, 1)."""
        return self.make_network(1, 1.0)

    def make_extractor(self) -> nn.Module:
        """What is below the hidden layers: from standardised observations to features."""
        space = spaces.Box(-np.inf, np.inf, self._reads.encoded_shape, np.float32)
        make, kwargs = self._extractor
        return make(space, **kwargs)

    def stack(self, extractor: nn.Module, n_outputs: int, last_gain: float) -> nn.Sequential:
        """Hidden layers over an extractor, and a last linear one.

        Args:
            extractor: the first module, which says its `features_dim`.
            n_outputs: as for `make_network`.
            last_gain: likewise.

        Raises:
            OutOfRangeError: the extractor does not say it.
        """
        width = getattr(extractor, "features_dim", None)
        if not isinstance(width, int):
            raise OutOfRangeError(
                f"{type(extractor).__name__} must have an integer `features_dim`: the number of "
                "features that its `forward` gives.",
                field="policy_kwargs",
            )
        modules: list[nn.Module] = [extractor]
        for n in self.spec.net_arch:
            modules += [self._initialized(nn.Linear(width, n), math.sqrt(2.0))]
            modules += [self._activation_fn()]
            width = n
        return nn.Sequential(*modules, self._initialized(nn.Linear(width, n_outputs), last_gain))

    def _initialized(self, layer: nn.Linear, gain: float) -> nn.Linear:
        if self._ortho_init:
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)
        return layer

    def _tie(self) -> None:
        """Put all weights into one flat vector, and make the parameters views of it."""
        mine, values = self.policy_parameters_list(), self.value_parameters_list()
        self.policy_size = sum(parameter.numel() for parameter in mine)
        size = self.policy_size + sum(parameter.numel() for parameter in values)
        self.flat = np.empty(size, np.float32)
        offset = 0
        for parameter in (*mine, *values):
            view = self.flat[offset : offset + parameter.numel()].reshape(parameter.shape)
            view[...] = parameter.detach().numpy()
            parameter.data = torch.from_numpy(view)
            offset += parameter.numel()

    def __deepcopy__(self, memo: dict[int, Any]) -> "ActorCriticPolicy":
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        for name, value in self.__dict__.items():
            other.__dict__[name] = copy.deepcopy(value, memo)
        other._tie()
        return other

    # --- acting ---------------------------------------------------------------------------

    def actor(self, rng: np.random.Generator) -> "_Actor":
        """See `BasePolicy.actor`."""
        return _Actor(self, rng)

    def act(self, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `BasePolicy.act`."""
        with torch.inference_mode():
            outputs, _ = self._evaluated(self.encode(observations))
            return self.to_env(self.distribution.mode(outputs).numpy())

    def predict(
        self,
        observations: npt.NDArray[Any],
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> Prediction:
        """See `BasePolicy.predict`."""
        encoded = self.encode(observations)
        with torch.inference_mode():
            outputs, log_std = self._evaluated(encoded)
            if deterministic:
                actions = self.distribution.mode(outputs)
            else:
                actions = self.sample(outputs, log_std, rng or np.random.default_rng())
            told = self.distribution.describe(outputs, log_std)
            log_probs = self.distribution.log_prob(outputs, log_std, actions)
        arrays = {name: value.numpy() for name, value in told.items()}
        return Prediction(
            actions=self.to_env(actions.numpy()),
            action_probs=arrays.get("action_probs"),
            mean=arrays.get("mean"),
            std=arrays.get("std"),
            values=self.values(encoded),
            log_probs=log_probs.numpy(),
        )

    def sample(
        self, outputs: torch.Tensor, log_std: torch.Tensor, rng: np.random.Generator
    ) -> torch.Tensor:
        """Actions of the policy, shaped as the distribution's samples."""
        # float32 rounds up to 1, where an inverse distribution function is infinite
        uniform = rng.random((len(outputs), self.distribution.n_noise), np.float32)
        return self.distribution.sample(
            outputs, log_std, torch.from_numpy(uniform).clamp(1e-7, 1.0 - 1e-7)
        )

    # --- learning -------------------------------------------------------------------------

    def encode(self, observations: npt.NDArray[Any]) -> FloatArray:
        """What the networks read, shape (N, *encoded shape), float32.

        Raises:
            IncompatibleError: the observations have another shape.
        """
        self._check_shape(observations)
        rows = torch.from_numpy(np.ascontiguousarray(observations))  # one may be a view, mirrored
        encoded: FloatArray = self.standardize(rows).numpy()
        return encoded

    def outputs(self, encoded: FloatArray, weights: FloatArray | None = None) -> PolicyOutputs:
        """See `BasePolicy.outputs`."""
        with self.replaced(weights), torch.inference_mode():
            outputs, log_std = self._evaluated(encoded)
            return Outputs(self.distribution, outputs, log_std.clone())

    @contextmanager
    def replaced(self, weights: FloatArray | None) -> Iterator[None]:
        """The policy with other weights for a while, shape (policy_size,); None for its own."""
        if weights is None:
            yield
            return
        part = self.flat[: self.policy_size]
        present = part.copy()
        part[:] = weights
        try:
            yield
        finally:
            part[:] = present

    def values(self, encoded: FloatArray) -> FloatArray:
        """See `BasePolicy.values`."""
        with torch.inference_mode():
            scaled = self.scaled_values(torch.from_numpy(encoded)).numpy()
        values: FloatArray = self.value_mean.numpy() + self.value_std.numpy() * scaled
        return values

    def _rescale_last_value_layer(self, shift: float, factor: float) -> None:
        last = [module for module in self.value_net.modules() if isinstance(module, nn.Linear)][-1]
        with torch.no_grad():
            last.bias.add_(shift)
            last.weight.mul_(factor)
            last.bias.mul_(factor)

    # --- torch ----------------------------------------------------------------------------

    def torch_inputs(self, encoded: FloatArray) -> FloatArray:
        """See `BasePolicy.torch_inputs`."""
        return encoded

    def policy_outputs(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `BasePolicy.policy_outputs`."""
        free = self.log_std if self.distribution.n_log_std else inputs.new_zeros(0)
        return self.masked(self.policy_net(self.unmasked(inputs)), inputs), free

    def values_of(self, features: torch.Tensor) -> torch.Tensor:
        """See `BasePolicy.values_of`."""
        values: torch.Tensor = self.value_net(features).squeeze(-1)
        return values

    def policy_parameters_list(self) -> list[nn.Parameter]:
        """See `BasePolicy.policy_parameters_list`."""
        free = [self.log_std] if self.distribution.n_log_std else []
        return [*self.policy_net.parameters(), *free]

    def value_parameters_list(self) -> list[nn.Parameter]:
        """See `BasePolicy.value_parameters_list`."""
        return list(self.value_net.parameters())

    def _evaluated(self, encoded: FloatArray) -> tuple[torch.Tensor, torch.Tensor]:
        return self.policy_outputs(torch.from_numpy(encoded))


class Outputs:
    """See `PolicyOutputs`."""

    __slots__ = ("_distribution", "_log_std", "_outputs")

    def __init__(
        self, distribution: Distribution, outputs: torch.Tensor, log_std: torch.Tensor
    ) -> None:
        self._distribution = distribution
        self._outputs = outputs
        self._log_std = log_std

    def log_prob(self, actions: npt.NDArray[Any]) -> FloatArray:
        """See `PolicyOutputs.log_prob`."""
        with torch.inference_mode():
            chosen = torch.from_numpy(actions)
            return self._distribution.log_prob(self._outputs, self._log_std, chosen).numpy()

    def entropy(self) -> FloatArray:
        """See `PolicyOutputs.entropy`."""
        with torch.inference_mode():
            return self._distribution.entropy(self._outputs, self._log_std).numpy()


class _Actor:
    """See `Actor`."""

    def __init__(self, policy: ActorCriticPolicy, rng: np.random.Generator) -> None:
        self._policy = policy
        self._rng = rng

    def refresh(self) -> None:
        """The policy is looked at anew at each step."""

    def sample(self, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Actor.sample`."""
        policy = self._policy
        self._encoded = policy.encode(observations)
        with torch.inference_mode():
            outputs, log_std = policy._evaluated(self._encoded)
            return policy.sample(outputs, log_std, self._rng).numpy()

    @property
    def states(self) -> FloatArray:
        """See `Actor.states`."""
        with torch.inference_mode():
            return self._policy.memories(torch.from_numpy(self._encoded)).numpy()
