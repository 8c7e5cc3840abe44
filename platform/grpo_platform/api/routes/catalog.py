"""What can be trained, and how."""

from fastapi import APIRouter

from grpo.envs.catalogue import registered_names
from grpo.presets import PRESETS, REWARD_PRESETS
from grpo.rewards import describe_rewards
from grpo_platform.api.problems import documented
from grpo_platform.api.schemas.catalog import Environment, EnvironmentList, Reward, RewardList

__all__ = ["router"]

router = APIRouter(tags=["catalog"], responses=documented(401, 403))


@router.get("/environments", operation_id="list_environments")
def list_environments() -> EnvironmentList:
    """Environments that are registered here and that a policy can be trained in."""
    return EnvironmentList(
        environments=[
            Environment(
                env_name=name,
                preset=dict(PRESETS.get(name, {})),
                reward_presets={
                    reward: dict(fields) for reward, fields in REWARD_PRESETS.get(name, {}).items()
                },
            )
            for name in registered_names()
        ]
    )


@router.get("/rewards", operation_id="list_rewards")
def list_rewards() -> RewardList:
    """Reward functions that can be trained on."""
    return RewardList(rewards=[Reward(**reward) for reward in describe_rewards()])
