"""Members in processes beside one process and beside Gymnasium's AsyncVectorEnv, in one run.

Both sides step the same environments with the same number of processes and random actions; ours
addresses members by index, keeps their starts, and resets those that ended. Start-up is left out.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv

from grpo.envs import VecEnv, make_vec_env

SLEEP_SECONDS = 0.02
MEMBERS = 16


class Sleeper(gymnasium.Env[Any, Any]):
    """Takes its time for each step, and no processor."""

    observation_space = spaces.Box(-1.0, 1.0, (8,))
    action_space = spaces.Box(-1.0, 1.0, (2,))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """A new episode of a hundred steps."""
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.uniform(-1, 1, 8).astype(np.float32), {}

    def step(self, action: object) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Sleep."""
        time.sleep(SLEEP_SECONDS)
        self.time += 1
        seen = self.np_random.uniform(-1, 1, 8).astype(np.float32)
        return seen, 1.0, self.time >= 100, False, {}


def ours(env: object, workers: int, steps: int) -> float:
    """Steps of all members per second, with so many workers; 0 is this process."""
    named = {"env_name": "<sleeper>", "objects": {"<sleeper>": env}}
    given = {"env_name": env} if isinstance(env, str) else named
    envs: VecEnv = make_vec_env(
        env_kwargs={}, num_members=MEMBERS, branching=False, env_workers=workers, **given
    )
    everyone, rng = np.arange(MEMBERS), np.random.default_rng(0)
    envs.reset(everyone, range(MEMBERS))
    drawn = envs.spec.action.random(rng, MEMBERS * steps).reshape(steps, MEMBERS, -1)
    began = time.perf_counter()
    for actions in drawn:
        result = envs.step(everyone, actions)
        ended = np.flatnonzero(result.terminated | result.truncated)
        if ended.size:
            envs.reset(ended, rng.integers(2**31, size=ended.size))
    rate = MEMBERS * steps / (time.perf_counter() - began)
    envs.close()
    return rate


def gymnasiums(env: object, workers: int, steps: int) -> float:
    """The same by AsyncVectorEnv, which has one process for each member."""
    del workers
    make = (lambda: gymnasium.make(env, disable_env_checker=True)) if isinstance(env, str) else env
    envs = AsyncVectorEnv([make] * MEMBERS)
    envs.reset(seed=list(range(MEMBERS)))
    envs.action_space.seed(0)
    drawn = [envs.action_space.sample() for _ in range(steps)]
    began = time.perf_counter()
    for actions in drawn:
        envs.step(actions)
    rate = MEMBERS * steps / (time.perf_counter() - began)
    envs.close()
    return rate


Measured = tuple[str, Callable[[Any, int, int], float], Any, int]


def compare(title: str, steps: int, repeats: int, sides: Sequence[Measured], bar: float) -> bool:
    """Both sides by turns; prints medians, and the ratio of the second to the first."""
    rates: dict[str, list[float]] = {name: [] for name, *_ in sides}
    for _ in range(repeats):
        for name, run, env, workers in sides:
            rates[name].append(run(env, workers, steps))
    print(title)
    for name, values in rates.items():
        print(f"  {name:<28} {statistics.median(values):9.0f} steps/s  "
              f"[{min(values):.0f}, {max(values):.0f}]")  # fmt: skip
    first, second = (statistics.median(values) for values in rates.values())
    met = second / first >= bar
    print(f"  ratio {second / first:.2f} (bar {bar:g}) {'meets the bar' if met else 'MISSED'}")
    return met


def main() -> int:
    """Print all comparisons; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    alone, apart = ("one process", ours, Sleeper, 0), ("16 workers", ours, Sleeper, 16)
    peer = ("AsyncVectorEnv", gymnasiums, Sleeper, 16)
    humanoid = "Humanoid-v5"
    met = [
        compare("An environment that sleeps 20 ms a step, 16 members", 12, repeats,
                [alone, apart], 10.0),
        compare("The same, beside Gymnasium", 60, repeats, [peer, apart], 1.0),
        compare("Humanoid-v5, 16 members", 150, repeats,
                [("one process", ours, humanoid, 0), ("2 workers", ours, humanoid, 2)], 1.6),
        compare("The same, beside Gymnasium", 150, repeats,
                [("AsyncVectorEnv", gymnasiums, humanoid, 16), ("2 workers", ours, humanoid, 2)],
                1.0),
    ]  # fmt: skip
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
