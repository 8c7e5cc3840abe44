"""Environments whose members are stepped together, put into visited states and branched."""

from grpo.envs.factory import make_member_envs, steps_together
from grpo.envs.listing import describe_environments
from grpo.envs.members import Branching, MemberEnvs, Snapshot, StepResult
from grpo.envs.spec import EnvironmentSpec, check_environment

__all__ = [
    "Branching",
    "EnvironmentSpec",
    "MemberEnvs",
    "Snapshot",
    "StepResult",
    "check_environment",
    "describe_environments",
    "make_member_envs",
    "steps_together",
]
