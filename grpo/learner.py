"""Turn an iteration's rollouts into advantages, and those into updates of the policy."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grpo import diagnostics
from grpo.advantages import Advantages, group_advantages, segment_returns
from grpo.autograd import AutogradUpdater, resolve_device
from grpo.closed_form import ClosedFormUpdater
from grpo.config import GRPOConfig
from grpo.errors import TrainingDivergedError
from grpo.groups import Rollout
from grpo.network import FloatArray, Parameters, Workspace, forward
from grpo.policy import Policy
from grpo.reporting import UpdateStats
from grpo.streams import Streams
from grpo.updates import Batch, Updater

__all__ = ["Comparison", "Learner"]

_COOLDOWN = 0.3
"""Share of the budget, at its end, over which `cooldown` lowers the step size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A rollout's transitions, judged."""

    inputs: FloatArray
    """Shape (n_in + 1, N): normalised observations and a row of ones."""

    returns: npt.NDArray[np.float64]
    """Shape (N,): R_t, the bootstrap included."""

    advantages: Advantages
    """By (T, G, K)."""

    values: FloatArray
    """Shape (N,): V before the update."""


class Learner:
    """Owns what learning needs beside the policy: optimisers and the reference policy.

    Args:
        policy: what is trained.
        config: hyperparameters.
        streams: generators.
        updater: does the minibatch updates; by default the one for `config.device`.

    Attributes:
        reference: flat weights of the policy that the KL term refers to, None without one.
        iterations: done so far.
        n_updates: minibatch updates of the policy so far.
    """

    def __init__(
        self, policy: Policy, config: GRPOConfig, streams: Streams, updater: Updater | None = None
    ) -> None:
        self._policy = policy
        self._config = config
        self._streams = streams
        self.updater = make_updater(policy, config) if updater is None else updater
        self.reference: FloatArray | None = None
        self.iterations = 0
        self.n_updates = 0

    def compare(self, rollout: Rollout) -> Comparison:
        """Returns and group-relative advantages; the normaliser has seen the rollout after it."""
        policy, config = self._policy, self._config
        policy.observe(rollout.observations)
        inputs = policy.normalize(rollout.observations)
        groups, size = rollout.alive.shape[1:]
        returns = segment_returns(
            rollout.padded(rollout.rewards),
            rollout.alive,
            config.gamma,
            self._tail(rollout).reshape(groups, size),
        )
        return Comparison(
            inputs=inputs,
            returns=returns[rollout.alive],
            advantages=group_advantages(config.advantage, returns, rollout.alive),
            values=policy.values(inputs),
        )

    def _tail(self, rollout: Rollout) -> npt.NDArray[np.float64]:
        """Return after each member's last step: 0, or with `bootstrap` V unless terminated."""
        if not self._config.bootstrap:
            return np.zeros(len(rollout.terminated))
        values = self._policy.values(self._policy.normalize(rollout.last_observations))
        return np.where(rollout.terminated, 0.0, values)

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
            explained_variance=diagnostics.explained_variance(
                comparison.values, comparison.returns
            ),
            **self._outcome(batch, comparison),
        )
        if not (np.isfinite(self._policy.flat.sum()) and np.isfinite(stats.value_loss)):
            raise TrainingDivergedError(
                f"Weights or losses became NaN or infinite after {stats.timesteps} timesteps: "
                "lower learning_rate."
            )
        return stats

    def _learning_rate(self, timesteps: int) -> float:
        """Step size of an iteration that began at this timestep."""
        config = self._config
        left = 1.0 - timesteps / config.total_timesteps
        share = {"constant": 1.0, "cooldown": min(1.0, left / _COOLDOWN), "linear": left}
        return config.learning_rate * share[config.learning_rate_schedule]

    def _batch(self, rollout: Rollout, comparison: Comparison) -> Batch:
        policy, alive = self._policy, rollout.alive
        encoded = policy.head.encode(rollout.actions, policy.flat.dtype)
        return Batch(
            inputs=comparison.inputs,
            actions=rollout.actions,
            log_prob_old=_log_prob(policy, policy.policy_parameters, comparison.inputs, encoded),
            log_prob_reference=self._log_prob_reference(comparison.inputs, encoded),
            advantages=comparison.advantages.values[alive].astype(policy.flat.dtype),
            informative=comparison.advantages.informative[alive],
            targets=policy.rescale_values(comparison.returns),
        )

    def _log_prob_reference(self, inputs: FloatArray, encoded: FloatArray) -> FloatArray | None:
        """Log π_ref, after the reference became the present policy where it was time for that.

        A frozen random policy would only hold the policy back (compare TRL's `ref_model_sync`).
        """
        config, parameters = self._config, self._policy.policy_parameters
        if config.kl_coef == 0.0:
            return None
        if self.reference is None or self.iterations % config.reference_iterations == 0:
            self.reference = parameters.flat.copy()
        return _log_prob(
            self._policy, Parameters(parameters.layout, self.reference), inputs, encoded
        )

    def _outcome(self, batch: Batch, comparison: Comparison) -> dict[str, float]:
        """Losses and distances over all transitions, after the updates."""
        policy, config, kept = self._policy, self._config, batch.informative
        head, log_std = policy.head, policy.policy_parameters.log_std
        outputs = policy.outputs(batch.inputs)
        encoded = head.encode(batch.actions, policy.flat.dtype)
        log_ratio = head.log_prob(outputs, log_std, encoded)[0] - batch.log_prob_old
        error = policy.values(batch.inputs) - comparison.returns
        low, high = config.clip_range, config.clip_high
        loss = 0.0
        if kept.any():
            loss = diagnostics.surrogate_loss(log_ratio[kept], batch.advantages[kept], low, high)
        return {
            "policy_loss": loss,
            "value_loss": float(np.dot(error, error)) / len(error),
            "entropy": diagnostics.mean(head.entropy(outputs, log_std)),
            "approx_kl": diagnostics.k3_old_new(log_ratio),
            "clip_fraction": diagnostics.clip_fraction(log_ratio, low, high),
        }


def make_updater(policy: Policy, config: GRPOConfig) -> Updater:
    """The closed form on the CPU, autograd on CUDA."""
    device = resolve_device(config.device)
    if device == "cpu":
        return ClosedFormUpdater(policy, config)
    return AutogradUpdater(policy, config, device)


def _log_prob(
    policy: Policy, parameters: Parameters, inputs: FloatArray, encoded: FloatArray
) -> FloatArray:
    """Log π(a|s), shape (N,), of the policy with other weights."""
    work = Workspace(parameters.layout, inputs.shape[1], inputs.dtype)
    outputs = forward(parameters, inputs, work)
    return policy.head.log_prob(outputs, parameters.log_std, encoded)[0]
