"""Waiting for a job or a sweep over the API."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from grpo_platform.jobs.states import TERMINAL

__all__ = ["until_ended"]

_Status = TypeVar("_Status", bound=Mapping[str, Any])
_POLL_SECONDS: Final = 0.5


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
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while True:
        found = read()
        if on_progress is not None:
            on_progress(found)
        if found["status"] in TERMINAL:
            return found
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"{called} is still {found['status']}.")
        time.sleep(_POLL_SECONDS)
