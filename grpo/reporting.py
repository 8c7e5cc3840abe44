"""How a trainer speaks outward: one `Reporter`, whose methods are no-ops by default."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grpo.checkpoint import TrainingState
from grpo.evaluation import Evaluation
from grpo.rollout import EpisodeStats

__all__ = ["Reporter", "RolloutStats", "UpdateStats"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutStats:
    """What one iteration collected."""

    timesteps: npt.NDArray[np.int64]
    """Shape (T,): timesteps of the run after each time index."""

    rewards: npt.NDArray[np.float64]
    """Shape (T,): reward trained on, mean over the members alive at the time index."""

    episodes: tuple[EpisodeStats, ...]
    """Episodes that ended in this iteration, in order."""

    degenerate_fraction: float
    """Share of comparisons that were equal and gave no signal, 0 to 1."""

    sibling_fraction: float
    """Share of the transitions whose member began in a state with others of its group, 0 to 1."""

    shared_variance: float | None = None
    """Share of the variance of a critic's advantages that siblings have in common, 0 to 1: what a
    comparison with them can remove. None without a critic, or without siblings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateStats:
    """What one iteration's updates did; losses are over all its transitions, after them."""

    timesteps: int
    """Timesteps of the run so far."""

    iteration: int
    """Iterations done, this one included."""

    n_updates: int
    """Minibatch updates done in the run so far."""

    policy_loss: float
    """Clipped surrogate loss (PPO, arXiv 1707.06347, equation 7) of the transitions that gave a
    signal; 0 where none did."""

    value_loss: float
    """Mean squared error of the value head, in squared units of the returns trained on."""

    entropy: float
    """Entropy of the policy, nats."""

    approx_kl: float
    """k3 estimate of KL(old ‖ new), nats (Schulman, "Approximating KL divergence", 2020)."""

    clip_fraction: float
    """Share of transitions whose ratio is outside the clip range after the updates, 0 to 1."""

    grad_norm: float
    """Norm of the policy's gradient before clipping, mean over the minibatches."""

    explained_variance: float
    """1 − Var(R − V) / Var(R) over all transitions, before the updates; 0 where all R are equal."""

    return_std: float
    """Running standard deviation of R, which `normalize_rewards` divides by."""


class Reporter:
    """Receives what a trainer has to say. Override what is of interest; each method does nothing.

    All methods are called from the thread that trains, between two updates; what they raise
    ends the training. Where `on_rollout` or `on_update` returns False, training stops after the
    iteration.
    """

    def on_rollout(self, stats: RolloutStats) -> bool | None:
        """Called after each iteration's rollouts."""

    def on_update(self, stats: UpdateStats) -> bool | None:
        """Called after each iteration's updates."""

    def on_evaluation(self, timesteps: int, evaluation: Evaluation) -> None:
        """Called after each evaluation; `timesteps` of the run so far."""

    def on_checkpoint(self, state: TrainingState) -> None:
        """Called when a checkpoint is due; `state` is a copy that later steps do not change."""
