"""Families of environments that are stepped and branched alike, and what sets one apart."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers

__all__ = ["FAMILIES", "deviations_of", "family_of", "layers_of", "time_limit_of"]

FAMILIES = (
    "cartpole",
    "acrobot",
    "mountain_car",
    "mountain_car_continuous",
    "pendulum",
    "mujoco",
    "box2d",
    "other",
)
"""Classic control's five, one each; then by physics engine."""

_CLASSIC = {
    "gymnasium.envs.classic_control.cartpole.CartPoleEnv": "cartpole",
    "gymnasium.envs.classic_control.acrobot.AcrobotEnv": "acrobot",
    "gymnasium.envs.classic_control.mountain_car.MountainCarEnv": "mountain_car",
    "gymnasium.envs.classic_control.continuous_mountain_car.Continuous_MountainCarEnv": (
        "mountain_car_continuous"
    ),
    "gymnasium.envs.classic_control.pendulum.PendulumEnv": "pendulum",
}

_REPRODUCED = (wrappers.TimeLimit, wrappers.OrderEnforcing, wrappers.PassiveEnvChecker)
"""What `gymnasium.make` wraps around an environment: its effect is known, and reproduced."""

_OF_MAKE = frozenset({"max_episode_steps", "disable_env_checker", "wrappers"})
"""Keyword arguments that do not reach the environment's class."""

Environment = gym.Env[Any, Any]


def layers_of(env: Environment) -> Iterator[Environment]:
    """The wrappers of an instance, from the outermost, then the environment inside."""
    yield env
    while isinstance(env, gym.Wrapper):
        env = env.env
        yield env


def family_of(env: Environment) -> str:
    """Family of an instance, one of `FAMILIES`.

    One of classic control's five only where observations are the environment's own: who asks for
    CartPole reads components by their place.
    """
    *outer, core = layers_of(env)
    classic = _CLASSIC.get(_name(type(core)))
    if classic is not None:
        return classic if all(map(_keeps_observations, outer)) else "other"
    # Without importing an engine: where an environment uses one, it is imported by now.
    mujoco = sys.modules.get("gymnasium.envs.mujoco.mujoco_env")
    if mujoco is not None and isinstance(core, mujoco.MujocoEnv):
        return "mujoco"
    return "box2d" if _holds_box2d_world(core) else "other"


def deviations_of(env: Environment, kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """What sets a new instance apart from what Gymnasium makes of its class, in words.

    Args:
        env: never reset before.
        kwargs: those that it was made with, as a caller of `gymnasium.make` gave them.

    Returns:
        Such as "it is wrapped in Truncate"; empty if it is Gymnasium's own.
    """
    *outer, core = layers_of(env)
    found = [
        f"it is wrapped in {type(layer).__name__}"
        for layer in outer
        if type(layer) not in _REPRODUCED
    ]
    kind = type(core)
    if not kind.__module__.startswith("gymnasium.envs."):
        return (*found, f"{kind.__name__} is not a class of Gymnasium's")
    if env.observation_space is not core.observation_space:
        found.append("its observations are declared anew")
    if env.action_space is not core.action_space:
        found.append("its actions are declared anew")
    if _name(kind) in _CLASSIC:
        own = {name: value for name, value in kwargs.items() if name not in _OF_MAKE}
        try:
            found += [f"its {name} was changed" for name in _changed(core, kind(**own))]
        except TypeError:
            found.append("it is made from keyword arguments of another kind")
    return tuple(found)


def time_limit_of(env: Environment) -> int | None:
    """Steps after which an instance truncates an episode; None without a time limit."""
    limits = [
        layer._max_episode_steps
        for layer in layers_of(env)
        if isinstance(layer, wrappers.TimeLimit)
    ]
    return min(limits, default=None)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _keeps_observations(layer: Environment) -> bool:
    kind = type(layer)
    if kind in (*_REPRODUCED, wrappers.RecordEpisodeStatistics):
        return True
    base = next((b for b in (gym.RewardWrapper, gym.ActionWrapper) if issubclass(kind, b)), None)
    if base is None:
        return False
    inherited = ("step", "reset", "observation_space")
    return all(
        inspect.getattr_static(kind, n) is inspect.getattr_static(base, n) for n in inherited
    )


def _changed(core: Environment, reference: Environment) -> list[str]:
    """Attributes of an instance that are not as in a plain one of its class."""
    ours, theirs = vars(core), vars(reference)
    names = sorted((ours.keys() | theirs.keys()) - {"spec"})
    missing = object()
    return [n for n in names if not _same(ours.get(n, missing), theirs.get(n, missing))]


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return a is b or (type(a) is type(b) and bool(a == b))


def _holds_box2d_world(core: Environment) -> bool:
    box2d = sys.modules.get("Box2D")
    if box2d is None:
        return False
    return any(isinstance(value, box2d.b2World) for value in vars(core).values())
