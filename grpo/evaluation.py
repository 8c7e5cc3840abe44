"""Greedy, seeded evaluation on the environment's own reward, with honest intervals.

The estimator is the mean, everywhere; `grpo.statistics` has the intervals.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from grpo.envs import EnvironmentSpec, VecEnv, make_vec_env
from grpo.errors import IncompatibleError, OutOfRangeError
from grpo.policies import Memory
from grpo.registry import Objects
from grpo.statistics import (
    Interval,
    iqm,
    mean_interval,
    mean_limits,
    stratified_bootstrap_interval,
)

__all__ = [
    "EVALUATION_SEED",
    "FIRST_EVALUATION_SEED",
    "Episodes",
    "Evaluation",
    "Interval",
    "Player",
    "Predictor",
    "evaluate",
    "evaluation_seeds",
    "iqm",
    "mean_interval",
    "mean_limits",
    "paired_difference",
    "stratified_bootstrap_interval",
]

EVALUATION_SEED = 20_240_203
"""Default seed of an evaluation; equal seeds give equal episodes."""

FIRST_EVALUATION_SEED = 2**31
"""Evaluation's resets are seeded from here on, training's below."""

STEP_LIMIT = 10_000
"""Steps after which any episode is cut."""

ENDLESS_STEPS = 100_000
"""Steps of a whole evaluation in an environment without a time limit: its episodes are cut after
an equal share of them, but not before `LEAST_STEPS`."""

LEAST_STEPS = 1_000
"""Steps that every episode may have."""

_log = logging.getLogger(__name__)

_TOGETHER = 100  # members; more at once are hardly faster, and make products that BLAS spreads
_INSTANCES = 16  # of environments that are one instance a member; making one can take 100 ms

FloatArray = npt.NDArray[np.float64]


class _Prediction(Protocol):
    @property
    def actions(self) -> npt.NDArray[Any]: ...


class Predictor(Protocol):
    """What `evaluate` asks of a policy; `grpo.policies.MlpPolicy` is one."""

    def act(self, observations: npt.NDArray[np.floating[Any]]) -> npt.NDArray[Any]:
        """Likeliest actions for observations of shape (N, *observation_shape)."""

    def predict(
        self,
        observations: npt.NDArray[np.floating[Any]],
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> _Prediction:
        """Actions, sampled unless `deterministic`, for the same observations."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Evaluation:
    """Episodes of one policy, in the unit of the environment's own reward."""

    env_name: str
    """Gymnasium id."""

    returns: FloatArray
    """Shape (n,): undiscounted return of each episode."""

    lengths: npt.NDArray[np.int64]
    """Shape (n,): steps of each episode."""

    seeds: npt.NDArray[np.int64]
    """Shape (n,): the seed that each episode was reset with."""

    mean: float
    """Mean return: the figure that counts, and that the interval is of."""

    std: float
    """Standard deviation of the returns, over the episodes."""

    iqm: float
    """Interquartile mean of the returns."""

    ci_low: float
    """Lower end of the 95 % interval of the mean."""

    ci_high: float
    """Upper end of the 95 % interval of the mean."""

    cut: int = 0
    """Episodes that were cut before they ended, so that their return is only a part of it."""

    def to_dict(self) -> dict[str, Any]:
        """The figures, without the episodes, as JSON values."""
        return {
            "env_name": self.env_name,
            "n_episodes": len(self.returns),
            "mean": self.mean,
            "std": self.std,
            "iqm": self.iqm,
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
            "mean_length": float(self.lengths.mean()),
            "cut": self.cut,
        }


def evaluation_seeds(n_episodes: int, seed: int = EVALUATION_SEED) -> npt.NDArray[np.int64]:
    """Seeds of an evaluation's episodes, shape (n_episodes,), from `FIRST_EVALUATION_SEED` on.

    Fewer episodes get the first of the same seeds.
    """
    generator = np.random.default_rng(seed)
    return generator.integers(FIRST_EVALUATION_SEED, 2**32, n_episodes, dtype=np.int64)


def evaluate(
    policy: Predictor,
    env_name: str,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    objects: Objects | None = None,
    n_episodes: int = 100,
    seed: int = EVALUATION_SEED,
    skip: int = 0,
    deterministic: bool = True,
    env_workers: int | Literal["auto"] = 0,
) -> Evaluation:
    """Run seeded episodes, side by side, and sum the environment's own rewards.

    Args:
        policy: what acts.
        env_name: Gymnasium id, or the name of an environment in `objects`.
        env_kwargs: keyword arguments of `gymnasium.make`.
        objects: environments that were handed in, by name.
        n_episodes: how many, at least 1. Where the environment has no time limit, an episode is
            cut after `ENDLESS_STEPS / n_episodes` steps, at least `LEAST_STEPS` and at most
            `STEP_LIMIT`; others after `STEP_LIMIT`. The log tells it.
        seed: gives the episodes' seeds and, where actions are sampled, the samples.
        skip: go on after so many episodes of this seed.
        deterministic: take the likeliest action instead of sampling.
        env_workers: processes that play the episodes; 0 plays them in this one, `auto` in as many
            as pay.

    Raises:
        ConfigError: the environment cannot be evaluated, or `n_episodes` is below 1.
        EnvironmentFaultError: it raised.
    """
    if n_episodes < 1:
        raise OutOfRangeError("n_episodes must be at least 1.", field="n_eval_episodes")
    seeds = evaluation_seeds(skip + n_episodes, seed)[skip:]
    with Player(
        env_name, env_kwargs, objects=objects, n_episodes=n_episodes, env_workers=env_workers
    ) as player:
        rng = None if deterministic else np.random.default_rng(seed)
        returns, lengths, cut = player.play(policy, seeds, rng)
    if cut.any():
        _log.warning(
            "%d of %d episodes of %s had not ended after %d steps and were cut there. Register the "
            "environment with max_episode_steps to say how long an episode is.",
            *(np.count_nonzero(cut), n_episodes, env_name, player.limit),
        )
    interval = mean_interval(returns)
    return Evaluation(
        env_name=env_name,
        returns=returns,
        lengths=lengths,
        seeds=seeds,
        mean=interval.estimate,
        std=float(returns.std()),
        iqm=float(iqm(returns)),
        ci_low=interval.low,
        ci_high=interval.high,
        cut=int(np.count_nonzero(cut)),
    )


class Episodes(NamedTuple):
    """What episodes came to; shape (n,) each."""

    returns: FloatArray
    lengths: npt.NDArray[np.int64]
    cut: npt.NDArray[np.bool_]
    """Whether it was cut before it ended."""


class Player:
    """Plays the episodes of evaluations, one policy after the other in the same environments.

    Args:
        env_name: as for `evaluate`.
        env_kwargs: as for `evaluate`.
        objects: as for `evaluate`.
        n_episodes: of the evaluation; says how long an episode without end may be.
        env_workers: as for `evaluate`.

    Attributes:
        spec: the environment.
        limit: steps after which any episode is cut.

    Raises:
        ConfigError: the environment cannot be evaluated.
    """

    def __init__(
        self,
        env_name: str,
        env_kwargs: Mapping[str, Any] | None = None,
        *,
        objects: Objects | None = None,
        n_episodes: int = 100,
        env_workers: int | Literal["auto"] = 0,
    ) -> None:
        self._envs = make_vec_env(
            env_name,
            env_kwargs,
            min(n_episodes, _TOGETHER),
            objects=objects,
            branching=False,
            most_instances=_INSTANCES,
            env_workers=env_workers,
        )
        self.spec: EnvironmentSpec = self._envs.spec
        self.limit = _step_limit(self.spec.max_episode_steps, n_episodes)

    def play(
        self,
        policy: Predictor,
        seeds: npt.NDArray[np.int64],
        rng: np.random.Generator | None = None,
    ) -> Episodes:
        """An episode from each seed, shape (n,); greedy without `rng`, sampled with it.

        Raises:
            EnvironmentFaultError: the environment raised.
        """
        return _run(policy, self._envs, seeds, self.limit, rng)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._envs.close()


def _step_limit(max_episode_steps: int | None, n_episodes: int) -> int:
    """Steps after which an evaluation's episodes are cut."""
    if max_episode_steps is not None:
        return min(max_episode_steps, STEP_LIMIT)
    return min(max(ENDLESS_STEPS // n_episodes, LEAST_STEPS), STEP_LIMIT)


def _run(
    policy: Predictor,
    envs: VecEnv,
    seeds: npt.NDArray[np.int64],
    limit: int,
    rng: np.random.Generator | None,
) -> Episodes:
    n = len(seeds)
    returns, lengths, cut = np.zeros(n), np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.bool_)
    members = np.arange(min(envs.num_members, n))
    episodes = members.copy()  # what each member plays; further ones wait for a member to end
    waiting = len(members)
    observations = envs.reset(members, seeds[episodes])
    memory = Memory(policy, n)
    while members.size:
        rows = memory.rows(observations, episodes)
        if rng is None:
            actions = policy.act(rows)
        else:
            actions = policy.predict(rows, deterministic=False, rng=rng).actions
        observations, rewards, terminated, truncated = envs.step(members, actions)
        returns[episodes] += rewards
        lengths[episodes] += 1
        cut[episodes] = ~(terminated | truncated) & (lengths[episodes] >= limit)
        ended = terminated | truncated | cut[episodes]
        for i in np.flatnonzero(ended)[: n - waiting]:
            episodes[i], ended[i] = waiting, False
            observations[i] = envs.reset(members[i : i + 1], seeds[waiting : waiting + 1])[0]
            waiting += 1
        if ended.any():
            members, episodes, observations = (
                members[~ended],
                episodes[~ended],
                observations[~ended],
            )
    return Episodes(returns, lengths, cut)


def paired_difference(a: Evaluation, b: Evaluation) -> Interval:
    """Mean of a's return minus b's on the same episodes, with its 95 % interval.

    Args:
        a: n episodes of one policy.
        b: of another one, in the same environment, on the same seeds.

    Returns:
        The mean of the n differences, and the interval of `mean_limits`.

    Raises:
        IncompatibleError: the two did not run the same episodes.
    """
    if a.env_name != b.env_name or not np.array_equal(a.seeds, b.seeds):
        raise IncompatibleError(
            "Only evaluations of the same environment with the same seeds can be compared in pairs."
        )
    return mean_interval(a.returns - b.returns)
