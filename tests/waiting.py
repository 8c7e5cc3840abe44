"""Waiting for what happens in other threads and processes."""

import time
from collections.abc import Callable

__all__ = ["until"]


def until(holds: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until it holds; the limit only ends what will never hold, on the busiest machine."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
