"""Episodes step by step: what a policy saw, did, expected and earned; and whether they repeat.

An evaluation keeps returns alone. What is to be looked at, handed on or compared with another
release of the environment is played here, and kept whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from grpo.envs import VecEnv, make_vec_env
from grpo.errors import EnvironmentFaultError
from grpo.evaluation import EVALUATION_SEED, STEP_LIMIT
from grpo.policies import BasePolicy, Memory
from grpo.registry import Objects

__all__ = ["Divergence", "Trajectory", "play", "replay", "replay_in"]

_TOGETHER = 16  # members; of environments that are an instance each, making more takes long
_ONE = np.array([0])
_SHOWN = 6  # numbers of an observation in a message


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Trajectory:
    """One episode of T steps, from a seeded reset to its end or to where it was cut."""

    seed: int
    """That the environment was reset with."""

    observations: npt.NDArray[Any]
    """Shape (T + 1, *observation_shape): before each step, and after the last one; rows as
    `grpo.observations.ObservationSpec` has them, action masks included."""

    actions: npt.NDArray[Any]
    """Shape (T, *action shape): as the environment takes them, a Dict's or Tuple's as rows."""

    rewards: npt.NDArray[np.float64]
    """Shape (T,): the environment's own."""

    values: npt.NDArray[np.float64]
    """Shape (T,): what the policy expected before each step, in the units of the reward that it
    was trained on."""

    log_probs: npt.NDArray[np.float64]
    """Shape (T,): log π(a|s) of each action; NaN where the policy does not tell."""

    terminated: bool
    """Whether the last step ended in a state that has no future."""

    truncated: bool
    """Whether the environment cut the episode there."""

    @property
    def length(self) -> int:
        """Steps, T."""
        return len(self.rewards)

    @property
    def total(self) -> float:
        """Undiscounted return."""
        return float(self.rewards.sum())

    @property
    def ended(self) -> bool:
        """Whether the environment ended it; if not, `play` cut it at its limit."""
        return self.terminated or self.truncated


class _Recording:
    """An episode while it is played."""

    def __init__(self, seed: int, first: npt.NDArray[Any]) -> None:
        self.seed = seed
        self.observations = [np.array(first)]
        self.steps: list[tuple[npt.NDArray[Any], float, float, float]] = []
        self.terminated = self.truncated = False

    def finish(self) -> Trajectory:
        actions, rewards, values, log_probs = zip(*self.steps, strict=True)
        return Trajectory(
            seed=self.seed,
            observations=np.array(self.observations),
            actions=np.array(actions),
            rewards=np.array(rewards, np.float64),
            values=np.array(values, np.float64),
            log_probs=np.array(log_probs, np.float64),
            terminated=self.terminated,
            truncated=self.truncated,
        )


def play(
    policy: BasePolicy,
    env_name: str,
    seeds: Sequence[int],
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    objects: Objects | None = None,
    deterministic: bool = True,
    seed: int = EVALUATION_SEED,
    step_limit: int = STEP_LIMIT,
) -> Iterator[Trajectory]:
    """Play an episode for each seed, a few side by side, and give them in the order of the seeds.

    Args:
        policy: what acts.
        env_name: Gymnasium id, or the name of an environment in `objects`.
        seeds: of the resets, one an episode.
        env_kwargs: keyword arguments of `gymnasium.make`.
        objects: environments that were handed in, by name.
        deterministic: take the likeliest action instead of sampling.
        seed: of the samples.
        step_limit: an episode is cut after so many steps.

    Raises:
        ConfigError: the environment cannot be played.
        EnvironmentFaultError: it raised.
    """
    members = min(len(seeds), _TOGETHER)
    if not members:
        return
    rng = None if deterministic else np.random.default_rng(seed)
    envs = make_vec_env(env_name, env_kwargs, members, objects=objects, branching=False)
    try:
        for first in range(0, len(seeds), members):
            yield from _play_together(policy, envs, seeds[first : first + members], rng, step_limit)
    finally:
        envs.close()


def _play_together(
    policy: BasePolicy,
    envs: VecEnv,
    seeds: Sequence[int],
    rng: np.random.Generator | None,
    step_limit: int,
) -> list[Trajectory]:
    members = np.arange(len(seeds))
    observations = envs.reset(members, seeds)
    played = [_Recording(int(s), o) for s, o in zip(seeds, observations, strict=True)]
    memory = Memory(policy, len(seeds))
    while members.size:
        told = policy.predict(memory.rows(observations, members), rng is None, rng)
        log_probs = told.log_probs if told.log_probs is not None else [np.nan] * len(members)
        step = envs.step(members, told.actions)
        going = np.ones(len(members), np.bool_)
        for i, member in enumerate(members.tolist()):
            one = played[member]
            one.observations.append(np.array(step.observations[i]))
            one.steps.append((np.array(told.actions[i]), float(step.rewards[i]),
                              float(told.values[i]), float(log_probs[i])))  # fmt: skip
            one.terminated, one.truncated = bool(step.terminated[i]), bool(step.truncated[i])
            ended = one.terminated or one.truncated
            going[i] = not ended and len(one.steps) < step_limit
        members, observations = members[going], step.observations[going]
    return [one.finish() for one in played]


class Divergence(NamedTuple):
    """Where an episode that was played again first went another way."""

    seed: int
    """Of the episode."""

    step: int
    """Number of the step after which it was seen, from 1; 0 is the reset."""

    what: Literal["observation", "reward", "end", "error"]
    """What was not the same, bit for bit, or that the environment raised."""

    then: str
    """As recorded."""

    now: str
    """As it is now."""


def replay(
    trajectory: Trajectory,
    env_name: str,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    objects: Objects | None = None,
) -> Divergence | None:
    """Take an episode's actions again from its seed, and compare every bit; raises as `play`.

    Returns:
        The first difference; None where there is none.
    """
    envs = make_vec_env(env_name, env_kwargs, 1, objects=objects, branching=False)
    try:
        return replay_in(envs, trajectory)
    finally:
        envs.close()


def replay_in(envs: VecEnv, trajectory: Trajectory) -> Divergence | None:
    """As `replay`, with the first member of environments that exist."""
    seed, seen = trajectory.seed, 0
    try:
        now = envs.reset(_ONE, [seed])[0]
        if not _same(trajectory.observations[0], now):
            return Divergence(seed, 0, "observation", *_shown(trajectory.observations[0], now))
        for seen, action in enumerate(trajectory.actions, start=1):
            found = _compare_step(envs, trajectory, seen, action)
            if found is not None:
                return found
    except EnvironmentFaultError as error:
        return Divergence(seed, seen, "error", "none", str(error))
    return None


def _compare_step(
    envs: VecEnv, trajectory: Trajectory, number: int, action: npt.NDArray[Any]
) -> Divergence | None:
    """Take one step, and compare what it gave; steps are numbered from 1."""
    step = envs.step(_ONE, action[None])
    seed, reward = trajectory.seed, float(trajectory.rewards[number - 1])
    if reward.hex() != float(step.rewards[0]).hex():
        return Divergence(seed, number, "reward", repr(reward), repr(float(step.rewards[0])))
    last = number == trajectory.length
    ends = ((trajectory.terminated, trajectory.truncated) if last else (False, False),
            (bool(step.terminated[0]), bool(step.truncated[0])))  # fmt: skip
    if ends[0] != ends[1]:
        return Divergence(seed, number, "end", *(_ENDS[end] for end in ends))
    then, now = trajectory.observations[number], step.observations[0]
    if not _same(then, now):
        return Divergence(seed, number, "observation", *_shown(then, now))
    return None


_ENDS = {
    (False, False): "goes on",
    (True, False): "terminated",
    (False, True): "truncated",
    (True, True): "terminated and truncated",
}


def _same(then: npt.NDArray[Any], now: npt.NDArray[Any]) -> bool:
    return then.shape == now.shape and then.dtype == now.dtype and then.tobytes() == now.tobytes()


def _shown(then: npt.NDArray[Any], now: npt.NDArray[Any]) -> tuple[str, str]:
    """The numbers that differ, or the shapes and types where those do."""
    if then.shape != now.shape or then.dtype != now.dtype:
        return f"{then.dtype} of shape {then.shape}", f"{now.dtype} of shape {now.shape}"
    where = np.flatnonzero(then.ravel() != now.ravel())[:_SHOWN]
    return _listed(then.ravel(), where), _listed(now.ravel(), where)


def _listed(numbers: npt.NDArray[Any], where: npt.NDArray[np.intp]) -> str:
    shown = zip(where, numbers[where].tolist(), strict=True)
    return ", ".join(f"[{i}] {value!r}" for i, value in shown)
