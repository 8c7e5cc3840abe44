"""Rewards that can be trained on, by name; plug-ins come in by the entry point `grpo.rewards`."""

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from grpo.envs import EnvironmentSpec
from grpo.errors import IncompatibleError, RewardError, UnknownNameError, in_words

__all__ = [
    "ENTRY_POINT_GROUP",
    "RewardDefinition",
    "RewardFunction",
    "describe_rewards",
    "get_reward",
    "optimized_cartpole",
    "reward_names",
    "simple_cartpole",
]

ENTRY_POINT_GROUP = "grpo.rewards"
"""Distributions add rewards by an entry point of this group that names a `RewardDefinition`, or
a plain `RewardFunction`; the entry point's name is the reward's. One that does not load, or takes
a name that there is, is left out and logged."""

_log = logging.getLogger(__name__)

_POLE_LIMIT = 0.2095  # radians: |θ| at which CartPole ends

FloatArray = npt.NDArray[np.float64]


class RewardFunction(Protocol):
    """Rewards of one step of N members."""

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
            actions: shape (N,) indices from 0, or (N, *action_shape) within the bounds.
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


def reward_names() -> tuple[str, ...]:
    """Names of all rewards, plug-ins included; sorted."""
    return tuple(sorted(_registry().found))


def describe_rewards() -> list[dict[str, str]]:
    """Name, description and environments of each reward, as JSON values; sorted by name."""
    return [
        {"name": name, "description": found.description, "environments": found.fits_description}
        for name, found in sorted(_registry().found.items())
    ]


def get_reward(name: str, env_spec: EnvironmentSpec) -> RewardFunction:
    """The reward of that name, for that environment; what it returns is checked at each call.

    Raises:
        UnknownNameError: no such reward.
        IncompatibleError: it does not fit the environment, or is a plug-in that does not load.
    """
    registry, broken = _registry()
    if name in broken:
        raise IncompatibleError(
            f"The plug-in of the reward {name!r} does not load: {broken[name]}.",
            field="reward_function_type",
        )
    found = registry.get(name)
    if found is None:
        raise UnknownNameError("reward_function_type", name, registry)
    if not found.fits(env_spec):
        fitting = ", ".join(key for key, other in sorted(registry.items()) if other.fits(env_spec))
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


class _Registry(NamedTuple):
    found: Mapping[str, RewardDefinition]
    broken: Mapping[str, str]
    """Plug-ins that are left out, by name, and why."""


@functools.cache
def _registry() -> _Registry:
    found, broken = dict(_BUILT_IN), dict[str, str]()
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name in found:
            _log.warning("A second reward %r is left out: %s.", entry.name, entry.value)
            continue
        try:
            found[entry.name] = _load(entry)
        except RewardError as error:
            _log.warning("The reward %r is left out: %s", entry.name, error, exc_info=True)
            broken[entry.name] = str(error)
    return _Registry(found, broken)


def _load(entry: EntryPoint) -> RewardDefinition:
    try:
        loaded = entry.load()
    except (Exception, SystemExit) as error:
        raise RewardError(in_words(error)) from error
    if isinstance(loaded, RewardDefinition):
        return loaded
    if not callable(loaded):
        raise RewardError(f"it is a {type(loaded).__name__}, not a RewardDefinition or a function")
    lines = (loaded.__doc__ or "No description.").strip().splitlines()
    return RewardDefinition(function=loaded, description=lines[0])
