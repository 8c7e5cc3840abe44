"""Model calls."""

from anyio import to_thread
from fastapi import APIRouter, Request

from grpo_platform.api.body import JsonRoute
from grpo_platform.api.dependencies import Limit, ModelPath, PageToken, ServicesDep
from grpo_platform.api.errors import documented
from grpo_platform.api.schemas.models import (
    Decision,
    DeletedModel,
    Evaluation,
    Model,
    ModelItem,
    ModelList,
    ModelVersion,
    PromoteRequest,
)
from grpo_platform.registry.records import VersionInfo

__all__ = ["router"]

router = APIRouter(tags=["models"], route_class=JsonRoute, responses=documented(401, 403, 422, 503))

_ACTOR = "api"


@router.get("/models", operation_id="list_models")
def list_models(
    services: ServicesDep, limit: Limit = 100, page_token: PageToken = None
) -> ModelList:
    """Registered models, by name."""
    page = services.registry.list(limit=limit, page_token=page_token)
    loaded = frozenset(services.serving.loaded())
    models = [
        ModelItem(
            name=item.name,
            status="loaded" if item.name in loaded else "saved",
            champion=item.champion,
            latest_version=item.latest_version,
            env_name=item.env_name,
            eval_return_mean=item.eval_return_mean,
        )
        for item in page.items
    ]
    return ModelList(models=models, next_page_token=page.next_page_token)


@router.get("/models/{name}", operation_id="get_model", responses=documented(404))
def get_model(name: ModelPath, services: ServicesDep) -> Model:
    """A model's versions, each with its card, and what was decided about them."""
    info = services.registry.get(name)
    return Model(
        name=info.name,
        status="loaded" if name in services.serving.loaded() else "saved",
        env_name=info.environment.env_name,
        env_kwargs=dict(info.environment.env_kwargs),
        champion=info.champion,
        latest_version=info.latest_version,
        versions=[_version(version) for version in info.versions],
        decisions=[Decision.model_validate(decision) for decision in info.decisions],
    )


@router.delete("/models/{name}", operation_id="delete_model", responses=documented(404, 409))
def delete_model(name: ModelPath, services: ServicesDep) -> DeletedModel:
    """Delete a model: from memory, registry and disk. The jobs that trained it stay."""
    services.delete_model(name)
    return DeletedModel(message=f"Model {name} is deleted from memory, registry and disk.")


@router.post(
    "/models/{name}/promote",
    operation_id="promote_model",
    responses=documented(400, 404, 409, 413, 415),
)
async def promote_model(
    name: ModelPath, body: PromoteRequest, services: ServicesDep, request: Request
) -> Decision:
    """Compare a version with the champion, and promote it if it is better."""
    decision = await to_thread.run_sync(
        services.promoter.promote, name, body.version, body.force, _ACTOR,
        limiter=request.app.state.decisions,
    )  # fmt: skip
    return Decision.model_validate(decision)


@router.post(
    "/models/{name}/rollback", operation_id="rollback_model", responses=documented(404, 409)
)
async def rollback_model(name: ModelPath, services: ServicesDep, request: Request) -> Decision:
    """Give the name back to the champion before the present one."""
    decision = await to_thread.run_sync(
        services.promoter.rollback, name, _ACTOR, limiter=request.app.state.decisions
    )
    return Decision.model_validate(decision)


def _version(info: VersionInfo) -> ModelVersion:
    card = info.card
    evaluation = card.evaluation
    return ModelVersion(
        version=info.version,
        job_id=info.job_id,
        created_at=info.created_at,
        aliases=list(info.aliases),
        weights_sha256=info.weights_sha256,
        env_name=card.env_name,
        env_kwargs=dict(card.env_kwargs),
        observation_shape=list(card.observation_shape),
        action=dict(card.action),
        config=dict(card.config),
        seed=card.seed,
        timesteps=card.timesteps,
        git_commit=card.git_commit,
        evaluation=None if evaluation is None else Evaluation.model_validate(evaluation),
        verdict=info.verdict,
    )
