"""Watching jobs: one look for all who watch, a limit, and an end for everyone."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from grpo import GRPOConfig
from grpo_platform.api.events import JobFeeds, Watcher
from grpo_platform.core.errors import TooManyWatchersError, UnknownJobError
from grpo_platform.core.names import Metric
from grpo_platform.core.request import JobRequest
from grpo_platform.core.states import JobStatus
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.reporter import Point
from tests.service.api_support import services_in

WATCHERS = 50


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with services_in(tmp_path_factory.mktemp("store")) as services:
        yield services


@pytest.fixture
def job_id(services):
    record = services.store.create(JobRequest(config=GRPOConfig(seed=1, total_timesteps=1000)))
    points = [
        Point(key, float(step), step, 1)
        for step in (100, 200, 300)
        for key in (Metric.TIMESTEPS, Metric.REWARD)
    ]
    services.store.log_points(record.job_id, points)
    return record.job_id


@pytest.fixture
def looks(monkeypatch):
    """How often the store was asked for each job."""
    counted: Counter[str] = Counter()
    get = JobStore.get

    def counting(self, job_id, **options):
        counted[job_id] += 1
        return get(self, job_id, **options)

    monkeypatch.setattr(JobStore, "get", counting)
    return counted


async def heard(feeds: JobFeeds, job_id: str, last_event_id: str | None = None) -> str:
    async with feeds.watch(job_id) as watcher:
        return "".join([part.decode() async for part in watcher.events(last_event_id)])


async def until_progress(events: AsyncIterator[bytes]) -> str:
    text = ""
    while "event: progress" not in text:
        text += (await anext(events)).decode()
    return text


@pytest.mark.rotated(11)
def test_watchers_share_one_look_and_all_hear_the_end(services, job_id, looks):
    async def watch() -> list[str]:
        feeds = JobFeeds(services, WATCHERS)
        everyone = asyncio.gather(*(heard(feeds, job_id) for _ in range(WATCHERS)))
        await asyncio.sleep(1.2)
        assert looks[job_id] < 10
        services.store.request_stop(job_id)
        services.store.finish(job_id, JobStatus.STOPPED)
        return await everyone

    for text in asyncio.run(watch()):
        assert text.count("event: metrics") == 3
        assert text.count("event: progress") == 1
        assert text.index("event: progress") < text.index("event: end")
        assert '"status":"stopped"' in text.splitlines()[-2]
    assert looks[job_id] < 40


def test_each_watcher_gets_what_it_missed(services, job_id):
    services.store.finish(job_id, JobStatus.STOPPED)

    async def watch() -> list[str]:
        feeds = JobFeeds(services, WATCHERS)
        return await asyncio.gather(*(heard(feeds, job_id, i) for i in (None, "100", "end-300")))

    texts = asyncio.run(watch())
    assert [text.count("event: metrics") for text in texts] == [3, 2, 0]
    assert all("id: end-300\n" in text for text in texts)


def test_whoever_was_told_the_end_is_told_so_until_the_job_goes_on(services, job_id):
    services.store.finish(job_id, JobStatus.STOPPED)

    async def watch() -> None:
        feeds = JobFeeds(services, WATCHERS)
        async with feeds.watch(job_id) as slow:
            assert slow.has_nothing_for("end-300")
            assert not slow.has_nothing_for("300")
            services.store.resume(job_id)
            async with feeds.watch(job_id) as late:  # looks anew, though another still watches
                assert not late.has_nothing_for("end-300")
                assert '"status":"queued"' in await until_progress(late.events(None))

    asyncio.run(watch())


def test_a_deleted_job_ends_the_streams(services, job_id):
    async def watch() -> str:
        feeds = JobFeeds(services, WATCHERS)
        watching = asyncio.create_task(heard(feeds, job_id))
        await asyncio.sleep(0.8)
        services.store.discard(job_id)
        return await watching

    assert '"status":"deleted"' in asyncio.run(watch()).splitlines()[-2]


def test_there_is_a_limit_and_room_again(services, job_id):
    async def watch() -> None:
        feeds = JobFeeds(services, 2)

        async def one(inside: asyncio.Event, leave: asyncio.Event) -> Watcher:
            async with feeds.watch(job_id) as watcher:
                inside.set()
                await leave.wait()
                return watcher

        leave = asyncio.Event()
        insides = [asyncio.Event(), asyncio.Event()]
        tasks = [asyncio.create_task(one(inside, leave)) for inside in insides]
        for inside in insides:
            await inside.wait()
        with pytest.raises(TooManyWatchersError, match="GRPO_MAX_WATCHERS"):
            await heard(feeds, job_id)
        leave.set()
        await asyncio.gather(*tasks)
        async with feeds.watch(job_id):
            pass

    asyncio.run(watch())


def test_everybody_is_told_that_there_is_no_such_job(services):
    async def watch() -> list[object]:
        feeds = JobFeeds(services, WATCHERS)
        asked = [heard(feeds, "0" * 32) for _ in range(5)]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(said, UnknownJobError) for said in asyncio.run(watch()))
