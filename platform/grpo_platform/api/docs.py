"""`/docs` (Swagger UI) and `/redoc` (ReDoc), whose scripts and styles this machine serves."""

from html import escape
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

__all__ = ["install_docs"]

# whatever the bundles would like to load or send, the browser asks this machine only
_POLICY = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "worker-src blob:",
            "frame-ancestors 'none'",
        )
    )
}
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
<div id="redoc"></div>
<noscript>ReDoc needs JavaScript; the schema itself is at {url}.</noscript>
<script type="module">
import {{ init }} from "/static/redoc.standalone.js";
init("{url}", {{ disableTelemetry: true }}, document.getElementById("redoc"));
</script>
</body>
</html>
"""


def install_docs(app: FastAPI) -> None:
    """Add both pages and the assets they load."""
    url = app.openapi_url or "/openapi.json"

    async def swagger(_request: Request) -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url=url,
            title=f"{app.title}: Swagger UI",
            swagger_js_url="/static/swagger-ui-bundle.js",
            swagger_css_url="/static/swagger-ui.css",
            swagger_favicon_url="/static/favicon.png",
            swagger_ui_parameters={"displayRequestDuration": True, "tryItOutEnabled": True},
        )
        page.headers.update(_POLICY)
        return page

    async def redoc(_request: Request) -> HTMLResponse:
        page = _REDOC.format(title=escape(f"{app.title}: ReDoc"), url=escape(url))
        return HTMLResponse(page, headers=_POLICY)

    app.add_route("/docs", swagger, include_in_schema=False)
    app.add_route("/redoc", redoc, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
