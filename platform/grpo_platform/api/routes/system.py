"""What this server is, and how it is doing."""

from datetime import UTC, datetime
from importlib.metadata import version

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from grpo_platform.api.dependencies import ServicesDep
from grpo_platform.api.errors import documented
from grpo_platform.api.metrics import Metrics
from grpo_platform.api.schemas.system import Health, Probe, Welcome
from grpo_platform.web.security import HOME, is_browser

__all__ = ["router"]

router = APIRouter(tags=["system"], responses=documented(401, 403))


@router.get("/", operation_id="get_welcome", response_model=Welcome)
def get_welcome(
    request: Request, response: Response, services: ServicesDep
) -> Welcome | RedirectResponse:
    """What this server is, its calls, and where the MLflow UI is; a browser gets the pages."""
    response.headers["Vary"] = "Accept"
    if is_browser(request.scope):
        return RedirectResponse(HOME, 302, headers={"Vary": "Accept"})
    endpoints = {
        f"{method.upper()} {path}": operation["summary"]
        for path, operations in request.app.openapi()["paths"].items()
        for method, operation in operations.items()
    }
    return Welcome(
        message="GRPO Platform: train, track and serve reinforcement-learning policies.",
        version=version("grpo-platform"),
        endpoints=endpoints,
        mlflow_ui=services.ui.url,
        mlflow_links=services.ui.links,
    )


@router.get("/health", operation_id="get_health", responses=documented(503))
def get_health(services: ServicesDep) -> Health:
    """How the server is doing."""
    return Health(
        status="healthy",
        timestamp=datetime.now(UTC),
        active_jobs=sum(services.unfinished_jobs().values()),
        loaded_models=len(services.serving.loaded()),
    )


@router.get("/health/live", operation_id="get_live")
async def get_live() -> Probe:
    """Whether the process answers; needs no token."""
    return Probe(status="live")


@router.get("/health/ready", operation_id="get_ready", responses=documented(503))
def get_ready(services: ServicesDep) -> Probe:
    """Whether a job could be taken now: the store can be written; needs no token."""
    services.check_ready()
    return Probe(status="ready")


@router.get(
    "/metrics",
    operation_id="get_metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented(503)},
)
def get_metrics(request: Request, services: ServicesDep) -> Response:
    """Metrics for Prometheus, as OpenMetrics where `Accept` names it."""
    metrics: Metrics = request.app.state.metrics
    text, media_type = metrics.render(
        services.unfinished_jobs(),
        len(services.serving.loaded()),
        request.headers.get("accept", ""),
    )
    return Response(text, media_type=media_type)
