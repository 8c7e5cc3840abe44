"""Environments whose members are stepped together, put into visited states and branched."""

from grpo.envs.factory import make_vec_env
from grpo.envs.spec import EnvironmentSpec, check_environment
from grpo.envs.vec_env import Branching, Snapshot, StepResult, VecEnv

__all__ = [
    "Branching",
    "EnvironmentSpec",
    "Snapshot",
    "StepResult",
    "VecEnv",
    "check_environment",
    "make_vec_env",
]
