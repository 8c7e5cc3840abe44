"""Turn an iteration's rollouts into advantages, and those into updates of the policy."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from grpo import learner
from grpo.advantages import (
    Advantages,
    critic_advantages,
    generalized_advantages,
    group_advantages,
    segment_returns,
    shared_variance,
    standardized,
)
from grpo.config import GRPOConfig
from grpo.errors import TrainingDivergedError
from grpo.network import FloatArray
from grpo.numpy_updater import NumpyUpdater
from grpo.policies import BasePolicy, MlpPolicy
from grpo.registry import Objects
from grpo.reporting import UpdateStats
from grpo.rng import Streams
from grpo.rollout import Rollout
from grpo.torch_updater import TorchUpdater, resolve_device
from grpo.updates import Batch, Updater

__all__ = [
    "Comparison",
    "Learner",
    "clip_fraction",
    "explained_variance",
    "k3_old_new",
    "make_updater",
    "mean",
    "surrogate_loss",
]

_COOLDOWN = 0.3
"""Share of the budget, at its end, over which `cooldown` lowers the step size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A rollout's transitions, judged."""

    encoded: FloatArray
    """The N observations as the policy reads them (`BasePolicy.encode`)."""

    returns: npt.NDArray[np.float64]
    """Shape (N,): R_t, the bootstrap included; what the value head learns."""

    return_moments: tuple[float, float]
    """Their running mean and standard deviation."""

    advantages: Advantages
    """By (T, G, K)."""

    shared_variance: float | None
    """What siblings have in common, of a critic's estimates; None without critic or siblings."""

    values: FloatArray
    """Shape (N,): V before the update."""

    log_prob: FloatArray
    """Shape (N,): log π of the actions before the update, under the present normaliser."""


def make_updater(policy: BasePolicy, config: GRPOConfig) -> Updater:
    """The way to do the minibatch updates of a policy on `config.device`.

    The closed form in numpy for an `MlpPolicy` on the CPU, autograd for all else: on the policy
    itself, or on a replica on CUDA.

    Raises:
        IncompatibleError: CUDA is asked for, and this machine has none.
    """
    device = resolve_device(config.device)
    if isinstance(policy, MlpPolicy) and device == "cpu":
        return NumpyUpdater(policy, config)
    return TorchUpdater(policy, config, None if device == "cpu" else device)


class Learner:
    """Owns what learning needs beside the policy: optimisers and the reference policy.

    Args:
        policy: what is trained.
        config: hyperparameters.
        streams: generators.
        updater: does the minibatch updates; by default `make_updater`'s.
        objects: those that were handed in.

    Attributes:
        config: hyperparameters; a longer budget may replace the present one.
        reference: flat weights of the policy that the KL term refers to, None without one.
        iterations: done so far.
        n_updates: minibatch updates of the policy so far.
    """

    def __init__(
        self,
        policy: BasePolicy,
        config: GRPOConfig,
        streams: Streams,
        updater: Updater | None = None,
        objects: Objects | None = None,
    ) -> None:
        self._policy = policy
        self.config = config
        self._streams = streams
        self._objects = objects
        self.updater = make_updater(policy, config) if updater is None else updater
        self.reference: FloatArray | None = None
        self.iterations = 0
        self.n_updates = 0

    def compare(self, rollout: Rollout) -> Comparison:
        """Returns and advantages; the normaliser has seen the rollout after it."""
        policy, config, alive = self._policy, self.config, rollout.alive
        policy.observe(rollout.observations)
        encoded = policy.recall(policy.encode(rollout.observations), rollout.by_member())
        outputs, values = policy.outputs_and_values(encoded)
        rewards, tail = rollout.padded(rollout.rewards), self._tail(rollout, encoded)
        tail = tail.reshape(alive.shape[1:])
        if config.baseline == "group":
            returns = segment_returns(rewards, alive, config.gamma, tail)
            judged = returns
        else:
            if self._knows_nothing:
                values, tail = np.zeros_like(values), np.zeros_like(tail)
            expected = rollout.padded(values.astype(np.float64))
            judged = generalized_advantages(
                rewards, expected, alive, config.gamma, config.gae_lambda, tail
            )
            returns = judged + expected  # TD(λ)
        moments = policy.return_moments(returns[alive])
        if config.normalize_rewards:
            judged = judged / moments[1]
        common = None
        if config.baseline == "group":
            advantages = group_advantages(config.advantage, judged, alive, self._objects)
        else:
            common = shared_variance(judged, alive, rollout.shared)
            advantages = critic_advantages(config.baseline, judged, alive, rollout.shared)
            if not rewards.any():  # what is left is the critic's own error
                advantages = replace(advantages, degenerate_fraction=1.0)
        return Comparison(
            encoded=encoded,
            returns=returns[alive],
            return_moments=moments,
            advantages=standardized(advantages) if config.normalize_advantage else advantages,
            shared_variance=common,
            values=values,
            log_prob=outputs.log_prob(rollout.actions),
        )

    @property
    def _knows_nothing(self) -> bool:
        """Whether values are a new network's noise, of no unit; a reward may have any."""
        config = self.config
        never = not self._policy.value_count.any()
        return config.normalize_rewards and config.baseline != "group" and never

    def _tail(self, rollout: Rollout, encoded: FloatArray) -> npt.NDArray[np.float64]:
        """Return after each member's last step: 0, or with a bootstrap V unless terminated."""
        if self.config.baseline == "group" and not self.config.bootstrap:
            return np.zeros(len(rollout.terminated))
        last = self._policy.encode(rollout.last_observations)
        if self._policy.spec.reads.n_state:
            last = self._recalled_after(rollout.by_member(), encoded, last)
        return np.where(rollout.terminated, 0.0, self._policy.values(last))

    def _recalled_after(
        self, alive: npt.NDArray[np.bool_], encoded: FloatArray, last: FloatArray
    ) -> FloatArray:
        """What each member observed last, encoded, with what is remembered there now."""
        members, lengths = np.arange(alive.shape[1]), alive.sum(axis=0)
        longer = np.vstack([alive, np.zeros((1, len(members)), np.bool_)])
        padded = np.zeros((*longer.shape, last.shape[1]), last.dtype)
        padded[longer] = encoded
        longer[lengths, members] = True
        padded[lengths, members] = last
        padded[longer] = self._policy.recall(padded[longer], longer)
        recalled: FloatArray = padded[lengths, members]
        return recalled

    def learn(self, rollout: Rollout, comparison: Comparison) -> UpdateStats:
        """Do the iteration's minibatch updates.

        Raises:
            TrainingDivergedError: losses or weights became NaN or infinite.
        """
        batch = self._batch(rollout, comparison)
        self.updater.set_learning_rate(self._learning_rate(int(rollout.timesteps[0])))
        summary = self.updater.run(batch, self._streams.policy_batches, self._streams.value_batches)
        self.iterations += 1
        self.n_updates += summary.policy_updates
        stats = UpdateStats(
            timesteps=int(rollout.timesteps[-1]),
            iteration=self.iterations,
            n_updates=self.n_updates,
            grad_norm=summary.grad_norm,
            explained_variance=learner.explained_variance(comparison.values, comparison.returns),
            return_std=comparison.return_moments[1],
            **self._outcome(batch, comparison, summary.value_features),
        )
        if not (np.isfinite(self._policy.flat.sum()) and np.isfinite(stats.value_loss)):
            raise TrainingDivergedError(
                f"Weights or losses became NaN or infinite after {stats.timesteps} timesteps: "
                "lower learning_rate."
            )
        return stats

    def _learning_rate(self, timesteps: int) -> float:
        """Step size of an iteration that began at this timestep."""
        config = self.config
        left = 1.0 - timesteps / config.total_timesteps
        share = {"constant": 1.0, "cooldown": min(1.0, left / _COOLDOWN), "linear": left}
        return config.learning_rate * share[config.learning_rate_schedule]

    def _batch(self, rollout: Rollout, comparison: Comparison) -> Batch:
        policy, alive, encoded = self._policy, rollout.alive, comparison.encoded
        by_member = rollout.by_member()
        return Batch(
            inputs=encoded,
            actions=rollout.actions,
            log_prob_old=comparison.log_prob,
            log_prob_reference=self._log_prob_reference(encoded, rollout.actions, by_member),
            advantages=comparison.advantages.values[alive].astype(policy.flat.dtype),
            informative=comparison.advantages.informative[alive],
            targets=policy.rescale_values(
                comparison.returns, comparison.return_moments, keep=not self._knows_nothing
            ),
            alive=by_member,
        )

    def _log_prob_reference(
        self, encoded: FloatArray, actions: npt.NDArray[Any], alive: npt.NDArray[np.bool_]
    ) -> FloatArray | None:
        """Log π_ref, after the reference became the present policy where it was time for that.

        A frozen random policy would only hold the policy back (compare TRL's `ref_model_sync`).
        """
        config, policy = self.config, self._policy
        if config.kl_coef == 0.0:
            return None
        if self.reference is None or self.iterations % config.reference_iterations == 0:
            self.reference = policy.flat[: policy.policy_size].copy()
        recalled = policy.recall(encoded, alive, self.reference)
        return policy.outputs(recalled, self.reference).log_prob(actions)

    def _outcome(
        self, batch: Batch, comparison: Comparison, value_features: torch.Tensor | None
    ) -> dict[str, float]:
        """Losses and distances over all transitions, after the updates."""
        policy, config, kept = self._policy, self.config, batch.informative
        encoded = policy.recall(batch.inputs, batch.alive)
        outputs, values = policy.outputs_and_values(encoded, value_features)
        log_ratio = outputs.log_prob(batch.actions) - batch.log_prob_old
        error = values - comparison.returns
        low, high = config.clip_range, config.clip_high
        loss = 0.0
        if kept.any():
            loss = learner.surrogate_loss(log_ratio[kept], batch.advantages[kept], low, high)
        return {
            "policy_loss": loss,
            "value_loss": float(np.dot(error, error)) / len(error),
            "entropy": learner.mean(outputs.entropy()),
            "approx_kl": learner.k3_old_new(log_ratio),
            "clip_fraction": learner.clip_fraction(log_ratio, low, high),
        }


def surrogate_loss(
    log_ratio: FloatArray, advantages: FloatArray, clip_low: float, clip_high: float
) -> float:
    """−mean min(ρ A, clip(ρ) A); both of shape (N,). As `grpo.torch_updater.clipped_surrogate`."""
    ratio = np.exp(log_ratio)
    clipped = np.minimum(np.maximum(ratio, 1.0 - clip_low), 1.0 + clip_high)
    return -mean(np.minimum(ratio * advantages, clipped * advantages))


def k3_old_new(log_ratio: FloatArray) -> float:
    """Mean of ρ − 1 − log ρ ≥ 0: estimates KL(π_old ‖ π) from π_old's samples; shape (N,)."""
    return mean(np.expm1(log_ratio) - log_ratio)


def clip_fraction(log_ratio: FloatArray, clip_low: float, clip_high: float) -> float:
    """Share of transitions whose ratio lies outside the clip range; shape (N,)."""
    ratio = np.exp(log_ratio)
    outside = (ratio < 1.0 - clip_low) | (ratio > 1.0 + clip_high)
    return int(np.count_nonzero(outside)) / len(outside)


def explained_variance(values: FloatArray, returns: FloatArray) -> float:
    """1 − Var(R − V) / Var(R), 0 where all returns are equal; both of shape (N,)."""
    variance = _variance(returns)
    return 1.0 - _variance(returns - values) / variance if variance > 0.0 else 0.0


def mean(values: FloatArray) -> float:
    """As `values.mean()` of a vector, without its overhead, which counts at each iteration."""
    return float(np.add.reduce(values)) / len(values)


def _variance(values: FloatArray) -> float:
    centred = values - mean(values)
    return float(np.dot(centred, centred)) / len(values)
