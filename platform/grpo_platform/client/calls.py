"""What the groups of calls have in common: paths, and waiting until something has ended."""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote

from grpo_platform.client.transport import ApiError, ServerTimeoutError, Transport

__all__ = ["Calls", "part", "until_ended"]

_POLL_SECONDS: Final = 0.5
_UNAVAILABLE: Final = HTTPStatus.SERVICE_UNAVAILABLE
_AWAY_SECONDS: Final = 60.0
"""How long a server that has answered may be away: a restart takes seconds, which jobs outlive."""
_ENDED: Final = ("completed", "failed", "stopped")

_Status = TypeVar("_Status", bound=Mapping[str, Any])


class Calls:
    """A group of calls to one server."""

    _transport: Transport


def part(name: str) -> str:
    """A name, as one part of a path."""
    return quote(name, safe="")


def until_ended(
    read: Callable[[], _Status],
    called: str,
    on_progress: Callable[[_Status], None] | None,
    timeout_seconds: float | None,
) -> _Status:
    """Poll until what is read is completed, failed or stopped, and return it.

    Args:
        read: asks the server; what it returns has a `status`.
        called: what is waited for, in a message.
        on_progress: gets each status that is read.
        timeout_seconds: how long to wait; None has no limit.

    Raises:
        TimeoutError: it has not ended by then.
        ConnectionError: no server answers at first, or for long.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    found, answered = read(), time.monotonic()
    while True:
        if on_progress is not None:
            on_progress(found)
        if found["status"] in _ENDED:
            return found
        again = None
        while again is None:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{called} is still {found['status']}.")
            time.sleep(_POLL_SECONDS)
            try:
                again = read()
            except (ApiError, ConnectionError, ServerTimeoutError) as error:
                refused = isinstance(error, ApiError) and error.status != _UNAVAILABLE
                if refused or time.monotonic() - answered > _AWAY_SECONDS:
                    raise
        found, answered = again, time.monotonic()
