"""What can be trained, and how."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from grpo.config import PRESETS, REWARD_PRESETS, general_preset
from grpo.errors import ConfigError
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
            preset=dict(PRESETS.get(record.env_name) or general_preset()),
            reward_presets={
                reward: dict(fields)
                for reward, fields in REWARD_PRESETS.get(record.env_name, {}).items()
            },
        )
        for record in page.items
    ]
    return EnvironmentList(environments=environments, next_page_token=page.next_page_token)


@router.get(
    "/environments/picture",
    operation_id="get_environment_picture",
    response_class=Response,
    responses={
        200: {"content": {"image/webp": {}}, "description": "The picture."},
        202: {"description": "It is being drawn; ask again."},
        204: {"description": "The environment cannot be drawn."},
        **documented(404, 422, 503),
    },
)
def get_environment_picture(
    services: ServicesDep,
    env_name: Annotated[str, Query(max_length=200, description="Gymnasium id.")] = "CartPole-v1",
) -> Response:
    """A drawn frame of an environment, made by a process of its own when it is first asked for."""
    drawing = services.pictures.ask(env_name)
    if not drawing.done():
        soon = {"Retry-After": "1", "Cache-Control": "no-store"}
        return Response(status_code=202, headers=soon, media_type="image/webp")
    try:
        content = drawing.result()
    except ConfigError:
        return Response(status_code=204)
    headers = {"Cache-Control": "private, max-age=3600"}
    return Response(content, media_type="image/webp", headers=headers)


@router.get("/rewards", operation_id="list_rewards", responses=documented(400))
def list_rewards(services: ServicesDep) -> RewardList:
    """Reward functions that can be trained on."""
    return RewardList(rewards=[Reward(**reward) for reward in services.isolation.rewards()])
