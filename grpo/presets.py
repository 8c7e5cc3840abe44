"""Hyperparameters per environment, used for what a caller leaves out."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from grpo.config import GRPOConfig

__all__ = ["PRESETS", "REWARD_PRESETS", "resolve_config"]

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "CartPole-v1": {"reward_function_type": "optimized_cartpole"},
        "Acrobot-v1": {
            "learning_rate": 1e-3, "learning_rate_schedule": "linear", "n_steps": 32,
            "n_epochs": 4, "gamma": 0.995, "group_size": 8, "advantage": "blend",
            "bootstrap": True, "start_states": "branch_worst", "branch_probability": 0.5,
        },
        "MountainCar-v0": {
            "learning_rate": 2e-3, "learning_rate_schedule": "linear", "n_steps": 100,
            "batch_size": 128, "n_epochs": 12, "group_size": 8, "advantage": "loo_time",
            "ent_coef": 0.01, "bootstrap": True, "start_states": "reset",
        },
        "MountainCarContinuous-v0": {
            "learning_rate_schedule": "constant", "n_steps": 100, "batch_size": 512,
            "n_epochs": 4, "num_groups": 2, "group_size": 8, "clip_range": 0.2,
            "advantage": "global", "ent_coef": 0.003, "bootstrap": True, "start_states": "reset",
        },
        "Pendulum-v1": {
            "learning_rate": 2e-3, "learning_rate_schedule": "linear", "n_steps": 200,
            "batch_size": 128, "n_epochs": 16, "gamma": 0.95, "num_groups": 4, "group_size": 8,
            "advantage": "blend", "bootstrap": True, "start_states": "reset",
        },
        # a pole falls within a few steps: short segments, judged by the value of where they end
        "InvertedDoublePendulum-v5": {
            "learning_rate": 1e-3, "learning_rate_schedule": "linear", "n_steps": 8,
            "n_epochs": 4, "gamma": 0.98, "num_groups": 4, "group_size": 4, "clip_range": 0.2,
            "advantage": "dr", "bootstrap": True, "branch_probability": 0.95,
        },
        "LunarLander-v3": {
            "learning_rate": 6e-4, "learning_rate_schedule": "constant", "n_steps": 256,
            "batch_size": 512, "n_epochs": 4, "gamma": 0.999, "group_size": 16,
            "advantage": "loo_time", "ent_coef": 0.01, "start_states": "reset",
        },
    }
)  # fmt: skip
"""By environment id: the fields that differ from the defaults of `GRPOConfig`."""

REWARD_PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        # one a step says nothing until a pole falls: whole episodes, many of them
        "CartPole-v1": {
            "environment": {
                "learning_rate_schedule": "constant", "num_groups": 4, "group_size": 12,
                "n_steps": 500, "n_epochs": 4, "gamma": 0.98, "advantage": "dr",
                "bootstrap": True, "ent_coef": 0.01,
            },
        },
    }
)  # fmt: skip
"""By environment id and reward: the fields that differ from `PRESETS` under that reward."""


def _preset_of(env_name: str, reward_function_type: str | None = None) -> dict[str, Any]:
    """What differs from the defaults of `GRPOConfig` in an environment, under a reward.

    Args:
        env_name: any text; an environment without a preset has an empty one.
        reward_function_type: the reward that is trained on; None for the preset's own.
    """
    preset = dict(PRESETS.get(env_name, {}))
    reward = reward_function_type or preset.get("reward_function_type", "environment")
    return preset | dict(REWARD_PRESETS.get(env_name, {}).get(reward, {}))


def resolve_config(**fields: Any) -> GRPOConfig:  # noqa: ANN401
    """A config from the given fields, the environment's preset, and the defaults, in this order.

    A field given as None counts as left out. Raises TypeError for an unknown field.

    Raises:
        ConfigError: the values cannot be trained.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    default = next(f.default for f in dataclasses.fields(GRPOConfig) if f.name == "env_name")
    names = given.get("env_name", default), given.get("reward_function_type")
    preset = _preset_of(*names) if all(isinstance(n, str | None) for n in names) else {}
    return GRPOConfig(**{**preset, **given})
