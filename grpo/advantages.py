"""Advantages: how good each step was, judged against the other members, a critic, or both.

Arrays have shape (T, G, K): time index within the segment, group, member. `alive[t, g, k]` says
that the member took a step at that index; what lies outside is never read.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from grpo.errors import AdvantageError
from grpo.registry import Objects, Registry

__all__ = [
    "ADVANTAGES",
    "AdvantageFunction",
    "Advantages",
    "critic_advantages",
    "generalized_advantages",
    "group_advantages",
    "segment_returns",
    "shared_variance",
    "standardized",
]

BoolArray = npt.NDArray[np.bool_]
Float64Array = npt.NDArray[np.float64]
AdvantageFunction = Callable[[Float64Array, BoolArray], tuple[Float64Array, BoolArray]]

_EQUAL = 1e-7
"""Returns whose standard deviation is below this share of the group's largest are equal."""

_LEAST_STD = 1e-8
"""Added to the deviation that advantages are divided by, as Stable-Baselines3's PPO does."""


@dataclass(frozen=True, slots=True)
class Advantages:
    """Result of `group_advantages` and `critic_advantages`."""

    values: Float64Array
    """Shape (T, G, K); exactly 0 wherever `informative` is False."""

    informative: BoolArray
    """Shape (T, G, K): alive, and part of a comparison that gave a signal."""

    degenerate_fraction: float
    """Share of the comparisons that gave none, 0 to 1."""


def segment_returns(
    rewards: Float64Array, alive: BoolArray, gamma: float, tail: Float64Array
) -> Float64Array:
    """Discounted return from each step to the end of the member's segment.

    R_t = r_t + γ R_{t+1}; R after the last step is `tail`: 0 beyond a terminal state, and
    γ-discounted V(s_end) of a segment that was cut or truncated, where there is a bootstrap.

    Args:
        rewards: shape (T, …); read where alive.
        alive: shape (T, …); along T, True up to the member's last step.
        gamma: discount per step.
        tail: shape (…): estimated return after the last step.

    Returns:
        Shape (T, …), float64; 0 where not alive.
    """
    returns = np.zeros(rewards.shape, np.float64)
    running = np.array(tail, np.float64)
    if alive.all():
        for t in range(len(rewards) - 1, -1, -1):
            running = np.multiply(running, gamma, out=returns[t])
            running += rewards[t]
        return returns
    for t in range(len(rewards) - 1, -1, -1):
        running = np.where(alive[t], rewards[t] + gamma * running, running)
        returns[t] = running
    returns *= alive
    return returns


def generalized_advantages(
    rewards: Float64Array,
    values: Float64Array,
    alive: BoolArray,
    gamma: float,
    gae_lambda: float,
    tail: Float64Array,
) -> Float64Array:
    """GAE(λ) of each step (Schulman et al., arXiv 1506.02438, equation 16).

    A_t = δ_t + γ λ A_{t+1}, δ_t = r_t + γ V(s_{t+1}) − V(s_t); V after the last step is `tail`.

    Args:
        rewards: shape (T, …); read where alive.
        values: shape (T, …): V of the state before each step; read where alive.
        alive: shape (T, …); along T, True up to the member's last step.
        gamma: discount per step.
        gae_lambda: λ.
        tail: shape (…): V after the last step, 0 beyond a terminal state.

    Returns:
        Shape (T, …), float64; 0 where not alive.
    """
    advantages = np.zeros(rewards.shape, np.float64)
    running, following = np.zeros_like(tail, np.float64), np.array(tail, np.float64)
    for t in range(len(rewards) - 1, -1, -1):
        present = alive[t]
        delta = rewards[t] + gamma * following - values[t]
        running = np.where(present, delta + gamma * gae_lambda * running, 0.0)
        following = np.where(present, values[t], following)
        advantages[t] = running
    return advantages


def critic_advantages(
    baseline: str, estimates: Float64Array, alive: BoolArray, shared: BoolArray
) -> Advantages:
    """Advantages of a baseline with a critic in it; a step without siblings keeps its own estimate.

    With Â a step's GAE and m the mean of the other members' at the same index:

        critic: A = Â, as PPO has it
        both: A = Â − m, the critic's error at the shared state being in both
        shrinkage: A = Â − w m

    w = Σ Â m / Σ m² over the *other* groups, within [0, 1]: the weight that leaves the least
    variance there, which a group's own actions do not touch, so that nothing is biased by it. It
    is 0 where the critic knows what siblings would tell, and 1 where it knows nothing, as James and
    Stein shrink one estimate towards another by what the batch shows of both.

    Args:
        baseline: `critic`, `both` or `shrinkage`.
        estimates: shape (T, G, K), 0 where not alive.
        alive: shape (T, G, K).
        shared: shape (G,): the group's members began in one state; others are no siblings.
    """
    values = estimates
    if baseline != "critic":
        relative = loo_time(estimates, alive)[0]
        siblings = _siblings(alive, shared)
        values = np.where(siblings, relative, estimates)
        if baseline == "shrinkage":
            mean = estimates - values
            values = estimates - _weights(estimates, mean)[:, None] * mean
    return Advantages(np.where(alive, values, 0.0), alive, 0.0)


def shared_variance(estimates: Float64Array, alive: BoolArray, shared: BoolArray) -> float | None:
    """Share of the variance of Â that siblings have in common, within [0, 1].

    What they have in common is the critic's error at the state that they share; what they differ in
    is their own luck, and what their actions did. Â and the mean m of the other members' have the
    common part as their covariance: Σ Â m / Σ Â², the intraclass correlation (Fisher 1925).

    Args:
        estimates: shape (T, G, K), 0 where not alive.
        alive: shape (T, G, K).
        shared: shape (G,): the group's members began in one state; others are no siblings.

    Returns:
        None where no member has a sibling.
    """
    siblings = _siblings(alive, shared)
    square = float(np.square(estimates[siblings]).sum())
    if not square:
        return None
    mean = estimates - loo_time(estimates, alive)[0]
    return float(np.clip((estimates * mean)[siblings].sum() / square, 0.0, 1.0))


def _siblings(alive: BoolArray, shared: BoolArray) -> BoolArray:
    """Shape (T, G, K): alive, beside another member that began in the same state."""
    found: BoolArray = alive & (alive.sum(axis=2, keepdims=True) > 1) & shared[:, None]
    return found


def _weights(estimates: Float64Array, mean: Float64Array) -> Float64Array:
    """Shape (G,): Σ Â m / Σ m² over all groups but each, within [0, 1]."""
    products, squares = (np.sum(x * mean, axis=(0, 2)) for x in (estimates, mean))
    of_others = squares.sum() - squares
    weights: Float64Array = np.clip(
        np.divide(
            products.sum() - products, of_others, out=np.zeros_like(squares), where=of_others > 0.0
        ),
        0.0,
        1.0,
    )
    return weights


def standardized(advantages: Advantages) -> Advantages:
    """Those that are learned from, less their mean, divided by their standard deviation."""
    kept = advantages.values[advantages.informative]
    if not kept.size:
        return advantages
    values = np.zeros_like(advantages.values)
    values[advantages.informative] = (kept - kept.mean()) / (kept.std() + _LEAST_STD)
    return replace(advantages, values=values)


def group_advantages(
    name: str, returns: Float64Array, alive: BoolArray, objects: Objects | None = None
) -> Advantages:
    """Advantages of a named kind, one of `ADVANTAGES` or one that was handed in.

    A comparison whose returns are equal, up to round-off relative to the group's largest
    return, or that has a single member, gives exactly 0 and is not informative: dividing
    round-off by its own standard deviation would make advantages out of nothing.

    Args:
        name: which.
        returns: shape (T, G, K), 0 where not alive.
        alive: shape (T, G, K).
        objects: those that were handed in.

    Raises:
        AdvantageError: a function that is not ours raised, or returned what is no advantage.
    """
    values, degenerate = ADVANTAGES.get(name, objects)(returns, alive)
    informative = alive & ~degenerate
    compared = alive.any(axis=2)
    silent = compared & ~informative.any(axis=2)
    fraction = float(silent.sum() / max(1, compared.sum()))
    return Advantages(np.where(informative, values, 0.0), informative, fraction)


def _compare(returns: Float64Array, alive: BoolArray) -> "_Comparison":
    """Statistics over the members alive at the same index of the same group."""
    count = alive.sum(axis=2, keepdims=True)
    mean = returns.sum(axis=2, keepdims=True) / np.maximum(count, 1)
    centred = (returns - mean) * alive
    std = np.sqrt((centred * centred).sum(axis=2, keepdims=True) / np.maximum(count, 1))
    scale = np.abs(returns).max(axis=(0, 2), keepdims=True)
    degenerate: BoolArray = std <= _EQUAL * scale  # also of a member alone, whose std is 0
    return _Comparison(count, centred, std, degenerate)


@dataclass(frozen=True, slots=True)
class _Comparison:
    count: npt.NDArray[np.int64]
    centred: Float64Array
    std: Float64Array
    degenerate: BoolArray

    @property
    def divisor(self) -> Float64Array:
        """Standard deviation, 1 where it is not to be used."""
        return np.where(self.degenerate, 1.0, self.std)


def z_time(returns: Float64Array, alive: BoolArray) -> tuple[Float64Array, BoolArray]:
    """A = (R − mean) / std over the members alive at the same index (GR2PO, arXiv 2609.19850)."""
    c = _compare(returns, alive)
    return c.centred / c.divisor, c.degenerate


def dr(returns: Float64Array, alive: BoolArray) -> tuple[Float64Array, BoolArray]:
    """A = R − mean, not divided by the deviation (Dr. GRPO, arXiv 2503.20783)."""
    c = _compare(returns, alive)
    return c.centred, c.degenerate


def loo_time(returns: Float64Array, alive: BoolArray) -> tuple[Float64Array, BoolArray]:
    """A = R − mean of the *other* members, = n/(n−1) (R − mean) (RLOO, arXiv 2402.14740).

    Unbiased: what is subtracted does not depend on the member's own action. A member that is
    alone gets 0, so each index counts by the chance that another is still there.
    """
    c = _compare(returns, alive)
    return c.centred * (c.count / np.maximum(c.count - 1, 1)), c.degenerate


def global_(returns: Float64Array, alive: BoolArray) -> tuple[Float64Array, BoolArray]:
    """A = (R − mean over group and time) / std over the batch (REINFORCE++, arXiv 2501.03262).

    A group is degenerate when each of its time indices is: then only time tells its returns
    apart, not what its members did.
    """
    degenerate = np.all(_compare(returns, alive).degenerate, axis=0, keepdims=True)
    used = alive & ~degenerate
    count = np.maximum(used.sum(axis=(0, 2), keepdims=True), 1)
    mean = (returns * used).sum(axis=(0, 2), keepdims=True) / count
    centred = (returns - mean) * used
    std = np.sqrt((centred * centred).sum() / max(1, used.sum()))
    return centred / (std if std > 0.0 else 1.0), degenerate


def blend(returns: Float64Array, alive: BoolArray) -> tuple[Float64Array, BoolArray]:
    """Mean of `z_time` and `global`; at an index where all are equal, half of `global`."""
    by_time, silent = z_time(returns, alive)
    pooled, degenerate = global_(returns, alive)
    return 0.5 * np.where(silent, 0.0, by_time) + 0.5 * pooled, degenerate


def outcome(returns: Float64Array, alive: BoolArray) -> tuple[Float64Array, BoolArray]:
    """One scalar a trajectory: its whole return, standardised (DeepSeekMath, arXiv 2402.03300)."""
    values, degenerate = z_time(returns[:1], alive[:1])
    return np.broadcast_to(values, returns.shape), degenerate


def _checked(function: object) -> AdvantageFunction:
    """A function that is not ours; it may leave the degenerate comparisons to us."""
    if not callable(function):
        raise TypeError(f"it is a {type(function).__name__}, not a function")
    name = getattr(function, "__name__", type(function).__name__)

    def checked(returns: Float64Array, alive: BoolArray) -> tuple[Float64Array, BoolArray]:
        try:
            result = function(returns, alive)
        except Exception as error:
            raise AdvantageError(
                f"The advantage {name!r} raised {type(error).__name__}: {error}"
            ) from error
        given = result if isinstance(result, tuple) else (result, None)
        values = np.asarray(given[0], dtype=np.float64)
        degenerate = _compare(returns, alive).degenerate if given[1] is None else given[1]
        if values.shape != returns.shape or not np.isfinite(values[alive]).all():
            raise AdvantageError(
                f"The advantage {name!r} must return finite numbers of shape {returns.shape}, "
                f"(time, groups, members), not shape {values.shape}"
                f"{'' if values.shape != returns.shape else ' with NaN or infinity'}."
            )
        return values, degenerate

    return checked


ADVANTAGES: Registry[AdvantageFunction] = Registry(
    "advantage",
    "grpo.advantages",
    {
        "blend": blend,
        "dr": dr,
        "global": global_,
        "loo_time": loo_time,
        "outcome": outcome,
        "z_time": z_time,
    },
    _checked,
)
"""Each named advantage: (returns, alive), both of shape (T, G, K), → (advantages, degenerate) of
shapes that broadcast to it, or the advantages alone."""
