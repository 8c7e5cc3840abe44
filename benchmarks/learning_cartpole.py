"""The guide's step 2 over 20 seeds: CartPole-v1, 5,000 steps, greedy, native reward, 100 episodes.

Values as the guide prints them, everything else at our defaults; last iterate, strict budget,
seeds that were not used while tuning. Exits with 1 where the bar is missed.

    python -m benchmarks.learning_cartpole [--seeds 20] [--first-seed 7000]
"""

import argparse
import os
import sys
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch

from grpo import Trainer, resolve_config
from grpo.evaluation import iqm, stratified_bootstrap_interval

GUIDE = {
    "env_name": "CartPole-v1", "total_timesteps": 5_000, "learning_rate": 3e-4, "n_steps": 32,
    "batch_size": 64, "n_epochs": 10, "reward_function_type": "optimized_cartpole",
}  # fmt: skip
LEAST_MEAN, LEAST_IQM, LEAST_OF_ALL = 490.0, 495.0, 450.0


def train(seed: int) -> float:
    """Mean return of the evaluation that ends a training run."""
    result = Trainer(resolve_config(**GUIDE, seed=seed)).train()
    assert result.timesteps == GUIDE["total_timesteps"]
    assert result.evaluation is not None
    return result.evaluation.mean


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=7_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scores, start = [], time.perf_counter()
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        scores.append(train(seed))
        print(f"seed {seed}: {scores[-1]:.1f}", flush=True)
    values = np.array(scores)
    low, high = stratified_bootstrap_interval(values[:, None])
    middle = float(iqm(values))
    print(
        f"{len(values)} seeds in {time.perf_counter() - start:.0f} s: mean {values.mean():.1f}, "
        f"IQM {middle:.1f} (95 % interval {low:.1f} to {high:.1f}), min {values.min():.1f}"
    )
    reached = values.mean() >= LEAST_MEAN and middle >= LEAST_IQM and values.min() >= LEAST_OF_ALL
    print(
        f"bar: mean >= {LEAST_MEAN:.0f}, IQM >= {LEAST_IQM:.0f}, none below {LEAST_OF_ALL:.0f}: "
        f"{'reached' if reached else 'MISSED'}"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
