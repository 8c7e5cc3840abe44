"""Two versions of a model on the same episodes, and what follows from the difference.

A group-sequential test: both play 100 episodes, then more at each of a few looks, until the
interval of their mean difference is clear of zero or a limit is reached. Each look spends a part of
the error allowed to all of them (alpha spending; Lan & DeMets 1983, linear, by Bonferroni), so that
looking repeatedly promotes no more often by chance. `make bench-promotion` measures it.
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from mlflow.entities.model_registry import ModelVersion

from grpo.evaluation import Evaluation, Interval, evaluation_seeds, mean_interval
from grpo.policies import BasePolicy
from grpo_platform.core.errors import ConflictError
from grpo_platform.registry.card import ModelCard, canonical_json
from grpo_platform.registry.catalogue import Catalogue
from grpo_platform.registry.names import Tag
from grpo_platform.registry.packaging import policy_from_files
from grpo_platform.registry.parsing import version_ref
from grpo_platform.registry.records import Comparison, ModelEnvironment

__all__ = [
    "COMPARISON_SEED",
    "LEAST_EPISODES",
    "LOOKS",
    "Evaluate",
    "Evidence",
    "Game",
    "Look",
    "check_environment",
    "judge",
    "look_at",
    "play",
    "suffices",
]

LOOKS: Final = (100, 500, 1_000, 2_000)
"""Episodes that both versions have played when the evidence is looked at."""

LEAST_EPISODES: Final = 500
"""Before a version is promoted: what happens in one of a hundred episodes stays unseen in 0.7 % of
decisions then, and in 37 % after 100 episodes."""

COMPARISON_SEED: Final = 77_019_403
"""With a decision's number added, gives the seeds of its comparison: a chain of promotions on equal
seeds would fit these. A reported evaluation uses `EVALUATION_SEED`."""

_ERROR: Final = 0.02
"""Chance, in all looks together, that the interval lies on one wrong side; 2.5 % is what may be,
the rest is for what an approximate interval misses on skewed differences."""


class Look(NamedTuple):
    """One time at which the evidence is looked at."""

    episodes: int
    """That both have played."""

    confidence: float
    """Of this look's interval."""

    last: bool
    """Whether no more episodes follow."""


class Evidence(NamedTuple):
    """A comparison, and every return behind it."""

    comparison: Comparison
    episodes: dict[str, object]


def check_environment(candidate: ModelVersion, owner: ModelEnvironment) -> None:
    """Refuse a version that was trained in another environment than its name's.

    Raises:
        ConflictError: it was.
        UnsafeModelError: its card cannot be read.
    """
    card = _card(candidate)
    if (card.env_name, canonical_json(card.env_kwargs)) != (
        owner.env_name,
        canonical_json(owner.env_kwargs),
    ):
        raise ConflictError(
            f"Version {candidate.version} of {candidate.name!r} was trained in {card.env_name}; "
            f"the name belongs to {owner.env_name}."
        )


def look_at(index: int, *, last: bool = False) -> Look:
    """One of `LOOKS`, with its share of the error; the last one takes all that is left."""
    most = LOOKS[-1]
    spent = LOOKS[index - 1] / most if index else 0.0
    share = (1.0 if last else LOOKS[index] / most) - spent
    return Look(LOOKS[index], 1.0 - 2.0 * _ERROR * share, last or LOOKS[index] == most)


def suffices(low: float, high: float, equal: bool, episodes: int) -> bool:
    """Whether a look's interval settles the comparison, so that no more episodes are needed."""
    return high < 0.0 or ((low > 0.0 or equal) and episodes >= LEAST_EPISODES)


class Evaluate(Protocol):
    """What `grpo.evaluate` does, wherever."""

    def __call__(
        self,
        policy: BasePolicy,
        env_name: str,
        /,
        *,
        env_kwargs: Mapping[str, Any] | None,
        n_episodes: int,
        seed: int,
        skip: int,
    ) -> Evaluation:
        """Play a policy."""


class Game(NamedTuple):
    """How two versions play."""

    seed: int
    """Gives the episodes."""

    seconds: float
    """No further look is begun that is not expected to end within them."""

    evaluate: Evaluate
    """Plays a policy."""


def play(
    catalogue: Catalogue, candidate: ModelVersion, champion: ModelVersion, game: Game
) -> Evidence:
    """Let both play the same episodes, greedily, on the environment's own reward.

    Raises:
        UnsafeModelError: the files of one are not what was registered.
        GRPOError: the environment cannot be evaluated here.
    """
    new, old = _Player(catalogue, candidate, game), _Player(catalogue, champion, game)
    interval, ended = _play_until_settled(new, old, game.seconds)
    episodes = len(new.returns)
    comparison = Comparison(
        champion=int(champion.version),
        episodes=episodes,
        seed=game.seed,
        candidate_mean=float(new.returns.mean()),
        champion_mean=float(old.returns.mean()),
        difference=interval.estimate,
        ci_low=interval.low,
        ci_high=interval.high,
        equal=np.array_equal(new.returns, old.returns),
        ended=ended,
    )
    return Evidence(
        comparison,
        {
            "model": candidate.name,
            "comparison": dataclasses.asdict(comparison) | {"candidate": int(candidate.version)},
            "seeds": evaluation_seeds(episodes, game.seed).tolist(),
            "candidate_returns": new.returns.tolist(),
            "champion_returns": old.returns.tolist(),
        },
    )


def judge(comparison: Comparison) -> tuple[bool, str]:
    """Whether the candidate wins, and why, in a sentence with the figures.

    It does when the lower end of the interval is above zero, or when all differences are zero.
    """
    c = comparison
    figures = (
        f"mean return {c.candidate_mean:.2f} against {c.champion_mean:.2f} of version "
        f"{c.champion} on the same {c.episodes} seeds, difference {c.difference:+.2f}, "
        f"95 % interval {c.ci_low:+.2f} to {c.ci_high:+.2f}"
    )
    if c.ended == "seconds":
        figures += " (there was no time for more episodes)"
    if c.equal:
        return True, f"Equal on every seed: {figures}."
    if c.ci_low > 0.0:
        return True, f"Better: {figures}."
    return False, f"{'Worse' if c.ci_high < 0.0 else 'Not shown to be better'}: {figures}."


def _play_until_settled(new: "_Player", old: "_Player", seconds: float) -> tuple[Interval, str]:
    """The interval of the mean difference at the last look, and why it was the last."""
    begun = time.monotonic()
    for index, episodes in enumerate(LOOKS):
        new.play_until(episodes)
        old.play_until(episodes)
        pace = (time.monotonic() - begun) / episodes
        late = episodes < LOOKS[-1] and pace * LOOKS[index + 1] > seconds
        look = look_at(index, last=late)
        differences = new.returns - old.returns
        interval = mean_interval(differences, look.confidence)
        if suffices(interval.low, interval.high, not differences.any(), episodes):
            return interval, "evidence"
        if look.last:
            break
    return interval, "seconds" if late else "episodes"


class _Player:
    """A version, and the returns of the episodes that it has played so far."""

    def __init__(self, catalogue: Catalogue, version: ModelVersion, game: Game) -> None:
        self._policy: BasePolicy = policy_from_files(catalogue.read(version_ref(version)))
        self._card = _card(version)
        self._game = game
        self.returns: npt.NDArray[np.float64] = np.zeros(0)

    def play_until(self, episodes: int) -> None:
        """Play on until there are so many."""
        played = len(self.returns)
        more = self._game.evaluate(
            self._policy,
            self._card.env_name,
            env_kwargs=self._card.env_kwargs,
            n_episodes=episodes - played,
            seed=self._game.seed,
            skip=played,
        )
        self.returns = np.concatenate([self.returns, more.returns])


def _card(version: ModelVersion) -> ModelCard:
    return ModelCard.from_json(version.tags.get(Tag.CARD, ""))
