"""Whether a training learned anything: its policy beside a random one and the one it started from.

A greedy policy that never learned beats random actions by luck of its initial weights, so that
neither comparison tells it alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from grpo.envs import EnvironmentSpec
from grpo.evaluation import EVALUATION_SEED, Evaluation, Player, Predictor
from grpo.registry import Objects
from grpo.statistics import Interval, mean_interval

__all__ = ["LEAST_EPISODES", "Baseline", "RandomPolicy", "Verdict", "compare_with_baselines"]

LEAST_EPISODES: Final = 20
"""That each baseline plays, or all of the evaluation's where these are fewer."""

FloatArray = npt.NDArray[np.float64]


class _Actions(NamedTuple):
    actions: npt.NDArray[Any]


class RandomPolicy:
    """Acts uniformly at random among what is allowed, as `grpo.evaluation.Predictor`.

    Args:
        spec: of the environment.
        seed: of the actions.
    """

    def __init__(self, spec: EnvironmentSpec, seed: int = EVALUATION_SEED) -> None:
        self._spec = spec
        self._rng = np.random.default_rng(seed)

    def act(self, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An action for each of N observations, as the environment takes them."""
        reads = self._spec.observation
        allowed = reads.masks(observations) if reads.n_mask else None
        return self._spec.action.random(self._rng, len(observations), allowed)

    def predict(
        self,
        observations: npt.NDArray[Any],
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> _Actions:
        """The same, as `actions`."""
        del deterministic, rng
        return _Actions(self.act(observations))


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A policy that the trained one is compared with, on the first episodes of its evaluation."""

    episodes: int
    """That it played."""

    mean: float
    """Its mean return on them."""

    difference: float
    """Mean of the trained policy's return minus its own, on the same episodes."""

    ci_low: float
    """Lower end of the difference's 95 % interval."""

    ci_high: float
    """Upper end of it."""

    @classmethod
    def of(cls, evaluation: Evaluation, returns: FloatArray) -> "Baseline":
        """Compare an evaluation with another policy's returns, shape (n,), on its first n seeds."""
        difference = mean_interval(evaluation.returns[: len(returns)] - returns)
        return cls(
            episodes=len(returns),
            mean=float(returns.mean()),
            difference=difference.estimate,
            ci_low=difference.low,
            ci_high=difference.high,
        )

    @property
    def interval(self) -> Interval:
        """The difference, with its 95 % interval."""
        return Interval(self.difference, self.ci_low, self.ci_high)

    @property
    def beaten(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.ci_low > 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a training's policy does better than two that it has to beat."""

    random: Baseline
    """Uniformly random actions."""

    start: Baseline
    """The policy that training started from, greedy as the evaluation is."""

    @property
    def better(self) -> bool:
        """Whether both are beaten."""
        return self.random.beaten and self.start.beaten

    @property
    def sentence(self) -> str:
        """In words, such as "Better than random actions by 478.00 (95 % interval …) and …"."""
        return in_words(self.random.interval, self.start.interval)


def in_words(random: Interval, start: Interval) -> str:
    """What two differences from the baselines say, in a sentence; with 95 % intervals."""
    told = {"random actions": random, "its start": start}
    ahead = [
        f"than {name} by {i.estimate:,.2f} (95 % interval {i.low:,.2f} to {i.high:,.2f})"
        for name, i in told.items()
        if i.low > 0.0
    ]
    behind = [
        f"not better than {name}: difference {i.estimate:+,.2f} "
        f"(95 % interval {i.low:+,.2f} to {i.high:+,.2f})"
        for name, i in told.items()
        if not i.low > 0.0
    ]
    parts = ["better " + " and ".join(ahead)] * bool(ahead) + [", and ".join(behind)] * bool(behind)
    sentence = ", but ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def compare_with_baselines(
    evaluation: Evaluation,
    start: Predictor,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    objects: Objects | None = None,
    env_workers: int | Literal["auto"] = 0,
    most_steps: int = 100_000,
) -> Verdict:
    """Let random actions and the start play the first episodes of an evaluation.

    Args:
        evaluation: of the policy that was trained, greedy.
        start: what it was before.
        env_kwargs: keyword arguments of the evaluation's environment.
        objects: environments that were handed in, by name.
        env_workers: as for `evaluate`.
        most_steps: of each of the two, about: it plays as many episodes as fit, judged by the
            length of the first `LEAST_EPISODES`, which it plays in any case.

    Raises:
        ConfigError: the environment cannot be evaluated.
        EnvironmentFaultError: it raised.
    """
    with Player(
        evaluation.env_name,
        env_kwargs,
        objects=objects,
        n_episodes=len(evaluation.seeds),
        env_workers=env_workers,
    ) as player:
        random = _returns(player, RandomPolicy(player.spec), evaluation.seeds, most_steps)
        begun = _returns(player, start, evaluation.seeds, most_steps)
    return Verdict(random=Baseline.of(evaluation, random), start=Baseline.of(evaluation, begun))


def _returns(
    player: Player, policy: Predictor, seeds: npt.NDArray[np.int64], most_steps: int
) -> FloatArray:
    """Returns of the first episodes, shape (n,): as many as fit into the steps."""
    first = player.play(policy, seeds[:LEAST_EPISODES])
    fitting = int(most_steps / max(first.lengths.mean(), 1.0))
    further = seeds[LEAST_EPISODES : max(fitting, LEAST_EPISODES)]
    if not len(further):
        return first.returns
    return np.concatenate([first.returns, player.play(policy, further).returns])
