"""Acrobot for all members at once, bit-equal to Gymnasium's `AcrobotEnv`."""

from typing import Any

import numpy as np
import numpy.typing as npt

from grpo.envs.classic_control import ClassicControlVecEnv, Float64Array
from grpo.envs.vec_env import FloatArray

__all__ = ["AcrobotVecEnv"]

# Masses and lengths of both links are 1, their centres of mass lie at 0.5, moments of inertia
# are 1; they stand in the formulas, where Gymnasium has them, so that the rounding is the same.
_MASS = _LENGTH = _INERTIA = 1.0
_CENTRE = 0.5
_GRAVITY = 9.8
_SECONDS = 0.2  # of a step
_MAX_SPEED = np.array([[4 * np.pi], [9 * np.pi]])
_TORQUES = np.array([-1.0, 0.0, 1.0])


class AcrobotVecEnv(ClassicControlVecEnv):
    """Rows of the state: θ₁, θ₂, θ̇₁, θ̇₂, and the steps so far."""

    family = "acrobot"
    rows = 5

    def _initial(self, generator: np.random.Generator) -> Float64Array:
        # Gymnasium rounds the first state, and only that, to single precision.
        return generator.uniform(low=-0.1, high=0.1, size=(4,)).astype(np.float32).astype(float)

    def _observe(self, block: Float64Array) -> FloatArray:
        observations = _observation(block)
        fresh = block[-1] == 0.0
        if fresh.any():
            # The angles of a first state are float32, and so are its sines and cosines.
            observations[fresh] = _observation(block[:, fresh].astype(np.float32))
        return observations

    def _advance(
        self, block: Float64Array, actions: npt.NDArray[Any]
    ) -> tuple[FloatArray, Float64Array, npt.NDArray[np.bool_]]:
        state = _runge_kutta_4(block[:4], _TORQUES.take(actions))
        angles, speeds = state[:2], state[2:]
        _wrap(angles)
        np.minimum(np.maximum(speeds, -_MAX_SPEED), _MAX_SPEED, out=speeds)
        block[:4] = state
        terminated: npt.NDArray[np.bool_] = -np.cos(angles[0]) - np.cos(angles[1] + angles[0]) > 1.0
        return _observation(state), np.where(terminated, 0.0, -1.0), terminated


def _observation(state: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    observations = np.empty((state.shape[1], 6), dtype=np.float32)
    observations[:, 0:4:2] = np.cos(state[:2]).T
    observations[:, 1:4:2] = np.sin(state[:2]).T
    observations[:, 4:6] = state[2:4].T
    return observations


def _wrap(angles: Float64Array) -> None:
    """Bring angles into [−π, π], in place, turn by turn as Gymnasium does."""
    while (above := angles > np.pi).any():
        angles[above] -= 2 * np.pi
    while (below := angles < -np.pi).any():
        angles[below] += 2 * np.pi


def _runge_kutta_4(state: Float64Array, torque: Float64Array) -> Float64Array:
    """State of shape (4, n) after one step, by the classical fourth-order rule."""
    half = _SECONDS / 2.0
    k1 = _derivative(state, torque)
    k2 = _derivative(state + half * k1, torque)
    k3 = _derivative(state + half * k2, torque)
    k4 = _derivative(state + _SECONDS * k3, torque)
    return state + _SECONDS / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)


def _derivative(state: Float64Array, torque: Float64Array) -> Float64Array:
    """Time derivative of states of shape (4, n); Sutton & Barto's equations of motion."""
    m, length, centre, inertia, g = _MASS, _LENGTH, _CENTRE, _INERTIA, _GRAVITY
    theta1, theta2, dtheta1, dtheta2 = state
    cos2, sin2 = np.cos(theta2), np.sin(theta2)
    d1 = (
        m * centre**2 + m * (length**2 + centre**2 + 2 * length * centre * cos2) + inertia + inertia
    )
    d2 = m * (centre**2 + length * centre * cos2) + inertia
    phi2 = m * centre * g * np.cos(theta1 + theta2 - np.pi / 2.0)
    phi1 = (
        -m * length * centre * _squared(dtheta2) * sin2
        - 2 * m * length * centre * dtheta2 * dtheta1 * sin2
        + (m * centre + m * length) * g * np.cos(theta1 - np.pi / 2)
        + phi2
    )
    ddtheta2 = (torque + d2 / d1 * phi1 - m * length * centre * _squared(dtheta1) * sin2 - phi2) / (
        m * centre**2 + inertia - _squared(d2) / d1
    )
    ddtheta1 = -(d2 * ddtheta2 + phi1) / d1
    return np.array((dtheta1, dtheta2, ddtheta1, ddtheta2))


def _squared(values: Float64Array) -> Float64Array:
    # Gymnasium squares numpy scalars, which calls the C library's pow; x·x and np.power differ
    # from it in the last bit of one value in a thousand.
    return np.float_power(values, 2.0)
