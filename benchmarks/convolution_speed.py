"""How many steps a second a convolution learns from on one CPU thread, beside Stable-Baselines3.

Both sides have the same environments and wrappers, as many of them side by side, the network of
Mnih et al. (2015), and the same steps, epochs and minibatches, so that they do as many updates;
both counts are printed. Ours starts every segment at a reset, since a replayed step would count
without being learned from, and compares segments by the value of where they end, since those
without a reward would be skipped. A run is one rollout, so that both sides reset as often; start-up
is in neither's time.
"""

import argparse
import os
import statistics
import time
import warnings

import gymnasium
import torch
from threadpoolctl import threadpool_limits

from benchmarks.environments import ENVIRONMENTS, Environment
from benchmarks.ppo_defaults import make_ppo
from benchmarks.results import write_rows
from grpo.config import resolve_config
from grpo.envs.catalogue import MODULES_VARIABLE
from grpo.reporting import Reporter, UpdateStats
from grpo.trainer import Trainer

NAMES = ("ALE/Pong-v5", "CarRacing-v3")
SHARED = {"n_steps": 256, "batch_size": 64, "n_epochs": 10}
MEMBERS = 2  # a group of ours, parallel environments of PPO
STEPS = MEMBERS * SHARED["n_steps"]


class Clock(Reporter):
    """Ends a training after so many steps, without an evaluation, and notes when that was."""

    def __init__(self, steps: int) -> None:
        self.steps, self.ended, self.n_updates = steps, 0.0, 0

    def on_update(self, stats: UpdateStats) -> bool:
        """Called after each iteration's updates; False ends the training."""
        self.ended, self.n_updates = time.perf_counter(), stats.n_updates
        return stats.timesteps < self.steps


def our_rate(environment: Environment, seed: int) -> tuple[float, int]:
    """Steps per second of a training of ours, and its minibatch updates."""
    config = resolve_config(
        env_name=environment.env_name, env_kwargs=environment.everything, seed=seed,
        total_timesteps=10 * STEPS, group_size=MEMBERS, start_states="reset", bootstrap=True,
        **SHARED,
    )  # fmt: skip
    clock = Clock(STEPS)
    with Trainer(config, reporter=clock) as trainer:
        began = time.perf_counter()
        trainer.train()
        return trainer.timesteps / (clock.ended - began), clock.n_updates


def their_rate(environment: Environment, seed: int) -> tuple[float, int]:
    """The same of PPO."""
    model = make_ppo(environment.spec(), MEMBERS, seed, **SHARED)
    began = time.perf_counter()
    model.learn(STEPS)
    rate = model.num_timesteps / (time.perf_counter() - began)
    model.env.close()
    return rate, model.num_timesteps // SHARED["batch_size"] * SHARED["n_epochs"]


def compare(environment: Environment, repeats: int) -> None:
    """Both sides by turns, one warm-up each dropped; prints and keeps medians and ranges."""
    pairs = [
        (our_rate(environment, seed), their_rate(environment, seed)) for seed in range(repeats + 1)
    ][1:]
    ratio = statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)
    rows = []
    for side, runs in zip(("grpo", "ppo"), zip(*pairs, strict=True), strict=True):
        rates = [rate for rate, _ in runs]
        print(
            f"{environment.env_name} {side:5} {statistics.median(rates):7.1f} steps/s  "
            f"[{min(rates):.1f}, {max(rates):.1f}]  {runs[0][1]} updates", flush=True,
        )  # fmt: skip
        rows.append({
            "environment": environment.env_name, "side": side,
            "median": f"{statistics.median(rates):.2f}", "least": f"{min(rates):.2f}",
            "most": f"{max(rates):.2f}", "unit": "steps/s", "runs": repeats, "steps": STEPS,
            "updates": runs[0][1], "ratio": f"{ratio:.2f}",
        })  # fmt: skip
    print(f"{environment.env_name} ratio {ratio:.2f}, median of {repeats} pairs")
    write_rows("convolution_speed", rows)


def main() -> None:
    """Compare what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # of packages, about each other
    gymnasium.logger.min_level = gymnasium.logger.ERROR
    os.environ[MODULES_VARIABLE] = "ale_py"
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for name in arguments.only:
            compare(ENVIRONMENTS[name], arguments.repeats)


if __name__ == "__main__":
    main()
