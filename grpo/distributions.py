"""Distributions over actions: what the numbers that a network gives mean.

Each is stated once in torch, as the papers state it: that is what trains any torch policy and
what is exported for serving. Those that `MlpPolicy` trains without autograd have a closed form in
numpy, in `grpo.closed_forms`.

To add one, subclass `Distribution` and hand the class to a policy: `GRPO(env,
policy_kwargs={"distribution_class": MyDistribution})`.
"""

import abc
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch

from grpo.actions import (
    ActionSpec,
    BoxActions,
    DictActions,
    DiscreteActions,
    MultiDiscreteActions,
)
from grpo.errors import IncompatibleError, OutOfRangeError

__all__ = [
    "Categorical",
    "DiagGaussian",
    "Distribution",
    "Factored",
    "MultiCategorical",
    "default_distribution",
    "first_log_std",
]

_LOG_2PI = math.log(2.0 * math.pi)
_MOST_LOG_STD = 20


class Distribution(abc.ABC):
    """A family of distributions over the actions of one space, in torch.

    It holds no weights: it is a function of a network's outputs, shape (B, n_outputs), and of free
    parameters beside the network, shape (n_log_std,). Actions are the policy's own, which the
    action space turns into the environment's (`to_env`).

    Args:
        action: the space; raise `IncompatibleError` for one that does not fit.

    Attributes:
        n_outputs: numbers that the network gives for each observation.
        n_log_std: free parameters that do not depend on the observation; 0 for most.
        n_noise: uniform numbers that one sample is made from.
    """

    n_outputs: int
    n_log_std: int = 0
    n_noise: int

    @abc.abstractmethod
    def __init__(self, action: ActionSpec) -> None: ...

    @abc.abstractmethod
    def sample(
        self, outputs: torch.Tensor, log_std: torch.Tensor, uniform: torch.Tensor
    ) -> torch.Tensor:
        """Actions made from `uniform`, shape (B, n_noise), in (0, 1): equal noise, equal actions.

        Returns:
            Shape (B,) int64, or (B, k).
        """

    @abc.abstractmethod
    def mode(self, outputs: torch.Tensor) -> torch.Tensor:
        """Most probable actions; the mean where that is what one takes. Shaped as samples."""

    @abc.abstractmethod
    def log_prob(
        self, outputs: torch.Tensor, log_std: torch.Tensor, actions: torch.Tensor
    ) -> torch.Tensor:
        """Log π(a|s) of actions shaped as samples, shape (B,)."""

    @abc.abstractmethod
    def entropy(self, outputs: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
        """Entropy in nats, or an estimate that gradients flow through; shape (B,)."""

    def describe(self, outputs: torch.Tensor, log_std: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """What a reply tells beside the action, by name: each of shape (B, …).

        `action_probs` (B, n), or `mean` and `std` (B, *action shape) in the environment's units.
        """
        del outputs, log_std
        return {}


def first_log_std(n_log_std: int, log_std_init: float | None = None) -> float:
    """Log σ that a policy starts with, of each free parameter.

    Args:
        n_log_std: their number, k.
        log_std_init: log σ itself; None for −¼ ln k, so that the noise of an action is
            √k σ = k^¼ long: many components start with less of it each, and one with σ 1.

    Raises:
        OutOfRangeError: no number from -20 to 20.
    """
    if log_std_init is None:
        return -0.25 * math.log(n_log_std) if n_log_std > 1 else 0.0
    if (
        isinstance(log_std_init, bool)
        or not isinstance(log_std_init, int | float)
        or not (abs(log_std_init) <= _MOST_LOG_STD)
    ):
        raise OutOfRangeError(
            f"log_std_init must be a number from -{_MOST_LOG_STD} to {_MOST_LOG_STD}, not "
            f"{log_std_init!r}.",
            field="policy_kwargs",
        )
    return float(log_std_init)


class Categorical(Distribution):
    """π(a|s) = softmax(outputs), for Discrete actions."""

    n_noise = 1

    def __init__(self, action: ActionSpec) -> None:
        space: DiscreteActions = _expect(action, DiscreteActions, "Categorical")
        self.n_outputs = space.n

    def sample(
        self, outputs: torch.Tensor, log_std: torch.Tensor, uniform: torch.Tensor
    ) -> torch.Tensor:
        """Inversion of the cumulative distribution; the last action takes what rounding leaves."""
        del log_std
        cumulative = torch.softmax(outputs, dim=-1).cumsum(dim=-1)
        index: torch.Tensor = (uniform * cumulative[:, -1:] >= cumulative[:, :-1]).sum(dim=-1)
        return index

    def mode(self, outputs: torch.Tensor) -> torch.Tensor:
        """The largest logit; the first of equals."""
        index: torch.Tensor = outputs.argmax(dim=-1)
        return index

    def log_prob(
        self, outputs: torch.Tensor, log_std: torch.Tensor, actions: torch.Tensor
    ) -> torch.Tensor:
        """Log softmax at the actions: (B, n), (B,) int64 → (B,)."""
        del log_std
        return torch.log_softmax(outputs, dim=1).gather(1, actions[:, None]).squeeze(1)

    def entropy(self, outputs: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
        """−Σ p log p."""
        del log_std
        log_p = torch.log_softmax(outputs, dim=1)
        return -(log_p.exp() * log_p).sum(dim=1)

    def describe(self, outputs: torch.Tensor, log_std: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`action_probs`, shape (B, n)."""
        del log_std
        return {"action_probs": torch.softmax(outputs, dim=-1)}


class DiagGaussian(Distribution):
    """π(a|s) = N(outputs, diag σ²), for Box actions; log σ does not depend on the state."""

    def __init__(self, action: ActionSpec) -> None:
        self._action: BoxActions = _expect(action, BoxActions, "DiagGaussian")
        self.n_outputs = self.n_log_std = self.n_noise = self._action.size

    def sample(
        self, outputs: torch.Tensor, log_std: torch.Tensor, uniform: torch.Tensor
    ) -> torch.Tensor:
        """μ + σ Φ⁻¹(u), shape (B, k)."""
        noise = math.sqrt(2.0) * torch.erfinv(2.0 * uniform - 1.0)
        return outputs + log_std.exp() * noise

    def mode(self, outputs: torch.Tensor) -> torch.Tensor:
        """The mean, shape (B, k)."""
        return outputs

    def log_prob(
        self, outputs: torch.Tensor, log_std: torch.Tensor, actions: torch.Tensor
    ) -> torch.Tensor:
        """Log density, summed over the components: (B, k), (k,), (B, k) → (B,)."""
        deviation = (actions - outputs) / log_std.exp()
        return (-0.5 * deviation.square() - log_std - 0.5 * _LOG_2PI).sum(dim=1)

    def entropy(self, outputs: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
        """Σ log σ + k/2 (1 + log 2π), the same for each of the B rows."""
        constant = 0.5 * outputs.shape[1] * (1.0 + _LOG_2PI)
        return (log_std.sum() + constant).expand(outputs.shape[0])

    def describe(self, outputs: torch.Tensor, log_std: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`mean` before clipping, and `std`, in the environment's units."""
        centre, half_range = map(torch.from_numpy, self._action.scale)
        centre, half_range = centre.to(outputs.dtype), half_range.to(outputs.dtype)
        mean = centre + half_range * outputs
        std = (half_range * log_std.exp()).expand_as(mean)
        shape = (-1, *self._action.shape)
        return {"mean": mean.reshape(shape), "std": std.reshape(shape)}


class MultiCategorical(Distribution):
    """Several independent choices, for MultiDiscrete and MultiBinary actions: log π is their sum.

    Stable-Baselines3's `MultiCategoricalDistribution`.
    """

    def __init__(self, action: ActionSpec) -> None:
        space: MultiDiscreteActions = _expect(action, MultiDiscreteActions, "MultiCategorical")
        self.n_outputs = sum(space.nvec)
        self.n_noise = len(space.nvec)
        self._runs = _runs(space.nvec)

    def sample(
        self, outputs: torch.Tensor, log_std: torch.Tensor, uniform: torch.Tensor
    ) -> torch.Tensor:
        """As `Categorical.sample`, choice by choice: (B, k) int64."""
        del log_std
        chosen = []
        for run, logits in self._logits(outputs):
            cumulative = torch.softmax(logits, dim=-1).cumsum(dim=-1)
            threshold = uniform[:, run.choices].unsqueeze(-1) * cumulative[..., -1:]
            chosen.append((threshold >= cumulative[..., :-1]).sum(dim=-1))
        return torch.cat(chosen, dim=1)

    def mode(self, outputs: torch.Tensor) -> torch.Tensor:
        """The largest logit of each choice, which together are the most probable: (B, k)."""
        return torch.cat([logits.argmax(dim=-1) for _, logits in self._logits(outputs)], dim=1)

    def log_prob(
        self, outputs: torch.Tensor, log_std: torch.Tensor, actions: torch.Tensor
    ) -> torch.Tensor:
        """Σ log softmax at the actions: (B, Σ n), (B, k) int64 → (B,)."""
        del log_std
        total = outputs.new_zeros(len(outputs))
        for run, logits in self._logits(outputs):
            log_p = torch.log_softmax(logits, dim=-1)
            chosen = log_p.gather(2, actions[:, run.choices].unsqueeze(-1))
            total = total + chosen.squeeze(-1).sum(dim=1)
        return total

    def entropy(self, outputs: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
        """The sum of the choices' entropies."""
        del log_std
        total = outputs.new_zeros(len(outputs))
        for _, logits in self._logits(outputs):
            log_p = torch.log_softmax(logits, dim=-1)
            total = total - (log_p.exp() * log_p).sum(dim=(1, 2))
        return total

    def describe(self, outputs: torch.Tensor, log_std: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`action_probs`, choice after choice: (B, Σ n)."""
        del log_std
        probabilities = [
            torch.softmax(logits, dim=-1).flatten(1) for _, logits in self._logits(outputs)
        ]
        return {"action_probs": torch.cat(probabilities, dim=1)}

    def _logits(self, outputs: torch.Tensor) -> Iterator[tuple["_Run", torch.Tensor]]:
        """Of each run of choices with equally many actions: (B, choices, n)."""
        for run in self._runs:
            yield run, outputs[:, run.outputs].reshape(-1, run.choices_in, run.n)


class Factored(Distribution):
    """Independent distributions over the parts of a Dict or Tuple: log π and entropy are sums."""

    def __init__(self, action: ActionSpec) -> None:
        self._action: DictActions = _expect(action, DictActions, "Factored")
        self._parts = [default_distribution(part)(part) for _, part in self._action.parts]
        self.n_outputs = sum(part.n_outputs for part in self._parts)
        self.n_log_std = sum(part.n_log_std for part in self._parts)
        self.n_noise = sum(part.n_noise for part in self._parts)

    def sample(
        self, outputs: torch.Tensor, log_std: torch.Tensor, uniform: torch.Tensor
    ) -> torch.Tensor:
        """Rows of actions, (B, k): int64 where all of them are choices, else floats."""
        noise = _split(uniform, [part.n_noise for part in self._parts])
        drawn = zip(self._each(outputs, log_std), noise, strict=True)
        return _in_rows(part.sample(z, s, own) for (part, z, s), own in drawn)

    def mode(self, outputs: torch.Tensor) -> torch.Tensor:
        """The parts' modes, (B, k)."""
        own = _split(outputs, [part.n_outputs for part in self._parts])
        return _in_rows(part.mode(z) for part, z in zip(self._parts, own, strict=True))

    def log_prob(
        self, outputs: torch.Tensor, log_std: torch.Tensor, actions: torch.Tensor
    ) -> torch.Tensor:
        """Σ log π of the parts."""
        total = outputs.new_zeros(len(outputs))
        chosen = _split(actions, self._action.sizes)
        each = zip(self._each(outputs, log_std), self._action.parts, chosen, strict=True)
        for (part, z, s), (_, space), own in each:
            if not isinstance(space, BoxActions):
                own = own.to(torch.int64)
            if isinstance(space, DiscreteActions):
                own = own.squeeze(1)
            total = total + part.log_prob(z, s, own)
        return total

    def entropy(self, outputs: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
        """The sum of the parts' entropies."""
        total = outputs.new_zeros(len(outputs))
        for part, z, s in self._each(outputs, log_std):
            total = total + part.entropy(z, s)
        return total

    def describe(self, outputs: torch.Tensor, log_std: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`action_probs` of all choices, one after the other: (B, Σ n); absent without any."""
        told = [part.describe(z, s) for part, z, s in self._each(outputs, log_std)]
        found = [each["action_probs"] for each in told if "action_probs" in each]
        return {"action_probs": torch.cat(found, dim=1)} if found else {}

    def _each(
        self, outputs: torch.Tensor, log_std: torch.Tensor
    ) -> Iterator[tuple[Distribution, torch.Tensor, torch.Tensor]]:
        own = _split(outputs, [part.n_outputs for part in self._parts])
        free = _split(log_std, [part.n_log_std for part in self._parts])
        return zip(self._parts, own, free, strict=True)


def _split(tensor: torch.Tensor, sizes: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """The last dimension in parts of these sizes."""
    return torch.split_with_sizes(tensor, list(sizes), dim=-1)


def _in_rows(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part if part.ndim == 2 else part.unsqueeze(1) for part in parts], dim=1)


class _Run(NamedTuple):
    """Choices beside each other that have equally many actions, which are computed together."""

    choices_in: int
    n: int
    choices: slice
    outputs: slice


def _runs(nvec: Sequence[int]) -> tuple[_Run, ...]:
    runs, choice, output = [], 0, 0
    for n, equal in groupby(nvec):
        count = len(list(equal))
        own = slice(choice, choice + count), slice(output, output + count * n)
        runs.append(_Run(count, n, *own))
        choice, output = choice + count, output + count * n
    return tuple(runs)


def default_distribution(action: ActionSpec) -> type[Distribution]:
    """The distribution that fits an action space when none is named."""
    fitting: Mapping[type[object], type[Distribution]] = {
        DiscreteActions: Categorical,
        BoxActions: DiagGaussian,
        MultiDiscreteActions: MultiCategorical,
        DictActions: Factored,
    }
    return fitting[type(action)]


def _expect(action: ActionSpec, kind: type[Any], name: str) -> Any:  # noqa: ANN401
    if not isinstance(action, kind):
        raise IncompatibleError(
            f"{name} is for {kind.__name__}, not for {type(action).__name__}.", field="policy"
        )
    return action
