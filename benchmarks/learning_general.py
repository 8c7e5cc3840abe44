"""One configuration for all tasks, of ours and of PPO: last iterate, greedy, native reward.

Both sides were tuned with the same number of trials on the same tasks and seeds, by
`benchmarks.learning_search`. What they came to is in `results/learning_general.json`, which is
committed before anything is reported: each row carries its side's hash, and rows of another one are
refused. Half of the tasks were not tuned on. A row a task, side and seed goes to
`results/learning_general.csv`; rows that are there are not run again, so an interrupted run goes
on. At each tenth of the budget ten episodes are played, for the area under the curve.

    python -m benchmarks.learning_general [TASK ...] [--side SIDE] [--choose | --report] [--plot F]
"""

import argparse
import csv
import hashlib
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.learning_search import SIDES, TASKS, drawn, ranking
from benchmarks.results import FOLDER, write_machine
from grpo.bootstrap import iqm, stratified_bootstrap_interval
from grpo.curves import area_under_curve
from grpo.evaluation import Predictor, evaluate
from grpo.statistics import performance_profile

RESULTS, CHOSEN = FOLDER / "learning_general.csv", FOLDER / "learning_general.json"
COLUMNS = (
    "task", "side", "seed", "mean_return", "area_under_curve", "train_seconds", "configuration"
)  # fmt: skip
SEEDS = range(3_000, 3_010)
SCALES = TASKS | {  # budget, what random actions get, what counts as 1
    "MountainCarContinuous-v0": (50_000, -35.0, 95.0),
    "MountainCar-v0": (100_000, -200.0, -110.0),
    "Walker2d-v5": (300_000, 2.0, 3_000.0),
    "InvertedDoublePendulum-v5": (300_000, 60.0, 9_300.0),
    "Swimmer-v5": (300_000, 0.0, 120.0),
    "BipedalWalker-v3": (500_000, -100.0, 300.0),
}
LEAST_IMPROVEMENT = 0.65


def choose(sides: Iterable[str]) -> None:
    """Write down the best trial of each of these sides."""
    chosen = json.loads(CHOSEN.read_text()) if CHOSEN.exists() else {}
    for side in sides:
        (score, trial), *_ = ranking(side, tuple(TASKS))
        chosen[side] = {"trial": trial, "score": round(score, 4), "settings": drawn(side, trial)}
    CHOSEN.write_text(json.dumps(chosen, indent=2) + "\n")


def chosen_of(side: str) -> dict[str, Any]:
    """A side's trial, its score, and its settings.

    Raises:
        SystemExit: none was chosen.
    """
    sides: dict[str, dict[str, Any]] = json.loads(CHOSEN.read_text()) if CHOSEN.exists() else {}
    if side not in sides:
        raise SystemExit(
            f"No configuration of {side} was chosen: run `python -m benchmarks.learning_search "
            f"{side}`, then `python -m benchmarks.learning_general --choose --side {side}`."
        )
    return sides[side]


def hash_of_chosen(side: str) -> str:
    """What a side's configuration is known by.

    Raises:
        SystemExit: none was chosen.
    """
    chosen = json.dumps(chosen_of(side), sort_keys=True)
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
        row["configuration"] for row in rows if row["configuration"] != hash_of_chosen(row["side"])
    }
    if others:
        raise SystemExit(f"{RESULTS.name} has rows of other configurations: {sorted(others)}")
    return rows


def measure(task: str, side: str, seed: int) -> None:
    """Train and judge once, where there is no row yet."""
    if any(
        (row["task"], row["side"], row["seed"]) == (task, side, str(seed)) for row in read_rows()
    ):
        return
    budget, settings = SCALES[task][0], chosen_of(side)["settings"]
    steps: list[int] = []
    heights: list[float] = []

    def look(timesteps: int, policy: Predictor) -> None:
        if timesteps * 10 // budget > (steps[-1] * 10 // budget if steps else 0):
            steps.append(timesteps)
            heights.append(evaluate(policy, task, n_episodes=10).mean)

    start = time.perf_counter()
    policy = SIDES[side](task, budget, seed, settings, look)
    seconds = time.perf_counter() - start
    score = evaluate(policy, task, n_episodes=100).mean
    area = area_under_curve(steps, heights, budget)
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(
            (
                task,
                side,
                seed,
                f"{score:.3f}",
                f"{area:.3f}",
                f"{seconds:.1f}",
                hash_of_chosen(side),
            )
        )
    write_machine("learning_general")
    print(f"{task} {side} seed {seed}: {score:.1f} ({seconds:.0f} s)", flush=True)


def scores_of(task: str, side: str, column: str = "mean_return") -> np.ndarray:
    """One a seed."""
    found = [row for row in read_rows() if (row["task"], row["side"]) == (task, side)]
    return np.array([float(row[column]) for row in found])


def normalized(tasks: list[str], side: str) -> np.ndarray:
    """Shape (seeds, tasks): 0 as random actions, 1 as what counts as learned."""
    columns = []
    for task in tasks:
        _, low, high = SCALES[task]
        columns.append((scores_of(task, side) - low) / (high - low))
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


def report() -> bool:
    """Print the table; False where a bar is missed."""
    sides = sorted({row["side"] for row in read_rows()})
    print("configurations", *(f"{side} {hash_of_chosen(side)}" for side in sides))
    print(f"{'task':26} {'side':5} {'seeds':>5} {'IQM':>8}  95 % interval {'min':>13} {'area':>8}")
    whole = []
    for task in SCALES:
        both = True
        for side in SIDES:
            scores = scores_of(task, side)
            both &= len(scores) == len(SEEDS)
            if not len(scores):
                continue
            low, high = stratified_bootstrap_interval(scores[:, None])
            area = scores_of(task, side, "area_under_curve").mean()
            print(
                f"{task:26} {side:5} {len(scores):5d} {iqm(scores):8.1f}  "
                f"[{low:8.1f}, {high:8.1f}] {scores.min():8.1f} {area:8.1f}"
            )
        if both:
            whole.append(task)
    if not whole:
        return False
    ours, theirs = (normalized(whole, side) for side in SIDES)
    for side, scores in zip(SIDES, (ours, theirs), strict=True):
        low, high = stratified_bootstrap_interval(scores)
        middle = f"{iqm(scores):.3f} [{low:.3f}, {high:.3f}]"
        print(f"{side}: normalised IQM of {len(whole)} tasks {middle}")
    chance, low, high = improvement(ours, theirs)
    print(f"probability of improvement {chance:.3f} [{low:.3f}, {high:.3f}]")
    is_whole = len(whole) == len(SCALES)
    return is_whole and iqm(ours) > iqm(theirs) and chance >= LEAST_IMPROVEMENT and low > 0.5


def plot(path: Path) -> None:
    """Share of runs above each normalised return, both sides."""
    from matplotlib.figure import Figure

    whole = [
        task for task in SCALES if all(len(scores_of(task, side)) == len(SEEDS) for side in SIDES)
    ]
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.subplots()
    thresholds = np.linspace(0.0, 1.2, 121)
    for side, name, colour in (("ppo", "PPO", "tab:orange"), ("grpo", "GRPO", "tab:blue")):
        profile = performance_profile(normalized(whole, side).ravel(), thresholds)
        axes.plot(thresholds, profile.shares, color=colour, label=name)
        axes.fill_between(thresholds, profile.low, profile.high, color=colour, alpha=0.2, lw=0)
    axes.set_xlabel("normalised return (0: random actions, 1: learned)")
    axes.set_ylabel("share of runs above it")
    axes.set_title(f"One configuration each, {len(whole)} tasks, {len(SEEDS)} seeds")
    axes.legend()
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
    if not arguments.report:
        with threadpool_limits(1):
            for task in arguments.tasks or SCALES:
                for seed in SEEDS:
                    for side in sides:
                        measure(task, side, seed)
    if arguments.plot is not None:
        plot(arguments.plot)
    return 0 if report() else 1


if __name__ == "__main__":
    sys.exit(main())
