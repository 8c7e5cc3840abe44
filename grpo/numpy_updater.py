"""Minibatch updates with the gradient written out, in numpy: the path that runs on a CPU.

For networks of this size the time goes into the calls, not into the arithmetic, so this does per
minibatch what autograd does, in a tenth of the calls, into buffers that are kept. A test holds
it equal to `grpo.torch_updater`, the plain statement of the same update.
"""

import math
from functools import lru_cache

import numpy as np

from grpo import network
from grpo.config import GRPOConfig
from grpo.errors import TrainingDivergedError
from grpo.network import FloatArray, Parameters, Workspace
from grpo.policies.mlp import MlpPolicy
from grpo.updates import Batch, OptimizerState, UpdateSummary, minibatches

__all__ = ["ADAM_BETAS", "ADAM_EPSILON", "FlatAdam", "NumpyUpdater", "clip_norm"]

_SIZES_KEPT = 16


class NumpyUpdater:
    """Updates `policy` in place.

    Args:
        policy: what is trained.
        config: coefficients, minibatches and learning rate.
    """

    def __init__(self, policy: MlpPolicy, config: GRPOConfig) -> None:
        self._policy = policy
        self.config = config
        self._policy_gradient = _like(policy.policy_parameters)
        self._value_gradient = _like(policy.value_parameters)
        n_log_std = policy.policy_parameters.log_std.size
        self._policy_adam = FlatAdam(
            policy.policy_parameters.flat, config.learning_rate, n_last=n_log_std
        )
        self._policy_adam.last_rate = config.log_std_rate
        self._value_adam = FlatAdam(policy.value_parameters.flat, config.learning_rate)
        # sizes differ from iteration to iteration; only so many sets of buffers are kept
        self._policy_pass = lru_cache(_SIZES_KEPT)(self._make_policy_pass)
        self._value_pass = lru_cache(_SIZES_KEPT)(self._make_value_pass)

    def run(
        self, batch: Batch, policy_rng: np.random.Generator, value_rng: np.random.Generator
    ) -> UpdateSummary:
        """Do `n_epochs` passes of minibatch updates.

        Raises:
            TrainingDivergedError: a gradient became NaN or infinite.
        """
        norms = self._update_policy(batch, policy_rng)
        self._update_value(batch, value_rng)
        mean = sum(norms) / len(norms) if norms else 0.0
        return UpdateSummary(policy_updates=len(norms), grad_norm=mean)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Adam's step size from now on, of policy and value head."""
        self._policy_adam.learning_rate = self._value_adam.learning_rate = learning_rate
        self._policy_adam.last_rate = self.config.log_std_rate

    def state(self) -> OptimizerState:
        """Copies of the optimisers' state."""
        adams = (self._policy_adam, self._value_adam)
        return OptimizerState(
            exp_avg=np.concatenate([adam.exp_avg for adam in adams]),
            exp_avg_sq=np.concatenate([adam.exp_avg_sq for adam in adams]),
            policy_steps=self._policy_adam.steps,
            value_steps=self._value_adam.steps,
        )

    def load(self, state: OptimizerState) -> None:
        """Go on from `state`."""
        split = self._policy_adam.exp_avg.size
        for adam, part, steps in (
            (self._policy_adam, slice(None, split), state.policy_steps),
            (self._value_adam, slice(split, None), state.value_steps),
        ):
            adam.exp_avg[:] = state.exp_avg[part]
            adam.exp_avg_sq[:] = state.exp_avg_sq[part]
            adam.steps = steps

    def _update_policy(self, batch: Batch, rng: np.random.Generator) -> list[float]:
        columns = self._policy_columns(batch)
        gradient, adam, config = self._policy_gradient.flat, self._policy_adam, self.config
        norms = []
        for chosen in minibatches(columns.shape[1], config.batch_size, config.n_epochs, rng):
            self._policy_pass(len(chosen)).differentiate(columns, chosen)
            norm = clip_norm(gradient, config.max_grad_norm)
            if not math.isfinite(norm):
                raise TrainingDivergedError(
                    "The policy's gradient became NaN or infinite: lower learning_rate."
                )
            norms.append(norm)
            adam.step(gradient)
        return norms

    def _update_value(self, batch: Batch, rng: np.random.Generator) -> None:
        columns = np.concatenate([self._policy.read(batch.inputs), batch.targets[None]])
        config = self.config
        for chosen in minibatches(columns.shape[1], config.batch_size, config.n_epochs, rng):
            self._value_pass(len(chosen)).differentiate(columns, chosen)
            self._value_adam.step(self._value_gradient.flat)

    def _policy_columns(self, batch: Batch) -> FloatArray:
        """All that the policy's loss reads, one column a transition, so one gather fetches it.

        Clipping removes the gradient where ρ > 1 + ε_high and A > 0, or ρ < 1 − ε_low and
        A < 0; with s = sign A this is one comparison, s log ρ > limit.
        """
        kept = batch.informative
        dtype = batch.inputs.dtype
        advantages = batch.advantages[kept]
        sign = np.sign(advantages)
        low = 1.0 - self.config.clip_range
        limit_low = -math.log(low) if low > 0.0 else math.inf
        limit = np.where(advantages > 0.0, math.log1p(self.config.clip_high), limit_low)
        rows = [batch.log_prob_old[kept], advantages, sign, limit]
        if batch.log_prob_reference is not None:
            rows.append(batch.log_prob_reference[kept])
        encoded = self._policy.head.encode(batch.actions[kept], dtype)
        return np.concatenate([batch.inputs[:, kept], encoded, np.array(rows, dtype)])

    def _make_policy_pass(self, size: int) -> "_PolicyPass":
        return _PolicyPass(self._policy, self._policy_gradient, self.config, size)

    def _make_value_pass(self, size: int) -> "_ValuePass":
        return _ValuePass(self._policy.value_parameters, self._value_gradient, size)


class _PolicyPass:
    """Forward and backward pass of the policy's loss over minibatches of one size."""

    def __init__(
        self, policy: MlpPolicy, gradient: Parameters, config: GRPOConfig, size: int
    ) -> None:
        self._parameters = policy.policy_parameters
        self._gradient = gradient
        self._head = policy.head
        layout, dtype = self._parameters.layout, self._parameters.flat.dtype
        self._kl_coef = config.kl_coef
        self._ent_weight = config.ent_coef / size
        self._share = np.array(1.0 / size, dtype)
        self._work = Workspace(layout, size, dtype, backward=True)
        self._mask = policy.mask_columns
        n_in, n_out = layout.widths[0] + 1 + policy.spec.reads.n_mask, layout.widths[-1]
        self._columns = np.empty((n_in + n_out + 4 + (config.kl_coef > 0.0), size), dtype)
        self._inputs = self._columns[:n_in]
        self._read = policy.read(self._inputs)
        self._encoded = self._columns[n_in : n_in + n_out]
        self._rows = list(self._columns[n_in + n_out :])
        self._log_ratio: FloatArray = np.empty(size, dtype)
        self._weight: FloatArray = np.empty(size, dtype)

    def differentiate(self, columns: FloatArray, chosen: np.ndarray) -> None:
        """Fill the gradient of the loss of `grpo.torch_updater` over the chosen columns."""
        columns.take(chosen, axis=1, out=self._columns, mode="clip")
        log_prob_old, advantages, sign, limit = self._rows[:4]
        log_ratio, weight = self._log_ratio, self._weight
        log_std = self._parameters.log_std
        outputs = network.forward(self._parameters, self._read, self._work)
        outputs = self._mask(outputs, self._inputs)
        log_prob, intermediate = self._head.log_prob(outputs, log_std, self._encoded)

        # −∂L/∂log π: ρ A where not clipped
        np.subtract(log_prob, log_prob_old, out=log_ratio)
        np.exp(log_ratio, out=weight)
        np.multiply(weight, advantages, out=weight)
        np.multiply(log_ratio, sign, out=log_ratio)
        np.multiply(weight, log_ratio <= limit, out=weight)
        if self._kl_coef:
            weight += self._kl_coef * (np.exp(self._rows[4] - log_prob) - 1.0)
        np.multiply(weight, self._share, out=weight)

        delta, by_log_std = self._head.gradient(
            intermediate, log_std, self._encoded, weight, self._ent_weight
        )
        self._gradient.log_std[:] = by_log_std
        network.backward(self._parameters, self._gradient, self._read, self._work, delta)


class _ValuePass:
    """Forward and backward pass of the value head's loss over minibatches of one size."""

    def __init__(self, parameters: Parameters, gradient: Parameters, size: int) -> None:
        self._parameters = parameters
        self._gradient = gradient
        self._work = Workspace(parameters.layout, size, parameters.flat.dtype, backward=True)
        self._columns = np.empty((parameters.layout.widths[0] + 2, size), parameters.flat.dtype)
        self._inputs = self._columns[:-1]
        self._target = self._columns[-1:]
        self._share = np.array(2.0 / size, parameters.flat.dtype)

    def differentiate(self, columns: FloatArray, chosen: np.ndarray) -> None:
        """Fill the gradient of mean (V − target)² over the chosen columns."""
        columns.take(chosen, axis=1, out=self._columns, mode="clip")
        delta = network.forward(self._parameters, self._inputs, self._work)
        np.subtract(delta, self._target, out=delta)
        np.multiply(delta, self._share, out=delta)
        network.backward(self._parameters, self._gradient, self._inputs, self._work, delta)


def _like(parameters: Parameters) -> Parameters:
    return Parameters(parameters.layout, np.zeros_like(parameters.flat))


ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-5
"""As PPO implementations use it (Huang et al., "The 37 implementation details of PPO", 2022)."""


class FlatAdam:
    """Adam (Kingma & Ba, arXiv 1412.6980), equal to torch's up to rounding.

    The sums m and v are those of torch's `exp_avg` and `exp_avg_sq`.

    Args:
        parameters: shape (n,), changed in place.
        learning_rate: of the first steps.
        n_last: how many at the end have a rate of their own.

    Attributes:
        exp_avg: shape (n,), running mean of the gradient.
        exp_avg_sq: shape (n,), running mean of its square.
        learning_rate: of the next steps.
        last_rate: that of the last parameters, as a multiple of it.
        steps: updates done.
    """

    def __init__(self, parameters: FloatArray, learning_rate: float, *, n_last: int = 0) -> None:
        self.exp_avg: FloatArray = np.zeros_like(parameters)
        self.exp_avg_sq: FloatArray = np.zeros_like(parameters)
        self.steps = 0
        self._parameters = parameters
        self.learning_rate = learning_rate
        self._scratch: FloatArray = np.empty_like(parameters)
        self._last: FloatArray = self._scratch[parameters.size - n_last :]
        self.last_rate = 1.0
        beta1, beta2 = ADAM_BETAS  # arrays since ufuncs take those fastest
        self._pull1 = np.array(1.0 - beta1, parameters.dtype)
        self._pull2 = np.array(1.0 - beta2, parameters.dtype)

    def step(self, gradient: FloatArray) -> None:
        """θ ← θ − lr · m̂ / (√v̂ + ε), with both running means corrected for their zero start.

        Written as θ − (lr √c₂ / c₁) · m / (√v + ε √c₂), c_i = 1 − β_iᵗ, which touches fewer
        arrays. `gradient` is overwritten.
        """
        beta1, beta2 = ADAM_BETAS
        self.steps += 1
        root = math.sqrt(1.0 - beta2**self.steps)
        rate = self.learning_rate * root / (1.0 - beta1**self.steps)
        m, v, scratch = self.exp_avg, self.exp_avg_sq, self._scratch

        np.multiply(gradient, gradient, out=scratch)
        np.subtract(scratch, v, out=scratch)
        np.multiply(scratch, self._pull2, out=scratch)
        np.add(v, scratch, out=v)

        np.subtract(gradient, m, out=gradient)
        np.multiply(gradient, self._pull1, out=gradient)
        np.add(m, gradient, out=m)

        np.sqrt(v, out=scratch)
        np.add(scratch, ADAM_EPSILON * root, out=scratch)
        np.divide(m, scratch, out=scratch)
        np.multiply(scratch, rate, out=scratch)
        if self.last_rate != 1.0:
            np.multiply(self._last, self.last_rate, out=self._last)
        np.subtract(self._parameters, scratch, out=self._parameters)


def clip_norm(gradient: FloatArray, max_norm: float) -> float:
    """Scale the gradient down, in place, to at most `max_norm`; returns the norm before.

    As torch's `clip_grad_norm_`, its 1e-6 included.
    """
    norm = math.sqrt(float(np.dot(gradient, gradient)))
    scale = max_norm / (norm + 1e-6)
    if scale < 1.0:
        np.multiply(gradient, scale, out=gradient)
    return norm
