"""A cart on a rail that has to come to rest at a dock."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

__all__ = ["Docking"]

Observation = npt.NDArray[np.float32]

_SECONDS = 0.1  # of a step
_RAIL = 2.0  # metres from the dock, to both sides


class Docking(gym.Env[Observation, np.int64]):
    """Observed are distance (m) and speed (m/s); the actions brake left, coast, brake right.

    The episode ends when the cart leaves the rail, which costs 10, and when it rests at the dock,
    which earns 5; each step costs the distance, in metres, times its 0.1 seconds.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self._distance = 0.0
        self._speed = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Put the cart somewhere on the rail, moving."""
        super().reset(seed=seed)
        self._distance, self._speed = self.np_random.uniform(-0.8, 0.8, 2).tolist()
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Accelerate by −2, 0 or 2 m/s² for a tenth of a second."""
        self._speed += 2.0 * (int(action) - 1) * _SECONDS
        self._distance += self._speed * _SECONDS
        reward = -abs(self._distance) * _SECONDS
        lost = abs(self._distance) > _RAIL
        docked = abs(self._distance) < 0.05 and abs(self._speed) < 0.15
        reward += 5.0 * docked - 10.0 * lost
        return self._observation(), reward, lost or docked, False, {}

    def _observation(self) -> Observation:
        return np.array([self._distance, self._speed], dtype=np.float32)
