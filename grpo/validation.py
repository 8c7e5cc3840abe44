"""Everything about a config that can be known before a step is run."""

from grpo.config import GRPOConfig
from grpo.envs import EnvironmentSpec, check_environment
from grpo.rewards import get_reward

__all__ = ["validate"]


def validate(config: GRPOConfig) -> EnvironmentSpec:
    """Check that the environment can be made, and that the reward fits it.

    Whether the device exists is for the machine that trains, which may be another one.

    Raises:
        ConfigError: what is wrong, and what would be right.
    """
    spec = check_environment(config.env_name, config.env_kwargs)
    get_reward(config.reward_function_type, spec)
    return spec
