"""The peer of benchmarks/environments.py: Stable-Baselines3's PPO at its own defaults.

It trains on the environments that ours makes, wrappers included, and is judged by our evaluation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from grpo.envs.spec import EnvironmentSpec
from grpo.observations import ObservationSpec

__all__ = ["PPOPolicy", "make_ppo"]


@dataclass(frozen=True, slots=True)
class PPOPolicy:
    """A trained PPO behind the interface that `grpo.evaluation.evaluate` plays greedily."""

    model: PPO
    reads: ObservationSpec

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Greedy actions for rows of shape (N, *observation_shape), seen as the space has them."""
        rows = self.reads.unmasked(observations)
        seen: Any = rows.astype(self.reads.leaves[0].dtype)
        if self.reads.is_tree:
            seen = {
                leaf.path[0]: rows[:, own].reshape(-1, *leaf.shape).astype(leaf.dtype)
                for leaf, own in self.reads.columns()
            }
        actions, _ = self.model.predict(seen, deterministic=True)
        return actions


def make_ppo(spec: EnvironmentSpec, n_envs: int, seed: int, **settings: object) -> PPO:
    """PPO on the CPU, with the policy that its documentation names for what is observed.

    Args:
        spec: the environment.
        n_envs: how many of it, stepped in turn.
        seed: of networks, environments and exploration.
        settings: PPO's keyword arguments that are not at their defaults.

    Raises:
        Exception: it does not take the spaces.
    """
    policy = "CnnPolicy" if spec.observation.leaves[0].is_image else "MlpPolicy"
    if isinstance(spec.observation_space, spaces.Dict):
        policy = "MultiInputPolicy"
    return PPO(policy, DummyVecEnv([spec.make] * n_envs), seed=seed, device="cpu", **settings)
