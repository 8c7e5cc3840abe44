"""Training speed beside Stable-Baselines3's PPO, as ratios measured in one run on one thread.

Three claims: timesteps per second at the guide's settings, wall-clock until a greedy evaluation
first reaches 475 on CartPole, and a million steps with 64 members at once. Start-up (imports,
environments, networks) is left out on both sides; the value head is in on both.
"""

import argparse
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

import gymnasium
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.ppo_baseline import ZOO, PPOPolicy
from benchmarks.results import write_rows
from grpo.config import resolve_config
from grpo.evaluation import evaluate
from grpo.reporting import Reporter, UpdateStats
from grpo.trainer import Trainer

ENV_NAME = "CartPole-v1"
SHAPED = "optimized_cartpole"
GUIDE = {"learning_rate": 3e-4, "n_steps": 32, "batch_size": 64, "n_epochs": 10}
SOLVED = 475.0
CHECK_EVERY = 500
GIVE_UP = 100_000


def cartpoles(n_envs: int) -> DummyVecEnv:
    """Environments for PPO, stepped one after the other in this process."""
    return DummyVecEnv([lambda: gymnasium.make(ENV_NAME)] * n_envs)


def make_ppo(n_envs: int, seed: int, **settings: object) -> PPO:
    """PPO on CartPole, on the CPU."""
    return PPO("MlpPolicy", cartpoles(n_envs), seed=seed, device="cpu", **settings)


def grpo_rate(total_timesteps: int, seed: int, **settings: object) -> float:
    """Timesteps per second of one training run of ours, the final evaluation left out."""
    config = resolve_config(
        env_name=ENV_NAME, reward_function_type=SHAPED, total_timesteps=total_timesteps,
        seed=seed, **settings,
    )  # fmt: skip
    trainer = Trainer(config)
    clock = UpdateClock()
    trainer.reporter = clock
    start = time.perf_counter()
    trainer.train()
    return trainer.timesteps / (clock.last_update - start)


class UpdateClock(Reporter):
    """Notes when the last update ended."""

    last_update = 0.0

    def on_update(self, stats: UpdateStats) -> None:
        """Called after each iteration's updates."""
        self.last_update = time.perf_counter()


def ppo_rate(total_timesteps: int, n_envs: int, seed: int, **settings: object) -> float:
    """Timesteps per second of one training run of PPO."""
    model = make_ppo(n_envs, seed, **settings)
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


def grpo_seconds_to_solve(seed: int) -> float:
    """Seconds of training until the greedy evaluation first reaches 475."""
    clock = SolvedClock()
    config = resolve_config(
        env_name=ENV_NAME, reward_function_type=SHAPED, total_timesteps=GIVE_UP, seed=seed, **GUIDE
    )
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


def ppo_seconds_to_solve(seed: int) -> float:
    """Seconds of training until RL Zoo's tuned PPO first reaches 475."""
    settings = dict(ZOO[ENV_NAME])
    model = make_ppo(settings.pop("n_envs"), seed, **settings)
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


def main() -> None:
    """Measure the claims asked for; exit 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", choices=("guide", "solve", "million"), action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = arguments.only or ("guide", "solve", "million")
    results = []
    if "guide" in chosen:
        for n_envs, bar in ((1, 15), (8, 5)):
            ours, theirs = alternate(
                arguments.repeats,
                lambda seed: grpo_rate(5_000, seed, **GUIDE),
                lambda seed, n_envs=n_envs: ppo_rate(5_000, n_envs, seed, **GUIDE),
            )
            results.append(
                compare(f"Guide step 2, PPO with {n_envs} environment(s)", bar, ours, theirs,
                        "steps/s")
            )  # fmt: skip
    if "solve" in chosen:
        ours, theirs = alternate(arguments.repeats, grpo_seconds_to_solve, ppo_seconds_to_solve)
        results.append(compare("Training time to 475, tuned PPO", 10, ours, theirs, "s"))
    if "million" in chosen:
        wide = {"n_steps": 32, "batch_size": 256, "n_epochs": 10, "learning_rate": 3e-4}
        tracemalloc_peaks = []
        ours, theirs = [], []
        for seed in range(1, 4):
            ours.append(grpo_rate(1_000_000, seed, num_groups=16, group_size=4, **wide))
            theirs.append(ppo_rate(1_000_000, 64, seed, **wide))
        for steps in (50_000, 200_000):
            tracemalloc.start()
            grpo_rate(steps, 1, num_groups=16, group_size=4, **wide)
            tracemalloc_peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
            tracemalloc.stop()
        results.append(compare("1,000,000 steps, 64 at once", 5, ours, theirs, "steps/s"))
        print(f"  peak memory of 50,000 and 200,000 steps: {tracemalloc_peaks} MiB")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
