"""Pendulum for all members at once, bit-equal to Gymnasium's `PendulumEnv`."""

from typing import Any

import numpy as np
import numpy.typing as npt

from grpo.envs.classic_control import ClassicControlVecEnv, Float64Array
from grpo.envs.spec import EnvironmentSpec
from grpo.envs.vec_env import FloatArray

__all__ = ["PendulumVecEnv"]

_SECONDS = 0.05  # of a step
_MAX_SPEED, _MAX_TORQUE = 8.0, 2.0
_MASS = _LENGTH = 1.0


class PendulumVecEnv(ClassicControlVecEnv):
    """Rows of the state: θ, θ̇, and the steps so far. θ = 0 is upright and is not wrapped."""

    family = "pendulum"
    rows = 3
    kwargs = frozenset({"g"})

    def __init__(self, spec: EnvironmentSpec, num_members: int) -> None:
        super().__init__(spec, num_members)
        self._pull = 3 * spec.env_kwargs.get("g", 10.0) / (2 * _LENGTH)

    def _initial(self, generator: np.random.Generator) -> Float64Array:
        high = np.array([np.pi, 1.0])
        return generator.uniform(low=-high, high=high)

    def _observe(self, block: Float64Array) -> FloatArray:
        observations = np.empty((block.shape[1], 3), dtype=np.float32)
        observations[:, 0] = np.cos(block[0])
        observations[:, 1] = np.sin(block[0])
        observations[:, 2] = block[1]
        return observations

    def _advance(
        self, block: Float64Array, actions: npt.NDArray[Any]
    ) -> tuple[FloatArray, Float64Array, npt.NDArray[np.bool_]]:
        theta, speed = block[0], block[1]
        torque = np.clip(actions.astype(np.float32, copy=False)[:, 0], -_MAX_TORQUE, _MAX_TORQUE)
        angle = ((theta + np.pi) % (2 * np.pi)) - np.pi
        cost = (
            np.float_power(angle, 2.0)
            + 0.1 * np.float_power(speed, 2.0)
            + np.float32(0.001) * _squared(torque)
        )
        speed += (
            self._pull * np.sin(theta) + np.float32(3.0 / (_MASS * _LENGTH**2)) * torque
        ) * _SECONDS
        np.minimum(np.maximum(speed, -_MAX_SPEED), _MAX_SPEED, out=speed)
        theta += speed * _SECONDS
        return self._observe(block), -cost, np.zeros(len(cost), dtype=np.bool_)


def _squared(torque: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    # Scalar by scalar, as Gymnasium does: the C library's powf rounds differently from x·x.
    return np.array([x**2 for x in torque], dtype=np.float32)
