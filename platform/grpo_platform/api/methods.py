"""What HTTP asks of every path, whatever it does: HEAD, OPTIONS, Allow, and one spelling.

RFC 9110: HEAD answers where GET does (section 9.3.2), OPTIONS names the methods (9.3.7), and so
does `Allow` where a method is refused (15.5.6). A path with a slash at its end is the path without
it: a redirect would lose the body in some clients, and the token in others.
"""

from typing import Final

from fastapi import FastAPI
from starlette.routing import Match, Mount
from starlette.types import Message, Scope, Send

__all__ = ["allowed_methods", "drop_final_slash", "head_of"]

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def drop_final_slash(scope: Scope) -> None:
    """Make `/models/` the path `/models`; an encoded slash is part of a name, and stays."""
    path: str = scope["path"]
    if path.endswith("/") and path != "/":
        raw: bytes = scope.get("raw_path") or path.encode()
        if raw.endswith(b"/"):
            scope["path"] = path[:-1]
            scope["raw_path"] = raw[:-1]


def head_of(send: Send) -> Send:
    """Sends the head of a reply to GET and ends there, also where the body would have no end."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_head


def allowed_methods(app: FastAPI, scope: Scope) -> tuple[str, ...]:
    """The methods that the path of a request takes, sorted."""
    found = {"OPTIONS"}
    whole = {**scope, "root_path": scope.get("app_root_path", "")}  # a mount has shortened it
    for route in app.router.routes:
        for method in ("GET",) if isinstance(route, Mount) else _METHODS:
            if route.matches({**whole, "method": method})[0] is Match.FULL:
                found.add(method)
    if "GET" in found:
        found.add("HEAD")
    return tuple(sorted(found))
