"""A policy that remembers its episode: a gated recurrent unit between extractor and hidden layers.

What it remembers is a part of the row that it reads (`ObservationSpec.n_state`), and it says what
comes after: acting, serving and export are functions of one step, and only training looks at whole
segments. What is remembered of a state that a group starts from is kept with it, so all members of
the group begin with the same.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import nn
from torch.nn import functional

from grpo.errors import OutOfRangeError
from grpo.network import FloatArray
from grpo.policies.actor_critic import ActorCriticPolicy, FlattenExtractor, Outputs
from grpo.policies.base import BasePolicy, PolicyOutputs
from grpo.policies.cnn import CombinedExtractor, NatureCNN
from grpo.policies.spec import PolicySpec

__all__ = ["Memory", "RecurrentPolicy"]

_HIDDEN_SIZE: Final = 64
_LARGEST_SIZE: Final = 4096


class _RecurrentNetwork(nn.Module):
    """Extractor, unit and hidden layers of the policy.

    Args:
        extractor: from observations to features; says its `features_dim`.
        size: numbers that are remembered.
    """

    def __init__(self, extractor: nn.Module, size: int) -> None:
        super().__init__()
        self.extractor = extractor
        self.gru = nn.GRU(int(extractor.features_dim), size)  # type: ignore[arg-type]
        for name, parameter in self.gru.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
            else:
                for gate in parameter.chunk(3):
                    nn.init.orthogonal_(gate)


class RecurrentPolicy(ActorCriticPolicy):
    """Policy with memory, for environments that do not show all that matters.

    A gated recurrent unit (Cho et al., arXiv 1406.1078) reads the extractor's features, and the
    hidden layers read what it remembers. The value reads that, too, and only the policy's loss
    trains it. In training the unit is unrolled from the start of each segment, from what was
    remembered there when it was sampled (Kapturowski et al., "Recurrent Experience Replay in
    Distributed Reinforcement Learning", ICLR 2019: the stored state).

    Args:
        spec: shapes of everything; `spec.reads.n_state` is `gru_hidden_size`.
        seed: of the initial weights.
        gru_hidden_size: numbers that are remembered.
        features_extractor_class: what reads observations; by default a `NatureCNN` for each image,
            and the numbers themselves.
        features_extractor_kwargs: what it is built with beside the space.
        **parts: as `ActorCriticPolicy`'s.

    Raises:
        OutOfRangeError: `gru_hidden_size` is no number from 1 to 4,096.
    """

    def __init__(
        self,
        spec: PolicySpec,
        seed: int = 0,
        *,
        gru_hidden_size: int = _HIDDEN_SIZE,
        features_extractor_class: type[nn.Module] | None = None,
        features_extractor_kwargs: Mapping[str, Any] | None = None,
        **parts: Any,  # noqa: ANN401
    ) -> None:
        self._hidden_size = self.state_size({"gru_hidden_size": gru_hidden_size})
        has_images = any(leaf.is_image for leaf in spec.reads.leaves)
        self._combines = features_extractor_class is None and has_images and spec.reads.is_tree
        super().__init__(
            spec,
            seed,
            features_extractor_class=(
                features_extractor_class or (NatureCNN if has_images else FlattenExtractor)
            ),
            features_extractor_kwargs=features_extractor_kwargs,
            **parts,
        )

    @classmethod
    def state_size(cls, policy_kwargs: Mapping[str, Any]) -> int:
        """See `BasePolicy.state_size`."""
        size = policy_kwargs.get("gru_hidden_size", _HIDDEN_SIZE)
        if type(size) is not int or not 1 <= size <= _LARGEST_SIZE:
            raise OutOfRangeError(
                f"gru_hidden_size must be a whole number from 1 to {_LARGEST_SIZE:,}, not "
                f"{size!r}.",
                field="policy_kwargs",
            )
        return size

    def make_network(self, n_outputs: int, last_gain: float) -> nn.Module:
        """See `ActorCriticPolicy.make_network`; the hidden layers are its `head`."""
        network = _RecurrentNetwork(self.make_extractor(), self._hidden_size)
        network.head = self._over_memory(n_outputs, last_gain)
        return network

    def make_value_network(self) -> nn.Module:
        """See `ActorCriticPolicy.make_value_network`; it reads what is remembered."""
        return self._over_memory(1, 1.0)

    def make_extractor(self) -> nn.Module:
        """See `ActorCriticPolicy.make_extractor`."""
        if self._combines:
            return CombinedExtractor(self._reads, **self._extractor[1])
        return super().make_extractor()

    def _over_memory(self, n_outputs: int, last_gain: float) -> nn.Sequential:
        space = spaces.Box(-1.0, 1.0, (self._hidden_size,), np.float32)
        return self.stack(FlattenExtractor(space), n_outputs, last_gain)

    def outputs_and_values(
        self, encoded: FloatArray, value_features: torch.Tensor | None = None
    ) -> tuple[PolicyOutputs, FloatArray]:
        """See `BasePolicy.outputs_and_values`: what is remembered is worked out once."""
        del value_features  # of states that were remembered from others
        network: Any = self.policy_net
        with torch.inference_mode():
            inputs = torch.from_numpy(encoded)
            memories = self.memories(inputs)
            log_std = self.log_std.clone() if self.distribution.n_log_std else torch.zeros(0)
            outputs = self.masked(network.head(memories), inputs)
            scaled = self.values_of(memories).numpy()
        values: FloatArray = self.value_mean.numpy() + self.value_std.numpy() * scaled
        return Outputs(self.distribution, outputs, log_std), values

    # --- memory ---------------------------------------------------------------------------

    def next_states(self, observations: npt.NDArray[Any]) -> FloatArray:
        """See `BasePolicy.next_states`."""
        encoded = self.encode(observations)
        with torch.inference_mode():
            return self.memories(torch.from_numpy(encoded)).numpy()

    def recall(
        self,
        encoded: FloatArray,
        alive: npt.NDArray[np.bool_],
        weights: FloatArray | None = None,
    ) -> FloatArray:
        """See `BasePolicy.recall`."""
        padded = np.zeros((*alive.shape, encoded.shape[1]), encoded.dtype)
        padded[alive] = encoded
        with self.replaced(weights), torch.inference_mode():
            after = self.memories(torch.from_numpy(padded)).numpy()
        states = padded[..., self._remembered]
        states[1:] = after.reshape(*alive.shape, -1)[:-1]
        recalled = encoded.copy()
        recalled[:, self._remembered] = states[alive]
        return recalled

    # --- torch ----------------------------------------------------------------------------

    def memories(self, inputs: torch.Tensor) -> torch.Tensor:
        """See `BasePolicy.memories`."""
        network: Any = self.policy_net
        features = network.extractor(self.unmasked(inputs.flatten(0, -2)))
        if inputs.dim() == 2:
            return _step(network.gru, features, inputs[:, self._remembered])
        states = inputs[0, :, self._remembered].contiguous()
        after, _ = network.gru(features.reshape(*inputs.shape[:2], -1), states[None])
        return torch.flatten(after, 0, 1)

    def policy_outputs(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `BasePolicy.policy_outputs`."""
        network: Any = self.policy_net
        free = self.log_std if self.distribution.n_log_std else inputs.new_zeros(0)
        outputs = network.head(self.memories(inputs))
        return self.masked(outputs, inputs.flatten(0, -2)), free

    def value_features(self, inputs: torch.Tensor) -> torch.Tensor:
        """See `BasePolicy.value_features`."""
        if not torch.is_grad_enabled():
            return self.memories(inputs)
        with torch.no_grad():
            return self.memories(inputs)

    @property
    def _remembered(self) -> slice:
        """Where inputs tell what is remembered."""
        first = self.spec.observation_size
        return slice(first, first + self._hidden_size)


class Memory:
    """What a policy remembers in each of n episodes that are played; nothing without memory.

    Args:
        policy: what plays; anything that acts.
        n: episodes.
    """

    def __init__(self, policy: object, n: int) -> None:
        n_state = policy.spec.reads.n_state if isinstance(policy, BasePolicy) else 0
        self._policy = policy if isinstance(policy, BasePolicy) and n_state else None
        self._states = np.zeros((n, n_state), np.float32)

    def rows(
        self, observations: npt.NDArray[Any], episodes: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        """The next observation of some episodes, as the policy reads it; it is remembered.

        Args:
            observations: shape (N, *shape).
            episodes: shape (N,), their numbers below n.
        """
        if self._policy is None:
            return observations
        rows = self._policy.spec.reads.with_states(observations, self._states[episodes])
        self._states[episodes] = self._policy.next_states(rows)
        return rows


def _step(gru: Any, features: torch.Tensor, states: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    """One step of the unit, as PyTorch defines it: its own call is not exported as arithmetic."""
    of_features = functional.linear(features, gru.weight_ih_l0, gru.bias_ih_l0).chunk(3, 1)
    of_states = functional.linear(states, gru.weight_hh_l0, gru.bias_hh_l0).chunk(3, 1)
    reset, update = (
        torch.sigmoid(a + b) for a, b in zip(of_features[:2], of_states[:2], strict=True)
    )
    candidate = torch.tanh(of_features[2] + reset * of_states[2])
    return (1.0 - update) * candidate + update * states
