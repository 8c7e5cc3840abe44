"""Training speed beside Stable-Baselines3's PPO, as ratios measured in one run on one thread.

Claims: timesteps per second at the guide's settings, with 64 members at once, and on Hopper and
HalfCheetah, each at equal numbers and sizes of minibatches (but for PPO with one environment at the
guide's, which makes twice as many of half the size); and wall-clock until a greedy
evaluation first reaches 475 on CartPole, both sides trained on the same reward, ours at its preset
and PPO at RL Zoo's settings. One thread is torch's and that of every library below numpy, on both
sides. Start-up (imports, environments, networks) is left out on both, and the value head is in.
"""

import argparse
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from threadpoolctl import threadpool_limits

from benchmarks.ppo_baseline import ZOO, PPOPolicy
from benchmarks.results import write_rows
from grpo.config import resolve_config
from grpo.envs import check_environment
from grpo.evaluation import evaluate
from grpo.reporting import Reporter, UpdateStats
from grpo.rewards import get_reward
from grpo.trainer import Trainer

ENV_NAME = "CartPole-v1"
SHAPED = "optimized_cartpole"
GUIDE = {"learning_rate": 3e-4, "n_steps": 32, "batch_size": 64, "n_epochs": 10}
WIDE = {**GUIDE, "batch_size": 256}
LONG = {"learning_rate": 3e-4, "n_steps": 256, "batch_size": 64, "n_epochs": 10}
LONG_TASKS = ("Hopper-v5", "HalfCheetah-v5")
SOLVED = 475.0
CHECK_EVERY = 500
GIVE_UP = 100_000


class Shaped(gymnasium.Wrapper):
    """CartPole with our shaped reward in place of its own."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make(ENV_NAME))
        self._reward = get_reward(SHAPED, check_environment(ENV_NAME))

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
        """One step."""
        row, native, terminated, truncated, info = self.env.step(action)
        reward = self._reward(
            row[None].astype(np.float64), np.array([action]), np.array([native]),
            np.array([terminated]),
        )  # fmt: skip
        return row, float(reward[0]), terminated, truncated, info


def make_ppo(n_envs: int, seed: int, make: Callable[[], gymnasium.Env], **settings: object) -> PPO:
    """PPO on the CPU; its environments are stepped one after the other in this process."""
    env = DummyVecEnv([make] * n_envs)
    return PPO("MlpPolicy", env, seed=seed, device="cpu", **settings)


def cartpole() -> gymnasium.Env:
    """With its own reward."""
    return gymnasium.make(ENV_NAME)


def grpo_rate(total_timesteps: int, seed: int, **settings: object) -> float:
    """Timesteps per second of one training run of ours, the final evaluation left out."""
    config = resolve_config(total_timesteps=total_timesteps, seed=seed, **settings)
    clock = UpdateClock()
    with Trainer(config, reporter=clock) as trainer:
        start = time.perf_counter()
        trainer.train()
        return trainer.timesteps / (clock.last_update - start)


class UpdateClock(Reporter):
    """Notes when the last update ended."""

    last_update = 0.0

    def on_update(self, stats: UpdateStats) -> None:
        """Called after each iteration's updates."""
        self.last_update = time.perf_counter()


def ppo_rate(
    total_timesteps: int, n_envs: int, seed: int, env_name: str = ENV_NAME, **settings: object
) -> float:
    """Timesteps per second of one training run of PPO; with MuJoCo, observations standardised."""
    model = make_ppo(n_envs, seed, lambda: gymnasium.make(env_name), **settings)
    if env_name in LONG_TASKS:
        model.set_env(VecNormalize(model.get_env()))
    start = time.perf_counter()
    model.learn(total_timesteps)
    return model.num_timesteps / (time.perf_counter() - start)


class SolvedClock(Reporter):
    """Stops the clock, evaluates, and notes when the evaluation first reaches `SOLVED`."""

    def __init__(self) -> None:
        self.trainer: Trainer | None = None
        self.evaluating = 0.0
        self.solved_at: float | None = None
        self.next_check = CHECK_EVERY
        self.start = 0.0

    def check(self, timesteps: int, policy: object) -> None:
        """Evaluate where another `CHECK_EVERY` timesteps have passed."""
        if timesteps < self.next_check or self.solved_at is not None:
            return
        self.next_check += CHECK_EVERY
        before = time.perf_counter()
        trained = before - self.start - self.evaluating
        if evaluate(policy, ENV_NAME, n_episodes=20).mean >= SOLVED:
            self.solved_at = trained
        self.evaluating += time.perf_counter() - before

    def on_update(self, stats: UpdateStats) -> None:
        """Called after each iteration's updates."""
        assert self.trainer is not None
        self.check(stats.timesteps, self.trainer.policy)


def grpo_seconds_to_solve(seed: int, **settings: object) -> float:
    """Seconds of training until the greedy evaluation first reaches 475."""
    clock = SolvedClock()
    config = resolve_config(env_name=ENV_NAME, total_timesteps=GIVE_UP, seed=seed, **settings)
    trainer = Trainer(config, reporter=clock, should_stop=lambda: clock.solved_at is not None)
    clock.trainer = trainer
    clock.start = time.perf_counter()
    trainer.train()
    return clock.solved_at if clock.solved_at is not None else float("inf")


class SolvedCallback(BaseCallback):
    """The same check for PPO, between two rollouts."""

    def __init__(self, clock: SolvedClock) -> None:
        super().__init__()
        self.clock = clock

    def _on_rollout_start(self) -> None:
        self.clock.check(self.num_timesteps, PPOPolicy(self.model, None))

    def _on_step(self) -> bool:
        return self.clock.solved_at is None


def ppo_seconds_to_solve(seed: int, make: Callable[[], gymnasium.Env]) -> float:
    """Seconds of training until RL Zoo's tuned PPO first reaches 475."""
    settings = dict(ZOO[ENV_NAME])
    model = make_ppo(settings.pop("n_envs"), seed, make, **settings)
    clock = SolvedClock()
    clock.start = time.perf_counter()
    model.learn(GIVE_UP, callback=SolvedCallback(clock))
    return clock.solved_at if clock.solved_at is not None else float("inf")


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):9.1f}  [{min(values):.1f}, {max(values):.1f}]"


def compare(label: str, bar: float, ours: list[float], theirs: list[float], unit: str) -> bool:
    """Print and keep both sides and their ratio; True where the bar is met."""
    faster = statistics.median(ours) / statistics.median(theirs)
    ratio = faster if unit == "steps/s" else 1 / faster
    print(f"\n{label}\n  grpo {spread(ours)} {unit}\n  ppo  {spread(theirs)} {unit}")
    print(f"  ratio {ratio:.1f}x (bar {bar:g}x) {'meets the bar' if ratio >= bar else 'MISSED'}")
    write_rows(
        "training_speed",
        [
            {
                "claim": label, "side": side, "median": f"{statistics.median(values):.4g}",
                "min": f"{min(values):.4g}", "max": f"{max(values):.4g}", "unit": unit,
                "runs": len(values), "ratio": f"{ratio:.1f}", "bar": f"{bar:g}",
            }
            for side, values in (("grpo", ours), ("ppo", theirs))
        ],
    )  # fmt: skip
    return ratio >= bar


def alternate(
    repeats: int, ours: Callable[[int], float], theirs: Callable[[int], float]
) -> tuple[list[float], list[float]]:
    """Measure both in turn, so that a noisy minute hits both; one warm-up each is dropped."""
    ours(0), theirs(0)
    pairs = [(ours(seed), theirs(seed)) for seed in range(1, repeats + 1)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def bench_guide(repeats: int) -> list[bool]:
    """The guide's step 2."""
    settings = {"env_name": ENV_NAME, "reward_function_type": SHAPED, **GUIDE}
    met = []
    for n_envs, bar in ((1, 21), (8, 7)):
        ours, theirs = alternate(
            repeats,
            lambda seed: grpo_rate(5_000, seed, **settings),
            lambda seed, n_envs=n_envs: ppo_rate(5_000, n_envs, seed, **GUIDE),
        )
        label = f"Guide step 2, PPO with {n_envs} environment(s)"
        met.append(compare(label, bar, ours, theirs, "steps/s"))
    return met


def bench_solve(repeats: int) -> list[bool]:
    """Time to 475, on the environment's own reward and on a shaped one."""
    met = []
    for reward, make, ours_at in (
        ("environment", cartpole, {}),
        (SHAPED, Shaped, GUIDE),
    ):
        ours, theirs = alternate(
            repeats,
            lambda seed, reward=reward, ours_at=ours_at: grpo_seconds_to_solve(
                seed, reward_function_type=reward, **ours_at
            ),
            lambda seed, make=make: ppo_seconds_to_solve(seed, make),
        )
        met.append(compare(f"Training time to 475, reward {reward}", 1, ours, theirs, "s"))
    return met


def bench_wide(repeats: int) -> list[bool]:
    """64 members at once."""
    settings = {
        "env_name": ENV_NAME, "reward_function_type": SHAPED, "num_groups": 16, "group_size": 4,
        **WIDE,
    }  # fmt: skip
    ours, theirs = alternate(
        repeats,
        lambda seed: grpo_rate(200_000, seed, **settings),
        lambda seed: ppo_rate(200_000, 64, seed, **WIDE),
    )
    met = compare("200,000 steps, 64 at once", 8, ours, theirs, "steps/s")
    peaks = []
    for steps in (50_000, 200_000):
        tracemalloc.start()
        grpo_rate(steps, 1, **settings)
        peaks.append(f"{tracemalloc.get_traced_memory()[1] / 2**20:.1f}")
        tracemalloc.stop()
    print(f"  peak memory of 50,000 and 200,000 steps: {' and '.join(peaks)} MiB")
    return [met]


def bench_long(repeats: int) -> list[bool]:
    """MuJoCo, eight members or environments, each 256 steps an iteration."""
    met = []
    for env_name in LONG_TASKS:
        settings = {"env_name": env_name, "num_groups": 8, **LONG}
        ours, theirs = alternate(
            repeats,
            lambda seed, settings=settings: grpo_rate(20_480, seed, **settings),
            lambda seed, env_name=env_name: ppo_rate(20_480, 8, seed, env_name, **LONG),
        )
        met.append(compare(f"{env_name}, equal updates", 4, ours, theirs, "steps/s"))
    return met


BENCHMARKS = {"guide": bench_guide, "solve": bench_solve, "wide": bench_wide, "long": bench_long}


def main() -> None:
    """Measure the claims asked for; exit 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", choices=BENCHMARKS, action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    met = []
    with threadpool_limits(1):
        for name in arguments.only or BENCHMARKS:
            met += BENCHMARKS[name](arguments.repeats)
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
