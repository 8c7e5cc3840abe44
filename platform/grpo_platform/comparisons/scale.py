"""One scale for returns of different environments: 0 acts at random, 1 is the reward threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import gymnasium as gym

import grpo
from grpo.envs import check_environment
from grpo.verdict import RandomPolicy
from grpo_platform.comparisons.sides import Contestant
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.tracking.histories import History

__all__ = ["check_environments", "normalized"]

_EPISODES: Final = 100
_OWN: Final = "gymnasium.envs."


def check_environments(sides: Sequence[Contestant], normalize: bool) -> None:
    """Refuse sides whose returns do not mean the same, or that cannot be put on one scale.

    Raises:
        InvalidRequestError: they are of different environments and not to be normalised; or are,
            and an environment has no scale.
    """
    names = list(dict.fromkeys(side.env_name for side in sides))
    if normalize:
        for name in names:
            _threshold(name)
    elif len(names) > 1:
        raise InvalidRequestError(
            f"Returns of {' and '.join(names)} do not compare. Name sides of one environment, or "
            "set normalize to put both between a policy that acts at random and the environment's "
            "reward threshold.",
            field="references",
        )


def normalized(sides: Sequence[Contestant]) -> list[Contestant]:
    """The sides with their returns and histories on the scale.

    Raises:
        InvalidRequestError: an environment's random policy does not stay below its threshold.
        grpo.GRPOError: an environment cannot be played here.
    """
    ends: dict[str, tuple[float, float]] = {}
    found = []
    for side in sides:
        key = f"{side.env_name} {sorted(side.env_kwargs.items())}"
        if key not in ends:
            ends[key] = _ends(side.env_name, side.env_kwargs)
        low, high = ends[key]
        histories = tuple(History(h.steps, (h.values - low) / (high - low)) for h in side.histories)
        returns = (side.returns - low) / (high - low)
        found.append(replace(side, returns=returns, histories=histories))
    return found


def _threshold(env_name: str) -> float:
    spec = gym.registry.get(env_name)
    if spec is None or not str(spec.entry_point).startswith(_OWN) or spec.reward_threshold is None:
        raise InvalidRequestError(
            f"{env_name} has no scale: only Gymnasium's own environments that have a reward "
            "threshold can be normalised.",
            field="normalize",
        )
    return float(spec.reward_threshold)


def _ends(env_name: str, env_kwargs: Mapping[str, Any]) -> tuple[float, float]:
    """Mean return of random actions, and the threshold."""
    played = grpo.evaluate(
        RandomPolicy(check_environment(env_name, env_kwargs)),
        env_name,
        env_kwargs=env_kwargs,
        n_episodes=_EPISODES,
    )
    if not played.mean < (high := _threshold(env_name)):
        raise InvalidRequestError(
            f"{env_name} has no scale: actions at random return {played.mean:,.1f}, and its reward "
            f"threshold is {high:,.1f}.",
            field="normalize",
        )
    return played.mean, high
