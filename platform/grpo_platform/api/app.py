"""The web application: gate, routes, error handlers, documentation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio import CapacityLimiter
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware

from grpo_platform.api.errors import add_error_handlers
from grpo_platform.api.events import JobFeeds
from grpo_platform.api.metrics import Metrics
from grpo_platform.api.middleware import RequestMiddleware
from grpo_platform.api.openapi import DESCRIPTION, TAGS, install_docs, install_openapi
from grpo_platform.api.routes import (
    catalog,
    comparisons,
    experiments,
    failures,
    inference,
    models,
    open_inference,
    play,
    scenarios,
    serving,
    sweeps,
    system,
    training,
)
from grpo_platform.core.access import Sessions
from grpo_platform.core.settings import Settings
from grpo_platform.services.container import Services
from grpo_platform.serving.episodes import Episodes
from grpo_platform.web.pages import install_pages

__all__ = ["create_app"]

_ROUTERS = (
    training.router, failures.router, experiments.router, sweeps.router,
    comparisons.router, models.router, scenarios.router, serving.router, play.router, system.router,
    catalog.router, open_inference.router,
)  # fmt: skip
_DECISIONS_AT_ONCE = 4  # each may play for minutes; other calls need the other threads
_PLAYED_AT_ONCE = 64  # calls that wait for a session, which may branch for many seconds
_CORS_HEADERS = (
    "Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-API-Key",
    "X-Request-ID",
)  # fmt: skip


def create_app(settings: Settings, services: Services) -> FastAPI:
    """The application over these services; its lifespan starts and stops those that run.

    Args:
        settings: who may call, and from where.
        services: what the routes work with.
    """
    app = FastAPI(
        title="GRPO Platform",
        version=version("grpo-platform"),
        description=DESCRIPTION,
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.services = services
    app.state.metrics = metrics = Metrics(lambda: services.serving.stats)
    app.state.feeds = JobFeeds(services, settings.max_watchers)
    app.state.episodes = Episodes()
    app.state.one_batch = CapacityLimiter(1)
    app.state.decisions = CapacityLimiter(_DECISIONS_AT_ONCE)
    app.state.play = CapacityLimiter(_PLAYED_AT_ONCE)
    # the hot path first, as routes of the application's own: an included router matches twice
    app.router.routes.extend(inference.router.routes)
    for router in _ROUTERS:
        app.include_router(router)
    sessions = None if settings.api_token is None else Sessions(settings.api_token)
    install_pages(app, sessions, lambda: services.ui.links)
    install_docs(app)
    install_openapi(app, secured=settings.api_token is not None)
    add_error_handlers(app)
    app.add_middleware(
        RequestMiddleware, settings=settings, registry=metrics.registry, sessions=sessions
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=_CORS_HEADERS,
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    services.ui.start()
    services.isolation.start()
    await run_in_threadpool(services.jobs.start)
    services.sweep_runner.start()
    services.experiment_runner.start()
    try:
        yield
    finally:
        await asyncio.gather(
            run_in_threadpool(services.sweep_runner.shutdown),
            run_in_threadpool(services.experiment_runner.shutdown),
        )
        await asyncio.gather(
            run_in_threadpool(services.ui.stop),
            run_in_threadpool(services.jobs.shutdown),
            run_in_threadpool(services.serving.close),
            run_in_threadpool(services.served.close),
            run_in_threadpool(services.pictures.close),
            run_in_threadpool(services.isolation.close),
            run_in_threadpool(services.play.shutdown),
        )
