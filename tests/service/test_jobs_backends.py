"""What every backend does with a job: the same tests on this machine and on a Ray cluster.

What was disturbed is compared with a training that nobody disturbs, in this process, so both
backends also come to the same bits.
"""

import contextlib
import os
import signal
import time

import psutil
import pytest
import requests

from grpo_platform.core.errors import ConflictError, QueueFullError
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.local import LocalBackend
from grpo_platform.jobs.ray_backend import RayBackend
from grpo_platform.jobs.run_writer import read_log
from tests.e2e.processes import server
from tests.service.jobs_support import (
    Onlooker,
    assert_as_undisturbed,
    faulty,
    kill,
    long_job,
    platform,
)
from tests.service.ray_support import ray_cluster
from tests.waiting import until

pytestmark = pytest.mark.slow

FIELDS = {"total_timesteps": 60_000, "seed": 6, "checkpoint_seconds": 0.4, "eval_freq": 25_000}
STOP_SECONDS = 2.0


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def live(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backend")
    limits = {"max_concurrent_jobs": 2, "max_queued_jobs": 3}
    with contextlib.ExitStack() as stack:
        if backend == "local":
            yield stack.enter_context(platform(folder, LocalBackend, **limits))
            return
        cluster = stack.enter_context(ray_cluster())
        started = stack.enter_context(platform(folder, RayBackend, **limits))
        for _ in range(2):
            cluster.add()  # within the platform's environment, so that its plug-in is found
        yield started


@pytest.fixture(autouse=True)
def _nothing_left_running(live):
    yield
    live.stop_all()


@pytest.mark.rotated(3)
def test_a_completed_job_has_a_version_an_evaluation_a_log_and_no_checkpoint(live):
    job = live.submit(total_timesteps=1500, promote="always", model_name="life")
    assert job.status is JobStatus.QUEUED
    live.until(job.job_id, lambda r: r.status is not JobStatus.QUEUED)
    done = live.wait(job.job_id, JobStatus.COMPLETED)
    assert done.current_timesteps == 1500
    assert done.progress == 1.0
    assert done.end_time is not None
    assert done.attempt == 1
    assert live.versions_of(job.job_id) == [int(done.model_version)]
    assert (done.promoted, done.promotion_reason) == (True, "The name had no champion.")
    assert done.metrics["eval/mean_reward"] > 8
    assert [step for step, _ in live.histories(job.job_id)["rollout/reward"]][-1] <= 1500
    assert live.client.get_run(job.job_id).data.tags["resume_exact"] == "true"
    log = read_log(live.jobs, job.job_id).decode()
    assert done.branching == "exact"
    assert "one array" in done.branching_reason
    assert f"Branching: exact. {done.branching_reason}" in log
    assert f"Attempt 1 of job {job.job_id}" in log
    assert "Registered life version" in log
    assert f"Promoted: {done.promotion_reason}" in log
    until(lambda: not live.jobs.list_artifacts(job.job_id, "checkpoints"))


@pytest.mark.rotated(8)
def test_jobs_run_in_the_order_they_came_and_as_many_at_once_as_may(live):
    jobs = [live.submit(**long_job()) for _ in range(2)]
    for job in jobs:
        live.training(job.job_id)
    waiting = [live.submit(total_timesteps=300) for _ in range(3)]
    with pytest.raises(QueueFullError):
        live.submit(total_timesteps=300)
    time.sleep(1)
    assert {live.status(job.job_id) for job in waiting} == {JobStatus.QUEUED}
    live.runner.stop(jobs[0].job_id)
    ends = [live.wait(job.job_id, JobStatus.COMPLETED).end_time for job in waiting]
    assert ends == sorted(ends)


@pytest.mark.rotated(7)
def test_a_running_job_stops_within_two_seconds_and_keeps_a_checkpoint(live):
    job = live.submit(**long_job(model_name="stopped"))
    live.training(job.job_id)
    worker = live.worker(job.job_id)
    began = time.monotonic()
    live.runner.stop(job.job_id)
    stopped = live.wait(job.job_id, JobStatus.STOPPED)
    psutil.wait_procs([worker], timeout=3)
    took = time.monotonic() - began
    assert not worker.is_running()
    assert took < STOP_SECONDS
    assert stopped.checkpoint in live.jobs.list_artifacts(job.job_id, "checkpoints")
    assert live.versions_of(job.job_id) == []
    assert "The job is stopped." in read_log(live.jobs, job.job_id).decode()
    with pytest.raises(ConflictError):
        live.runner.stop(job.job_id)


@pytest.mark.rotated(7)
def test_a_waiting_job_stops_at_once(live):
    busy = [live.submit(**long_job()) for _ in range(2)]
    for job in busy:
        live.training(job.job_id)
    waiting = live.submit(total_timesteps=300)
    live.runner.stop(waiting.job_id)
    assert live.status(waiting.job_id) is JobStatus.STOPPED
    for job in busy:
        live.runner.stop(job.job_id)
    time.sleep(3)
    assert live.status(waiting.job_id) is JobStatus.STOPPED


def test_a_job_stopped_right_after_it_was_submitted_stops(live):
    job = live.submit(**long_job())
    live.runner.stop(job.job_id)
    live.wait(job.job_id, JobStatus.STOPPED, seconds=10)
    time.sleep(1)
    assert live.status(job.job_id) is JobStatus.STOPPED


@pytest.mark.rotated(4)
def test_stop_and_resume_change_nothing_in_what_is_learned(live):
    job = live.submit(**FIELDS | {"checkpoint_seconds": 100.0}, model_name="resumed")
    live.training(job.job_id, 1000)
    live.runner.stop(job.job_id)
    stopped = live.wait(job.job_id, JobStatus.STOPPED)
    assert 0 < stopped.current_timesteps < 60_000
    live.runner.resume(job.job_id)
    resumed = live.wait(job.job_id, JobStatus.COMPLETED)
    assert resumed.attempt == 2
    assert resumed.error_message is None
    assert_as_undisturbed(live, resumed)
    with pytest.raises(ConflictError):
        live.runner.resume(job.job_id)


@pytest.mark.rotated(7)
@pytest.mark.parametrize("victim", ["worker", "trainer"])
def test_a_killed_process_changes_nothing_in_what_is_learned(live, victim):
    job = live.submit(**FIELDS, model_name=f"killed-{victim}")
    for attempt in (1, 2):
        live.until(job.job_id, lambda r, n=attempt: r.attempt == n and r.checkpoint)
        live.training(job.job_id, live.jobs.get(job.job_id).current_timesteps + 1500)
        kill(getattr(live, victim)(job.job_id))
        live.until(job.job_id, lambda r, n=attempt: r.attempt == n + 1, seconds=10)
    done = live.wait(job.job_id, JobStatus.COMPLETED)
    assert done.crashes == 2
    assert live.log(job.job_id).count("Attempt ") == 3
    assert_as_undisturbed(live, done)


@pytest.mark.timeout(600)
def test_a_killed_server_changes_nothing_in_what_is_learned(backend, live, tmp_path):
    with server(tmp_path, GRPO_JOB_BACKEND=backend) as first:
        body = FIELDS | {"model_name": "orphan"}
        reply = requests.post(f"{first.url}/train", json=body, timeout=60)
        job_id = reply.json()["job_id"]
        seen = Onlooker(tmp_path)
        seen.until(job_id, lambda r: r.checkpoint)
        worker = seen.worker(job_id)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        _, alive = psutil.wait_procs([worker], timeout=30)
        assert not alive
    assert seen.status(job_id) in (JobStatus.QUEUED, JobStatus.RUNNING)
    with server(tmp_path, GRPO_JOB_BACKEND=backend):
        done = seen.wait(job_id, JobStatus.COMPLETED)
        assert done.attempt == 2
        assert "It goes on from checkpoint" in seen.log(job_id)
        assert_as_undisturbed(seen, done)


@pytest.mark.rotated(7)
def test_a_job_whose_worker_is_lost_too_often_fails_and_says_so(live):
    job = live.submit(**long_job(max_attempts=2))
    for attempt in (1, 2):
        live.until(job.job_id, lambda r, n=attempt: r.attempt == n and r.current_timesteps > 0)
        live.training(job.job_id)
        kill(live.worker(job.job_id))
        time.sleep(0.5)
    failed = live.wait(job.job_id, JobStatus.FAILED)
    assert "lost its worker 2 times" in failed.error_message
    assert "signal 9" in failed.error_message
    live.runner.resume(job.job_id)
    live.training(job.job_id)


def test_a_worker_that_gets_sigterm_gives_the_job_back(live):
    job = live.submit(**long_job())
    live.training(job.job_id)
    live.worker(job.job_id).send_signal(signal.SIGTERM)
    live.until(job.job_id, lambda r: r.attempt == 2, seconds=10)
    record = live.training(job.job_id)
    assert record.crashes == 0


def test_an_environment_that_raises_fails_the_job_with_its_words(live):
    job = live.submit(**faulty("raise"))
    failed = live.wait(job.job_id, JobStatus.FAILED)
    assert "the floor gave way" in failed.error_message
    assert failed.attempt == 1
    assert failed.crashes == 0
    assert 'raise RuntimeError("the floor gave way")' in live.log(job.job_id)
