"""The states of a job; the moves between them are in `tracking/lifecycle.py`."""

from enum import StrEnum

__all__ = ["TERMINAL", "JobStatus"]


class JobStatus(StrEnum):
    """Status words of the API."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.STOPPED})
