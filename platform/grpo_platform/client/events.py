"""A job's events, as the server sends them."""

import json
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from grpo_platform.client.replies import Job

if TYPE_CHECKING:
    from httpx2 import ServerSentEvent

__all__ = ["End", "Event", "Gone", "Logged", "Metrics", "Progress", "event_of"]


class Logged(TypedDict):
    """What was logged at a step."""

    step: int
    """Environment timesteps of the job."""

    metrics: dict[str, float]
    """Values by key."""


class Metrics(TypedDict):
    """Metrics were logged."""

    event: Literal["metrics"]
    id: str
    data: Logged


class Progress(TypedDict):
    """The job's status is another."""

    event: Literal["progress"]
    id: str
    data: Job


class Gone(TypedDict):
    """All that is left of a job that was deleted."""

    job_id: str
    status: Literal["deleted"]


class End(TypedDict):
    """The job has ended; nothing follows."""

    event: Literal["end"]
    id: str
    data: Job | Gone


Event = Metrics | Progress | End
"""One event; its `event` tells which."""


def event_of(told: "ServerSentEvent") -> Event | None:
    """The event that the server sent; None for what is of the protocol."""
    if told.event not in ("metrics", "progress", "end"):
        return None
    sent: dict[str, Any] = {"event": told.event, "id": told.id, "data": json.loads(told.data)}
    return cast(Event, sent)
