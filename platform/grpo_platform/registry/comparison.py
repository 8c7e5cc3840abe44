"""Two versions of a model on the same episodes, and what follows from the difference."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from mlflow.entities.model_registry import ModelVersion

from grpo.evaluation import Evaluation, paired_difference
from grpo.policy import Policy
from grpo_platform.errors import ConflictError
from grpo_platform.registry.card import ModelCard, canonical_json
from grpo_platform.registry.catalogue import Catalogue
from grpo_platform.registry.entities import version_ref
from grpo_platform.registry.names import Tag
from grpo_platform.registry.packaging import policy_from_files
from grpo_platform.registry.records import Comparison, ModelEnvironment

__all__ = [
    "COMPARISON_EPISODES",
    "COMPARISON_SEED",
    "Evaluate",
    "Evidence",
    "check_environment",
    "judge",
    "play",
]

COMPARISON_EPISODES: Final = 100
"""Episodes that both versions play, each from the same seeds."""

COMPARISON_SEED: Final = 77_019_403
"""Gives the seeds of comparisons; a reported evaluation uses `EVALUATION_SEED`."""


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


class Evaluate(Protocol):
    """What `grpo.evaluate` does, wherever."""

    def __call__(
        self,
        policy: Policy,
        env_name: str,
        /,
        *,
        env_kwargs: Mapping[str, Any] | None,
        n_episodes: int,
        seed: int,
    ) -> Evaluation:
        """Play a policy."""


def play(
    catalogue: Catalogue, candidate: ModelVersion, champion: ModelVersion, evaluate: Evaluate
) -> Evidence:
    """Let both play the same episodes, greedily, on the environment's own reward.

    Args:
        catalogue: the registry.
        candidate: the new version.
        champion: the one that serves.
        evaluate: plays a policy.

    Raises:
        UnsafeModelError: the files of one are not what was registered.
        GRPOError: the environment cannot be evaluated here.
    """
    new, old = (_evaluate(catalogue, version, evaluate) for version in (candidate, champion))
    interval = paired_difference(new, old)
    comparison = Comparison(
        champion=int(champion.version),
        episodes=COMPARISON_EPISODES,
        seed=COMPARISON_SEED,
        candidate_mean=new.mean,
        champion_mean=old.mean,
        difference=interval.estimate,
        ci_low=interval.low,
        ci_high=interval.high,
        equal=bool((new.returns == old.returns).all()),
    )
    episodes: dict[str, object] = {
        "model": candidate.name,
        "comparison": dataclasses.asdict(comparison) | {"candidate": int(candidate.version)},
        "seeds": new.seeds.tolist(),
        "candidate_returns": new.returns.tolist(),
        "champion_returns": old.returns.tolist(),
    }
    return Evidence(comparison, episodes)


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
    if c.equal:
        return True, f"Equal on every seed: {figures}."
    wins = c.ci_low > 0.0
    return wins, f"{'Better' if wins else 'Not shown to be better'}: {figures}."


def _evaluate(catalogue: Catalogue, version: ModelVersion, evaluate: Evaluate) -> Evaluation:
    policy = policy_from_files(catalogue.read(version_ref(version)))
    card = _card(version)
    return evaluate(
        policy,
        card.env_name,
        env_kwargs=card.env_kwargs,
        n_episodes=COMPARISON_EPISODES,
        seed=COMPARISON_SEED,
    )


def _card(version: ModelVersion) -> ModelCard:
    return ModelCard.from_json(version.tags.get(Tag.CARD, ""))
