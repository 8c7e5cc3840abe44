"""A worker's heartbeat and lease, beat by beat."""

import queue
import threading

import pytest

from grpo_platform.core.errors import StoreUnavailableError
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.lease import BEAT_SECONDS, LEASE_SECONDS, Clock, Heartbeat, Order
from tests.service.tracking_support import prepare, request
from tests.service.worker_support import TroubledStore

SIGNAL, BEAT = "a signal comes", "its time comes"


class Beats(Clock):
    """Lets the heartbeat's thread go on by one look at each call of `next`."""

    def __init__(self) -> None:
        self.time = 0.0
        self._turns: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._waits = threading.Semaphore(0)

    def now_with_sleep(self):
        return self.time

    def get(self, inbox, timeout_seconds):
        self._waits.release()
        turn = self._turns.get()
        if turn is SIGNAL:
            return inbox.get_nowait()
        if turn is BEAT:
            self.time += timeout_seconds
            raise queue.Empty
        return inbox.get()  # it is told to stop

    def next(self, turn):
        """One look, to its end."""
        self._waits.acquire()
        self._turns.put(turn)
        self._waits.acquire()
        self._waits.release()

    def end(self):
        self._turns.put("end")


class World:
    def __init__(self, place) -> None:
        self.jobs = TroubledStore(place.tracking_uri, place.experiment_id)
        self.job_id = self.jobs.create(request(total_timesteps=600)).job_id
        self.jobs.claim(self.job_id, 1, "here:1:1")
        self.jobs.start(self.job_id, "here:1:1")
        self.clock = Beats()
        self.orders: list[Order] = []
        self.wanted = 0
        self.heartbeat = Heartbeat(
            self.jobs, self.job_id, 1, self.orders.append, self.clock, self._want
        )

    def _want(self):
        self.wanted += 1

    @property
    def beaten(self):
        return self.jobs.get(self.job_id).heartbeat_ms

    def beat(self):
        self.clock.next(BEAT)

    def signal(self):
        self.heartbeat.look()
        self.clock.next(SIGNAL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("heartbeat"))


@pytest.fixture
def one(place):
    made = World(place)
    assert made.heartbeat.fresh, "what was not started is not looked after"
    assert not made.heartbeat.started
    made.heartbeat.start()
    yield made
    made.clock.end()
    made.heartbeat.stop()


def test_each_beat_is_seen_and_prolongs_the_lease(one):
    seen = one.beaten
    for number in range(1, 9):
        one.beat()
        assert one.clock.time == number * BEAT_SECONDS
        assert seen < (seen := one.beaten)
        assert one.heartbeat.fresh
    assert one.orders == []


def test_a_stop_is_found_at_the_next_beat_and_at_a_signal_at_once(one):
    one.jobs.request_stop(one.job_id)
    one.signal()
    assert (one.orders, one.clock.time) == ([Order.STOP], 0.0)
    one.beat()
    assert one.orders == [Order.STOP, Order.STOP], "again: whoever hears it once has heard it"


def test_a_checkpoint_that_is_asked_for_is_passed_on_once(one):
    one.beat()
    assert one.wanted == 0
    one.jobs.ask_for_checkpoint(one.job_id)
    one.beat()
    one.beat()
    assert one.wanted == 1
    one.jobs.ask_for_checkpoint(one.job_id)
    one.beat()
    assert (one.wanted, one.orders) == (2, [])


def test_a_signal_without_a_stop_is_the_servers_shutdown(one):
    one.signal()
    assert one.orders == [Order.LEAVE]


def test_a_signal_while_the_store_is_away_is_taken_for_a_shutdown(one):
    one.jobs.away()
    one.signal()
    assert one.orders == [Order.LEAVE]


@pytest.mark.parametrize("how", ["given away", "finished", "deleted"])
def test_a_job_that_is_not_this_workers_any_more_is_forgotten_and_not_beaten_for(one, how):
    match how:
        case "given away":
            one.jobs.requeue(one.job_id, crashed=True)
        case "finished":
            one.jobs.finish(one.job_id, JobStatus.FAILED)
        case "deleted":
            one.jobs._client.delete_run(one.job_id)
    tags = one.jobs._client.get_run(one.job_id).data.tags
    one.beat()
    assert one.orders == [Order.FORGET]
    assert not one.heartbeat.fresh
    assert not one.heartbeat.holds()
    assert one.jobs._client.get_run(one.job_id).data.tags == tags


def test_a_lease_ends_while_the_store_is_away_and_begins_again_with_the_first_look(one):
    one.beat()
    one.jobs.away()
    for _ in range(int(LEASE_SECONDS / BEAT_SECONDS) - 1):
        one.beat()
        assert one.heartbeat.fresh
        assert one.heartbeat.holds()
    one.beat()
    assert not one.heartbeat.fresh
    with pytest.raises(StoreUnavailableError):
        one.heartbeat.holds()
    one.jobs.back()
    before = one.beaten
    assert one.heartbeat.holds()
    assert one.heartbeat.fresh
    assert one.beaten > before
    assert one.orders == []


def test_a_machine_that_slept_finds_its_lease_spent(one):
    one.beat()
    one.clock.time += 3600.0
    assert not one.heartbeat.fresh
    one.jobs.requeue(one.job_id, crashed=True)
    assert not one.heartbeat.holds()
