"""Group relative policy optimization for Gymnasium environments."""

from grpo.config import GRPOConfig
from grpo.errors import ConfigError, GRPOError
from grpo.reporting import NullReporter, Reporter, RolloutStats, UpdateStats

__all__ = [
    "ConfigError",
    "GRPOConfig",
    "GRPOError",
    "NullReporter",
    "Reporter",
    "RolloutStats",
    "UpdateStats",
]
