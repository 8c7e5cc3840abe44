"""Catalog calls: what they give."""

from pydantic import JsonValue

from grpo_platform.api.schemas.common import Reply

__all__ = ["Environment", "EnvironmentList", "Reward", "RewardList"]


class Environment(Reply):
    """One registered environment."""

    env_name: str
    trainable: bool | None
    """Whether POST /train takes it; null where it was not tried yet."""

    reason: str | None
    """Why it cannot be trained, or is not known to; null where it can."""

    observation_space: str | None
    """As Gymnasium writes it; null where it cannot be trained, or is not known to."""

    action_space: str | None
    """Likewise; `, masked` follows where it says which actions may be taken."""

    policy: str | None
    """The policy that is trained unless another is named."""

    preset: dict[str, JsonValue]
    """Fields of POST /train that differ from the general defaults here, unless they are given."""

    reward_presets: dict[str, dict[str, JsonValue]]
    """By reward_function_type: the fields that differ from `preset` under that reward."""


class EnvironmentList(Reply):
    """A page of environments, by name."""

    environments: list[Environment]
    next_page_token: str | None
    """Leads to the next page; null on the last one."""


class Reward(Reply):
    """One reward function that can be trained on."""

    name: str
    description: str
    environments: str
    """Environments that it fits."""


class RewardList(Reply):
    """Reward functions by name."""

    rewards: list[Reward]
