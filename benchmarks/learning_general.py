"""Two tables of ours beside PPO, each side as tuned: last iterate, greedy, native reward.

*General*: one configuration a side for all tasks, eight of which were not tuned on. *Per task*: of
the same trials, the best one of each task that was tuned on. The trials are those of
`benchmarks.learning_search`, as many for both sides on the same tasks and seeds. What they came to
is in `results/learning_general.json`, which is to be committed before it is reported: each row
carries its configuration's hash, and rows of another one are refused. A row a task, side, seed and
configuration goes to `results/learning_general.csv`; rows that are there are not run again, so an
interrupted run goes on. At each tenth of the budget ten episodes are played, for the area under the
curve. docs/algorithm.md says where this was not kept to.

    python -m benchmarks.learning_general [TASK ...] [--side SIDE] [--choose | --report] [--plot F]
"""

import argparse
import csv
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.environments import MINIGRID
from benchmarks.learning_search import SIDES, TASKS, Training, drawn, ranking
from benchmarks.results import FOLDER, write_machine
from grpo.bootstrap import iqm, stratified_bootstrap_interval
from grpo.curves import area_under_curve
from grpo.envs.catalogue import MODULES_VARIABLE
from grpo.evaluation import Predictor, evaluate
from grpo.statistics import performance_profile

RESULTS, CHOSEN = FOLDER / "learning_general.csv", FOLDER / "learning_general.json"
COLUMNS = (
    "task", "side", "seed", "mean_return", "area_under_curve", "train_seconds", "configuration"
)  # fmt: skip
SEEDS = range(3_000, 3_010)
LATER_SEEDS = {
    ("MountainCarContinuous-v0", "grpo"): range(4_000, 4_010),
    ("Pendulum-v1", "grpo"): range(4_000, 4_010),
}
"""Where a report of a side was seen before its configuration changed what it does there."""

SCALES = TASKS | {  # budget, what random actions get, what counts as 1
    "MountainCarContinuous-v0": (50_000, -35.0, 95.0),
    "MountainCar-v0": (100_000, -200.0, -110.0),
    "Walker2d-v5": (300_000, 2.0, 3_000.0),
    "InvertedDoublePendulum-v5": (300_000, 60.0, 9_300.0),
    "Swimmer-v5": (300_000, 0.0, 120.0),
    "BipedalWalker-v3": (500_000, -100.0, 300.0),
    "MiniGrid-DoorKey-5x5-v0": (100_000, 0.0, 0.95),
    "FlappyBird-v0": (100_000, -7.5, 100.0),
}
ENV_KWARGS: dict[str, dict[str, Any]] = {
    "MiniGrid-DoorKey-5x5-v0": {"wrappers": list(MINIGRID)},
    "FlappyBird-v0": {  # which has no end for who never falls
        "use_lidar": False,
        "wrappers": [{"name": "TimeLimit", "kwargs": {"max_episode_steps": 1_000}}],
    },
}
TABLES = ("general", "per task")
LEAST_IMPROVEMENT = 0.65


def choose(sides: Iterable[str]) -> None:
    """Write down the best trial of each of these sides, and of each task where it is another."""
    chosen = json.loads(CHOSEN.read_text()) if CHOSEN.exists() else {}
    for side in sides:
        (score, best), *_ = ranking(side, tuple(TASKS))
        chosen.setdefault("general", {})[side] = _choice(side, score, best)
        for task in TASKS:
            ranked = ranking(side, (task,))
            score, trial = ranked[0]
            if score > next(its for its, trial in ranked if trial == best):
                chosen.setdefault(task, {})[side] = _choice(side, score, trial)
    CHOSEN.write_text(json.dumps(chosen, indent=2) + "\n")


def _choice(side: str, score: float, trial: int) -> dict[str, Any]:
    return {"trial": trial, "score": round(score, 4), "settings": drawn(side, trial)}


@cache
def chosen_of(side: str, task: str, table: str = "general") -> dict[str, Any]:
    """A side's trial, its score, and its settings, in a table's line.

    Raises:
        SystemExit: none was chosen.
    """
    chosen: dict[str, Any] = json.loads(CHOSEN.read_text()) if CHOSEN.exists() else {}
    general = chosen.get("general", {})
    if side not in general:
        raise SystemExit(
            f"No configuration of {side} was chosen: run `python -m benchmarks.learning_search "
            f"{side}`, then `python -m benchmarks.learning_general --choose --side {side}`."
        )
    own = chosen.get(task, {}) if table == "per task" else {}
    found: dict[str, Any] = (general | own)[side]
    return found


@cache
def hash_of_chosen(side: str, task: str, table: str = "general") -> str:
    """What a side's configuration is known by.

    Raises:
        SystemExit: none was chosen.
    """
    chosen = json.dumps(chosen_of(side, task, table), sort_keys=True)
    return hashlib.sha256(chosen.encode()).hexdigest()[:12]


def read_rows() -> list[dict[str, str]]:
    """All rows measured so far.

    Raises:
        SystemExit: some are of other configurations.
    """
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    others = {
        row["configuration"]
        for row in rows
        if row["configuration"]
        not in {hash_of_chosen(row["side"], row["task"], table) for table in TABLES}
    }
    if others:
        raise SystemExit(f"{RESULTS.name} has rows of other configurations: {sorted(others)}")
    return rows


def rows_of(task: str, side: str, table: str) -> list[dict[str, str]]:
    """What was measured for a table's line."""
    return [
        row
        for row in read_rows()
        if (row["task"], row["side"]) == (task, side)
        and row["configuration"] == hash_of_chosen(side, task, table)
    ]


def measure(task: str, side: str, seed: int, table: str) -> None:
    """Train and judge once, where there is no row yet."""
    if any(row["seed"] == str(seed) for row in rows_of(task, side, table)):
        return
    budget, settings = SCALES[task][0], chosen_of(side, task, table)["settings"]
    env_kwargs = ENV_KWARGS.get(task, {})
    steps: list[int] = []
    heights: list[float] = []

    def look(timesteps: int, policy: Predictor) -> None:
        if timesteps * 10 // budget > (steps[-1] * 10 // budget if steps else 0):
            steps.append(timesteps)
            heights.append(evaluate(policy, task, n_episodes=10, env_kwargs=env_kwargs).mean)

    start = time.perf_counter()
    policy = SIDES[side](
        Training(
            env_name=task, budget=budget, seed=seed, chosen=settings, env_kwargs=env_kwargs,
            look=look,
        )
    )  # fmt: skip
    seconds = time.perf_counter() - start
    score = evaluate(policy, task, n_episodes=100, env_kwargs=env_kwargs).mean
    area = area_under_curve(steps, heights, budget)
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        numbers = (f"{score:.3f}", f"{area:.3f}", f"{seconds:.1f}")
        writer.writerow((task, side, seed, *numbers, hash_of_chosen(side, task, table)))
    write_machine("learning_general")
    print(f"{task} {side} seed {seed}: {score:.1f} ({seconds:.0f} s)", flush=True)


def scores_of(task: str, side: str, table: str, column: str = "mean_return") -> np.ndarray:
    """One a seed."""
    return np.array([float(row[column]) for row in rows_of(task, side, table)])


def whole_tasks(table: str) -> list[str]:
    """Those of a table of which both sides have played all seeds."""
    return [task for task in tasks_of(table) if all(is_whole(task, side, table) for side in SIDES)]


def seeds_of(task: str, side: str) -> range:
    """Those that are reported."""
    return LATER_SEEDS.get((task, side), SEEDS)


def is_whole(task: str, side: str, table: str) -> bool:
    """Whether a side has played all seeds."""
    return len(rows_of(task, side, table)) == len(seeds_of(task, side))


def tasks_of(table: str) -> list[str]:
    """All of a table."""
    return list(SCALES if table == "general" else TASKS)


def normalized(tasks: list[str], side: str, table: str) -> np.ndarray:
    """Shape (seeds, tasks): 0 as random actions, 1 as what counts as learned."""
    columns = []
    for task in tasks:
        _, low, high = SCALES[task]
        columns.append((scores_of(task, side, table) - low) / (high - low))
    return np.stack(columns, axis=1)


def improvement(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Chance that a seed of ours is above one of theirs, mean of the tasks, with its interval.

    Seeds are drawn anew within each task (Agarwal et al. 2021, arXiv 2108.13264).

    Args:
        ours: shape (seeds, tasks).
        theirs: likewise.
    """

    def chance(a: np.ndarray, b: np.ndarray) -> float:
        return float(0.5 + np.sign(a[:, None] - b[None]).mean() / 2.0)

    rng, drawn_anew = np.random.default_rng(0), []
    for _ in range(2_000):
        picks = (rng.integers(0, len(side), side.shape) for side in (ours, theirs))
        one, other = (
            np.take_along_axis(side, pick, axis=0)
            for side, pick in zip((ours, theirs), picks, strict=True)
        )
        drawn_anew.append(chance(one, other))
    low, high = np.quantile(drawn_anew, (0.025, 0.975))
    return chance(ours, theirs), float(low), float(high)


HEADER = (
    "| task | timesteps | GRPO: IQM | min | area | PPO: IQM | min | area |\n" + "|---" * 8 + "|"
)


def table_of(table: str) -> str:
    """A table as Markdown; a dash where a side has not played all seeds."""
    lines = [HEADER]
    for task in tasks_of(table):
        cells = [task, f"{SCALES[task][0]:,}"]
        for side in SIDES:
            scores = scores_of(task, side, table)
            if not is_whole(task, side, table):
                cells += ["—"] * 3
                continue
            low, high = stratified_bootstrap_interval(scores[:, None])
            area = scores_of(task, side, table, "area_under_curve").mean()
            middle = f"{shown(iqm(scores))} [{shown(low)}, {shown(high)}]"
            cells += [middle, shown(scores.min()), shown(area)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(value: float) -> str:
    """A return, with as many decimals as tell something."""
    rounded = f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.1f}" if abs(value) >= 10 else ""
    return (rounded or f"{value:.2f}").replace("-0.00", "0.00")


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a table comes to over the tasks that both sides have played."""

    n_tasks: int
    ours: tuple[float, float, float]
    """Normalised IQM and its interval."""
    theirs: tuple[float, float, float]
    improvement: tuple[float, float, float]

    def __str__(self) -> str:
        """In a sentence."""
        ours, theirs, chance = (
            f"{middle:.2f} [{low:.2f}, {high:.2f}]"
            for middle, low, high in (self.ours, self.theirs, self.improvement)
        )
        return (
            f"Over {self.n_tasks} tasks the normalised IQM is {ours} for GRPO and {theirs} for "
            f"PPO; the probability of improvement is {chance}."
        )


def summary(table: str) -> Summary | None:
    """What a table comes to; None where no task was played by both."""
    whole = whole_tasks(table)
    if not whole:
        return None
    ours, theirs = (normalized(whole, side, table) for side in SIDES)
    return Summary(
        n_tasks=len(whole),
        ours=(iqm(ours), *stratified_bootstrap_interval(ours)),
        theirs=(iqm(theirs), *stratified_bootstrap_interval(theirs)),
        improvement=improvement(ours, theirs),
    )


def is_met(table: str) -> bool:
    """Whether ours is ahead on all tasks together, by more than chance."""
    came_to = summary(table)
    if came_to is None or came_to.n_tasks < len(tasks_of(table)):
        return False
    chance, low, _ = came_to.improvement
    return came_to.ours[0] > came_to.theirs[0] and chance >= LEAST_IMPROVEMENT and low > 0.5


def plot(path: Path) -> None:
    """Share of runs above each normalised return, both sides, both tables."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.5), layout="constrained")
    thresholds = np.linspace(0.0, 1.2, 121)
    for axes, table in zip(figure.subplots(1, 2, sharey=True), TABLES, strict=True):
        whole = whole_tasks(table)
        for side, name, colour in (("ppo", "PPO", "tab:orange"), ("grpo", "GRPO", "tab:blue")):
            if not whole:
                continue
            profile = performance_profile(normalized(whole, side, table).ravel(), thresholds)
            axes.plot(thresholds, profile.shares, color=colour, label=name)
            axes.fill_between(thresholds, profile.low, profile.high, color=colour, alpha=0.2, lw=0)
        axes.set_xlabel("normalised return (0: random actions, 1: learned)")
        axes.set_title(f"Tuned {table}: {len(whole)} tasks, ten seeds")
        if whole:
            axes.legend()
    figure.axes[0].set_ylabel("share of runs above it")
    figure.savefig(path, dpi=110)


def main() -> int:
    """Measure what was asked for, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", choices=[*SCALES, []], default=[])
    parser.add_argument("--side", choices=SIDES, help="only this side; the other may run beside it")
    parser.add_argument("--choose", action="store_true", help="write down the best trials")
    parser.add_argument("--report", action="store_true", help="only print what was measured")
    parser.add_argument("--plot", type=Path, help="draw what was measured into this file")
    arguments = parser.parse_args()
    sides = [arguments.side] if arguments.side else list(SIDES)
    if arguments.choose:
        choose(sides)
        return 0
    torch.set_num_threads(1)
    os.environ[MODULES_VARIABLE] = "flappy_bird_gymnasium,minigrid"
    if not arguments.report:
        with threadpool_limits(1):
            for table in TABLES:
                for task in arguments.tasks or tasks_of(table):
                    for side in sides:
                        for seed in seeds_of(task, side):
                            measure(task, side, seed, table)
    if arguments.plot is not None:
        plot(arguments.plot)
    for table in TABLES:
        print(f"{table}\n{table_of(table)}\n{summary(table) or ''}\n")
    return 0 if all(is_met(table) for table in TABLES) else 1


if __name__ == "__main__":
    sys.exit(main())
