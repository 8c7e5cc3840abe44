"""Which server the commands talk to."""

import os
from typing import Annotated, Final

import typer

from grpo_platform.client import GRPOClient

__all__ = ["Token", "Url", "connect"]

_DEFAULT_PORT: Final = "8000"


def _printable(token: str | None) -> str | None:
    if token is not None and not token.isprintable():
        raise typer.BadParameter("a token has no line breaks and no other control characters.")
    return token


Url = Annotated[
    str | None,
    typer.Option(
        envvar="GRPO_URL", help="The server; by default this machine's, at GRPO_PORT or 8000."
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="GRPO_API_TOKEN",
        help="Its token.",
        show_envvar=True,
        show_default=False,
        callback=_printable,
    ),
]


def connect(context: typer.Context) -> GRPOClient:
    """The client that the options before the command ask for."""
    url, token = context.obj
    port = os.environ.get("GRPO_PORT") or _DEFAULT_PORT
    client = GRPOClient(url or f"http://localhost:{port}", token=token)
    context.call_on_close(client.close)
    return client
