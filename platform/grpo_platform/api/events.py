"""A job's events as a stream: metrics as they are logged, progress, and one event at the end.

Everything is read from the store, so the stream of a job of another server, or of one that ended
long ago, is the same. The id of an event is the timestep up to which metrics were sent; a client
that comes back with it in `Last-Event-ID` gets what it has missed.

A job is looked at once for all who watch it, and all jobs in turn by one thread: a thousand
watchers cost the store what one does, and leave the other threads to other calls.
"""

import asyncio
import re
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from anyio import CapacityLimiter, to_thread
from pydantic_core import to_json

from grpo_platform.api.schemas.training import job_reply
from grpo_platform.core.errors import (
    PlatformError,
    StoreError,
    TooManyWatchersError,
    UnknownJobError,
)
from grpo_platform.core.names import Metric
from grpo_platform.core.states import TERMINAL
from grpo_platform.services.container import Services
from grpo_platform.tracking.records import JobRecord

__all__ = ["EVENT_SCHEMA", "JobFeeds", "Watcher"]

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

_POLL_SECONDS: Final = 0.5
_KEEPALIVE_SECONDS: Final = 15.0
_RETRY_MS: Final = 2000
_MAX_POINTS: Final = 10_000
_SENT_AT_ONCE: Final = 200
"""Events that one watcher gets before others have their turn."""
_WOKEN_AT_ONCE: Final = 20
"""Watchers that are told of a change before other calls have their turn."""
_KEYS: Final = (Metric.REWARD, Metric.EPISODE_RETURN, Metric.EVAL_MEAN)
_ID: Final = re.compile(r"(?P<end>end-)?(?P<step>-?[0-9]{1,18})")


class _Look(NamedTuple):
    """What one look at the store found: the job, and its metrics by step."""

    job: JobRecord
    metrics: list[tuple[int, dict[str, float]]]


class _Feed:
    """What was read of one job so far, for all who watch it."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.error: PlatformError | None = None
        """Why there never was a first look."""
        self.steps: list[int] = []
        self.metrics: list[bytes] = []
        """The events of `metrics`, one for each of `steps`."""
        self.state: tuple[object, ...] | None = None
        """Of the job; a new one is a new event."""
        self.data = b""
        """Of that event."""
        self.ended = False
        self.closed = False
        """Nothing more is read."""
        self.wakers: set[asyncio.Event] = set()
        self.reader: asyncio.Task[None] | None = None

    @property
    def step(self) -> int:
        """The step up to which metrics are known."""
        return self.steps[-1] if self.steps else -1

    def add(self, look: _Look) -> None:
        for step, values in look.metrics:
            data = to_json({"step": step, "metrics": values})
            self.steps.append(step)
            self.metrics.append(_event("metrics", str(step), data))
        if (state := _state(look.job)) != self.state:
            self.state = state
            self.data = to_json(job_reply(look.job).model_dump(mode="json"))
            self.ended = look.job.status in TERMINAL

    def delete(self) -> None:
        self.state = ("deleted",)
        self.data = to_json({"job_id": self.job_id, "status": "deleted"})
        self.ended = True

    async def wake(self) -> None:
        for number, waker in enumerate(list(self.wakers), 1):
            waker.set()
            if number % _WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)


class Watcher:
    """One client that watches a job.

    Args:
        feed: the job's.
    """

    def __init__(self, feed: _Feed) -> None:
        self._feed = feed
        self._changed = asyncio.Event()
        feed.wakers.add(self._changed)

    def leave(self) -> None:
        """Watch no more."""
        self._feed.wakers.discard(self._changed)

    async def first_look(self) -> None:
        """Wait until something is known of the job.

        Raises:
            UnknownJobError: no such job.
            StoreError: the store cannot be reached.
        """
        while self._feed.state is None and not self._feed.closed:
            await self._changed.wait()
            self._changed.clear()
        if self._feed.error is not None:
            raise self._feed.error

    def has_nothing_for(self, last_event_id: str | None) -> bool:
        """Whether the client was told already that the job ended."""
        found = _ID.fullmatch(last_event_id or "")
        return self._feed.ended and found is not None and found["end"] is not None

    async def events(self, last_event_id: str | None) -> AsyncIterator[bytes]:
        """Server-sent events: `metrics`, `progress`, and `end` as the last one.

        The stream also ends, without `end`, when the server does; clients then come back by
        themselves.
        """
        feed = self._feed
        found = _ID.fullmatch(last_event_id or "")
        step = int(found["step"]) if found else -1
        told: tuple[object, ...] | None = None
        yield b"retry: %d\n\n" % _RETRY_MS
        while True:
            self._changed.clear()
            while (begin := bisect_right(feed.steps, step)) < len(feed.steps):
                end = begin + _SENT_AT_ONCE
                step = feed.steps[begin:end][-1]
                yield b"".join(feed.metrics[begin:end])
                await asyncio.sleep(0)
            if feed.state is not None and feed.state != told:
                told = feed.state
                if feed.ended:
                    yield _event("end", f"end-{step}", feed.data)
                    return
                yield _event("progress", str(step), feed.data)
            elif feed.closed:
                return
            try:
                await asyncio.wait_for(self._changed.wait(), _KEEPALIVE_SECONDS)
            except TimeoutError:
                yield b": still here\n\n"


class JobFeeds:
    """The jobs that are watched now.

    Args:
        services: what is behind the routes.
        most: watchers at one time.
    """

    def __init__(self, services: Services, most: int) -> None:
        self._services = services
        self._most = most
        self._watching = 0
        self._feeds: dict[str, _Feed] = {}
        self._one_look = CapacityLimiter(1)

    @asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Watcher]:
        """Watch a job, until the end of the `async with`.

        Raises:
            TooManyWatchersError: there are `most` already.
            UnknownJobError: no such job.
            StoreError: the store cannot be reached.
        """
        if self._watching >= self._most:
            raise TooManyWatchersError(self._most)
        feed = self._feeds.get(job_id)
        if feed is None:
            feed = self._feeds[job_id] = _Feed(job_id)
            feed.reader = asyncio.create_task(self._read(feed))
        watcher = Watcher(feed)
        self._watching += 1
        try:
            await watcher.first_look()
            yield watcher
        finally:
            self._watching -= 1
            watcher.leave()
            if not feed.wakers:
                self._forget(feed)
                if feed.reader is not None:
                    feed.reader.cancel()

    async def _read(self, feed: _Feed) -> None:
        """Look at the job until it ends, or nobody watches it, or the server ends."""
        try:
            while not (feed.ended or self._services.closing.is_set()):
                try:
                    look = await to_thread.run_sync(
                        self._look, feed.job_id, feed.step, feed.state, limiter=self._one_look
                    )
                    feed.add(look)
                except (UnknownJobError, StoreError) as error:
                    if feed.state is None:
                        feed.error = error
                        return
                    if isinstance(error, UnknownJobError):
                        feed.delete()
                    # a store that is away: tell what happened once it is back
                if not feed.ended:
                    await feed.wake()
                    await asyncio.sleep(_POLL_SECONDS)
        finally:
            # whoever comes now looks anew: the job may have been resumed
            self._forget(feed)
            feed.closed = True
            await feed.wake()

    def _look(self, job_id: str, after: int, told: tuple[object, ...] | None) -> _Look:
        store = self._services.store
        job = store.get(job_id)
        if _state(job) == told:
            return _Look(job, [])
        # the newest step may still be incomplete: it is told with the next one, or at the end
        newest = job.metrics.get(Metric.TIMESTEPS, 0)
        by_step: dict[int, dict[str, float]] = {}
        for key in _KEYS:
            if key not in job.metrics:
                continue
            for point in store.history(job_id, key, _MAX_POINTS):
                if point.step > after and (point.step < newest or job.status in TERMINAL):
                    by_step.setdefault(point.step, {})[key] = point.value
        return _Look(job, sorted(by_step.items()))

    def _forget(self, feed: _Feed) -> None:
        if self._feeds.get(feed.job_id) is feed:
            del self._feeds[feed.job_id]


def _state(job: JobRecord) -> tuple[object, ...]:
    timesteps = job.metrics.get(Metric.TIMESTEPS)
    return (job.status, job.status_message, job.current_timesteps, job.attempt, timesteps)


def _event(kind: str, event_id: str, data: bytes) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event_id.encode(), kind.encode(), data)
