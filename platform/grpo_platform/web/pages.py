"""The pages' routes: shells in HTML that the modules in `static/` fill from the HTTP API."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from grpo_platform.core.access import Sessions
from grpo_platform.web.catalogue import LANGUAGES, choose_language, known_sentences, messages
from grpo_platform.web.security import (
    HEADERS,
    HOME,
    SIGN_IN,
    STATIC,
    is_browser,
    next_page,
    read_form,
    signed_in,
    signed_out,
)

__all__ = ["PAGES", "install_pages", "static_digest"]

_CHART: Final = ("chart", "vendor/uplot")
PAGES: Final = {
    HOME: ("jobs", "said"),
    "/app/jobs/{job_id}": ("job", "jobs", "said", *_CHART),
    "/app/experiments/{experiment_id}": ("experiment", "jobs", "said", *_CHART),
    "/app/models": ("models",),
    "/app/models/{name}": ("model", "job", "jobs", "said", *_CHART),
    "/app/compare": ("compare", "said", *_CHART),
    "/app/play": ("play", "said"),
    "/app/serving": ("serving", "said"),
}
"""Paths that have a page, and the modules that it is made of, which browsers then load at once;
`app.js` knows the first of each."""

_FOLDER: Final = Path(__file__).parent
_THEMES: Final = ("light", "dark")


def static_digest() -> str:
    """Of all that pages load: a new release has new addresses, and the old ones never change."""
    digest = hashlib.sha256()
    for path in sorted((_FOLDER / "static").rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(_FOLDER).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def install_pages(
    app: Starlette, sessions: Sessions | None, mlflow: Callable[[], Mapping[str, str] | None]
) -> None:
    """Add the pages, what they load, and the way to sign in and out.

    Args:
        app: the application whose API they use.
        sessions: of browsers that have signed in; None where there is no token.
        mlflow: ways into the MLflow UI, where it is on.
    """
    static = STATIC + static_digest()
    templates = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def render(request: Request, template: str, status: int = 200, **values: object) -> Response:
        cookies = request.cookies
        language = choose_language(
            cookies.get("grpo_language"), request.headers.get("accept-language", "")
        )
        theme = cookies.get("grpo_theme")
        words = messages(language)
        page = templates.get_template(template).render(
            language=language,
            languages=LANGUAGES,
            theme=theme if theme in _THEMES else None,
            static=static,
            path=request.url.path,
            t=words.__getitem__,
            secured=sessions is not None,
            **values,
        )
        return HTMLResponse(page, status, headers=HEADERS)

    async def page(request: Request, modules: Sequence[str], status: int = 200) -> Response:
        language = choose_language(
            request.cookies.get("grpo_language"), request.headers.get("accept-language", "")
        )
        ways = await run_in_threadpool(mlflow)
        # `<` would end the element that holds the data
        data = {
            "messages": messages(language),
            "known": known_sentences(language),
            "language": language,
            "mlflow": ways,
        }
        text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
        return render(request, "page.html", status, data=text, mlflow=ways, modules=modules)

    async def missing(request: Request) -> Response:
        if not is_browser(request.scope):
            raise HTTPException(404)
        return await page(request, (), 404)  # `app.js` says that there is none

    async def sign_in(request: Request) -> Response:
        target = next_page(request.query_params.get("next", HOME))
        if sessions is None:
            return RedirectResponse(target, 303)
        if request.method == "POST":
            form = await read_form(request)
            target = next_page(form.get("next", HOME))
            token = form.get("token", "").strip()
            response = signed_in(request, sessions, token, target)
            if response is not None:
                return response
            return render(request, "sign_in.html", 403, target=target, wrong=True)
        cookies = request.headers.get("cookie", "").encode("latin-1")
        if sessions.find(cookies) is not None:
            return RedirectResponse(target, 303, headers={"Cache-Control": "no-store"})
        return render(request, "sign_in.html", target=target, wrong=False)

    async def sign_out(request: Request) -> Response:
        return signed_out(request, sessions)

    def of(modules: Sequence[str]) -> Callable[[Request], Awaitable[Response]]:
        async def show(request: Request) -> Response:
            return await page(request, modules)

        return show

    for path, modules in PAGES.items():
        app.add_route(path, of(modules), ["GET"], include_in_schema=False)
    app.add_route(SIGN_IN, sign_in, ["GET", "POST"], include_in_schema=False)
    app.add_route("/app/sign-out", sign_out, ["POST"], include_in_schema=False)
    app.mount(static, _Forever(directory=_FOLDER / "static"), name="app-static")
    app.add_route(f"{HOME}/{{path:path}}", missing, ["GET"], include_in_schema=False)


class _Forever(StaticFiles):
    """Files at addresses that change with them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code in (200, 304):
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response
