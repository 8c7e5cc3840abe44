"""Model calls."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from grpo_platform.api.dependencies import (
    JsonRoute,
    Limit,
    ModelPath,
    PageToken,
    ServicesDep,
    VersionPath,
)
from grpo_platform.api.errors import documented
from grpo_platform.api.schemas.common import reply_of
from grpo_platform.api.schemas.models import (
    Decision,
    DeletedModel,
    Model,
    ModelItem,
    ModelList,
    ModelVersion,
    PromoteRequest,
)
from grpo_platform.services.downloads import DownloadFormat, download

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
        reply_of(ModelItem, item, status="loaded" if item.name in loaded else "saved")
        for item in page.items
    ]
    return ModelList(models=models, next_page_token=page.next_page_token)


@router.get("/models/{name}", operation_id="get_model", responses=documented(404))
def get_model(name: ModelPath, services: ServicesDep) -> Model:
    """A model's versions, each with its card, and what was decided about them."""
    info = services.registry.get(name)
    versions = [
        reply_of(ModelVersion, each, each.card, scenarios=info.scenarios.get(each.version))
        for each in info.versions
    ]
    status = "loaded" if name in services.serving.loaded() else "saved"
    return reply_of(Model, info, info.environment, status=status, versions=versions)


@router.get(
    "/models/{name}/versions/{version}/download",
    operation_id="download_version",
    response_class=Response,
    responses={
        200: {
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("application/zip", "application/octet-stream")
            }
        },
        **documented(400, 404, 409),
    },
)
async def download_version(
    name: ModelPath,
    version: VersionPath,
    services: ServicesDep,
    request: Request,
    format: Annotated[
        DownloadFormat, Query(description="An MLflow model as ZIP, a pt2 graph, or ONNX.")
    ] = DownloadFormat.MLFLOW,
) -> Response:
    """A version as one file, to be taken elsewhere."""
    found = await to_thread.run_sync(
        download, services.registry, f"{name}/{version}", format,
        limiter=request.app.state.decisions,
    )  # fmt: skip
    named = {"Content-Disposition": f'attachment; filename="{found.name}"'}
    return Response(found.content, media_type=found.media_type, headers=named)


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
        services.promoter.promote, name, body.version, body.force, _ACTOR, body.note,
        limiter=request.app.state.decisions,
    )  # fmt: skip
    return reply_of(Decision, decision)


@router.post(
    "/models/{name}/rollback", operation_id="rollback_model", responses=documented(404, 409)
)
async def rollback_model(
    name: ModelPath,
    services: ServicesDep,
    request: Request,
    note: Annotated[
        str, Query(max_length=500, description="Why; kept at the beginning of `reason`.")
    ] = "",
) -> Decision:
    """Give the name back to the champion before the present one."""
    decision = await to_thread.run_sync(
        services.promoter.rollback, name, _ACTOR, note, limiter=request.app.state.decisions
    )
    return reply_of(Decision, decision)
