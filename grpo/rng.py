"""The random generators of a run, one per purpose, so that none can disturb another."""

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Streams"]

_NAMES = ("starts", "actions", "policy_batches", "value_batches")


@dataclass(frozen=True, slots=True)
class Streams:
    """Independent generators (PCG64), spawned from the run's seed."""

    starts: np.random.Generator
    """Seeds of resets, and which survivors are branched from."""

    actions: np.random.Generator
    """Actions of the rollouts."""

    policy_batches: np.random.Generator
    """Minibatches of the policy."""

    value_batches: np.random.Generator
    """Minibatches of the value head."""

    @classmethod
    def from_seed(cls, seed: int) -> "Streams":
        """Equal seeds give equal streams."""
        children = np.random.SeedSequence(seed).spawn(len(_NAMES))
        return cls(*(np.random.Generator(np.random.PCG64(child)) for child in children))

    def state(self) -> dict[str, Any]:
        """JSON values, for `load`."""
        return {name: getattr(self, name).bit_generator.state for name in _NAMES}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        for name in _NAMES:
            getattr(self, name).bit_generator.state = state[name]
