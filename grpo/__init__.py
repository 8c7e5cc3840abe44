"""Group relative policy optimization for Gymnasium environments."""

from grpo.checkpoint import TrainingState
from grpo.config import GRPOConfig
from grpo.errors import (
    CheckpointError,
    ConfigError,
    EnvironmentFaultError,
    GRPOError,
    RewardError,
    TrainingDivergedError,
)
from grpo.evaluation import Evaluation, evaluate, paired_difference
from grpo.policy import Policy, PolicySpec, Prediction
from grpo.presets import PRESETS, REWARD_PRESETS, resolve_config
from grpo.reporting import EpisodeStats, NullReporter, Reporter, RolloutStats, UpdateStats
from grpo.trainer import Trainer, TrainResult
from grpo.validation import validate

__all__ = [
    "PRESETS",
    "REWARD_PRESETS",
    "CheckpointError",
    "ConfigError",
    "EnvironmentFaultError",
    "EpisodeStats",
    "Evaluation",
    "GRPOConfig",
    "GRPOError",
    "NullReporter",
    "Policy",
    "PolicySpec",
    "Prediction",
    "Reporter",
    "RewardError",
    "RolloutStats",
    "TrainResult",
    "Trainer",
    "TrainingDivergedError",
    "TrainingState",
    "UpdateStats",
    "evaluate",
    "paired_difference",
    "resolve_config",
    "validate",
]
