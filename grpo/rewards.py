"""Rewards that can be trained on, by name; plug-ins come in by the entry point `grpo.rewards`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from grpo.envs import EnvironmentSpec
from grpo.errors import IncompatibleError, RewardError, in_words
from grpo.registry import Objects, Registry

__all__ = [
    "ENTRY_POINT_GROUP",
    "REWARDS",
    "RewardDefinition",
    "RewardFunction",
    "describe_rewards",
    "get_reward",
    "optimized_cartpole",
    "simple_cartpole",
]

ENTRY_POINT_GROUP = "grpo.rewards"
"""Distributions add rewards by an entry point of this group that names a `RewardDefinition`, or
a plain `RewardFunction`; the entry point's name is the reward's. One that does not load, or takes
a name that there is, is left out and logged."""

_POLE_LIMIT = 0.2095  # radians: |θ| at which CartPole ends

FloatArray = npt.NDArray[np.float64]


class RewardFunction(Protocol):
    """Rewards of N steps: all those of an iteration, whatever their members and times."""

    def __call__(
        self,
        next_observations: FloatArray,
        actions: npt.NDArray[Any],
        rewards: FloatArray,
        terminated: npt.NDArray[np.bool_],
        /,
    ) -> FloatArray:
        """Score N steps, each by itself.

        Args:
            next_observations: shape (N, *observation_shape), observations after the step.
            actions: as the environment takes them: shape (N,) integers, or (N, *action_shape).
            rewards: shape (N,), the environment's own.
            terminated: shape (N,), whether the episode ended there; a truncation is none.

        Returns:
            Shape (N,), finite.
        """


def _any_environment(spec: EnvironmentSpec) -> bool:
    del spec
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardDefinition:
    """A reward, what it says of itself, and the environments that it fits."""

    function: RewardFunction
    """Computes it."""

    description: str
    """One sentence for whoever chooses."""

    fits: Callable[[EnvironmentSpec], bool] = _any_environment
    """Whether it makes sense on an environment."""

    fits_description: str = "any environment"
    """The same in words, for error messages and lists."""


def optimized_cartpole(
    next_observations: FloatArray,
    actions: npt.NDArray[Any],
    rewards: FloatArray,
    terminated: npt.NDArray[np.bool_],
) -> FloatArray:
    """1.5 + 3·exp(−8|θ|) + exp(−1.5x²) − 2·max(0, |x|−2), clipped to [0.1, 6].

    x is the cart's position (observation 0), θ the pole's angle in radians (observation 2).
    """
    del actions, rewards, terminated
    x, theta = next_observations[:, 0], next_observations[:, 2]
    reward = 1.5 + 3.0 * np.exp(-8.0 * np.abs(theta)) + np.exp(-1.5 * np.square(x))
    return np.clip(reward - 2.0 * np.maximum(0.0, np.abs(x) - 2.0), 0.1, 6.0)


def simple_cartpole(
    next_observations: FloatArray,
    actions: npt.NDArray[Any],
    rewards: FloatArray,
    terminated: npt.NDArray[np.bool_],
) -> FloatArray:
    """1 − |θ|/0.2095, clipped to [0.1, 1]; θ is the pole's angle in radians (observation 2)."""
    del actions, rewards, terminated
    return np.clip(1.0 - np.abs(next_observations[:, 2]) / _POLE_LIMIT, 0.1, 1.0)


def _environment(
    next_observations: FloatArray,
    actions: npt.NDArray[Any],
    rewards: FloatArray,
    terminated: npt.NDArray[np.bool_],
) -> FloatArray:
    del next_observations, actions, terminated
    return rewards


_BUILT_IN: Mapping[str, RewardDefinition] = {
    "environment": RewardDefinition(
        function=_environment, description="The environment's own reward."
    ),
    "optimized_cartpole": RewardDefinition(
        function=optimized_cartpole,
        description="Upright pole, cart near the middle; dense, 0.1 to 6 a step.",
        fits=lambda spec: spec.observes_cartpole,
        fits_description="CartPole",
    ),
    "simple_cartpole": RewardDefinition(
        function=simple_cartpole,
        description="Upright pole; dense, 0.1 to 1 a step.",
        fits=lambda spec: spec.observes_cartpole,
        fits_description="CartPole",
    ),
}


def _definition(thing: object) -> RewardDefinition:
    if isinstance(thing, RewardDefinition):
        return thing
    if not callable(thing):
        raise TypeError(f"it is a {type(thing).__name__}, not a RewardDefinition or a function")
    lines = (thing.__doc__ or "No description.").strip().splitlines()
    return RewardDefinition(function=thing, description=lines[0])


REWARDS: Registry[RewardDefinition] = Registry(
    "reward_function_type", ENTRY_POINT_GROUP, _BUILT_IN, _definition
)
"""All rewards by name."""


def describe_rewards() -> list[dict[str, str]]:
    """Name, description and environments of each reward, as JSON values; sorted by name."""
    return [
        {"name": name, "description": found.description, "environments": found.fits_description}
        for name, found in REWARDS.items()
    ]


def get_reward(
    name: str, env_spec: EnvironmentSpec, objects: Objects | None = None
) -> RewardFunction:
    """The reward of that name, for that environment; what it returns is checked at each call.

    Args:
        name: of `REWARDS`, or of one that was handed in.
        env_spec: the environment.
        objects: those that were handed in.

    Raises:
        UnknownNameError: no such reward.
        IncompatibleError: it does not fit the environment, or is a plug-in that does not load.
    """
    found = REWARDS.get(name, objects)
    if not found.fits(env_spec):
        fitting = ", ".join(key for key, other in REWARDS.items() if other.fits(env_spec))
        why = f" ({', '.join(env_spec.deviations)})" if env_spec.deviations else ""
        raise IncompatibleError(
            f"The reward {name!r} is made for {found.fits_description}, not for "
            f"{env_spec.env_name}{why}. Rewards that fit it: {fitting}.",
            field="reward_function_type",
        )
    return _checked(name, found.function)


def _checked(name: str, function: RewardFunction) -> RewardFunction:
    def checked(
        next_observations: FloatArray,
        actions: npt.NDArray[Any],
        rewards: FloatArray,
        terminated: npt.NDArray[np.bool_],
        /,
    ) -> FloatArray:
        try:
            result = np.asarray(
                function(next_observations, actions, rewards, terminated), dtype=np.float64
            )
        except Exception as error:
            raise RewardError(f"The reward {name!r} raised {in_words(error)}.") from error
        if result.shape != rewards.shape:
            raise RewardError(
                f"The reward {name!r} returned shape {result.shape}; it must return one number "
                f"for each of the {len(rewards)} steps, shape {rewards.shape}."
            )
        if not np.isfinite(result).all():
            i = int(np.flatnonzero(~np.isfinite(result))[0])
            raise RewardError(
                f"The reward {name!r} returned NaN or infinity: {result[i]} for step {i + 1} of "
                f"{len(rewards)}, with the environment's reward {rewards[i]} and the next "
                f"observation {np.array2string(next_observations[i], threshold=8)}."
            )
        return result

    return checked
