"""An environment that goes wrong on demand, and the plug-in that registers it in any process."""

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import ClassVar

import gymnasium as gym
import numpy as np
import psutil
from gymnasium import spaces

ROOT = Path(__file__).resolve().parents[2]
FAULTY = "tests/Faulty-v0"
SLOWLY_DRAWN = "tests/SlowlyDrawn-v0"
MANY = 2_965


class Memory:
    """Anything."""


class Faulty(gym.Env):
    """A walk on a line; after `after` steps of an episode it does what `fault` says.

    If `when` is a path, it does so only while there is something at it. If `after` is negative, it
    does so while it is made.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(
        self,
        fault: str = "",
        after: int = 10,
        seconds: float = 0.0,
        hidden: bool = False,
        when: str = "/",
        scalar: bool = False,
    ) -> None:
        self.fault = fault
        self.when = Path(when)
        self.after = after
        self.seconds = seconds
        self.place = 0.0
        self.count = 0
        if scalar:
            self.observation_space = spaces.Box(-np.inf, np.inf, (), np.float64)
        if hidden:  # state in an object that nobody knows how to store
            self.memory = Memory()
        if after < 0:
            self.go_wrong()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = float(self.np_random.normal())
        self.count = 0
        return self._observation(), {}

    def step(self, action):
        self.count += 1
        if self.seconds:
            time.sleep(self.seconds)
        if self.fault and self.count > self.after and self.when.exists():
            self.go_wrong()
        self.place += (2 * int(action) - 1) * 0.1 + 0.01 * float(self.np_random.normal())
        return self._observation(), -abs(self.place), False, False, {}

    def _observation(self):
        both = np.array([self.place, self.count / 100])
        return both if self.observation_space.shape else both[0]

    def go_wrong(self) -> None:
        match self.fault:
            case "raise":
                raise RuntimeError("the floor gave way")
            case "memory":
                raise MemoryError
            case "eat":
                hoard = []
                for _ in range(1024):  # never touched, so that nobody is hungry without a limit
                    hoard.append(np.empty(psutil.virtual_memory().total // 512, np.uint8))
                raise RuntimeError("nobody minded")
            case "hang":
                time.sleep(3600)
            case "segfault":
                ctypes.string_at(0)
            case "print":
                print("x" * 1000)
            case "exit":
                os._exit(7)
            case "leave":
                sys.exit(3)
            case "fork":  # and let the other one hold on to everything
                if os.fork() == 0:
                    time.sleep(3600)
                os._exit(0)


class SlowlyDrawn(Faulty):
    """Draws its picture as soon as there is nothing at the path `when`."""

    metadata: ClassVar = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode: str | None = None, **others) -> None:
        super().__init__(**others)
        self.render_mode = render_mode

    def render(self):
        while self.when.exists():
            time.sleep(0.05)
        return np.zeros((32, 32, 3), np.uint8)


def register() -> None:
    """Entry point of the group `gymnasium.envs`."""
    for name, kind in ((FAULTY, Faulty), (SLOWLY_DRAWN, SlowlyDrawn)):
        gym.register(
            name, f"{__name__}:{kind.__name__}", max_episode_steps=50, disable_env_checker=True,
            order_enforce=False,
        )  # fmt: skip


def register_many() -> None:
    """Entry point of the same group: a catalogue as large as those of several distributions."""
    for number in range(MANY):
        gym.register(f"many/Walk{number:04d}-v0", f"{__name__}:Faulty")
    for fault in ("segfault", "hang", "raise"):
        wrong = {"fault": fault, "after": -1}
        gym.register(f"many/Very-{fault}-v0", f"{__name__}:Faulty", kwargs=wrong)


def install_plugin(folder: Path, function: str = "register", policies: str = "") -> str:
    """Make a distribution that registers the environment; returns the PYTHONPATH for it.

    `policies` are further entry points, of the group `grpo.policies`.
    """
    metadata = folder / "faulty_environments-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: faulty-environments\nVersion: 1\n"
    )
    (metadata / "entry_points.txt").write_text(
        f"[gymnasium.envs]\n__root__ = {__name__}:{function}\n[grpo.policies]\n{policies}\n"
    )
    return os.pathsep.join([str(folder), str(ROOT)])
