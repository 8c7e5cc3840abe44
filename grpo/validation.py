"""Everything about a config that can be known before a step is run."""

from grpo.autograd import resolve_device
from grpo.config import GRPOConfig
from grpo.envs import EnvironmentSpec, check_environment
from grpo.rewards import get_reward

__all__ = ["validate"]


def validate(config: GRPOConfig) -> EnvironmentSpec:
    """Check that the environment can be made, that the reward fits it, and that the device exists.

    Raises:
        ConfigError: what is wrong, and what would be right.
    """
    spec = check_environment(config.env_name, config.env_kwargs)
    get_reward(config.reward_function_type, spec)
    resolve_device(config.device)
    return spec
