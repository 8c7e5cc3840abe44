"""The server's entry point: settings, store, services, and the web server around them."""

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import uvicorn
from pydantic import ValidationError

from grpo_platform.core.errors import StoreError
from grpo_platform.core.messages import escape_unprintable
from grpo_platform.core.process import importing
from grpo_platform.core.settings import (
    TOKEN_VARIABLE,
    Settings,
    in_sentences,
    kind_of_store,
    unknown_variables,
)

if TYPE_CHECKING:
    from grpo_platform.services.container import Services

__all__ = ["main", "serve"]

_GRACE_SECONDS = 5
_SWITCH_SECONDS = 0.0005
"""Longest that a thread which looks into the store may keep answers waiting, at each turn; Python's
own 5 ms come again with every read and write of a socket, and were the slowest percent."""


def main() -> None:
    """Serve until Ctrl-C or SIGTERM. Ends with a sentence, never a traceback, on bad settings."""
    escape_unprintable()
    try:
        settings = Settings()
    except ValidationError as error:
        _give_up(in_sentences(error))
    _check_names(os.environ)
    try:
        kind_of_store(settings.tracking_uri)
    except StoreError as error:
        _give_up(str(error))
    os.environ.pop(TOKEN_VARIABLE, None)  # plug-ins run in this process too
    serve(settings)


def serve(settings: Settings) -> None:
    """Serve with these settings until Ctrl-C or SIGTERM."""
    _configure_logging(settings.log_level)
    if settings.api_token is not None:
        os.umask(
            os.umask(0o077) | 0o077
        )  # a token says that others are about: what we make is ours
    listener = _listen(settings)  # first: a port that is busy is noticed at once
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    # imported here, since torch and MLflow take seconds and the checks above must not wait
    with importing():
        from grpo_platform.jobs.resources import own_temporary_folder, remove_abandoned

    with contextlib.ExitStack() as stack:
        try:
            remove_abandoned()
            stack.enter_context(own_temporary_folder())
        except OSError as error:
            _give_up(str(error))
        code = _serve(settings, listener)
    _leave_now(code)


def _serve(settings: Settings, listener: socket.socket) -> int:
    """Serve until told to end; returns the exit code."""
    with importing():
        from grpo_platform.api.app import create_app
        from grpo_platform.api.middleware import LATER_SECONDS, Connections, raise_file_limit
        from grpo_platform.core.errors import PlatformError
        from grpo_platform.services.container import build_services

    try:
        services = build_services(settings)
    except (PlatformError, OSError) as error:
        _give_up(str(error))
    config = uvicorn.Config(
        create_app(settings, services),
        log_config=None,
        access_log=False,
        server_header=False,
        ws_per_message_deflate=False,  # images do not get smaller, and calls would wait for it
        proxy_headers=False,
        http=Connections(raise_file_limit()).protocol(),
        headers=[("Keep-Alive", f"timeout={settings.keep_alive_seconds}")],
        timeout_keep_alive=settings.keep_alive_seconds + LATER_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _Server(config, _welcome(settings, listener, services), services.closing)
    # torch and MLflow are a million objects: a full collection of them stalls every request
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_SECONDS)
    code: object = 0
    try:
        server.run(sockets=[listener])
    except SystemExit as leaving:
        code = leaving.code
    return code if server.started and isinstance(code, int) else 1


class _Server(uvicorn.Server):
    """Says where everything is, once it is there; and to streams that it is about to end."""

    def __init__(
        self, config: uvicorn.Config, welcome: Callable[[], str], closing: threading.Event
    ) -> None:
        super().__init__(config)
        self._welcome = welcome
        self._closing = closing

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(self._welcome(), flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._closing.set()
        super().handle_exit(sig, frame)


def _welcome(
    settings: Settings, listener: socket.socket, services: "Services"
) -> Callable[[], str]:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listener.getsockname()[1]}"

    def text() -> str:
        ui = services.ui.url or "off (GRPO_MLFLOW_UI_PORT=0)"
        if services.ui.asks_for_token:
            ui += " (sign in with any user name; the password is GRPO_API_TOKEN)"
        return (
            f"GRPO Platform {version('grpo-platform')}\n"
            f"  API        {url}\n"
            f"  Swagger UI {url}/docs\n"
            f"  ReDoc      {url}/redoc\n"
            f"  MLflow UI  {ui}\n"
            "Ctrl-C ends it; unfinished jobs go on at the next start."
        )

    return text


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        # clients that come while the store is being prepared wait instead of being refused
        listener.listen(2048)
    except OSError as error:
        listener.close()
        _give_up(
            f"Cannot listen on {settings.host}:{settings.port} ({error.strerror}): stop what uses "
            "that port, or set GRPO_PORT to another one."
        )
    return listener


def _check_names(environ: Mapping[str, str]) -> None:
    """End where a setting is misspelled; what is like none of ours may be another program's."""
    for name, meant in unknown_variables(environ).items():
        if meant is not None:
            _give_up(f"There is no setting {name}: did you mean {meant}? Rename or unset it.")
        print(f"There is no setting {name}; it is ignored.", file=sys.stderr)


def _give_up(message: str) -> NoReturn:
    print(f"grpo-platform cannot start. {message}", file=sys.stderr)
    sys.exit(1)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    # uvicorn raises the signal again once it has shut down: the way out without a traceback
    sys.exit(0 if number == signal.SIGTERM else 130)


def _leave_now(code: int) -> NoReturn:
    """Everything was shut down: freeing torch and MLflow object by object would take seconds."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _configure_logging(level: str) -> None:
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level="WARNING", handlers=[handler])
    logging.getLogger("grpo_platform").setLevel(level.upper())
