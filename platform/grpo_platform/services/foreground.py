"""Sweeps and experiments in the foreground: led by this process until they have ended."""

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, TypeVar

from grpo_platform.core.errors import ConflictError, StoreUnavailableError
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.jobs.leader import Leader
from grpo_platform.services.container import Services
from grpo_platform.tracking.group_records import GroupRecord

__all__ = ["lead"]

_POLL_SECONDS: Final = 0.5
_G = TypeVar("_G", bound=GroupRecord)


def lead(
    services: Services,
    leader: Leader[Any, Any],
    read: Callable[[], _G],
    noun: str,
    tell: Callable[[_G], str],
) -> int:
    """Lead a parent of jobs until it has ended, and print how it is doing; Ctrl-C stops it.

    Args:
        services: not started yet.
        leader: of its kind.
        read: gives it as it stands in the store.
        noun: what it is called.
        tell: says how it is doing, in a line.

    Returns:
        Exit code: 0 when it completed, 1 when it failed or was stopped.
    """
    interrupted = _interruption()
    services.jobs.start()
    leader.start()
    try:
        ended = _watch(leader, read, noun, tell, interrupted)
    finally:
        leader.shutdown()
        services.jobs.shutdown()
    return 0 if ended.status is JobStatus.COMPLETED else 1


def _interruption() -> threading.Event:
    """Set by the first Ctrl-C or SIGTERM; the second ends this process at once."""
    came = threading.Event()

    def note(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        came.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return came


def _watch(
    leader: Leader[Any, Any],
    read: Callable[[], _G],
    noun: str,
    tell: Callable[[_G], str],
    interrupted: threading.Event,
) -> _G:
    shown, run_id = "", read().run_id
    while True:
        group: _G | None = None
        try:
            if interrupted.is_set():
                with contextlib.suppress(ConflictError):  # it has just ended
                    leader.stop(run_id)
                interrupted.clear()
            group = read()
            said = tell(group)
        except StoreUnavailableError as error:
            said = f"The {noun.lower()} waits. {error}"
        if said != shown:
            print(said, flush=True)
        shown = said
        if group is not None and group.status in TERMINAL:
            print(f"{noun} {run_id} {group.status.value}. {group.error_message or ''}", flush=True)
            return group
        interrupted.wait(_POLL_SECONDS)
