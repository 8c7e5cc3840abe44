"""Collect groups: rollouts of several members from one start state, stepped together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo.config import GRPOConfig
from grpo.envs import Snapshot, StepResult, VecEnv
from grpo.policies import BasePolicy
from grpo.rewards import RewardFunction
from grpo.rng import Streams

__all__ = ["EpisodeStats", "Rollout", "RolloutCollector", "VisitedState"]

_RESET_SEEDS = 2**31
"""Training's resets are seeded below this, evaluation's from it on."""

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Float64Array = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeStats:
    """One finished episode."""

    timestep: int
    """Environment timesteps of the run when it ended."""

    episode_return: float
    """Undiscounted sum of the environment's own rewards."""

    length: int
    """Steps of the episode, those before a branch included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VisitedState:
    """A state that a group may start from, with what its episode was so far."""

    snapshot: Snapshot
    """State of the environment."""

    episode_return: float
    """Sum of the environment's own rewards before it."""

    episode_length: int
    """Steps before it."""

    policy_state: FloatArray | None = None
    """Shape (n_state,): what a policy with memory remembers there; None for others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """What one iteration collected: N transitions of G groups of K members, over T indices.

    Transitions are in the order of time, then of member; `padded` spreads them over (T, G, K).
    """

    alive: BoolArray
    """Shape (T, G, K): the member took a step at this index."""

    observations: npt.NDArray[np.floating[Any]]
    """Shape (N, *shape), before the step; rows that tell what a policy with memory remembers."""

    actions: npt.NDArray[Any]
    """Actions of the policy, shape (N,) or (N, k)."""

    rewards: Float64Array
    """Shape (N,): the rewards that are trained on."""

    last_observations: npt.NDArray[np.floating[Any]]
    """Shape (G·K, *shape): after each member's last step."""

    terminated: BoolArray
    """Shape (G·K,): the segment ended in a terminal state; else it was truncated or cut."""

    shared: BoolArray
    """Shape (G,): the group's members began in one state, and are siblings."""

    timesteps: IntArray
    """Shape (T,): timesteps of the run after each index, all members and replays counted."""

    episodes: tuple[EpisodeStats, ...]
    """Episodes that ended."""

    @property
    def sibling_fraction(self) -> float:
        """Share of the transitions of members that began in a state with others, 0 to 1."""
        if self.alive.shape[2] == 1:
            return 0.0
        return float(self.alive[:, self.shared].sum() / self.alive.sum())

    def padded(self, values: Float64Array) -> Float64Array:
        """Values of transitions, shape (N,), as shape (T, G, K), 0 where not alive."""
        out = np.zeros(self.alive.shape, np.float64)
        out[self.alive] = values
        return out

    def by_member(self) -> BoolArray:
        """`alive`, shape (T, G·K)."""
        return self.alive.reshape(len(self.alive), -1)

    def mean_rewards(self) -> Float64Array:
        """Shape (T,): reward trained on, mean over the members alive at each index."""
        means: Float64Array = self.padded(self.rewards).sum(axis=(1, 2))
        means /= self.alive.sum(axis=(1, 2))
        return means


class RolloutCollector:
    """Runs groups of members, and remembers where the next ones start.

    Args:
        policy: acts, sampled.
        envs: `num_groups · group_size` members; group g has the members from g · group_size on.
        reward: what is trained on.
        config: sizes, and how start states are chosen.
        streams: generators.

    Attributes:
        next_starts: per group, the visited state that it goes on from; None for a reset, or where
            each member goes on with its own episode.
    """

    def __init__(
        self,
        policy: BasePolicy,
        envs: VecEnv,
        reward: RewardFunction,
        config: GRPOConfig,
        streams: Streams,
    ) -> None:
        self._policy = policy
        self._actor = policy.actor(streams.actions)
        self._envs = envs
        self._reward = reward
        self.config = config
        self._reads = policy.spec.reads
        self._remembers = self._reads.n_state > 0
        self._rng = streams.starts
        self.timesteps = 0
        self._branches = config.start_states not in ("reset", "continue")
        self._branches &= envs.branching != "none"
        self._continues = config.start_states in ("continue", "mixed")
        self._away: dict[int, VisitedState | None] = {}
        self.next_starts: list[VisitedState | None] = [None] * config.num_groups
        self._progress = _Progress(config.num_groups * config.group_size)

    @property
    def timesteps(self) -> int:
        """Environment steps of the run so far, replays included."""
        return self._offset + self._envs.steps_taken

    @timesteps.setter
    def timesteps(self, timesteps: int) -> None:
        self._offset = timesteps - self._envs.steps_taken

    @property
    def goes_on(self) -> bool:
        """Whether a segment may begin at states that an earlier one came to."""
        return self._branches or self._continues

    def collect(self, budget: int) -> Rollout:
        """Run every group for one segment, with at most `budget` steps in all.

        A budget below one iteration shortens the segments; below one step for each member, it
        leaves members out.

        Raises:
            EnvironmentFaultError: an environment raised, or gave what is not finite.
            RewardError: the reward did.
        """
        groups, size = self._shape_for(budget)
        members = np.arange(groups * size)
        stop = self.timesteps + budget
        observations, shared = self._start(groups, size, budget)
        left = stop - self.timesteps - self._costs(self._away.values())
        segment = self._run(members, observations, min(self.config.n_steps, left // len(members)))
        rollout = self._finish(segment, groups, size, shared)
        self._return()
        return rollout

    def members(self) -> tuple[VisitedState | None, ...]:
        """What each member goes on from, with `continue` and `mixed`; None after an episode's end.

        Raises:
            IncompatibleError: these environments cannot be put into a visited state.
        """
        going = self._progress.going if self._continues else ()
        return tuple(self._visited(member) if on else None for member, on in enumerate(going))

    def resume(
        self,
        next_starts: Sequence[VisitedState | None],
        members: Sequence[VisitedState | None],
        timesteps: int,
    ) -> None:
        """Go on from what `next_starts` and `members` were after so many timesteps."""
        self.next_starts = list(next_starts)
        for member, state in enumerate(members):
            if state is not None:
                self._put(np.array([member]), state)
        self.timesteps = timesteps

    def _shape_for(self, budget: int) -> tuple[int, int]:
        size = self.config.group_size
        if budget < size:
            return 1, budget
        return min(self.config.num_groups, budget // size), size

    def _start(self, groups: int, size: int, budget: int) -> tuple[npt.NDArray[Any], BoolArray]:
        """Put each member into its start state; which groups' members share one.

        A branch that leaves no step becomes a reset, or is left out where members go on.
        """
        spare = budget - groups * size
        observations, shared = [], np.ones(groups, np.bool_)
        for group in range(groups):
            members = np.arange(group * size, (group + 1) * size)
            start = self.next_starts[group]
            if start is not None:
                cost = size * self._envs.restore_cost(start.snapshot)
                start = start if cost <= spare else None
                spare -= cost if start is not None else 0
            if start is not None:
                rows = self._put(members, start)
            elif self._continues:
                ways = self._leave(members, spare)
                spare -= ways or 0
                shared[group] = ways is not None
                rows = np.concatenate([self._go_on(member) for member in members.tolist()])
            else:
                rows = self._begin(members)
            observations.append(rows)
        return np.concatenate(observations), shared

    def _put(self, members: IntArray, state: VisitedState) -> npt.NDArray[Any]:
        """Put members into a visited state; what they observe, shape (n, *shape)."""
        rows = self._with_memory(self._envs.restore(members, state.snapshot), state.policy_state)
        for member, row in zip(members.tolist(), rows, strict=True):
            self._progress.set(member, row, state)
        return rows

    def _leave(self, members: IntArray, spare: int) -> int | None:
        """With `mixed`, a group's members may leave their episodes, and join one's.

        For one segment, after which they return: so the episodes, and the states that they come
        to, stay the policy's own. The one that is joined goes on with its own meanwhile.

        Returns:
            Timesteps that the ways there and back take; None where nobody left.
        """
        going = members[self._progress.going[members]]
        if not self._branches or not going.size or len(members) == 1:
            return None
        if self._rng.random() >= self.config.branch_probability:
            return None
        joined = int(going[self._rng.integers(going.size)])
        others, start = members[members != joined], self._visited(joined)
        own = {m: self._visited(m) if self._progress.going[m] else None for m in others.tolist()}
        cost = self._costs([start] * len(others)) + self._costs(own.values())
        if cost > spare:
            return None
        self._away |= own
        self._put(others, start)
        return cost

    def _return(self) -> None:
        """Put members that left their episodes back to where they left them."""
        for member, own in self._away.items():
            if own is None:
                self._progress.going[member] = False
            else:
                self._put(np.array([member]), own)
        self._away.clear()

    def _costs(self, states: Iterable[VisitedState | None]) -> int:
        """Timesteps that it takes to put a member into each of these states."""
        return sum(self._envs.restore_cost(s.snapshot) for s in states if s is not None)

    def _go_on(self, member: int) -> npt.NDArray[Any]:
        """What a member observes where it is, or at a reset of its own; shape (1, *shape)."""
        if self._progress.going[member]:
            return self._progress.rows[member][None]
        return self._begin(np.array([member]))

    def _begin(self, members: IntArray) -> npt.NDArray[Any]:
        """Reset members with one seed; what they observe, shape (n, *shape)."""
        seed = int(self._rng.integers(_RESET_SEEDS))
        self._progress.clear(members)
        return self._with_memory(self._envs.reset(members, [seed] * len(members)), None)

    def _with_memory(
        self, rows: npt.NDArray[Any], policy_state: FloatArray | None
    ) -> npt.NDArray[Any]:
        """Rows that tell what a policy with memory remembers there, nothing for None."""
        if not self._remembers:
            return rows
        states = np.zeros((len(rows), self._reads.n_state), np.float32)
        if policy_state is not None:
            states[:] = policy_state
        return self._reads.with_states(rows, states)

    def _run(self, members: IntArray, observations: npt.NDArray[Any], horizon: int) -> "_Segment":
        segment = _Segment(len(members), observations)
        self._actor.refresh()
        envs, to_env = self._envs, self._policy.spec.action.to_env
        for _ in range(horizon):
            actions = self._actor.sample(observations)
            scaled = to_env(actions)
            result = envs.step(members, scaled)
            ended = result.terminated | result.truncated
            segment.steps.append((members, observations, actions, scaled, result, envs.steps_taken))
            observations = result.observations
            if self._remembers:
                observations = self._reads.with_states(observations, self._actor.states)
            if np.count_nonzero(ended):
                segment.end(members, ended, observations, result.terminated, self.timesteps)
                members, observations = members[~ended], observations[~ended]
                if not members.size:
                    break
        segment.cut(members, observations)
        return segment

    def _finish(self, segment: "_Segment", groups: int, size: int, shared: BoolArray) -> Rollout:
        members, observations, actions, scaled, results, steps_taken = zip(
            *segment.steps, strict=True
        )
        following, native, terminated, _ = map(np.concatenate, zip(*results, strict=True))
        alive = segment.alive(members)
        rewards = self._reward(
            self._envs.spec.observation.unmasked(following).astype(np.float64),
            np.concatenate(scaled),
            native,
            terminated,
        )
        progress = self._progress
        progress.add(_sum_by_member(native, alive), alive.sum(axis=0), segment)
        episodes = tuple(
            EpisodeStats(
                timestep=timestep,
                episode_return=float(progress.returns[member]),
                length=int(progress.lengths[member]),
            )
            for member, timestep in segment.episodes
        )
        self._choose_next_starts(
            segment.ended.reshape(groups, size),
            _sum_by_member(rewards, alive).reshape(groups, size),
        )
        return Rollout(
            alive=alive.reshape(-1, groups, size),
            observations=np.concatenate(observations),
            actions=np.concatenate(actions),
            rewards=rewards,
            last_observations=segment.last,
            terminated=segment.died,
            shared=shared,
            timesteps=np.array(steps_taken) + self._offset,
            episodes=episodes,
        )

    def _choose_next_starts(self, ended: BoolArray, scores: Float64Array) -> None:
        """With `branch_probability` where a survivor came to, else a reset, or each where it is.

        Going on from the survivor that did worst, by the rewards trained on, shows the policy
        the states that it cannot handle yet.
        """
        groups, size = ended.shape
        self.next_starts = [None] * self.config.num_groups
        if not self._branches or self._continues:
            return
        for group in range(groups):
            chosen = np.flatnonzero(~ended[group])
            if not chosen.size or self._rng.random() >= self.config.branch_probability:
                continue
            if self.config.start_states == "branch_worst":
                chosen = chosen[scores[group, chosen] == scores[group, chosen].min()]
            member = group * size + int(chosen[self._rng.integers(chosen.size)])
            self.next_starts[group] = self._visited(member)

    def _visited(self, member: int) -> VisitedState:
        """Where a member is, and what its episode was so far."""
        progress = self._progress
        state = self._reads.states(progress.rows[member][None])[0] if self._remembers else None
        return VisitedState(
            snapshot=self._envs.snapshot(member),
            episode_return=float(progress.returns[member]),
            episode_length=int(progress.lengths[member]),
            policy_state=None if state is None else state.copy(),
        )


class _Progress:
    """The episode that each member is in, and where it has come to."""

    def __init__(self, num_members: int) -> None:
        self.going = np.zeros(num_members, np.bool_)
        self.returns = np.zeros(num_members)
        self.lengths = np.zeros(num_members, np.int64)
        self.rows: list[npt.NDArray[Any]] = [np.empty(0)] * num_members

    def clear(self, members: IntArray) -> None:
        """Episodes begin."""
        self.returns[members], self.lengths[members] = 0.0, 0

    def set(self, member: int, row: npt.NDArray[Any], state: VisitedState) -> None:
        """A member was put into a state, and observes a row there."""
        self.going[member], self.rows[member] = True, row
        self.returns[member], self.lengths[member] = state.episode_return, state.episode_length

    def add(self, returns: Float64Array, lengths: IntArray, segment: "_Segment") -> None:
        """The first members, as many as took part, went through a segment."""
        n = len(lengths)
        self.returns[:n] += returns
        self.lengths[:n] += lengths
        self.going[:n] = ~segment.ended
        self.rows[:n] = segment.last


def _sum_by_member(values: Float64Array, alive: BoolArray) -> Float64Array:
    """Sums over time, shape (members,), of values of transitions, shape (N,)."""
    sums = np.zeros(alive.shape)
    sums[alive] = values
    total: Float64Array = sums.sum(axis=0)
    return total


class _Segment:
    """What a segment's members went through, and how each of them ended."""

    def __init__(self, num_members: int, observations: npt.NDArray[Any]) -> None:
        self.steps: list[_Step] = []
        self.episodes: list[tuple[int, int]] = []
        self.last = np.array(observations)
        self.ended = np.zeros(num_members, np.bool_)
        self.died = np.zeros(num_members, np.bool_)

    def end(
        self,
        members: IntArray,
        ended: BoolArray,
        observations: npt.NDArray[Any],
        terminated: BoolArray,
        timesteps: int,
    ) -> None:
        """Episodes of some of the members ended in the step just added."""
        gone = members[ended]
        self.last[gone] = observations[ended]
        self.ended[gone] = True
        self.died[gone] = terminated[ended]
        self.episodes.extend((int(member), timesteps) for member in gone)

    def cut(self, members: IntArray, observations: npt.NDArray[Any]) -> None:
        """The segment is over for those who are left."""
        self.last[members] = observations

    def alive(self, members: Sequence[IntArray]) -> BoolArray:
        """Shape (T, members), from those who took each step."""
        alive = np.zeros((len(members), len(self.ended)), np.bool_)
        for t, present in enumerate(members):
            alive[t, present] = True
        return alive


_Step = tuple[IntArray, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], StepResult, int]
"""Members, what they observed, their actions of the policy and of the environment, what came of
them, and the environment steps taken then."""
