"""Catalog calls: what they give."""

from pydantic import JsonValue

from grpo_platform.api.schemas.common import Reply

__all__ = ["Environment", "EnvironmentList", "Reward", "RewardList"]


class Environment(Reply):
    """One environment that can be trained."""

    env_name: str
    preset: dict[str, JsonValue]
    """Fields of POST /train that differ from the general defaults here, unless they are given."""

    reward_presets: dict[str, dict[str, JsonValue]]
    """By reward_function_type: the fields that differ from `preset` under that reward."""


class EnvironmentList(Reply):
    """Environments by name."""

    environments: list[Environment]


class Reward(Reply):
    """One reward function that can be trained on."""

    name: str
    description: str
    environments: str
    """Environments that it fits."""


class RewardList(Reply):
    """Reward functions by name."""

    rewards: list[Reward]
