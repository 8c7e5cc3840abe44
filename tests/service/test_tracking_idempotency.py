"""One job for one idempotency key, in real stores that several servers write to at once."""

import hashlib
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow.tracking import MlflowClient

from grpo_platform.core.errors import PlatformError, StoreUnavailableError
from grpo_platform.core.names import JOB_READY, Tag, idempotency_tag
from grpo_platform.tracking import idempotency
from tests.service.tracking_support import jobs_of, request

SERVERS = 5
ROUNDS = 8


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(idempotency, "PATIENCE_SECONDS", 1.0)


def tag_of(key):
    return idempotency_tag(hashlib.sha256(key.encode()).hexdigest())


def runs_of(store, key):
    """Ids of the drafts and jobs of a key."""
    found = MlflowClient(store.tracking_uri).search_runs(
        [store.experiment_id], f"tags.`{tag_of(key)}` = '{JOB_READY}'"
    )
    return {run.info.run_id for run in found}


def draft(jobs, key):
    """As a server that dies before it has made the job."""
    return jobs.draft(request(), extra_tags={tag_of(key): JOB_READY})


@pytest.mark.rotated(9)
def test_many_servers_that_are_asked_at_once_make_one_job(store):
    servers = [jobs_of(store) for _ in range(SERVERS)]
    together = threading.Barrier(SERVERS)
    delays = random.Random(1)

    def ask(jobs, key, delay):
        together.wait(60)
        time.sleep(delay)
        return jobs.create_once(request(), key)

    with ThreadPoolExecutor(SERVERS) as pool:
        for number in range(ROUNDS):
            key = f"together {number}"
            late = [delays.choice((0.0, delays.uniform(0.0, 0.1))) for _ in servers]
            answers = list(pool.map(ask, servers, [key] * SERVERS, late))
            (job_id,) = {record.job_id for record, _ in answers}
            assert [is_new for _, is_new in answers].count(True) == 1
            assert runs_of(store, key) == {job_id}
            assert servers[0].find_idempotent(key).job_id == job_id


@pytest.mark.rotated(9)
def test_an_elder_draft_of_a_dead_server_holds_a_key_for_seconds_only(store, brief):
    jobs = jobs_of(store)
    dead = draft(jobs, "elder")
    with pytest.raises(StoreUnavailableError, match="try again"):
        jobs.create_once(request(), "elder")
    made, is_new = jobs.create_once(request(), "elder")
    assert is_new
    with pytest.raises(PlatformError):
        jobs.publish(dead)  # it was not dead, only slow
    assert runs_of(store, "elder") == {made.job_id}


@pytest.mark.rotated(9)
def test_a_younger_draft_of_a_dead_server_is_waited_for_and_deleted(store, brief):
    jobs = jobs_of(store)
    own = draft(jobs, "younger")
    time.sleep(0.01)
    dead = draft(jobs, "younger")

    def look():
        return [jobs._reader.get(run_id) for run_id in runs_of(store, "younger")]

    assert not idempotency.is_elected(dead.job_id, look, jobs.discard)
    assert idempotency.is_elected(own.job_id, look, jobs.discard)
    assert runs_of(store, "younger") == {own.job_id}
    with pytest.raises(StoreUnavailableError, match="try again"):
        idempotency.is_elected(dead.job_id, look, jobs.discard)


def test_an_elder_that_was_not_seen_goes_when_the_younger_is_a_job(store):
    jobs = jobs_of(store)
    elder = draft(jobs, "unseen")
    time.sleep(0.01)
    younger = draft(jobs, "unseen")
    jobs.publish(younger)  # it had looked before the elder was written

    def look():
        return [jobs._reader.get(run_id) for run_id in runs_of(store, "unseen")]

    assert not idempotency.is_elected(elder.job_id, look, jobs.discard)
    assert idempotency.await_made(look, jobs.discard).run_id == younger.job_id
    assert Tag.JOB in jobs._reader.get(younger.job_id).tags
