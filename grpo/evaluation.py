"""Greedy, seeded evaluation on the environment's own reward, with honest intervals.

The estimator is the mean, everywhere: it is what training maximises, and what a rare disaster
shows in. The interquartile mean drops the worst quarter, and is for comparing algorithms over seeds
(Agarwal et al. 2021, arXiv 2108.13264). All is written in numpy, so that nothing heavy is imported;
the tests hold it equal to SciPy's.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from grpo.envs import VecEnv, make_vec_env
from grpo.errors import IncompatibleError, OutOfRangeError
from grpo.policies import Memory
from grpo.registry import Objects

__all__ = [
    "EVALUATION_SEED",
    "FIRST_EVALUATION_SEED",
    "Evaluation",
    "Interval",
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

_RESAMPLES = 4_000
_CONFIDENCE = 0.95
_CHUNK = 2**18  # draws at once: little memory, and a product that no BLAS spreads over threads
_NORMAL = NormalDist()
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


class Interval(NamedTuple):
    """An estimate with its interval, all in the estimate's unit; 95 % unless asked otherwise."""

    estimate: float
    """Such as a mean."""

    low: float
    """Lower end of the interval."""

    high: float
    """Upper end of the interval."""


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
    envs = make_vec_env(
        env_name,
        env_kwargs,
        min(n_episodes, _TOGETHER),
        objects=objects,
        branching=False,
        most_instances=_INSTANCES,
        env_workers=env_workers,
    )
    limit = _step_limit(envs.spec.max_episode_steps, n_episodes)
    rng = np.random.default_rng(seed)
    try:
        returns, lengths, cut = _run(policy, envs, seeds, limit, None if deterministic else rng)
    finally:
        envs.close()
    if cut.any():
        _log.warning(
            "%d of %d episodes of %s had not ended after %d steps and were cut there. Register the "
            "environment with max_episode_steps to say how long an episode is.",
            *(np.count_nonzero(cut), n_episodes, env_name, limit),
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
) -> tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Returns, lengths, and whether each was cut at `limit`; greedy without `rng`."""
    n = len(seeds)
    returns, lengths, cut = np.zeros(n), np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.bool_)
    members = np.arange(envs.num_members)
    episodes = members.copy()  # what each member plays; further ones wait for a member to end
    waiting = envs.num_members
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
    return returns, lengths, cut


def iqm(values: npt.ArrayLike, axis: int | None = None) -> npt.NDArray[np.float64] | float:
    """Interquartile mean: of what is left when the lowest and the highest quarter are dropped.

    Args:
        values: any shape.
        axis: reduce along it; None takes all values together.

    Returns:
        A float, or an array without that axis.
    """
    data = np.asarray(values, dtype=np.float64)
    if axis is None:
        data, axis = data.ravel(), 0
    n = data.shape[axis]
    cut = n // 4
    data = np.moveaxis(data, axis, -1)
    if cut:
        data = np.partition(data, (cut, n - cut - 1), axis=-1)[..., cut : n - cut]
    result = data.mean(axis=-1)
    return float(result) if result.ndim == 0 else result


def stratified_bootstrap_interval(
    scores: npt.ArrayLike, *, confidence: float = _CONFIDENCE, resamples: int = 2_000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the IQM over all scores.

    Runs are drawn with replacement within each task, so that each resample holds every task as
    often as the data does (Agarwal et al. 2021, section 4.1). Equal scores give equal intervals.

    Args:
        scores: shape (runs, tasks).
        confidence: share of resamples inside.
        resamples: how many.

    Returns:
        Lower and upper end.
    """
    data = np.asarray(scores, dtype=np.float64)
    runs, tasks = data.shape
    picks = np.random.default_rng(0).integers(0, runs, (resamples, runs, tasks))
    drawn = np.take_along_axis(data[None], picks, axis=1)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(iqm(drawn.reshape(resamples, -1), axis=1), (tail, 1.0 - tail))
    return float(low), float(high)


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


def mean_interval(values: npt.ArrayLike, confidence: float = _CONFIDENCE) -> Interval:
    """The mean of a sample, shape (n,), and the interval of `mean_limits`."""
    data = np.asarray(values, dtype=np.float64)
    low, high = mean_limits(data[:, None], confidence)
    mean = np.clip(data.mean(), low[0], high[0])  # equal values: their mean has round-off
    return Interval(float(mean), float(low[0]), float(high[0]))


def mean_limits(
    samples: FloatArray, confidence: float = _CONFIDENCE
) -> tuple[FloatArray, FloatArray]:
    """Interval of the mean of each of R samples, by Student's t and by BCa: the wider end of both.

    Student's t is too short on skewed samples, towards the long tail: a disaster in one of a
    hundred episodes. BCa (bias-corrected and accelerated bootstrap, Efron 1987; Efron & Tibshirani
    1993, chapter 14) follows the skew, but is too short where both tails are heavy, which t is not.
    BCa's quantiles are expanded for small samples (Hesterberg 2015, arXiv 1411.5279). No end lies
    beyond the sample's own extremes. Equal samples give equal intervals.

    Args:
        samples: shape (n, R), one sample a column.
        confidence: share of intervals that hold the true mean.

    Returns:
        Lower and upper ends, shape (R,) each.
    """
    n = len(samples)
    tail = (1.0 - confidence) / 2.0
    least, most = samples.min(axis=0), samples.max(axis=0)
    mean = np.clip(samples.mean(axis=0), least, most)
    if n == 1:
        return mean, mean
    t = _student_quantile(1.0 - tail, n - 1)
    reach = t * samples.std(axis=0, ddof=1) / np.sqrt(n)
    low, high = _bca(samples, t * np.sqrt(n / (n - 1.0)))
    return (
        np.clip(np.minimum(low, mean - reach), least, mean),
        np.clip(np.maximum(high, mean + reach), mean, most),
    )


def _bca(samples: FloatArray, z: float) -> tuple[FloatArray, FloatArray]:
    """Ends of BCa intervals that would be ±z standard errors wide were the means normal."""
    mean = samples.mean(axis=0)
    scale = np.abs(samples - mean).max(axis=0)
    centred = (samples - mean) / np.where(scale > 0.0, scale, 1.0)
    means = _resampled_means(centred)
    equal = np.abs(means) <= 1e-9  # but for round-off
    below = ((means < 0.0) & ~equal).mean(axis=0) + equal.mean(axis=0) / 2.0
    edge = 0.5 / _RESAMPLES
    bias = np.array([_NORMAL.inv_cdf(p) for p in np.clip(below, edge, 1.0 - edge)])
    squares = np.maximum((centred**2).sum(axis=0), 1.0)  # at least 1 where they differ at all
    acceleration = (centred**3).sum(axis=0) / (6.0 * squares**1.5)
    means.sort(axis=0)
    columns = np.arange(samples.shape[1])
    ends = []
    for sign in (-1.0, 1.0):
        shifted = bias + sign * z
        shrink = 1.0 - acceleration * shifted
        # where the correction has a pole, nothing inside the resamples is far enough out
        corrected = np.where(shrink > 0.0, bias + shifted / np.maximum(shrink, 1e-9), sign * 99.0)
        rank = np.array([_NORMAL.cdf(q) for q in corrected]) * (_RESAMPLES + 1)
        index = (np.floor(rank) if sign < 0 else np.ceil(rank)).astype(np.int64) - 1
        ends.append(mean + scale * means[np.clip(index, 0, _RESAMPLES - 1), columns])
    return ends[0], ends[1]


def _resampled_means(samples: FloatArray) -> FloatArray:
    """Means of resamples with replacement, the same for each column: (n, R) → (resamples, R)."""
    n, width = samples.shape
    generator = np.random.default_rng(0)
    means = np.empty((_RESAMPLES, width))
    rows = max(1, _CHUNK // n)
    for start in range(0, _RESAMPLES, rows):
        count = min(rows, _RESAMPLES - start)
        picks = generator.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        times = np.bincount(picks.ravel(), minlength=count * n).reshape(count, n)
        means[start : start + count] = times @ samples / n
    return means


def _student_quantile(p: float, freedom: int) -> float:
    """Quantile of Student's t, from the normal one (Abramowitz & Stegun 1964, 26.7.5)."""
    x = _NORMAL.inv_cdf(p)
    terms = (
        (x**3 + x) / 4.0,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96.0,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384.0,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160.0,
    )
    quantile: float = x + sum(term / freedom**k for k, term in enumerate(terms, start=1))
    return quantile
