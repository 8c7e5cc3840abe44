"""An environment that draws nothing, and that nobody can put into the same state twice."""

import os
import threading

import gymnasium as gym
import numpy as np
from gymnasium import spaces

ODD = "tests/Odd-v0"


class Odd(gym.Env):
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.lock = threading.Lock()  # cannot be copied
        return self.observe(), {}

    def step(self, action):
        return self.observe(), 1.0, False, False, {}

    def observe(self):
        return np.frombuffer(os.urandom(2), np.uint8).astype(float)


gym.register(ODD, Odd, max_episode_steps=20)
