"""The peer: Stable-Baselines3's PPO with RL Zoo's tuned settings, under our evaluation.

Settings are those of rl-baselines3-zoo, hyperparams/ppo.yml, at commit 00128b5; where the zoo has
an older version of an environment (LunarLander-v2, InvertedDoublePendulum-v3), its settings are
used for the present one; a batch larger than the rollout is written as the rollout, as PPO does.
PPO collects whole rollouts, so it may pass the budget by less than one rollout: that is in its
favour and left so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from grpo.envs.spec import check_environment
from grpo.policies import Prediction

__all__ = ["ZOO", "PPOPolicy", "train_ppo"]


def linear(start: float) -> Callable[[float], float]:
    """RL Zoo's `lin_x`: from `start` to 0 as the budget is used up."""
    return lambda remaining: remaining * start


ZOO: dict[str, dict[str, Any]] = {
    "CartPole-v1": {
        "n_envs": 8, "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98,
        "n_epochs": 20, "ent_coef": 0.0, "learning_rate": linear(0.001), "clip_range": linear(0.2),
    },
    "Acrobot-v1": {
        "normalize": True, "n_envs": 16, "n_steps": 256, "gae_lambda": 0.94, "gamma": 0.99,
        "n_epochs": 4, "ent_coef": 0.0,
    },
    "MountainCar-v0": {
        "normalize": True, "n_envs": 16, "n_steps": 16, "gae_lambda": 0.98, "gamma": 0.99,
        "n_epochs": 4, "ent_coef": 0.0,
    },
    "LunarLander-v3": {
        "n_envs": 16, "n_steps": 1024, "batch_size": 64, "gae_lambda": 0.98, "gamma": 0.999,
        "n_epochs": 4, "ent_coef": 0.01,
    },
    "Pendulum-v1": {
        "n_envs": 4, "n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9, "n_epochs": 10,
        "ent_coef": 0.0, "learning_rate": 1e-3, "clip_range": 0.2, "use_sde": True,
        "sde_sample_freq": 4,
    },
    "MountainCarContinuous-v0": {
        "normalize": True, "n_envs": 1, "n_steps": 8, "batch_size": 256, "gae_lambda": 0.9,
        "gamma": 0.9999, "n_epochs": 10, "ent_coef": 0.00429, "learning_rate": 7.77e-05,
        "clip_range": 0.1, "max_grad_norm": 5, "vf_coef": 0.19, "use_sde": True,
        "policy_kwargs": {"log_std_init": -3.29, "ortho_init": False},
    },
    "InvertedDoublePendulum-v5": {
        "normalize": True, "n_envs": 1, "n_steps": 128, "batch_size": 128, "gamma": 0.98,
        "learning_rate": 0.000155454, "ent_coef": 1.05057e-06, "clip_range": 0.4, "n_epochs": 10,
        "gae_lambda": 0.8, "max_grad_norm": 0.5, "vf_coef": 0.695929,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PPOPolicy:
    """A trained PPO behind the interface that `grpo.evaluation.evaluate` plays."""

    model: PPO
    normalizer: VecNormalize | None

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Greedy actions for observations of shape (N, *observation_shape)."""
        return self.predict(observations).actions

    def predict(
        self,
        observations: np.ndarray,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> Prediction:
        """Actions for observations of shape (N, *observation_shape)."""
        if self.normalizer is not None:
            observations = self.normalizer.normalize_obs(observations)
        actions, _ = self.model.predict(observations, deterministic=deterministic)
        zeros = np.zeros(len(observations), np.float32)
        return Prediction(actions=actions, action_probs=None, mean=None, std=None, values=zeros)


class _Shown(BaseCallback):
    """Shows a training: the timesteps so far, and the policy, after each iteration."""

    def __init__(self, look: Callable[[int, PPOPolicy], object]) -> None:
        super().__init__()
        self._look = look

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps:
            self._show()

    def _on_training_end(self) -> None:
        self._show()

    def _show(self) -> None:
        env = self.model.get_vec_normalize_env()
        self._look(self.num_timesteps, PPOPolicy(self.model, env))


def train_ppo(
    env_name: str,
    total_timesteps: int,
    seed: int,
    settings: dict[str, Any] | None = None,
    look: Callable[[int, PPOPolicy], object] | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
) -> tuple[PPOPolicy, int]:
    """Train PPO and return it with the timesteps that it really used.

    Args:
        env_name: Gymnasium id.
        total_timesteps: budget; the last rollout may pass it.
        seed: seeds networks, environments and exploration.
        settings: PPO's keyword arguments, with `n_envs` and `normalize`; RL Zoo's by default.
        look: is shown the timesteps so far, and the policy, after each iteration.
        env_kwargs: of the environment, `wrappers` among them, as ours takes them.
    """
    chosen = dict(ZOO[env_name] if settings is None else settings)
    normalize = chosen.pop("normalize", False)
    n_envs = chosen.pop("n_envs")
    make = check_environment(env_name, env_kwargs).make
    env: DummyVecEnv | VecNormalize = DummyVecEnv([make] * n_envs)
    if normalize:
        env = VecNormalize(env, gamma=chosen["gamma"])
    model = PPO("MlpPolicy", env, seed=seed, device="cpu", **chosen)
    model.learn(total_timesteps, callback=None if look is None else _Shown(look))
    normalizer = env if isinstance(env, VecNormalize) else None
    if normalizer is not None:
        normalizer.training = False
    return PPOPolicy(model, normalizer), model.num_timesteps
