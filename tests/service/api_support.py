"""The real application over a real store, in this process; nothing is started."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount
from starlette.testclient import TestClient

from grpo_platform.api.app import create_app
from grpo_platform.core.settings import Settings
from grpo_platform.services.container import Services, build_services
from tests.databases import put_database

BASE = "http://127.0.0.1:8000"


@contextlib.contextmanager
def services_in(folder: Path, **settings: object) -> Iterator[Services]:
    before = Path.cwd()
    put_database(folder / "mlflow.db", (folder / "mlruns").as_uri())
    os.chdir(folder)
    try:
        services = build_services(Settings(mlflow_ui_port=0, **settings))
        try:
            yield services
        finally:
            services.isolation.close()
    finally:
        os.chdir(before)


def client_of(services: Services, settings: Settings | None = None) -> TestClient:
    app = create_app(settings or services.settings, services)
    return TestClient(app, base_url=BASE, raise_server_exceptions=False)


def all_routes(app: FastAPI) -> list[tuple[str, str]]:
    """(method, path) of everything that answers, mounts included."""

    found = [
        (method, context.path)
        for context in iter_route_contexts(app.routes)
        for method in sorted(getattr(context, "methods", None) or ())
    ]
    mounts = [route.path for route in app.routes if isinstance(route, Mount)]
    return found + [("GET", f"{path}/anything") for path in mounts]
