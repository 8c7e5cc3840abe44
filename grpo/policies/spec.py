"""What has to be known to build a policy, and what a policy says."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from grpo.actions import ActionSpec, action_spec_from_dict
from grpo.network import FloatArray
from grpo.observations import ObservationLeaf, ObservationSpec

__all__ = ["PolicySpec", "Prediction"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySpec:
    """What has to be known to build a policy, apart from its weights."""

    observation_shape: tuple[int, ...]
    """Shape of one observation as environments give it; a Dict's or Tuple's is one row."""

    action: ActionSpec
    """Action space."""

    observation: ObservationSpec | None = None
    """What an observation consists of; None where it is numbers alone, of `observation_shape`."""

    net_arch: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of each trunk."""

    normalize_observations: bool = True
    """Whether observations are standardised by their running moments."""

    policy: str = "MlpPolicy"
    """Name of the policy's class; `<module.Class>` of one that was handed in."""

    policy_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """What its class is built with beside this; classes in it by name, as `policy`."""

    @property
    def reads(self) -> ObservationSpec:
        """What an observation consists of."""
        return self.observation or ObservationSpec((ObservationLeaf(shape=self.observation_shape),))

    @property
    def observation_size(self) -> int:
        """Numbers that the networks read of one observation."""
        return math.prod(self.reads.encoded_shape)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `from_dict`."""
        # left out where it says nothing: models and hashes from before stay as they are
        observation = (
            {} if self.observation is None else {"observation": self.observation.to_dict()}
        )
        return {
            "observation_shape": list(self.observation_shape),
            **observation,
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
            observation=(
                ObservationSpec.from_dict(values["observation"])
                if "observation" in values
                else None
            ),
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
    """Shape (N, *action shape), int64 or floats clipped to the bounds: as the environment takes
    them; a Dict's or Tuple's as rows."""

    action_probs: FloatArray | None
    """Shape (N, n): probability of each action, of several choices one after the other; None for
    Box actions."""

    mean: FloatArray | None
    """Shape (N, *action shape): the distribution's mean before clipping, in the environment's
    units; None if it has none to tell."""

    std: FloatArray | None
    """Shape (N, *action shape): its standard deviation, in the same units; None likewise."""

    values: FloatArray
    """Shape (N,): estimated return, in the units of the reward trained on."""

    log_probs: FloatArray | None = None
    """Shape (N,): log π(a|s) of the actions, before any clipping to bounds; None where the policy
    does not tell."""
