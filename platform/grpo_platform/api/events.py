"""A job's events as a stream: metrics as they are logged, progress, and one event at the end.

Everything is read from the store, so the stream of a job of another server, or of one that ended
long ago, is the same. The id of an event is the timestep up to which metrics were sent; a client
that comes back with it in `Last-Event-ID` gets what it has missed.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from grpo_platform.api.jobs import job_reply
from grpo_platform.api.services import Services
from grpo_platform.errors import StoreError, UnknownJobError
from grpo_platform.jobs.states import TERMINAL
from grpo_platform.tracking.names import Metric
from grpo_platform.tracking.records import JobRecord

__all__ = ["EVENT_SCHEMA", "job_events", "saw_the_end"]

EVENT_SCHEMA: Final = {
    "type": "object",
    "description": "One event; its data is JSON.",
    "properties": {
        "id": {"type": "string", "description": "To come back with, as Last-Event-ID."},
        "event": {"type": "string", "enum": ["metrics", "progress", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["id", "event", "data"],
}
"""One event, for the OpenAPI schema."""

POLL_SECONDS: Final = 0.5
_KEEPALIVE_SECONDS: Final = 15.0
_RETRY_MS: Final = 2000
_MAX_POINTS: Final = 10_000
_KEYS: Final = (Metric.REWARD, Metric.EPISODE_RETURN, Metric.EVAL_MEAN)
_ID: Final = re.compile(r"(?P<end>end-)?(?P<step>-?[0-9]{1,18})")


class _Look(NamedTuple):
    """What one look at the store found: the job, and its metrics by step."""

    job: JobRecord
    metrics: list[tuple[int, dict[str, float]]]


def saw_the_end(last_event_id: str | None) -> bool:
    """Whether the client was told that the job ended."""
    found = _ID.fullmatch(last_event_id or "")
    return found is not None and found["end"] is not None


async def job_events(
    services: Services, job_id: str, last_event_id: str | None
) -> AsyncIterator[bytes]:
    """Server-sent events of a job: `metrics`, `progress`, and `end` as the last one.

    The stream also ends, without `end`, when the server does; clients then come back by themselves.
    """
    found = _ID.fullmatch(last_event_id or "")
    step = int(found["step"]) if found else -1
    told: tuple[object, ...] | None = None
    spoke = time.monotonic()
    yield b"retry: %d\n\n" % _RETRY_MS
    while not services.closing.is_set():
        try:
            look = await run_in_threadpool(_look, services, job_id, step, told)
        except UnknownJobError:
            yield _event("end", f"end-{step}", {"job_id": job_id, "status": "deleted"})
            return
        except StoreError:  # it is away: tell what happened once it is back
            look = None
        if look is not None:
            for at, values in look.metrics:
                step = at
                yield _event("metrics", str(step), {"step": step, "metrics": values})
            if (now := _state(look.job)) != told:
                told = now
                reply = job_reply(look.job).model_dump(mode="json")
                if look.job.status in TERMINAL:
                    yield _event("end", f"end-{step}", reply)
                    return
                yield _event("progress", str(step), reply)
                spoke = time.monotonic()
        if time.monotonic() - spoke > _KEEPALIVE_SECONDS:
            spoke = time.monotonic()
            yield b": still here\n\n"
        await asyncio.sleep(POLL_SECONDS)


def _state(job: JobRecord) -> tuple[object, ...]:
    timesteps = job.metrics.get(Metric.TIMESTEPS)
    return (job.status, job.status_message, job.current_timesteps, job.attempt, timesteps)


def _look(services: Services, job_id: str, after: int, told: tuple[object, ...] | None) -> _Look:
    job = services.store.get(job_id)
    if _state(job) == told:
        return _Look(job, [])
    # the newest step may still be incomplete: it is told with the next one, or at the end
    newest = job.metrics.get(Metric.TIMESTEPS, 0)
    by_step: dict[int, dict[str, float]] = {}
    for key in _KEYS:
        if key not in job.metrics:
            continue
        for point in services.store.history(job_id, key, _MAX_POINTS):
            if point.step > after and (point.step < newest or job.status in TERMINAL):
                by_step.setdefault(point.step, {})[key] = point.value
    return _Look(job, sorted(by_step.items()))


def _event(kind: str, event_id: str, data: object) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event_id.encode(), kind.encode(), to_json(data))
