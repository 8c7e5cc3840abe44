"""What this server serves: rates, latency, and what was asked beside what evaluations saw."""

from fastapi import APIRouter

from grpo_platform.api.dependencies import JsonRoute, ModelPath, ServicesDep, VersionPath
from grpo_platform.api.errors import documented
from grpo_platform.api.schemas.serving import ServedList, Serving, served_reply, serving_reply

__all__ = ["router"]

router = APIRouter(
    prefix="/serving", tags=["models"], route_class=JsonRoute, responses=documented(401, 403)
)


@router.get("", operation_id="list_served")
def list_served(services: ServicesDep) -> ServedList:
    """How much, and how fast, this server answered for each version since it started."""
    return ServedList(models=[served_reply(one) for one in services.served.models()])


@router.get(
    "/{name}/versions/{version}", operation_id="get_served", responses=documented(404, 422, 503)
)
def get_served(name: ModelPath, version: VersionPath, services: ServicesDep) -> Serving:
    """One version's figures, with histograms of what it was asked and of what it did."""
    return serving_reply(services.served.version(name, version))
