"""What can be trained, and how."""

from typing import Annotated

from fastapi import APIRouter, Query

from grpo.config import DEFAULT_PRESET, PRESETS, REWARD_PRESETS
from grpo_platform.api.dependencies import Limit, PageToken, ServicesDep
from grpo_platform.api.errors import documented
from grpo_platform.api.schemas.catalog import Environment, EnvironmentList, Reward, RewardList

__all__ = ["router"]

router = APIRouter(tags=["catalog"], responses=documented(401, 403))


@router.get("/environments", operation_id="list_environments", responses=documented(400, 422))
def list_environments(
    services: ServicesDep,
    name: Annotated[
        str, Query(max_length=200, description="Only ids that contain this, in whatever case.")
    ] = "",
    trainable: Annotated[
        bool, Query(description="Those that can be trained, or those that cannot.")
    ] = True,
    limit: Limit = 100,
    page_token: PageToken = None,
) -> EnvironmentList:
    """Environments that are registered here, by name; each was made and reset once."""
    page = services.environments.list(
        name=name, trainable=trainable, limit=limit, page_token=page_token
    )
    environments = [
        Environment(
            **record._asdict(),
            preset=dict(PRESETS.get(record.env_name, DEFAULT_PRESET)),
            reward_presets={
                reward: dict(fields)
                for reward, fields in REWARD_PRESETS.get(record.env_name, {}).items()
            },
        )
        for record in page.items
    ]
    return EnvironmentList(environments=environments, next_page_token=page.next_page_token)


@router.get("/rewards", operation_id="list_rewards", responses=documented(400))
def list_rewards(services: ServicesDep) -> RewardList:
    """Reward functions that can be trained on."""
    return RewardList(rewards=[Reward(**reward) for reward in services.isolation.rewards()])
