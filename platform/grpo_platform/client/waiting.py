"""Waiting until something has ended, and showing meanwhile how far it is."""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from http import HTTPStatus
from typing import Any, Final, TypeVar

from grpo_platform.client.progress import Line, progress_bar
from grpo_platform.client.transport import ApiError, ServerTimeoutError, Transport

__all__ = ["AWAY_SECONDS", "UNAVAILABLE", "until_ended"]

_POLL_SECONDS: Final = 0.5
UNAVAILABLE: Final = HTTPStatus.SERVICE_UNAVAILABLE
AWAY_SECONDS: Final = 60.0
"""How long a server that has answered may be away: a restart takes seconds, which jobs outlive."""
_ENDED: Final = ("completed", "failed", "stopped")

_Status = TypeVar("_Status", bound=Mapping[str, Any])


async def until_ended(
    transport: Transport,
    read: Callable[[], Awaitable[_Status]],
    called: str,
    on_progress: Callable[[_Status], object] | None,
    timeout_seconds: float | None,
    line: Callable[[_Status], Line] | None = None,
) -> _Status:
    """Poll until what is read is completed, failed or stopped, and return it.

    Args:
        transport: waits between two looks.
        read: asks the server; what it returns has a `status`.
        called: what is waited for, in a message.
        on_progress: gets each status that is read.
        timeout_seconds: how long to wait; None has no limit.
        line: what a progress bar shows of a status; None shows no bar.

    Raises:
        TimeoutError: it has not ended by then.
        ConnectionError: no server answers at first, or for long.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    found, answered = await read(), time.monotonic()
    with nullcontext() if line is None else progress_bar() as bar:
        while True:
            if on_progress is not None:
                on_progress(found)
            if bar is not None and line is not None:
                bar.show(line(found))
            if found["status"] in _ENDED:
                return found
            again = None
            while again is None:
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError(f"{called} is still {found['status']}.")
                await transport.sleep(_POLL_SECONDS)
                try:
                    again = await read()
                except (ApiError, ConnectionError, ServerTimeoutError) as error:
                    refused = isinstance(error, ApiError) and error.status != UNAVAILABLE
                    if refused or time.monotonic() - answered > AWAY_SECONDS:
                        raise
            found, answered = again, time.monotonic()
