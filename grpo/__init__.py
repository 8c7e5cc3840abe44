"""Group relative policy optimization for Gymnasium environments."""

from grpo.checkpoint import TrainingState
from grpo.config import PRESETS, REWARD_PRESETS, GRPOConfig, resolve_config
from grpo.errors import (
    AdvantageError,
    CheckpointError,
    ConfigError,
    EnvironmentFaultError,
    GRPOError,
    RewardError,
    TrainingDivergedError,
)
from grpo.evaluation import Evaluation, evaluate, paired_difference
from grpo.grpo import GRPO
from grpo.policies import ActorCriticPolicy, BasePolicy, MlpPolicy, PolicySpec, Prediction
from grpo.reporting import Reporter, RolloutStats, UpdateStats
from grpo.rollout import EpisodeStats
from grpo.trainer import Trainer, TrainResult, validate
from grpo.verdict import Verdict

__all__ = [
    "GRPO",
    "PRESETS",
    "REWARD_PRESETS",
    "ActorCriticPolicy",
    "AdvantageError",
    "BasePolicy",
    "CheckpointError",
    "ConfigError",
    "EnvironmentFaultError",
    "EpisodeStats",
    "Evaluation",
    "GRPOConfig",
    "GRPOError",
    "MlpPolicy",
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
    "Verdict",
    "evaluate",
    "paired_difference",
    "resolve_config",
    "validate",
]
