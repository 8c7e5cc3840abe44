"""Small environments with known flaws and virtues, registered for a test and gone after it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Walk(gym.Env):
    """A noisy walk whose whole state is in plain attributes; actions are named 5 and 6."""

    observation_space = spaces.Box(-np.inf, np.inf, (2, 2), np.float64)
    action_space = spaces.Discrete(2, start=5)
    steps: ClassVar[int] = 0

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.place = np.zeros((2, 2))
        self.history: list[tuple[int, float]] = []
        self.memory: dict[str, Any] = {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=(2, 2))
        self.history = []
        vars(self).pop("bonus", None)
        self.memory = {"best": np.float64(0.0), "trail": (0, None)}
        return self.place.copy(), {}

    def step(self, action):
        type(self).steps += 1
        assert action in (5, 6), action
        if len(self.history) == self.fail_at:
            raise RuntimeError("the floor gave way")
        self.history.append((int(action), float(self.place[0, 0])))
        self.place += (action - 5.5) * self.np_random.normal(size=(2, 2)) + len(self.history) / 100
        if len(self.history) == 10:
            self.bonus = 3.0  # an attribute that was not there before
        self.memory["best"] = max(self.memory["best"], self.place[0, 1])
        reward = float(self.memory["best"]) + len(self.history) + getattr(self, "bonus", 0.0)
        return self.place.copy(), reward, bool(self.place[1, 1] > 4), False, {}


class _Engine:
    def __init__(self) -> None:
        self.value = 0.0


class Opaque(Walk):
    """State in a foreign object: only a deep copy takes it along."""

    def reset(self, *, seed=None, options=None):
        self.engine = _Engine()
        return super().reset(seed=seed)

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        self.engine.value += observation[0, 0]
        return observation, reward + self.engine.value, terminated, truncated, info


class Locked(Opaque):
    """Cannot be copied at all, but repeats itself."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Wild(Locked):
    """Draws from numpy's global generator: nothing repeats it."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward + np.random.random(), terminated, truncated, info


class Weary(Walk):
    """Plain data, but a used instance does not start as a new one does."""

    def __init__(self) -> None:
        super().__init__()
        self.age = 0

    def step(self, action):
        self.age += 1
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward + self.age, terminated, truncated, info


class Clinging(Walk):
    """Its copies share a connection, as pybullet's do: closed once, it is gone for all."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = _Connection()

    def close(self):
        self.connection.close()


class _Connection:
    def __init__(self) -> None:
        self.open = True

    def __deepcopy__(self, memo):
        return self

    def close(self):
        if not self.open:
            raise RuntimeError("Not connected to physics server.")
        self.open = False


class Slow(Walk):
    """Every step takes a while."""

    seconds: ClassVar[float] = 0.005

    def step(self, action):
        time.sleep(self.seconds)
        return super().step(action)


class Thermostat(gym.Env):
    """One number is observed and one is the action, as scalars or as whole numbers."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, *, whole: bool = False, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-10.0, 10.0, (), np.float64)
        self.action_space = (
            spaces.Box(-3, 5, (2,), np.int64) if whole else spaces.Box(-1.0, 1.0, (), np.float32)
        )
        self.temperature = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.temperature = float(self.np_random.uniform(-5, 5))
        return np.array(self.temperature), {}

    def step(self, action):
        assert self.action_space.contains(action), repr(action)
        self.temperature = float(np.clip(self.temperature + np.sum(action), -10, 10))
        return np.array(self.temperature), -abs(self.temperature), False, False, {}

    def render(self):
        return np.full((64, 64, 3), int(abs(self.temperature) * 20), np.uint8)


class Shaped(gym.Env):
    """Spaces, observation and reward as the caller likes."""

    def __init__(
        self,
        observation_space=None,
        action_space=None,
        first=None,
        observation=None,
        reward=0.0,
    ):
        self.observation_space = observation_space or spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = action_space or spaces.Discrete(2)
        zeros = np.zeros(self.observation_space.shape or (), np.float32)
        self.first = zeros if first is None else first
        self.observation = zeros if observation is None else observation
        self.reward = reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.first, {}

    def step(self, action):
        return self.observation, self.reward, False, False, {}


class Truncate(gym.Wrapper):
    """Cuts episodes, as a wrapper of somebody's own may."""

    def __init__(self, env, limit=60):
        super().__init__(env)
        self.limit = limit

    def reset(self, **kwargs):
        self.taken = 0
        return super().reset(**kwargs)

    def step(self, action):
        self.taken += 1
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated or self.taken >= self.limit, info


class Bonus(gym.Wrapper):
    """Adds 100 at the goal."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward + 100.0 * terminated, terminated, truncated, info


class Pushes(gym.ActionWrapper):
    """Three torques for Pendulum's range of them."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = spaces.Discrete(3)

    def action(self, action):
        return np.array([2.0 * (action - 1)], np.float32)


class Masked(gym.ObservationWrapper):
    """Only where things are, in another order: angle, position."""

    def __init__(self, env):
        super().__init__(env)
        space = env.observation_space
        self.observation_space = spaces.Box(space.low[[2, 0]], space.high[[2, 0]])

    def observation(self, observation):
        return observation[[2, 0]]


class Lottery(gym.Env):
    """One step. Action 0 gives about 100; 1 as much and 1 more, but -200 in one of a hundred
    episodes; 2 the same as 0, but -200 in these.
    """

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.base, self.luck = 100.0 + self.np_random.normal(), self.np_random.random()
        return np.zeros(1, np.float32), {}

    def step(self, action):
        crashes = action > 0 and 0.56 < self.luck < 0.57
        reward = -200.0 if crashes else self.base + float(action == 1)
        return np.zeros(1, np.float32), reward, True, False, {}


class Mixed(gym.Env):
    """Observes a picture, a vector and a category, noisily; acts by choices, or by a tree."""

    observation_space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (3, 3, 3), np.uint8),
            "speed": spaces.Box(-9, 9, (2,), np.float32),
            "gear": spaces.Discrete(3, start=1),
        }
    )

    def __init__(self, *, tree: bool = False) -> None:
        choices = spaces.MultiDiscrete([3, 2])
        force = spaces.Box(-1.0, 1.0, (2,), np.float32)
        parts = {"choices": choices, "more": spaces.Tuple((force, spaces.Discrete(2, start=5)))}
        self.action_space = spaces.Dict(parts) if tree else choices

    def _look(self):
        return {
            "camera": self.np_random.integers(0, 256, (3, 3, 3), dtype=np.uint8),
            "speed": self.np_random.normal(size=2).astype(np.float32),
            "gear": int(self.np_random.integers(1, 4)),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(4, 9))
        return self._look(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.left -= 1
        reward = float(self.np_random.normal())
        if isinstance(action, dict):
            reward += float(action["more"][0].sum()) + action["more"][1]
            action = action["choices"]
        return self._look(), reward + float(action[0] - action[1]), self.left == 0, False, {}


@contextmanager
def registered(entry_point: Any, name: str = "Toy-v0", **settings: Any) -> Iterator[str]:
    """Register an environment under a name for the time of a test."""
    gym.register(name, entry_point=entry_point, **settings)
    try:
        yield name
    finally:
        del gym.registry[name]
