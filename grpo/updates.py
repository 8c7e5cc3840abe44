"""What a minibatch update works on, and what every way of doing one has in common."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from grpo.config import GRPOConfig
from grpo.network import FloatArray

__all__ = ["Batch", "OptimizerState", "UpdateSummary", "Updater", "minibatches"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The N transitions of one iteration."""

    inputs: FloatArray
    """The observations as the policy encoded them."""

    actions: npt.NDArray[Any]
    """Actions of the policy: shape (N,) int64, or (N, k) float."""

    log_prob_old: FloatArray
    """Shape (N,): log π_old, under the present normaliser."""

    log_prob_reference: FloatArray | None
    """Shape (N,): log π_ref; None where there is no KL term."""

    advantages: FloatArray
    """Shape (N,)."""

    informative: npt.NDArray[np.bool_]
    """Shape (N,): transitions whose comparison gave a signal; the policy learns from no other."""

    targets: FloatArray
    """Shape (N,): returns in the scaled units of the value network."""

    alive: npt.NDArray[np.bool_]
    """Shape (T, members): who took a step when; the transitions are in this order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateSummary:
    """What one iteration's updates did."""

    policy_updates: int
    """Minibatch updates of the policy."""

    grad_norm: float
    """Mean norm of the policy's gradient before clipping; 0 without an update."""

    value_features: torch.Tensor | None = None
    """What the value network reads of each transition now that the policy was updated, in the
    memory of the CPU; None where that was not worked out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerState:
    """Adam's state for policy and value head, in the order of the flat vector."""

    exp_avg: FloatArray
    """Shape (n,)."""

    exp_avg_sq: FloatArray
    """Shape (n,)."""

    policy_steps: int
    """Updates of the policy's part."""

    value_steps: int
    """Updates of the value head's part."""


class Updater(Protocol):
    """A way of doing an iteration's minibatch updates on a policy.

    Policy and value head have minibatches, optimiser and random generator of their own, so
    nothing that happens to the value head can touch the policy.

    Attributes:
        config: coefficients and minibatches; those of a longer budget may replace them.
    """

    config: GRPOConfig

    def run(
        self, batch: Batch, policy_rng: np.random.Generator, value_rng: np.random.Generator
    ) -> UpdateSummary:
        """Do `n_epochs` passes of minibatch updates.

        Raises:
            TrainingDivergedError: a gradient became NaN or infinite.
        """

    def set_learning_rate(self, learning_rate: float) -> None:
        """Adam's step size from now on, of policy and value head."""

    def state(self) -> OptimizerState:
        """Copies of the optimisers' state."""

    def load(self, state: OptimizerState) -> None:
        """Go on from `state`."""


def minibatches(
    n: int, batch_size: int, n_epochs: int, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.int64]]:
    """Indices of each minibatch of `n_epochs` shuffled passes over n transitions.

    An epoch is cut into as few parts as `batch_size` allows, of sizes that differ by at most
    one: a small last part would make a noisy step as long as the others.
    """
    if n == 0:
        return
    parts = -(-n // batch_size)
    if parts == 1:  # the order of a sum does not matter
        yield from [np.arange(n)] * n_epochs
        return
    edges = [i * n // parts for i in range(parts + 1)]
    for _ in range(n_epochs):
        order = rng.permutation(n)
        for start, stop in pairwise(edges):
            yield order[start:stop]
