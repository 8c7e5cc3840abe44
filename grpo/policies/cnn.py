"""Policies that look at images: a convolution, and what else there is to observe beside it.

Policy and value share the convolution, which only the policy's loss trains: the value reads what
the policy has learned to see, and costs hardly anything.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from grpo.errors import IncompatibleError
from grpo.network import FloatArray
from grpo.observations import ObservationSpec
from grpo.policies.actor_critic import ActorCriticPolicy, FlattenExtractor, Outputs
from grpo.policies.base import PolicyOutputs
from grpo.policies.spec import PolicySpec

__all__ = ["CnnPolicy", "CombinedExtractor", "MultiInputPolicy", "NatureCNN", "default_policy"]

_NATURE_SIDE: Final = 36
"""Shortest side of an image that the Nature network's kernels still fit."""

_ROWS: Final = 512
"""Images that go through a convolution together where no gradient is wanted."""


class NatureCNN(nn.Module):
    """The convolution of Mnih et al., "Human-level control through deep reinforcement learning".

    Images with a side below 36, such as grids, get three 3×3 convolutions instead.

    Args:
        observation_space: of an image, HWC or CHW: the channels are the shorter end.
        features_dim: numbers that it gives for each.

    Raises:
        IncompatibleError: the space is no image's.
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 512) -> None:
        super().__init__()
        shape = observation_space.shape
        if len(shape) != 3:
            raise IncompatibleError(
                f"NatureCNN is for images, not for observations of shape {shape}.", field="policy"
            )
        self.features_dim = features_dim
        self.channels_last = shape[0] > shape[2]
        channels, *sides = (shape[2], *shape[:2]) if self.channels_last else shape
        layers = [(32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0)]
        if min(sides) < _NATURE_SIDE:
            layers = [(32, 3, 1, 1), (64, 3, 2, 1), (64, 3, 1, 1)]
        modules: list[nn.Module] = []
        for width, kernel, stride, padding in layers:
            modules += [nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU()]
            channels = width
        self.convolutions = nn.Sequential(*modules)
        with torch.no_grad():
            example = torch.zeros(1, shape[2] if self.channels_last else shape[0], *sides)
            size = self.convolutions(example).numel()
        self.linear = nn.Sequential(nn.Linear(size, features_dim), nn.ReLU())

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(B, *shape), each number in [0, 1] → (B, features_dim)."""
        images = observations.permute(0, 3, 1, 2) if self.channels_last else observations
        if torch.is_grad_enabled() and images.device.type == "cpu":
            # a sixth faster there and back; images that are HWC lie so already
            images = images.contiguous(memory_format=torch.channels_last)
        features: torch.Tensor = self.linear(self.convolutions(images).flatten(1))
        return features


class CombinedExtractor(nn.Module):
    """A `NatureCNN` for each image of a Dict or Tuple, and all other numbers as they are.

    Args:
        reads: the observations.
        cnn_output_dim: numbers that are told of each image.
    """

    def __init__(self, reads: ObservationSpec, cnn_output_dim: int = 256) -> None:
        super().__init__()
        self._slices: list[tuple[slice, tuple[int, ...] | None]] = []
        self.images = nn.ModuleList()
        first = self.features_dim = 0
        for leaf in reads.leaves:
            numbers = slice(first, first + leaf.encoded_size)
            first = numbers.stop
            self._slices.append((numbers, leaf.shape if leaf.is_image else None))
            if leaf.is_image:
                space = spaces.Box(0.0, 1.0, leaf.shape, np.float32)
                self.images.append(NatureCNN(space, cnn_output_dim))
            self.features_dim += cnn_output_dim if leaf.is_image else leaf.encoded_size

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(B, numbers of all leaves) → (B, features_dim)."""
        features, images = [], iter(self.images)
        for numbers, shape in self._slices:
            part = observations[:, numbers]
            features.append(part if shape is None else next(images)(part.reshape(-1, *shape)))
        return torch.cat(features, dim=1)


class CnnPolicy(ActorCriticPolicy):
    """Policy and value over one convolution, for image observations.

    Args:
        spec: shapes of everything.
        seed: of the initial weights.
        features_extractor_class: another one than `NatureCNN`.
        features_extractor_kwargs: what it is built with beside the space.
        activation_fn: class of the module between the hidden layers.
        **parts: as `ActorCriticPolicy`'s.

    Raises:
        IncompatibleError: the observations are no images.
    """

    def __init__(
        self,
        spec: PolicySpec,
        seed: int = 0,
        *,
        features_extractor_class: type[nn.Module] = NatureCNN,
        features_extractor_kwargs: Mapping[str, Any] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        **parts: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(
            spec,
            seed,
            features_extractor_class=features_extractor_class,
            features_extractor_kwargs=features_extractor_kwargs,
            activation_fn=activation_fn,
            **parts,
        )

    def make_value_network(self) -> nn.Module:
        """See `ActorCriticPolicy.make_value_network`; it reads the policy's features."""
        features_dim = self._extractor_module().features_dim
        space = spaces.Box(-np.inf, np.inf, (features_dim,), np.float32)
        return self.stack(FlattenExtractor(space), 1, 1.0)

    def value_features(self, inputs: torch.Tensor) -> torch.Tensor:
        """See `BasePolicy.value_features`."""
        extractor, inputs = self._extractor_module(), self.unmasked(inputs)
        if not torch.is_grad_enabled():
            features: torch.Tensor = extractor(inputs)
            return features
        with torch.no_grad():
            return torch.cat([extractor(some) for some in torch.split(inputs, _ROWS)])

    def _extractor_module(self) -> Any:  # noqa: ANN401 - it has `features_dim`
        return next(iter(self.policy_net.children()))

    def outputs_and_values(
        self, encoded: FloatArray, value_features: torch.Tensor | None = None
    ) -> tuple[PolicyOutputs, FloatArray]:
        """See `BasePolicy.outputs_and_values`."""
        network, here = self.policy_net, type(self)
        if (
            not isinstance(network, nn.Sequential)
            or here.policy_outputs is not ActorCriticPolicy.policy_outputs
            or here.value_features is not CnnPolicy.value_features
        ):  # a class below has its own
            return super().outputs_and_values(encoded, value_features)
        outputs, scaled = list[torch.Tensor](), list[torch.Tensor]()
        with torch.inference_mode():
            for i, some in enumerate(_chunks(encoded)):
                inputs, rows = torch.from_numpy(some), slice(i * _ROWS, (i + 1) * _ROWS)
                if value_features is None:
                    features = self.value_features(inputs)
                else:
                    features = value_features[rows]
                outputs.append(self.masked(network[1:](features), inputs))
                scaled.append(self.values_of(features))
            log_std = self.log_std.clone() if self.distribution.n_log_std else torch.zeros(0)
            found = Outputs(self.distribution, torch.cat(outputs), log_std)
        values: FloatArray = (
            self.value_mean.numpy() + self.value_std.numpy() * torch.cat(scaled).numpy()
        )
        return found, values

    def values(self, encoded: FloatArray) -> FloatArray:
        """See `BasePolicy.values`."""
        return np.concatenate([super(CnnPolicy, self).values(some) for some in _chunks(encoded)])

    def _evaluated(self, encoded: FloatArray) -> tuple[torch.Tensor, torch.Tensor]:
        found = [super(CnnPolicy, self)._evaluated(some) for some in _chunks(encoded)]
        return torch.cat([outputs for outputs, _ in found]), found[0][1]


class MultiInputPolicy(CnnPolicy):
    """The same for Dict and Tuple observations, with or without images in them."""

    def make_extractor(self) -> nn.Module:
        """See `ActorCriticPolicy.make_extractor`."""
        make, kwargs = self._extractor
        if make is NatureCNN:
            return CombinedExtractor(self._reads, **kwargs)
        return super().make_extractor()


def default_policy(reads: ObservationSpec) -> str:
    """Name of the policy for observations, where none is named."""
    if not any(leaf.is_image for leaf in reads.leaves):
        return "MlpPolicy"
    return "MultiInputPolicy" if reads.is_tree else "CnnPolicy"


def _chunks(encoded: FloatArray) -> list[FloatArray]:
    return np.split(encoded, range(_ROWS, len(encoded), _ROWS))
