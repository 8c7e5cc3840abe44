"""Hyperparameters per environment, used for what a caller leaves out."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from grpo.config import GRPOConfig

__all__ = ["PRESETS", "resolve_config"]

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "CartPole-v1": {"reward_function_type": "optimized_cartpole"},
    }
)
"""By environment id: the fields that differ from the defaults of `GRPOConfig`."""


def resolve_config(**fields: Any) -> GRPOConfig:  # noqa: ANN401
    """A config from the given fields, the environment's preset, and the defaults, in this order.

    A field given as None counts as left out. Raises TypeError for an unknown field.

    Raises:
        ConfigError: the values cannot be trained.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    default = next(f.default for f in dataclasses.fields(GRPOConfig) if f.name == "env_name")
    env_name = given.get("env_name", default)
    preset = PRESETS.get(env_name, {}) if isinstance(env_name, str) else {}
    return GRPOConfig(**{**preset, **given})
