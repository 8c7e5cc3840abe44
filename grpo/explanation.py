"""Why this action: what each action leads to from one state, and what in the observation counts.

`compare_actions` branches: from one state, each action is followed by many continuations, in which
the policy samples its actions. Continuation i has the same random numbers after every action, so
that two actions are compared in pairs. `attribute` is integrated gradients (Sundararajan et al.,
arXiv 1703.01365), from the mean of what was observed in training to what is observed now.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from grpo.actions import BoxActions, DiscreteActions
from grpo.envs import EnvironmentSpec, Snapshot
from grpo.envs.factory import make_branches
from grpo.envs.vec_env import VecEnv
from grpo.errors import IncompatibleError, OutOfRangeError
from grpo.policies import BasePolicy
from grpo.statistics import Interval, mean_interval

__all__ = [
    "MOST_ACTIONS",
    "ActionOutcome",
    "Attribution",
    "Explanation",
    "attribute",
    "candidate_actions",
    "compare_actions",
]

MOST_ACTIONS: Final = 18
"""Actions that are compared: all of Atari's."""

_GRID: Final = 9
"""Values of a single continuous action."""

_TOGETHER: Final = 64
_HEAVY_TOGETHER: Final = 16
"""Instances that are stepped side by side; of physics engines, which take longer to make, fewer."""
_PATH: Final = 64
_MOST_FEATURES: Final = 4096

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ActionOutcome:
    """What came after one action."""

    action: Array
    """As the environment takes it, shape `action.shape`."""

    returns: npt.NDArray[np.float64]
    """Shape (n,): undiscounted return of each continuation, from this action on."""

    lengths: npt.NDArray[np.int64]
    """Shape (n,): steps of each."""

    mean: Interval
    """Of the returns, with its 95 % interval."""

    difference: Interval | None
    """Mean of this action's returns minus the first action's, in pairs; None for the first."""

    parts_at: int | None
    """Median step, from 1, after which a continuation has another return so far than its pair; None
    where more than half never part, and for the first action."""

    typical: tuple[Array, ...]
    """Actions of the continuation whose return is the median, this action first."""

    worst: tuple[Array, ...]
    """Likewise where it is the lowest."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Explanation:
    """Every action that was compared."""

    actions: tuple[ActionOutcome, ...]
    """The one that the policy prefers first."""

    continuations: int
    """How many each action got: fewer than were asked for where the time was over."""

    horizon: int
    """Steps after which a continuation was cut."""

    cut: int
    """Continuations that were cut there."""

    seconds: float
    """How long it took."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Attribution:
    """How much each number of an observation counts for one action."""

    target: str
    """What is explained, in words."""

    values: npt.NDArray[np.float64]
    """Shape (size,): they add up to `at_observation` minus `at_baseline`, but for what the path's
    finite number of points leaves."""

    baseline: npt.NDArray[np.float64]
    """Shape (size,): the mean of what was observed in training."""

    at_observation: float
    """The target there."""

    at_baseline: float
    """The target there."""


def candidate_actions(policy: BasePolicy, preferred: Array) -> list[Array]:
    """Actions to compare, the preferred one first.

    All of a Discrete space; of a Box, the preferred one with each number in turn on a grid.

    Args:
        policy: says which there are.
        preferred: as the environment takes it.

    Raises:
        IncompatibleError: there are too many, or they are of several kinds.
    """
    spec = policy.spec.action
    if isinstance(spec, DiscreteActions) and spec.n <= MOST_ACTIONS:
        every = [np.asarray(spec.start + i, np.int64) for i in range(spec.n)]
        return [preferred, *(each for each in every if each != preferred)]
    if isinstance(spec, BoxActions) and 2 * spec.size < MOST_ACTIONS:
        low, high = np.ravel(spec.low), np.ravel(spec.high)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise IncompatibleError("Only actions between finite bounds can be compared on a grid.")
        points = _GRID if spec.size == 1 else 2 if spec.size > 4 else 3
        found: list[Array] = [preferred]
        for i in range(spec.size):
            for value in np.linspace(low[i], high[i], points):
                flat = np.ravel(preferred).copy()
                flat[i] = value
                other: Array = flat.reshape(preferred.shape)
                if not any(np.array_equal(other, each) for each in found):
                    found.append(other)
        return found
    raise IncompatibleError(
        f"At most {MOST_ACTIONS} actions are compared, of a Discrete space or a Box; this "
        "environment has more, or actions of another kind."
    )


def compare_actions(
    policy: BasePolicy,
    spec: EnvironmentSpec,
    snapshot: Snapshot,
    actions: Sequence[Array],
    *,
    state: npt.NDArray[np.float32] | None = None,
    continuations: int = 64,
    horizon: int = 1000,
    seconds: float = 20.0,
    seed: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Explanation:
    """Take each action from one state, then let the policy sample, many times.

    Args:
        policy: that goes on.
        spec: the environment.
        snapshot: the state, of an instance of it.
        actions: to compare, as the environment takes them; differences are to the first.
        state: what a policy with memory remembers before this state's observation, shape
            (n_state,).
        continuations: after each action.
        horizon: steps after which a continuation is cut.
        seconds: no further lot of continuations begins after these; the first one always ends.
        seed: of the samples, and of the environment's own noise.
        should_stop: asked before every step.

    Raises:
        IncompatibleError: the environment cannot be put into the state again exactly, or
            `should_stop` said so before there was a result.
        OutOfRangeError: fewer than two continuations.
        EnvironmentFaultError: the environment raised.
    """
    if continuations < 2:
        raise OutOfRangeError("continuations must be at least 2.", field="continuations")
    begun = time.monotonic()
    heavy = spec.family in ("mujoco", "box2d", "other")
    members = min(_HEAVY_TOGETHER if heavy else _TOGETHER, continuations)
    envs, there = make_branches(spec, snapshot, actions, members)
    game = _Branches(policy, envs, there, state, horizon, should_stop)
    lots: list[list[_Lot]] = []
    try:
        for number in range(-(-continuations // members)):
            if lots and time.monotonic() - begun > seconds:
                break
            lots.append([game.play(action, [seed, number]) for action in actions])
    except _StoppedError:
        if not lots:
            raise IncompatibleError("It was cancelled before there was a result.") from None
    finally:
        envs.close()
    played = [[lot[i] for lot in lots] for i in range(len(actions))]
    first = played[0]
    outcomes = tuple(
        _outcome(action, mine, first, continuations)
        for action, mine in zip(actions, played, strict=True)
    )
    return Explanation(
        actions=outcomes,
        continuations=len(outcomes[0].returns),
        horizon=horizon,
        cut=sum(lot.cut for mine in played for lot in mine),
        seconds=time.monotonic() - begun,
    )


class _StoppedError(Exception):
    """Somebody asked to stop."""


@dataclass(frozen=True, slots=True)
class _Lot:
    """Continuations that were played side by side."""

    rewards: npt.NDArray[np.float64]
    """Shape (steps, members); 0 after the end."""

    taken: list[Array]
    """Actions by step, shape (members, ...)."""

    lengths: npt.NDArray[np.int64]
    cut: int


class _Branches:
    """Continuations from one state."""

    def __init__(
        self,
        policy: BasePolicy,
        envs: VecEnv,
        snapshot: Snapshot,
        state: npt.NDArray[np.float32] | None,
        horizon: int,
        should_stop: Callable[[], bool],
    ) -> None:
        self._policy = policy
        self._envs = envs
        self._snapshot = snapshot
        self._state = state
        self._horizon = horizon
        self._should_stop = should_stop

    def play(self, first: Array, seed: list[int]) -> _Lot:
        """An action, and the same random numbers whatever it is."""
        envs, n = self._envs, self._envs.num_members
        observations = np.array(envs.restore(np.arange(n), self._snapshot))
        for member, env in enumerate(getattr(envs, "envs", ())):
            _reseed(env.unwrapped, [*seed, member])
        rng = np.random.default_rng([*seed, 2**31])
        states = None if self._state is None else np.tile(self._state, (n, 1))
        alive = np.ones(n, np.bool_)
        rewards, taken = [], []
        lengths = np.zeros(n, np.int64)
        for step in range(self._horizon):
            if self._should_stop():
                raise _StoppedError
            # all rows, the ended too: the random numbers of the others stay the same
            rows = observations
            if states is not None:
                rows = self._policy.spec.reads.with_states(observations, states)
                states = self._policy.next_states(rows)
            if step == 0:
                actions = np.stack([first] * n)
            else:
                actions = self._policy.predict(rows, deterministic=False, rng=rng).actions
            members = np.flatnonzero(alive)
            result = envs.step(members, actions[members])
            gained = np.zeros(n)
            gained[members] = result.rewards
            observations[members] = result.observations
            rewards.append(gained)
            taken.append(actions)
            lengths[members] += 1
            alive[members] = ~(result.terminated | result.truncated)
            if not alive.any():
                break
        return _Lot(np.array(rewards), taken, lengths, int(alive.sum()))


def _reseed(core: object, seed: list[int]) -> None:
    """Give an environment's own noise other numbers, in place: it may have handed them on."""
    generator = getattr(core, "_np_random", None)
    if isinstance(generator, np.random.Generator):
        kind = type(generator.bit_generator)
        generator.bit_generator.state = kind(np.random.SeedSequence(seed)).state


def _outcome(action: Array, mine: list[_Lot], first: list[_Lot], most: int) -> ActionOutcome:
    returns = np.concatenate([lot.rewards.sum(axis=0) for lot in mine])[:most]
    lengths = np.concatenate([lot.lengths for lot in mine])[:most]
    order = np.argsort(returns, kind="stable")
    difference, parts_at = None, None
    if mine is not first:
        theirs = np.concatenate([lot.rewards.sum(axis=0) for lot in first])[:most]
        difference = mean_interval(returns - theirs)
        steps = np.concatenate([_parting(a, b) for a, b in zip(mine, first, strict=True)])[:most]
        median = float(np.median(steps))
        parts_at = int(np.ceil(median)) if np.isfinite(median) else None
    return ActionOutcome(
        action=action,
        returns=returns,
        lengths=lengths,
        mean=mean_interval(returns),
        difference=difference,
        parts_at=parts_at,
        typical=_path(mine, int(order[(len(order) - 1) // 2])),
        worst=_path(mine, int(order[0])),
    )


def _parting(a: _Lot, b: _Lot) -> npt.NDArray[np.float64]:
    """The step from which two returns so far differ, shape (members,); infinite where none."""
    steps = max(len(a.rewards), len(b.rewards))
    both = [np.pad(lot.rewards, ((0, steps - len(lot.rewards)), (0, 0))) for lot in (a, b)]
    apart = np.abs(np.cumsum(both[0] - both[1], axis=0)) > 1e-9
    return np.where(apart.any(axis=0), apart.argmax(axis=0) + 1.0, np.inf)


def _path(lots: list[_Lot], number: int) -> tuple[Array, ...]:
    members = lots[0].rewards.shape[1]
    lot, member = lots[number // members], number % members
    return tuple(np.array(each[member]) for each in lot.taken[: lot.lengths[member]])


def attribute(policy: BasePolicy, row: Array, action: Array) -> Attribution:
    """How much each number of an observation counts for an action, by integrated gradients.

    The target is the action's log-probability; of a Box, the distribution's mean, summed over the
    action's numbers.

    Args:
        policy: whose action it is.
        row: the observation as the policy reads it, shape (*observation_shape,).
        action: of the policy, as the environment takes it; a Box's does not matter.

    Raises:
        IncompatibleError: what is observed are no plain numbers, or too many.
    """
    size = policy.spec.observation_size
    has_kinds = any(leaf.categories for leaf in policy.spec.reads.leaves)
    if has_kinds or policy.spec.reads.added or row.size != size or size > _MOST_FEATURES:
        raise IncompatibleError(
            "Only observations of plain numbers, at most "
            f"{_MOST_FEATURES} of them, without masks and memory, are attributed."
        )
    baseline = policy.observation_mean.numpy().reshape(row.shape)
    share = (np.arange(_PATH) + 0.5) / _PATH  # the midpoint rule
    points = np.concatenate([share, [0.0, 1.0]]).reshape(-1, *[1] * row.ndim)
    path = torch.tensor(baseline + points * (row - baseline), dtype=torch.float32)
    path.requires_grad_(True)
    outputs, _ = policy(path)
    spec = policy.spec.action
    if isinstance(spec, DiscreteActions) and outputs.shape[1] == spec.n:
        number = int(action) - spec.start
        target = torch.log_softmax(outputs, dim=1)[:, number]
        what = f"log-probability of action {int(action)}"
    elif isinstance(spec, BoxActions):
        target, what = outputs[:, : spec.size].sum(dim=1), "mean of the action"
    else:
        raise IncompatibleError("Only a Discrete or Box action is attributed.")
    (gradients,) = torch.autograd.grad(target[:_PATH].sum(), path)
    values = (row - baseline) * gradients[:_PATH].numpy().astype(np.float64).mean(axis=0)
    ends = target[_PATH:].detach().numpy().astype(float)
    return Attribution(
        target=what,
        values=values.ravel(),
        baseline=baseline.ravel().astype(np.float64),
        at_observation=float(ends[1]),
        at_baseline=float(ends[0]),
    )
