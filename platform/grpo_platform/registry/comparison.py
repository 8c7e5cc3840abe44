"""Two versions of a model on the same episodes, and what follows from the difference.

A group-sequential test: both play 100 episodes, then more at each of a few looks, until the
interval of their mean difference is clear of zero or a limit is reached. Each look spends a part of
the error allowed to all of them (alpha spending; Lan & DeMets 1983, linear, by Bonferroni), so that
looking repeatedly promotes no more often by chance. `make bench-promotion` measures it.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from mlflow.entities.model_registry import ModelVersion

from grpo.evaluation import Evaluation, Interval, evaluation_seeds, mean_interval
from grpo_platform.core.errors import ConflictError
from grpo_platform.registry.card import ModelCard, canonical_json
from grpo_platform.registry.integrity import PolicyFiles
from grpo_platform.registry.models import Registry
from grpo_platform.registry.names import Tag
from grpo_platform.registry.records import Comparison, End, ModelEnvironment, version_ref

__all__ = [
    "COMPARISON_SEED",
    "LEAST_EPISODES",
    "LOOKS",
    "Contender",
    "Evaluate",
    "Evidence",
    "Game",
    "Look",
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
    """What `evaluate_files` does, wherever."""

    def __call__(
        self,
        files: PolicyFiles,
        name: str,
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


class Contender:
    """A version that is compared: what it is made of is read and verified once, when needed.

    Args:
        registry: has it.
        name: of the model.
        number: of the version.
    """

    def __init__(self, registry: Registry, name: str, number: int) -> None:
        self.registry = registry
        self.name = name
        self.number = number

    @functools.cached_property
    def version(self) -> ModelVersion:
        """As registered; raises UnknownModelError where there is none of this number."""
        return self.registry.version(self.name, self.number)

    @functools.cached_property
    def files(self) -> PolicyFiles:
        """Raises UnsafeModelError where they are not what was registered."""
        return self.registry.read(version_ref(self.version))

    @functools.cached_property
    def card(self) -> ModelCard:
        """Raises UnsafeModelError where it cannot be read."""
        return ModelCard.from_json(self.version.tags.get(Tag.CARD, ""))

    def check_environment(self, owner: ModelEnvironment) -> None:
        """Refuse a version that was trained in another environment than its name's.

        Raises:
            ConflictError: it was.
            UnsafeModelError: its card cannot be read.
        """
        card = self.card
        if (card.env_name, canonical_json(card.env_kwargs)) != (
            owner.env_name,
            canonical_json(owner.env_kwargs),
        ):
            raise ConflictError(
                f"Version {self.number} of {self.name!r} was trained in {card.env_name}; "
                f"the name belongs to {owner.env_name}."
            )

    def play(self, game: Game, skip: int, episodes: int) -> npt.NDArray[np.float64]:
        """Returns of so many more episodes, (episodes,), after those that are skipped."""
        found = game.evaluate(
            self.files,
            f"{self.name}/{self.number}",
            self.card.env_name,
            env_kwargs=self.card.env_kwargs,
            n_episodes=episodes,
            seed=game.seed,
            skip=skip,
        )
        return found.returns


def play(candidate: Contender, champion: Contender, game: Game) -> Evidence:
    """Let both play the same episodes, greedily, on the environment's own reward.

    Raises:
        UnsafeModelError: the files of one are not what was registered.
        GRPOError: the environment cannot be evaluated here.
    """
    new, old, interval, ended = _play_until_settled(candidate, champion, game)
    episodes = len(new)
    comparison = Comparison(
        champion=champion.number,
        episodes=episodes,
        seed=game.seed,
        candidate_mean=float(new.mean()),
        champion_mean=float(old.mean()),
        difference=interval.estimate,
        ci_low=interval.low,
        ci_high=interval.high,
        equal=np.array_equal(new, old),
        ended=ended,
    )
    return Evidence(
        comparison,
        {
            "model": candidate.name,
            "comparison": dataclasses.asdict(comparison) | {"candidate": candidate.number},
            "seeds": evaluation_seeds(episodes, game.seed).tolist(),
            "candidate_returns": new.tolist(),
            "champion_returns": old.tolist(),
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


def _play_until_settled(
    candidate: Contender, champion: Contender, game: Game
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Interval, End]:
    """Both returns, the interval of their mean difference at the last look, and why it was that."""
    new, old = np.zeros(0), np.zeros(0)
    begun = time.monotonic()
    for index, episodes in enumerate(LOOKS):
        played = len(new)
        new = np.concatenate([new, candidate.play(game, played, episodes - played)])
        old = np.concatenate([old, champion.play(game, played, episodes - played)])
        pace = (time.monotonic() - begun) / episodes
        late = episodes < LOOKS[-1] and pace * LOOKS[index + 1] > game.seconds
        look = look_at(index, last=late)
        differences = new - old
        interval = mean_interval(differences, look.confidence)
        if suffices(interval.low, interval.high, not differences.any(), episodes):
            return new, old, interval, "evidence"
        if look.last:
            break
    return new, old, interval, "seconds" if late else "episodes"
