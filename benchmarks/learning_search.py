"""Tune one general configuration of ours and of PPO, with the same trials, tasks and seeds.

A configuration is a function of the budget, for all tasks. Both sides draw theirs from one space by
the number of the trial; ours may branch beside that, PPO is Stable-Baselines3's with VecNormalize.
Trial 0 is what each side's people recommend, the general preset here; PPO has it too, but for the
slower rate of log σ, which it has not got, as one trial more, which plays all tasks whatever its
rank. Halving: all trials play the cheap tasks, the best six all of them, the best two another seed.
Rows go to `results/learning_search.csv`; those that are there are not run again, so an interrupted
search goes on. None of the seeds is reported elsewhere.

    python -m benchmarks.learning_search [grpo | ppo] [--report]
"""

import argparse
import csv
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.ppo_baseline import train_ppo
from benchmarks.results import FOLDER, write_machine
from grpo.config import GRPOConfig
from grpo.envs.spec import check_environment
from grpo.evaluation import Predictor, evaluate
from grpo.reporting import Reporter, UpdateStats
from grpo.trainer import Trainer

RESULTS = FOLDER / "learning_search.csv"
COLUMNS = ("side", "trial", "task", "seed", "mean_return", "train_seconds")
TASKS = {  # budget, what random actions get, what counts as 1
    "CartPole-v1": (10_000, 22.0, 500.0),
    "Acrobot-v1": (50_000, -500.0, -75.0),
    "Pendulum-v1": (100_000, -1_200.0, -150.0),
    "LunarLander-v3": (300_000, -180.0, 250.0),
    "Hopper-v5": (300_000, 18.0, 3_200.0),
    "HalfCheetah-v5": (300_000, -280.0, 3_000.0),
}
CHEAP = tuple(TASKS)[:3]
STAGES = ((CHEAP, 16, (100,)), (tuple(TASKS), 6, (100,)), (tuple(TASKS), 2, (101,)))
"""Tasks, how many of the best trials so far play them, and with which seeds."""

SPACE: dict[str, tuple[Any, ...]] = {
    "learning_rate": (2e-4, 3e-4, 5e-4, 1e-3, 2e-3),  # at a budget of 100,000
    "rate_power": (0.0, 0.5, 1.0),  # the rate falls with so much of a power of the budget
    "schedule": ("constant", "linear", "cooldown"),
    "iterations": (50, 100, 150, 300),  # of a run; 256 to 4,096 timesteps each
    "n_envs": (4, 8, 16),
    "batch_size": (64, 128, 256),
    "n_epochs": (5, 10, 20),
    "gamma": (0.98, 0.99, 0.995),
    "gae_lambda": (0.9, 0.95, 0.98),
    "clip_range": (0.1, 0.2, 0.3),
    "ent_coef": (0.0, 0.001, 0.01),
    "siblings": (0.0, 0.0, 0.1, 0.3),  # share of groups of two that branch; ours alone
    "std_power": (0.0, 0.25, 0.5),  # σ at first is the number of components to minus so much
}
OURS = 16
"""The trial in which PPO has what ours recommend."""
RECOMMENDED: dict[str, dict[str, Any]] = {
    "grpo": {
        "learning_rate": 1e-3, "rate_power": 1.0, "schedule": "cooldown", "iterations": 150,
        "n_envs": 8, "batch_size": 64, "n_epochs": 10, "gamma": 0.99, "gae_lambda": 0.95,
        "clip_range": 0.2, "clip_budget": 1_500_000, "ent_coef": 0.0, "siblings": 0.0,
        "std_power": 0.25, "most_rate": 1.5e-3, "std_budget": 300_000,
        "normalize_rewards": True,  # which PPO has from VecNormalize in all trials
    },
    "ppo": {  # the defaults of Stable-Baselines3, which has 2,048 timesteps of one environment
        "learning_rate": 3e-4, "rate_power": 0.0, "schedule": "constant", "iterations": 0,
        "n_envs": 1, "batch_size": 64, "n_epochs": 10, "gamma": 0.99, "gae_lambda": 0.95,
        "clip_range": 0.2, "ent_coef": 0.0, "siblings": 0.0, "std_power": 0.0,
    },
}  # fmt: skip


def drawn(side: str, trial: int) -> dict[str, Any]:
    """A trial's configuration; but for the first, the same on both sides."""
    if trial in (0, OURS):
        return RECOMMENDED["grpo" if trial else side]
    rng = np.random.default_rng([20_261_128, trial])
    return {name: choices[rng.integers(len(choices))] for name, choices in SPACE.items()}


def common(chosen: Mapping[str, Any], budget: int) -> tuple[float, int, float]:
    """Learning rate, steps of each environment in an iteration, and clip range, at a budget."""
    rate = chosen["learning_rate"] * (100_000 / budget) ** chosen["rate_power"]
    size = np.clip(budget / chosen["iterations"], 256, 4_096) if chosen["iterations"] else 2_048
    most = chosen.get("most_rate", 3e-3)
    clip_range = chosen["clip_range"]
    if "clip_budget" in chosen:
        clip_range = min(max(budget / chosen["clip_budget"], clip_range / 2.0), clip_range)
    return float(min(rate, most)), max(1, round(float(size) / chosen["n_envs"])), clip_range


def deviation_rate(chosen: Mapping[str, Any], budget: int) -> float:
    """Of log σ beside the others, which PPO has not got."""
    return min(max(budget / chosen["std_budget"], 0.1), 1.0) if "std_budget" in chosen else 1.0


def first_deviation(
    env_name: str, env_kwargs: Mapping[str, Any], chosen: Mapping[str, Any]
) -> dict[str, float]:
    """`policy_kwargs` of both sides; nothing where actions are chosen from a few."""
    n = math.prod(check_environment(env_name, env_kwargs).action_space.shape or ())
    return {"log_std_init": -chosen["std_power"] * math.log(n)} if n > 1 else {}


Look = Callable[[int, Predictor], object]
"""Is shown the timesteps so far, and the policy, after each iteration."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """What either side is asked for."""

    env_name: str
    budget: int
    seed: int
    chosen: Mapping[str, Any]
    """The trial's configuration."""

    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    look: Look | None = None

    @property
    def shared(self) -> dict[str, Any]:
        """Settings that have one name and one value on both sides."""
        names = ("batch_size", "n_epochs", "gamma", "gae_lambda", "ent_coef")
        rate, n_steps, clip_range = common(self.chosen, self.budget)
        return {name: self.chosen[name] for name in names} | {
            "learning_rate": rate, "n_steps": n_steps, "clip_range": clip_range,
            "policy_kwargs": first_deviation(self.env_name, self.env_kwargs, self.chosen),
        }  # fmt: skip


class _Shown(Reporter):
    """Shows a training of ours."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self.policy: Predictor | None = None

    def on_update(self, stats: UpdateStats) -> None:
        """Called after each iteration's updates."""
        self._look(stats.timesteps, self.policy)


def run_grpo(training: Training) -> Predictor:
    """Train ours; returns the policy of the last iterate."""
    chosen = training.chosen
    branching = {
        "start_states": "mixed", "baseline": "shrinkage", "group_size": 2,
        "branch_probability": chosen["siblings"],
    } if chosen["siblings"] else {
        "start_states": "continue", "baseline": "critic", "group_size": 1,
    }  # fmt: skip
    config = GRPOConfig(
        env_name=training.env_name, env_kwargs=training.env_kwargs, seed=training.seed,
        total_timesteps=training.budget, reward_function_type="environment",
        learning_rate_schedule=chosen["schedule"],
        log_std_rate=deviation_rate(chosen, training.budget),
        num_groups=chosen["n_envs"] // branching["group_size"], normalize_advantage=True,
        normalize_rewards=chosen.get("normalize_rewards", False), n_eval_episodes=1,
        **branching, **training.shared,
    )  # fmt: skip
    shown = None if training.look is None else _Shown(training.look)
    with Trainer(config, reporter=shown) as trainer:
        if shown is not None:
            shown.policy = trainer.policy
        return trainer.train().policy


def run_ppo(training: Training) -> Predictor:
    """Train PPO; returns the policy of the last iterate."""
    shared = training.shared
    rate = shared["learning_rate"]
    schedules = {
        "constant": lambda left: rate,
        "linear": lambda left: rate * left,
        "cooldown": lambda left: rate * min(1.0, left / 0.3),
    }
    settings = shared | {
        "normalize": True, "n_envs": training.chosen["n_envs"],
        "learning_rate": schedules[training.chosen["schedule"]],
    }  # fmt: skip
    return train_ppo(
        training.env_name, training.budget, training.seed, settings, training.look,
        training.env_kwargs,
    )[0]  # fmt: skip


SIDES = {"grpo": run_grpo, "ppo": run_ppo}


def read_rows(side: str) -> dict[tuple[int, str, int], float]:
    """What was measured so far: return by trial, task and seed."""
    if not RESULTS.exists():
        return {}
    with RESULTS.open(newline="") as file:
        return {
            (int(row["trial"]), row["task"], int(row["seed"])): float(row["mean_return"])
            for row in csv.DictReader(file)
            if row["side"] == side
        }


def measure(side: str, trial: int, task: str, seed: int) -> None:
    """Train and judge once, where there is no row yet."""
    if (trial, task, seed) in read_rows(side):
        return
    start = time.perf_counter()
    policy = SIDES[side](
        Training(env_name=task, budget=TASKS[task][0], seed=seed, chosen=drawn(side, trial))
    )
    seconds = time.perf_counter() - start
    score = evaluate(policy, task, n_episodes=30).mean
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow((side, trial, task, seed, f"{score:.2f}", f"{seconds:.1f}"))
    write_machine("learning_search")
    print(f"{side} trial {trial} {task} seed {seed}: {score:.1f} ({seconds:.0f} s)", flush=True)


def ranking(
    side: str, tasks: tuple[str, ...], seeds: tuple[int, ...] = (100, 101)
) -> list[tuple[float, int]]:
    """Mean over the tasks of the returns from 0 (random) to 1, best trial first.

    A trial counts by the tasks given, all of which it has played, with these seeds.
    """
    rows, ranked = read_rows(side), []
    for trial in {key[0] for key in rows}:
        scores = []
        for task in tasks:
            _, low, high = TASKS[task]
            found = [rows[trial, task, seed] for seed in seeds if (trial, task, seed) in rows]
            scores.append((np.mean(found) - low) / (high - low) if found else np.nan)
        if not np.isnan(scores).any():
            ranked.append((float(np.mean(scores)), trial))
    return sorted(ranked, reverse=True)


def search(side: str) -> None:
    """All stages, each with the best trials of the one before."""
    trials = [*range(STAGES[0][1]), *([OURS] if side == "ppo" else ())]
    for i, (tasks, count, seeds) in enumerate(STAGES):
        if i:
            before, _, its_seeds = STAGES[i - 1]
            ranked = [trial for _, trial in ranking(side, before, its_seeds) if trial in trials]
            trials = ranked[:count]
            if i == 1 and side == "ppo" and OURS not in trials:
                trials.append(OURS)
        for task in tasks:
            for trial in trials:
                for seed in seeds:
                    measure(side, trial, task, seed)


def report() -> None:
    """The best trials of each side, and what they are."""
    for side in SIDES:
        for tasks in (tuple(TASKS), CHEAP):
            for score, trial in ranking(side, tasks)[:6]:
                print(f"{side} {len(tasks)} tasks: {score:.3f} trial {trial} {drawn(side, trial)}")


def main() -> None:
    """Search what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sides", nargs="*", choices=[*SIDES, []], default=[])
    parser.add_argument("--report", action="store_true", help="only print what was measured")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for side in (arguments.sides or SIDES) if not arguments.report else ():
            search(side)
    report()


if __name__ == "__main__":
    sys.exit(main())
