"""Learning benchmark: GRPO beside tuned PPO, strict budgets, last iterate, greedy, native reward.

One row per task, algorithm and seed goes to `benchmarks/results/learning.csv`; rows that are
there are not run again, so an interrupted run goes on where it was. `--report` prints the table.
"""

import argparse
import csv
import sys
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results import FOLDER, write_machine
from grpo.config import resolve_config
from grpo.evaluation import evaluate, iqm, stratified_bootstrap_interval
from grpo.trainer import Trainer

RESULTS = FOLDER / "learning.csv"
COLUMNS = ("task", "algorithm", "seed", "timesteps", "mean_return", "train_seconds")
FIRST_SEED = 1_000  # reporting seeds; none of them was used while tuning
GUIDE_STEP_2 = {
    "learning_rate": 3e-4, "n_steps": 32, "batch_size": 64, "n_epochs": 10,
    "reward_function_type": "optimized_cartpole",
}  # fmt: skip
GUIDE_FAST = {
    "learning_rate": 1e-3, "n_steps": 64, "batch_size": 128, "n_epochs": 5,
    "reward_function_type": "optimized_cartpole",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One line of the benchmark."""

    env_name: str
    total_timesteps: int
    n_seeds: int = 10
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields that the request gives; the rest is the environment's preset."""
    peer: bool = False
    """Whether tuned PPO is run beside it."""
    bar: dict[str, float] = field(default_factory=dict)
    """Least `mean`, `iqm` or `min` over the seeds."""
    ahead: str = ""
    """What the bar asks for beside tuned PPO: `iqm`, a higher one; `apart`, intervals too."""


TASKS: dict[str, Task] = {
    "cartpole-guide": Task(
        env_name="CartPole-v1", total_timesteps=5_000, n_seeds=30, settings=GUIDE_STEP_2,
        bar={"mean": 495, "min": 450},
    ),
    "cartpole-simple": Task(
        env_name="CartPole-v1", total_timesteps=5_000, n_seeds=30,
        settings=GUIDE_STEP_2 | {"reward_function_type": "simple_cartpole"}, bar={"mean": 490},
    ),
    "cartpole-fast": Task(
        env_name="CartPole-v1", total_timesteps=5_000, n_seeds=30, settings=GUIDE_FAST,
        bar={"mean": 490},
    ),
    "cartpole-3000": Task(
        env_name="CartPole-v1", total_timesteps=3_000, n_seeds=30, settings=GUIDE_STEP_2,
        bar={"mean": 475},
    ),
    "cartpole-2000": Task(
        env_name="CartPole-v1", total_timesteps=2_000, n_seeds=30, settings=GUIDE_STEP_2,
        bar={"mean": 440},
    ),
    "cartpole-environment": Task(
        env_name="CartPole-v1", total_timesteps=10_000, n_seeds=30, peer=True,
        settings={"reward_function_type": "environment"}, bar={"mean": 450}, ahead="apart",
    ),
    "acrobot": Task(
        env_name="Acrobot-v1", total_timesteps=50_000, peer=True, bar={"iqm": -90},
        ahead="iqm",
    ),
    "mountaincar": Task(
        env_name="MountainCar-v0", total_timesteps=100_000, peer=True, bar={"iqm": -130},
    ),
    "lunarlander": Task(
        env_name="LunarLander-v3", total_timesteps=300_000, peer=True, bar={"iqm": 150},
    ),
    "pendulum": Task(env_name="Pendulum-v1", total_timesteps=100_000, peer=True),
    "mountaincar-continuous": Task(
        env_name="MountainCarContinuous-v0", total_timesteps=50_000, peer=True,
    ),
    "inverted-double-pendulum": Task(
        env_name="InvertedDoublePendulum-v5", total_timesteps=300_000, peer=True,
    ),
}  # fmt: skip


def run_grpo(task: Task, seed: int) -> tuple[Any, int]:
    """Train ours; returns the policy of the last iterate and the timesteps used."""
    config = resolve_config(
        env_name=task.env_name, total_timesteps=task.total_timesteps, seed=seed, **task.settings
    )
    result = Trainer(config).train()
    return result.policy, result.timesteps


def run_ppo(task: Task, seed: int) -> tuple[Any, int]:
    """Train Stable-Baselines3's PPO with RL Zoo's settings."""
    from benchmarks.ppo_baseline import train_ppo

    return train_ppo(task.env_name, task.total_timesteps, seed)


RUNNERS = {"grpo": run_grpo, "ppo": run_ppo}


def read_rows() -> list[dict[str, str]]:
    """All rows measured so far."""
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="") as file:
        return list(csv.DictReader(file))


def append_row(values: Iterable[object]) -> None:
    """Add one row, the header first in a new file."""
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(values)


def measure(name: str, algorithm: str) -> None:
    """Run the seeds of a task that have no row yet."""
    task = TASKS[name]
    done = {
        int(row["seed"])
        for row in read_rows()
        if (row["task"], row["algorithm"]) == (name, algorithm)
    }
    for seed in range(FIRST_SEED, FIRST_SEED + task.n_seeds):
        if seed in done:
            continue
        start = time.perf_counter()
        policy, timesteps = RUNNERS[algorithm](task, seed)
        seconds = time.perf_counter() - start
        score = evaluate(policy, task.env_name, n_episodes=100).mean
        append_row((name, algorithm, seed, timesteps, f"{score:.3f}", f"{seconds:.2f}"))
        write_machine("learning")
        print(f"{name} {algorithm} seed {seed}: {score:.1f} ({seconds:.1f} s)", flush=True)


def scores_of(rows: list[dict[str, str]], name: str, algorithm: str) -> np.ndarray:
    """Mean returns, one a seed."""
    return np.array(
        [
            float(row["mean_return"])
            for row in rows
            if (row["task"], row["algorithm"]) == (name, algorithm)
        ]
    )


def plot(path: Path) -> None:
    """Every seed of every task that has a peer, and the interquartile mean with its interval."""
    from matplotlib.figure import Figure

    rows = read_rows()
    names = [name for name, task in TASKS.items() if task.peer]
    figure = Figure(figsize=(12.0, 6.0), layout="constrained")
    for axes, name in zip(figure.subplots(2, 4).flat, names, strict=False):
        task = TASKS[name]
        for place, (algorithm, colour) in enumerate((("ppo", "tab:orange"), ("grpo", "tab:blue"))):
            scores = scores_of(rows, name, algorithm)
            if len(scores) == 0:
                continue
            low, high = stratified_bootstrap_interval(scores[:, None])
            middle = iqm(scores)
            shift = np.linspace(-0.12, 0.12, len(scores))
            axes.plot(place + shift, np.sort(scores), ".", color=colour, alpha=0.5)
            axes.errorbar(
                place + 0.25, middle, [[middle - low], [high - middle]], fmt="o", color=colour,
                capsize=4,
            )  # fmt: skip
        axes.set_title(f"{task.env_name}\n{task.total_timesteps:,} timesteps", fontsize=10)
        axes.set_xticks([0, 1], ["tuned PPO", "GRPO"])
        axes.set_xlim(-0.4, 1.6)
    for axes in list(figure.axes)[len(names) :]:
        axes.remove()
    figure.suptitle("Return of each seed (dots), interquartile mean and its 95 % interval")
    figure.savefig(path, dpi=110)


def standing(ours: np.ndarray, theirs: np.ndarray) -> tuple[set[str], str]:
    """What holds beside the peer, of the values of `Task.ahead`, and the same in words."""
    low = stratified_bootstrap_interval(ours[:, None])[0]
    high = stratified_bootstrap_interval(theirs[:, None])[1]
    ahead, apart = iqm(ours) > iqm(theirs), low > high
    holds = {name for name, true in (("iqm", ahead), ("apart", apart)) if true}
    gap = f"apart by {low - high:.1f}" if apart else f"NOT apart: {low:.1f} is below {high:.1f}"
    return holds, f"{'ahead' if ahead else 'NOT ahead'}, intervals {gap}"


def report() -> bool:
    """Print the table; False where a bar is missed."""
    met = True
    print(
        f"{'task':26} {'algorithm':9} {'seeds':>5} {'mean':>8} {'IQM':>8}  95 % interval      min"
    )
    rows = read_rows()
    for name, task in TASKS.items():
        for algorithm in ("grpo", "ppo"):
            scores = scores_of(rows, name, algorithm)
            if len(scores) == 0:
                continue
            low, high = stratified_bootstrap_interval(scores[:, None])
            figures = {"mean": scores.mean(), "iqm": iqm(scores), "min": scores.min()}
            verdict = ""
            if algorithm == "grpo" and task.bar:
                missed = {k: v for k, v in task.bar.items() if figures[k] < v}
                verdict = f"  MISSED {missed}" if missed else f"  meets {task.bar}"
                met = met and not missed
            print(
                f"{name:26} {algorithm:9} {len(scores):5d} {figures['mean']:8.1f} "
                f"{figures['iqm']:8.1f}  [{low:7.1f}, {high:7.1f}] {figures['min']:8.1f}{verdict}"
            )
        ours, theirs = scores_of(rows, name, "grpo"), scores_of(rows, name, "ppo")
        if task.ahead and len(ours) and len(theirs):
            holds, words = standing(ours, theirs)
            met = met and task.ahead in holds
            print(f"{name:26} grpo beside tuned ppo: {words}")
    return met


def main() -> None:
    """Measure what was asked for, then report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []], default=[])
    parser.add_argument("--algorithm", choices=sorted(RUNNERS), action="append")
    parser.add_argument("--report", action="store_true", help="only print what was measured")
    parser.add_argument("--plot", type=Path, help="draw what was measured into this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="stable_baselines3")
    if not arguments.report:
        for name in arguments.tasks or TASKS:
            for algorithm in arguments.algorithm or ("grpo", "ppo"):
                if algorithm == "grpo" or TASKS[name].peer:
                    measure(name, algorithm)
    if arguments.plot is not None:
        plot(arguments.plot)
    sys.exit(0 if report() else 1)


if __name__ == "__main__":
    main()
