"""Jobs without processes: the same runs, weights and states as elsewhere, one at a time."""

import os
import threading

import pytest

from grpo_platform.api.schemas.training import job_reply
from grpo_platform.core.errors import UnknownJobError
from grpo_platform.core.process import worker_name
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.in_memory import InMemoryBackend
from grpo_platform.jobs.run_writer import read_log
from tests.service.jobs_support import assert_as_undisturbed, faulty, long_job, platform

FIELDS = {"total_timesteps": 4000, "seed": 6, "n_eval_episodes": 5, "checkpoint_seconds": 0.2}


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with platform(tmp_path_factory.mktemp("memory"), InMemoryBackend, max_queued_jobs=9) as started:
        yield started


@pytest.fixture(autouse=True)
def _nothing_left_running(live):
    yield
    live.stop_all()


@pytest.mark.rotated(5)
def test_a_job_comes_to_the_same_as_in_processes_of_its_own(live):
    job = live.submit(**FIELDS, model_name="whole")
    done = live.wait(job.job_id, JobStatus.COMPLETED)
    assert done.worker == worker_name(os.getpid())
    assert done.promoted
    log = read_log(live.jobs, job.job_id).decode()
    assert f"Attempt 1 of job {job.job_id}" in log
    assert "Branching: exact." in log
    assert "Registered whole version 1" in log
    assert_as_undisturbed(live, done)


@pytest.mark.rotated(11)
def test_a_job_that_learned_says_so_and_one_that_did_not_as_well(live):
    known = {"total_timesteps": 5_000, "seed": 7}
    learned = live.wait(live.submit(**known, model_name="learned").job_id, JobStatus.COMPLETED)
    assert learned.verdict.better
    assert learned.metrics["eval/over_start_ci_low"] == learned.verdict.start.ci_low > 0.0
    assert learned.hints == {}
    job = live.submit(**known, learning_rate=1e-12, model_name="idle")
    idle = live.wait(job.job_id, JobStatus.COMPLETED)
    assert idle.verdict.random.beaten  # by luck
    assert "not better than its start: difference +0.00" in idle.verdict.sentence
    assert (idle.promoted, list(idle.hints)) == (False, ["policy_unchanged"])
    assert idle.verdict.sentence in idle.promotion_reason
    log = read_log(live.jobs, idle.job_id).decode()
    assert log.count("raise learning_rate") == 1
    assert idle.verdict.sentence in log
    assert job_reply(idle).verdict.sentence == idle.verdict.sentence
    # one that goes on from the first is compared with that one
    job = live.submit(**known, learning_rate=1e-12, init_from="learned/1", model_name="learned")
    child = live.wait(job.job_id, JobStatus.COMPLETED)
    assert child.verdict.start.mean > 400.0
    assert not child.verdict.start.beaten


@pytest.mark.rotated(3)
def test_jobs_take_turns_and_a_stopped_one_goes_on_as_if_nothing_had_been(live):
    first = live.submit(**FIELDS | {"total_timesteps": 40_000}, model_name="resumed")
    second = live.submit(total_timesteps=300, n_eval_episodes=2)
    third = live.submit(total_timesteps=300)
    told = live.until(second.job_id, lambda record: record.status_message)
    assert "one runs at a time" in told.status_message
    live.training(first.job_id)
    live.runner.stop(third.job_id)
    live.runner.stop(first.job_id)
    assert live.wait(first.job_id, seconds=5).status is JobStatus.STOPPED
    assert live.wait(second.job_id).status is JobStatus.COMPLETED
    assert live.status(third.job_id) is JobStatus.STOPPED
    assert live.jobs.get(third.job_id).claimed_by is None
    live.runner.resume(first.job_id)
    done = live.wait(first.job_id, JobStatus.COMPLETED)
    assert (done.attempt, done.crashes) == (2, 0)
    assert_as_undisturbed(live, done)


def test_an_environment_that_raises_fails_its_job_alone(live):
    failed = live.wait(live.submit(**faulty("raise")).job_id, JobStatus.FAILED)
    assert "the floor gave way" in failed.error_message
    assert "the floor gave way" in live.log(failed.job_id)
    after = live.submit(total_timesteps=300, n_eval_episodes=2)
    live.wait(after.job_id, JobStatus.COMPLETED)


@pytest.mark.rotated(3)
def test_a_run_that_was_deleted_is_forgotten_and_the_next_job_has_its_turn(live):
    job = live.submit(**long_job())
    live.training(job.job_id)
    live.client.delete_run(job.job_id)
    after = live.submit(total_timesteps=300, n_eval_episodes=2)
    live.wait(after.job_id, JobStatus.COMPLETED)
    with pytest.raises(UnknownJobError):
        live.jobs.get(job.job_id)


@pytest.mark.rotated(7)
def test_a_training_that_is_killed_goes_on_from_its_checkpoint(live):
    job = live.submit(**FIELDS | {"total_timesteps": 40_000}, model_name="killed")
    live.until(job.job_id, lambda record: record.checkpoint)
    live.backend.kill(job.job_id)
    done = live.wait(job.job_id, JobStatus.COMPLETED)
    assert (done.attempt, done.crashes) == (2, 1)
    assert_as_undisturbed(live, done)


@pytest.mark.rotated(10)
def test_a_shutdown_gives_jobs_back_and_leaves_no_thread(tmp_path):
    before = set(threading.enumerate())  # a job that has completed may still draw its figures
    with platform(tmp_path, InMemoryBackend) as one:
        running, waiting = (one.submit(**long_job()) for _ in range(2))
        one.training(running.job_id, 500)
    left = one.jobs.get(running.job_id)
    assert (left.status, left.attempt, left.crashes) == (JobStatus.QUEUED, 2, 0)
    assert left.checkpoint is not None
    assert one.jobs.get(waiting.job_id).attempt == 1
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith("worker")]
