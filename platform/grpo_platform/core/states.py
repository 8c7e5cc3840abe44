"""The states of a job and the moves between them."""

from enum import StrEnum

from grpo_platform.core.errors import ConflictError

__all__ = ["TERMINAL", "TRANSITIONS", "JobStatus", "check_transition"]


class JobStatus(StrEnum):
    """Status words of the API."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.STOPPED})

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    # a queued job can fail without a worker: its attempts are spent, or its request is unreadable
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.STOPPED, JobStatus.FAILED}),
    # back to queued: its worker was lost, or the server shut down
    JobStatus.RUNNING: frozenset({JobStatus.QUEUED}) | TERMINAL,
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),  # resume
    JobStatus.STOPPED: frozenset({JobStatus.QUEUED}),  # resume
}


def check_transition(what: str, current: JobStatus, to: JobStatus) -> None:
    """Refuse a move that is not in `TRANSITIONS`.

    Args:
        what: moves, to begin a sentence.
        current: where it is.
        to: where it is to go.

    Raises:
        ConflictError: the move is not allowed.
    """
    if to not in TRANSITIONS[current]:
        raise ConflictError(f"{what} is {current.value}; it cannot become {to.value}.")
