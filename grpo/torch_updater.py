"""The losses in torch, as the papers state them: the reference that the closed form must equal.

All functions are pure and reduce to a scalar mean, unless they say otherwise.
"""

import copy
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from grpo import torch_updater
from grpo.config import GRPOConfig
from grpo.errors import IncompatibleError, TrainingDivergedError
from grpo.numpy_updater import ADAM_BETAS, ADAM_EPSILON
from grpo.policies.base import BasePolicy
from grpo.updates import Batch, OptimizerState, UpdateSummary, minibatches

__all__ = ["TorchUpdater", "clipped_surrogate", "k3", "policy_loss", "resolve_device", "value_loss"]


def clipped_surrogate(
    log_prob: torch.Tensor,
    log_prob_old: torch.Tensor,
    advantages: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> torch.Tensor:
    """−mean min(ρ A, clip(ρ, 1 − ε_low, 1 + ε_high) A), ρ = π/π_old.

    PPO, arXiv 1707.06347, equation 7; two ε as in DAPO, arXiv 2503.14476. All of shape (B,).
    """
    ratio = torch.exp(log_prob - log_prob_old)
    clipped = torch.clamp(ratio, 1.0 - clip_low, 1.0 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()


def k3(log_prob: torch.Tensor, log_prob_reference: torch.Tensor) -> torch.Tensor:
    """Estimate of KL(π ‖ π_ref): mean of r − log r − 1 ≥ 0, r = π_ref/π.

    Schulman, "Approximating KL divergence", 2020; DeepSeekMath, arXiv 2402.03300, equation 4.
    Both of shape (B,).
    """
    log_r = log_prob_reference - log_prob
    return (torch.expm1(log_r) - log_r).mean()  # exp(x) − 1 would round below x near 0


def value_loss(scaled: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared error, both of shape (B,), in the scaled units of the value network."""
    return torch.square(scaled - targets).mean()


class TorchUpdater:
    """Updates `policy` on a device of torch.

    Without a device it works on the policy itself, on the CPU. With one it works on a replica
    there, whose weights are fetched back after each iteration.

    Args:
        policy: what is trained.
        config: coefficients, minibatches and learning rate.
        device: of torch, where the arithmetic happens.
    """

    def __init__(self, policy: BasePolicy, config: GRPOConfig, device: str | None = None) -> None:
        self._policy = policy
        self.config = config
        self._device = torch.device(device or "cpu")
        self._module = policy if device is None else copy.deepcopy(policy).to(self._device)
        self._value_parameters = self._module.value_parameters_list()
        self._policy_parameters = self._module.policy_parameters_list()
        free = dict(self._module.named_parameters()).get("log_std")
        others = [each for each in self._policy_parameters if each is not free]
        self._policy_adam = _adam(others, [] if free is None else [free])
        self._value_adam = _adam(self._value_parameters)
        self.set_learning_rate(config.learning_rate)

    def run(
        self, batch: Batch, policy_rng: np.random.Generator, value_rng: np.random.Generator
    ) -> UpdateSummary:
        """Do `n_epochs` passes of minibatch updates.

        Raises:
            TrainingDivergedError: a gradient became NaN or infinite.
        """
        self._send()
        norms = self._update_policy(batch, policy_rng)
        features = self._update_value(batch, value_rng)
        self._fetch()
        mean = sum(norms) / len(norms) if norms else 0.0
        return UpdateSummary(
            policy_updates=len(norms), grad_norm=mean, value_features=features.cpu()
        )

    def _update_policy(self, batch: Batch, rng: np.random.Generator) -> list[float]:
        config, norms = self.config, []
        inputs = self._tensor(self._policy.torch_inputs(batch.inputs))
        data = {
            "actions": self._tensor(batch.actions, keep_integers=True),
            "log_prob_old": self._tensor(batch.log_prob_old),
            "advantages": self._tensor(batch.advantages),
        }
        if batch.log_prob_reference is not None:
            data["log_prob_reference"] = self._tensor(batch.log_prob_reference)
        for part in self._minibatches(batch, rng):
            index = torch.from_numpy(part.judged).to(self._device)
            loss = policy_loss(
                self._module,
                config,
                inputs=inputs[torch.from_numpy(part.read).to(self._device)],
                places=None if part.places is None else torch.from_numpy(part.places),
                **{name: value[index] for name, value in data.items()},
            )
            self._policy_adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(self._policy_parameters, config.max_grad_norm)
            norms.append(float(norm))
            if not math.isfinite(norms[-1]):
                raise TrainingDivergedError(
                    "The policy's gradient became NaN or infinite: lower learning_rate."
                )
            self._policy_adam.step()
        return norms

    def _minibatches(self, batch: Batch, rng: np.random.Generator) -> Iterator["_Minibatch"]:
        """Shuffled transitions; whole segments, as many as come near, of a policy with memory."""
        config, kept = self.config, np.flatnonzero(batch.informative)
        if not self._policy.spec.reads.n_state:
            for chosen in minibatches(len(kept), config.batch_size, config.n_epochs, rng):
                yield _Minibatch(kept[chosen], kept[chosen], None)
            return
        alive, rows, judged = batch.alive, _padded(batch), np.zeros(batch.alive.shape, np.bool_)
        judged[alive] = batch.informative
        members = np.flatnonzero(judged.any(axis=0))
        parts = max(1, -(-len(kept) // config.batch_size))
        together = -(-len(members) // parts)
        for chosen in minibatches(len(members), together, config.n_epochs, rng):
            those = members[chosen]
            longest = int(alive[:, those].sum(axis=0).max())
            read, own = rows[:longest, those], judged[:longest, those]
            yield _Minibatch(read, read[own], np.flatnonzero(own))

    def _update_value(self, batch: Batch, rng: np.random.Generator) -> torch.Tensor:
        """Returns what the value network reads."""
        config = self.config
        features = self._value_features(batch)
        targets = self._tensor(batch.targets)
        for chosen in minibatches(len(targets), config.batch_size, config.n_epochs, rng):
            index = torch.from_numpy(chosen).to(self._device)
            scaled = self._module.values_of(features[index])
            self._value_adam.zero_grad()
            torch_updater.value_loss(scaled, targets[index]).backward()  # type: ignore[no-untyped-call]
            self._value_adam.step()
        return features

    def _value_features(self, batch: Batch) -> torch.Tensor:
        """What the value network reads of each transition, by the policy as it is now."""
        inputs = self._tensor(self._policy.torch_inputs(batch.inputs))
        if not self._policy.spec.reads.n_state:
            return self._module.value_features(inputs)
        features = self._module.value_features(inputs[torch.from_numpy(_padded(batch))])
        return features[torch.from_numpy(batch.alive.ravel())]

    def _tensor(self, array: npt.NDArray[Any], keep_integers: bool = False) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
        integers = keep_integers and not tensor.is_floating_point()
        return tensor if integers else tensor.to(self._module.dtype)

    def _send(self) -> None:
        if self._module is not self._policy:
            self._module.load_state_dict(self._policy.state_dict())

    def _fetch(self) -> None:
        if self._module is not self._policy:
            self._policy.load_state_dict(self._module.state_dict())

    def set_learning_rate(self, learning_rate: float) -> None:
        """Adam's step size from now on, of policy and value head."""
        for adam in (self._policy_adam, self._value_adam):
            for group, share in zip(
                adam.param_groups, (1.0, self.config.log_std_rate), strict=False
            ):
                group["lr"] = share * learning_rate

    def state(self) -> OptimizerState:
        """Copies of the optimisers' state."""
        moments = {}
        for name in ("exp_avg", "exp_avg_sq"):
            holder = copy.deepcopy(self._policy)
            holder.flat[:] = 0.0
            for mine, theirs in self._pairs(holder):
                if mine:
                    theirs.data.copy_(mine[name])
            moments[name] = holder.flat
        return OptimizerState(
            exp_avg=moments["exp_avg"],
            exp_avg_sq=moments["exp_avg_sq"],
            policy_steps=_steps(self._policy_adam),
            value_steps=_steps(self._value_adam),
        )

    def load(self, state: OptimizerState) -> None:
        """Go on from `state`."""
        for adam, parameters, steps in (
            (self._policy_adam, self._policy_parameters, state.policy_steps),
            (self._value_adam, self._value_parameters, state.value_steps),
        ):
            for parameter in parameters:
                adam.state[parameter] = {"step": torch.tensor(float(steps), device=self._device)}
        for name in ("exp_avg", "exp_avg_sq"):
            holder = copy.deepcopy(self._policy)
            holder.flat[:] = getattr(state, name)
            for mine, theirs in self._pairs(holder):
                mine[name] = theirs.data.clone().to(self._device)

    def _pairs(self, holder: BasePolicy) -> Iterator[tuple[dict[str, Any], torch.nn.Parameter]]:
        """Adam's state of each parameter, beside the holder's parameter of the same place."""
        places = dict(holder.named_parameters())
        adam_of = {id(parameter): self._value_adam for parameter in self._value_parameters}
        for name, parameter in self._module.named_parameters():
            adam = adam_of.get(id(parameter), self._policy_adam)
            yield adam.state[parameter], places[name]


class _Minibatch(NamedTuple):
    """Which of an iteration's transitions a step looks at."""

    read: npt.NDArray[np.int64]
    """Shape (B,), or (T, members) for whole segments, filled up with any."""

    judged: npt.NDArray[np.int64]
    """Shape (B,): those that the loss is the mean of."""

    places: npt.NDArray[np.int64] | None
    """Shape (B,): where they are among those that are read; None where they are the same."""


def _padded(batch: Batch) -> npt.NDArray[np.int64]:
    """Which transition each member made when, shape (T, members); 0 after its last one."""
    rows = np.zeros(batch.alive.shape, np.int64)
    rows[batch.alive] = np.arange(len(batch.actions))
    return rows


def policy_loss(
    policy: BasePolicy,
    config: GRPOConfig,
    *,
    inputs: torch.Tensor,
    actions: torch.Tensor,
    log_prob_old: torch.Tensor,
    advantages: torch.Tensor,
    log_prob_reference: torch.Tensor | None = None,
    places: torch.Tensor | None = None,
) -> torch.Tensor:
    """Clipped surrogate + kl_coef · KL − ent_coef · H (DeepSeekMath, arXiv 2402.03300, eq. 3).

    Args:
        policy: whose loss.
        config: coefficients.
        inputs: shape (B, …), standardised observations; or whole segments of them, (T, M, …).
        actions: shape (B,) int64, or (B, k) in the units of the policy.
        log_prob_old: shape (B,).
        advantages: shape (B,).
        log_prob_reference: shape (B,), where there is a KL term.
        places: shape (B,), which of T · M steps the others are of; None for all.
    """
    outputs, log_std = policy.policy_outputs(inputs)
    if places is not None:
        outputs = outputs[places]
    log_prob = policy.distribution.log_prob(outputs, log_std, actions)
    loss = torch_updater.clipped_surrogate(
        log_prob, log_prob_old, advantages, config.clip_range, config.clip_high
    )
    if log_prob_reference is not None:
        loss = loss + config.kl_coef * torch_updater.k3(log_prob, log_prob_reference)
    if config.ent_coef:
        loss = loss - config.ent_coef * policy.distribution.entropy(outputs, log_std).mean()
    return loss


def resolve_device(name: str) -> str:
    """`cpu` or `cuda`, for a config's `device`.

    Raises:
        IncompatibleError: CUDA is asked for, and this machine has none.
    """
    available = torch.cuda.is_available() if name != "cpu" else False
    if name == "cuda" and not available:
        raise IncompatibleError(
            "device is cuda, but this machine has no usable CUDA device: use cpu or auto.",
            field="device",
        )
    return "cuda" if available else "cpu"


def _adam(*groups: list[torch.nn.Parameter]) -> torch.optim.Adam:
    """Adam as `grpo.numpy_updater` has it, whose groups may have step sizes of their own."""
    return torch.optim.Adam(
        [{"params": parameters} for parameters in groups if parameters],
        betas=ADAM_BETAS,
        eps=ADAM_EPSILON,
        # three times as fast on a CPU, and wrong there for views with gaps between numbers
        fused=all(each.is_contiguous() for parameters in groups for each in parameters),
    )


def _steps(adam: torch.optim.Adam) -> int:
    return max((int(state["step"]) for state in adam.state.values() if state), default=0)
