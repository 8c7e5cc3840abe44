"""Who sees the pages: signing in and out with the token, and what a page may load.

A browser sends no header of ours when it opens a page, so it exchanges the token once for a session
(`core.access.Sessions`), in a cookie that scripts cannot read and other sites' pages do not send.
"""

import re
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from grpo_platform.core.access import Sessions

__all__ = [
    "HEADERS", "HOME", "SIGN_IN", "STATIC", "is_browser", "next_page", "read_form", "sign_in_first",
    "signed_in", "signed_out",
]  # fmt: skip

HOME: Final = "/app"
SIGN_IN: Final = "/app/sign-in"
STATIC: Final = "/app/static/"

HEADERS: Final = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "media-src 'self' blob:",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
    "Vary": "Accept-Language, Cookie",
}
"""Of every page: all that it loads, sends and shows is of this server, and nothing is inline."""

_FORM_BYTES: Final = 4096
_PAGE: Final = re.compile(r"/(app|docs|redoc)(/[^\\\x00-\x20]*)?")


def is_browser(scope: Scope) -> bool:
    """Whether a page is asked for, and not JSON: `Accept` names HTML."""
    return scope["method"] in ("GET", "HEAD") and any(
        name == b"accept" and b"text/html" in value for name, value in scope["headers"]
    )


def sign_in_first(scope: Scope) -> Response | None:
    """Where a browser without a session goes before the page that it asks for; None for others."""
    path: str = scope["path"]
    if not is_browser(scope) or not (path == "/" or path == HOME or path.startswith(f"{HOME}/")):
        return None
    query = scope["query_string"].decode("latin-1")
    target = HOME if path == "/" else path + (f"?{query}" if query else "")
    headers = {"Cache-Control": "no-store", "Vary": "Accept, Cookie"}
    return RedirectResponse(f"{SIGN_IN}?next={quote(target, safe='/')}", 303, headers=headers)


def next_page(wanted: str) -> str:
    """The page to go on to: one of this server's, whatever a link says."""
    try:
        parts = urlsplit(wanted)
    except ValueError:
        return HOME
    # neither //host/path nor a path that a browser normalises into one
    inside = not parts.scheme and not parts.netloc and "//" not in parts.path
    return wanted if inside and _PAGE.fullmatch(parts.path) and wanted.isprintable() else HOME


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, each once; empty where the body is too long or is none."""
    body = await request.body()
    if len(body) > _FORM_BYTES:
        return {}
    return {name: values[0] for name, values in parse_qs(body.decode("latin-1")).items()}


def signed_in(request: Request, sessions: Sessions, token: str, target: str) -> Response | None:
    """The way to a page, with a new session; None where the token is wrong."""
    session = sessions.begin(token)
    if session is None:
        return None
    response = RedirectResponse(next_page(target), 303, headers={"Cache-Control": "no-store"})
    _set_cookie(response, request, sessions, session, sessions.seconds)
    return response


def signed_out(request: Request, sessions: Sessions | None) -> Response:
    """The end of this browser's session, and the way to the next."""
    response = RedirectResponse(
        HOME if sessions is None else SIGN_IN, 303, headers={"Cache-Control": "no-store"}
    )
    if sessions is not None:
        cookies = request.headers.get("cookie", "").encode("latin-1")
        if (session := sessions.find(cookies)) is not None:
            sessions.end(session)
        _set_cookie(response, request, sessions, "", 0)
    return response


def _set_cookie(
    response: Response, request: Request, sessions: Sessions, value: str, seconds: int
) -> None:
    # behind a proxy with TLS only the browser knows that the connection is encrypted
    origin = request.headers.get("origin", "")
    response.set_cookie(
        sessions.cookie,
        value,
        max_age=seconds,
        path="/",
        secure=request.url.scheme == "https" or origin.startswith("https:"),
        httponly=True,
        samesite="strict",
    )
