"""LunarLander whose actions are a Dict: no package of reasonable size brings such an environment.

It registers `LunarLanderDict-v0` when it is imported: Gymnasium's LunarLanderContinuous, whose two
numbers are a throttle for the main engine and a choice among the side engines here.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

_SIDE = (-1.0, 0.0, 1.0)  # the left engine, neither, the right one


class DictActions(gymnasium.ActionWrapper[Any, Any, Any]):
    """The lander, steered by `{"main": Box(1), "side": Discrete(3)}`."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = spaces.Dict(
            {"main": spaces.Box(-1.0, 1.0, (1,), np.float32), "side": spaces.Discrete(len(_SIDE))}
        )

    def action(self, action: dict[str, Any]) -> np.ndarray:
        """Both engines' throttles, shape (2,)."""
        return np.array([action["main"][0], _SIDE[action["side"]]], np.float32)


def make(**kwargs: object) -> gymnasium.Env[Any, Any]:
    """One instance."""
    return DictActions(gymnasium.make("LunarLanderContinuous-v3", **kwargs).env)


gymnasium.register("LunarLanderDict-v0", make, max_episode_steps=1000)
