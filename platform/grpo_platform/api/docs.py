"""`/docs` (Swagger UI) and `/redoc` (ReDoc), whose scripts and styles this machine serves."""

from html import escape
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

__all__ = ["install_docs"]

_STATIC = Path(__file__).parent / "static"
_REDOC = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="shortcut icon" href="/static/favicon.png">
<style>body {{ margin: 0 }}</style>
</head>
<body>
<redoc spec-url="{url}"></redoc>
<noscript>ReDoc needs JavaScript; the schema itself is at {url}.</noscript>
<script type="module" src="/static/redoc.standalone.js"></script>
</body>
</html>
"""


def install_docs(app: FastAPI) -> None:
    """Add both pages and the assets they load."""
    url = app.openapi_url or "/openapi.json"

    async def swagger(_request: Request) -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=url,
            title=f"{app.title}: Swagger UI",
            swagger_js_url="/static/swagger-ui-bundle.js",
            swagger_css_url="/static/swagger-ui.css",
            swagger_favicon_url="/static/favicon.png",
            swagger_ui_parameters={"displayRequestDuration": True, "tryItOutEnabled": True},
        )

    async def redoc(_request: Request) -> HTMLResponse:
        return HTMLResponse(_REDOC.format(title=escape(f"{app.title}: ReDoc"), url=escape(url)))

    app.add_route("/docs", swagger, include_in_schema=False)
    app.add_route("/redoc", redoc, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
