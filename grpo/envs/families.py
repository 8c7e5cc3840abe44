"""Families of environments that are stepped and branched alike, told by class."""

import sys
from typing import Any

import gymnasium as gym

__all__ = ["FAMILIES", "family_of"]

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

_BY_CLASS = {
    "gymnasium.envs.classic_control.cartpole.CartPoleEnv": "cartpole",
    "gymnasium.envs.classic_control.acrobot.AcrobotEnv": "acrobot",
    "gymnasium.envs.classic_control.mountain_car.MountainCarEnv": "mountain_car",
    "gymnasium.envs.classic_control.continuous_mountain_car.Continuous_MountainCarEnv": (
        "mountain_car_continuous"
    ),
    "gymnasium.envs.classic_control.pendulum.PendulumEnv": "pendulum",
}


def family_of(env: gym.Env[Any, Any]) -> str:
    """Family of an instance, one of `FAMILIES`."""
    core = type(env.unwrapped)
    known = _BY_CLASS.get(f"{core.__module__}.{core.__qualname__}")
    if known is not None:
        return known
    # Without importing an engine: where an environment uses one, it is imported by now.
    mujoco = sys.modules.get("gymnasium.envs.mujoco.mujoco_env")
    if mujoco is not None and isinstance(env.unwrapped, mujoco.MujocoEnv):
        return "mujoco"
    return "box2d" if _holds_box2d_world(env.unwrapped) else "other"


def _holds_box2d_world(env: gym.Env[Any, Any]) -> bool:
    box2d = sys.modules.get("Box2D")
    if box2d is None:
        return False
    return any(isinstance(value, box2d.b2World) for value in vars(env).values())
