"""CartPole for all members at once, bit-equal to Gymnasium's `CartPoleEnv`."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from grpo.envs.classic_control import ClassicControlVecEnv, Float64Array
from grpo.envs.spec import EnvironmentSpec
from grpo.envs.vec_env import FloatArray

__all__ = ["CartPoleVecEnv"]

_TAU = np.array(0.02)  # seconds a step; constants are arrays since ufuncs take those fastest
_GRAVITY = np.array(9.8)
_POLE_MASS = np.array(0.1)
_TOTAL_MASS = np.array(0.1 + 1.0)
_LENGTH = np.array(0.5)
_POLE_MASS_LENGTH = np.array(0.1 * 0.5)
_FOUR_THIRDS = np.array(4.0 / 3.0)
_FORCE = np.array([-10.0, 10.0])
_LIMITS = np.array([[2.4], [12 * 2 * math.pi / 360]])  # of |x| and |θ|


class _Scratch(NamedTuple):
    """Arrays that a step of n members writes into; all but `acceleration` of shape (n,)."""

    cos: Float64Array
    sin: Float64Array
    temp: Float64Array
    inertia: Float64Array
    acceleration: Float64Array
    """Shape (2, n), of x and θ; the next two are its rows."""
    cart: Float64Array
    pole: Float64Array
    change: Float64Array
    """Shape (2, n)."""


class CartPoleVecEnv(ClassicControlVecEnv):
    """Rows of the state: x, θ, their velocities ẋ and θ̇, and the steps so far."""

    family = "cartpole"
    rows = 5
    kwargs = frozenset({"sutton_barto_reward"})
    order = (0, 2, 1, 3)

    def __init__(self, spec: EnvironmentSpec, num_members: int) -> None:
        super().__init__(spec, num_members)
        self._sutton_barto_reward = bool(spec.env_kwargs.get("sutton_barto_reward", False))
        self._scratch: dict[int, _Scratch] = {}
        self._ones = np.ones(num_members)
        self._ones.setflags(write=False)

    def _initial(self, generator: np.random.Generator) -> Float64Array:
        return generator.uniform(low=-0.05, high=0.05, size=(4,))[list(self.order)]

    def _observe(self, block: Float64Array) -> FloatArray:
        observations = np.empty((block.shape[1], 4), dtype=np.float32)
        observations[:, 0::2] = block[0:2].T
        observations[:, 1::2] = block[2:4].T
        return observations

    def _advance(
        self, block: Float64Array, actions: npt.NDArray[Any]
    ) -> tuple[FloatArray, Float64Array, npt.NDArray[np.bool_]]:
        position, velocity = block[0:2], block[2:4]
        scratch = self._accelerate(block[1], block[3], _FORCE.take(actions))
        # Explicit Euler: the position moves by the velocity before this step.
        np.multiply(velocity, _TAU, scratch.change)
        np.add(position, scratch.change, position)
        np.multiply(scratch.acceleration, _TAU, scratch.acceleration)
        np.add(velocity, scratch.acceleration, velocity)
        outside = np.abs(position) > _LIMITS
        terminated: npt.NDArray[np.bool_] = outside[0] | outside[1]
        return self._observe(block), self._rewards(terminated), terminated

    def _rewards(self, terminated: npt.NDArray[np.bool_]) -> Float64Array:
        if self._sutton_barto_reward:
            return np.where(terminated, -1.0, 0.0)
        return self._ones[: len(terminated)]

    def _accelerate(self, theta: Float64Array, spin: Float64Array, force: Float64Array) -> _Scratch:
        """Accelerations ẍ and θ̈, after https://coneural.org/florian/papers/05_cart_pole.pdf.

        temp = (force + m_p l θ̇² sin θ) / M
        θ̈ = (g sin θ − cos θ temp) / (l (4/3 − m_p cos² θ / M))
        ẍ = temp − m_p l θ̈ cos θ / M
        """
        scratch = self._scratch.get(len(theta)) or self._new_scratch(len(theta))
        cos, sin, temp, inertia, _, cart, pole, _ = scratch
        np.cos(theta, cos)
        np.sin(theta, sin)
        np.square(spin, temp)
        np.multiply(temp, _POLE_MASS_LENGTH, temp)
        np.multiply(temp, sin, temp)
        np.add(temp, force, temp)
        np.divide(temp, _TOTAL_MASS, temp)
        np.square(cos, inertia)
        np.multiply(inertia, _POLE_MASS, inertia)
        np.divide(inertia, _TOTAL_MASS, inertia)
        np.subtract(_FOUR_THIRDS, inertia, inertia)
        np.multiply(inertia, _LENGTH, inertia)
        np.multiply(sin, _GRAVITY, sin)
        np.multiply(cos, temp, cart)
        np.subtract(sin, cart, pole)
        np.divide(pole, inertia, pole)
        np.multiply(pole, _POLE_MASS_LENGTH, cart)
        np.multiply(cart, cos, cart)
        np.divide(cart, _TOTAL_MASS, cart)
        np.subtract(temp, cart, cart)
        return scratch

    def _new_scratch(self, n: int) -> _Scratch:
        single, acceleration = np.empty((4, n)), np.empty((2, n))
        scratch = _Scratch(
            *(single[0], single[1], single[2], single[3]),
            *(acceleration, acceleration[0], acceleration[1]),
            np.empty((2, n)),
        )
        self._scratch[n] = scratch
        return scratch
