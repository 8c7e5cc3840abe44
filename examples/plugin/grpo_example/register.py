"""What is called to find the environments of this package; imports nothing that is slow."""

import gymnasium as gym

__all__ = ["register"]


def register() -> None:
    """Register this package's environments."""
    gym.register(
        "Docking-v0",
        entry_point="grpo_example.docking:Docking",
        max_episode_steps=100,
        reward_threshold=-3.0,
    )
