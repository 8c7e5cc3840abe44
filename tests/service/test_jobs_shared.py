"""Two servers on one store, and calls that come twice."""

import concurrent.futures
import subprocess

import pytest

from grpo_platform.core.errors import UnknownJobError
from grpo_platform.core.names import CLAIM_TAG, Tag
from grpo_platform.core.process import worker_name
from grpo_platform.core.settings import Settings
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.local import LocalBackend
from grpo_platform.jobs.runner import Runner
from tests.service.jobs_support import kill, long_job, platform
from tests.service.tracking_support import jobs_of, request


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with platform(tmp_path_factory.mktemp("shared"), max_concurrent_jobs=1) as found:
        yield found


@pytest.fixture(scope="module")
def other(live):
    """A second server on the same store."""
    runner = Runner(jobs_of(live.place), LocalBackend(live.place), Settings(max_concurrent_jobs=1))
    runner.start()
    yield runner
    runner.shutdown()


def claims_of(live, job_id):
    run = live.client.get_run(job_id).data
    assert not any("claim" in key for key in run.params)
    ledger = live.client.get_run(run.tags[Tag.LEDGER]).data.params
    mine = {key: who for key, who in ledger.items() if key.startswith(job_id)}
    shown = {key: who for key, who in run.tags.items() if key.startswith(CLAIM_TAG)}
    assert sorted(mine.values()) == sorted(shown.values())
    return sorted(key.removeprefix(f"{job_id}.") for key in mine)


@pytest.mark.rotated(5)
def test_two_servers_share_a_queue_and_run_each_job_once(live, other):
    jobs = [
        runner.submit(request(total_timesteps=1000, seed=n, model_name=f"shared-{n}"))
        for n in range(3)
        for runner in (live.runner, other)
    ]
    for job in jobs:
        done = live.wait(job.job_id, JobStatus.COMPLETED, seconds=200)
        assert done.attempt == 1
        assert claims_of(live, job.job_id) == ["1"]
        assert len(live.versions_of(job.job_id)) == 1


@pytest.mark.rotated(11)
def test_a_lost_worker_is_replaced_once_where_two_servers_see_it(live, other):
    job = live.submit(**long_job())
    live.training(job.job_id)
    kill(live.worker(job.job_id))
    live.until(job.job_id, lambda record: record.attempt == 2 and record.is_claimed, seconds=30)
    found = live.training(job.job_id)
    assert found.attempt == 2
    assert found.crashes == 1
    other.stop(job.job_id)  # whichever server runs it
    live.wait(job.job_id, JobStatus.STOPPED, seconds=60)
    assert claims_of(live, job.job_id) == ["1", "2"]


@pytest.mark.rotated(5)
def test_a_loss_that_one_server_has_begun_to_see_to_is_not_counted_by_another(live, other):
    """It writes the next attempt first and queues the job then; between the two it may die."""
    job_id = live.jobs.create(request(total_timesteps=64, max_attempts=2)).job_id
    going = subprocess.Popen(["sleep", "600"])
    worker = worker_name(going.pid)
    assert live.jobs.claim(job_id, 1, worker)
    live.jobs.start(job_id, worker)
    live.jobs.set_tags(job_id, {Tag.ATTEMPT: "2", Tag.CRASHES: "1"})
    going.kill()
    going.wait()
    done = live.wait(job_id, JobStatus.COMPLETED)
    assert (done.attempt, done.crashes) == (2, 1)
    assert claims_of(live, job_id) == ["1", "2"]


@pytest.mark.rotated(5)
def test_one_key_is_one_job_however_many_ask_at_once_and_after_a_restart(live):
    def submit(_number):
        return live.runner.submit(request(total_timesteps=64), idempotency_key="together").job_id

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        (job_id,) = set(pool.map(submit, range(8)))
    restarted = Runner(jobs_of(live.place), LocalBackend(live.place), Settings())
    again = restarted.submit(request(total_timesteps=64), idempotency_key="together")
    assert again.job_id == job_id
    live.wait(job_id, JobStatus.COMPLETED)


@pytest.mark.rotated(14)
@pytest.mark.parametrize(
    "text", ["", "x", "../../etc/passwd", "g" * 32, "0" * 32, "0" * 33, "\x00"]
)
def test_what_is_no_id_of_a_job_is_unknown_to_every_call(live, text):
    for call in (live.runner.stop, live.runner.resume, live.runner.delete, live.jobs.get):
        with pytest.raises(UnknownJobError):
            call(text)
