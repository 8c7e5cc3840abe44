"""Both mountain cars for all members at once, bit-equal to Gymnasium's environments."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo.envs.classic_control import ClassicControlVecEnv, Float64Array
from grpo.envs.spec import EnvironmentSpec
from grpo.envs.vec_env import FloatArray

__all__ = ["MountainCarContinuousVecEnv", "MountainCarVecEnv"]

_MIN_POSITION, _MAX_POSITION = -1.2, 0.6
_MAX_SPEED = 0.07
_FORCE, _GRAVITY = 0.001, 0.0025
_POWER = 0.0015
_GOAL, _CONTINUOUS_GOAL = 0.5, 0.45


class _Car(ClassicControlVecEnv):
    """Rows of the state: position, velocity, and the steps so far."""

    rows = 3
    kwargs = frozenset({"goal_velocity"})

    def __init__(self, spec: EnvironmentSpec, num_members: int) -> None:
        super().__init__(spec, num_members)
        self._goal_velocity = spec.env_kwargs.get("goal_velocity", 0)

    def _initial(self, generator: np.random.Generator) -> Float64Array:
        return np.array([generator.uniform(low=-0.6, high=-0.4), 0.0])

    def _observe(self, block: Float64Array) -> FloatArray:
        return block[:2].T.astype(np.float32)


class MountainCarVecEnv(_Car):
    """Three pushes; −1 a step."""

    family = "mountain_car"

    def _advance(
        self, block: Float64Array, actions: npt.NDArray[Any]
    ) -> tuple[FloatArray, Float64Array, npt.NDArray[np.bool_]]:
        position, velocity = block[0], block[1]
        velocity += (actions - 1) * _FORCE + _slope(position) * (-_GRAVITY)
        np.minimum(np.maximum(velocity, -_MAX_SPEED), _MAX_SPEED, out=velocity)
        position += velocity
        np.minimum(np.maximum(position, _MIN_POSITION), _MAX_POSITION, out=position)
        velocity[(position == _MIN_POSITION) & (velocity < 0)] = 0.0
        terminated: npt.NDArray[np.bool_] = (position >= _GOAL) & (velocity >= self._goal_velocity)
        return self._observe(block), np.full(len(terminated), -1.0), terminated


class MountainCarContinuousVecEnv(_Car):
    """A push from −1 to 1; 100 at the goal, less the effort.

    Gymnasium keeps the state in single precision, except the one that a reset makes; the first
    step of an episode therefore rounds differently from all later ones.
    """

    family = "mountain_car_continuous"

    def _advance(
        self, block: Float64Array, actions: npt.NDArray[Any]
    ) -> tuple[FloatArray, Float64Array, npt.NDArray[np.bool_]]:
        push = actions.astype(np.float32, copy=False)[:, 0]
        fresh = block[-1] == 0.0
        if fresh.any():
            terminated = np.empty(len(push), dtype=np.bool_)
            for part, precision in ((fresh, "float64"), (~fresh, "float32")):
                state: FloatArray = block[:2, part].astype(precision)
                terminated[part] = self._drive(state, push[part])
                block[:2, part] = state.astype(np.float32)
        else:
            state = block[:2].astype(np.float32)
            terminated = self._drive(state, push)
            block[:2] = state
        rewards = np.where(terminated, 100.0, 0.0)
        effort = push.astype(np.float64)
        rewards -= effort * effort * 0.1  # a float32 squared is exact in double precision
        return self._observe(block), rewards, terminated

    def _drive(self, state: FloatArray, push: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        position, velocity = state
        velocity += _effect(push, _slope(position))
        np.minimum(np.maximum(velocity, -_MAX_SPEED), _MAX_SPEED, out=velocity)
        position += velocity
        np.minimum(np.maximum(position, _MIN_POSITION), _MAX_POSITION, out=position)
        velocity[(position == position.dtype.type(_MIN_POSITION)) & (velocity < 0)] = 0.0
        terminated: npt.NDArray[np.bool_] = (position >= _CONTINUOUS_GOAL) & (
            velocity >= self._goal_velocity
        )
        return terminated


def _slope(position: FloatArray) -> Float64Array:
    # Gymnasium calls the C library's cosine here, from which numpy's may differ.
    return np.array([math.cos(x) for x in (3 * position).tolist()])


def _effect(push: npt.NDArray[np.float32], slope: Float64Array) -> npt.NDArray[Any]:
    """Change of the velocity, in single precision."""
    return push * np.float32(_POWER) - (_GRAVITY * slope).astype(np.float32)
