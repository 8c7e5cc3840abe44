"""A tracking server that is killed while jobs train over it: a delay, and nothing else."""

import time

import pytest

from grpo_platform.core.errors import StoreGoneError, StoreUnavailableError
from grpo_platform.core.names import Metric
from grpo_platform.core.states import JobStatus
from tests.service.faulty_environments import FAULTY
from tests.service.jobs_support import assert_same_training, platform
from tests.service.tracking_support import TrackingServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.rotated(4)]

AWAY_SECONDS = 30.0
TIMESTEPS = 60_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = TrackingServer(tmp_path_factory.mktemp("tracking"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def over_http(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("platform")
    with platform(folder, uri=server.uri, max_concurrent_jobs=3) as running:
        yield running


TRAINED = {"total_timesteps": TIMESTEPS, "seed": 3, "n_eval_episodes": 5, "eval_freq": 20_000}
FAULTY_JOB = {
    "env_name": FAULTY, "group_size": 4, "num_groups": 2, "n_steps": 16, "batch_size": 32,
    "n_epochs": 1, "total_timesteps": 100_000, "checkpoint_seconds": 0.5,
}  # fmt: skip
ITERATION = 4 * 2 * 16


@pytest.fixture(scope="module")
def outage(server, over_http, tmp_path_factory):
    """Jobs that trained, stopped and failed while nobody answered, as they ended."""
    cause = tmp_path_factory.mktemp("cause") / "fail"
    raising = {"fault": "raise", "when": str(cause), "seconds": 0.005}
    jobs = {
        "trained": over_http.submit(**TRAINED),
        # an iteration takes a second: what follows the stop finds no server any more
        "stopped": over_http.submit(**FAULTY_JOB, env_kwargs={"seconds": 0.01}),
        "failed": over_http.submit(**FAULTY_JOB, env_kwargs=raising),
    }
    for job in jobs.values():
        over_http.training(job.job_id, timesteps=500, seconds=120)
    over_http.runner.stop(jobs["stopped"].job_id)
    server.kill()
    cause.touch()
    with pytest.raises(StoreUnavailableError, match="try again"):
        over_http.runner.stop(jobs["trained"].job_id)
    time.sleep(AWAY_SECONDS)
    server.start()
    before = {name: over_http.jobs.get(job.job_id).status for name, job in jobs.items()}
    assert before["stopped"] is before["failed"] is JobStatus.RUNNING
    return {name: over_http.wait(job.job_id, seconds=240) for name, job in jobs.items()}


def test_a_training_without_its_server_for_30_seconds_loses_nothing(outage, over_http):
    disturbed = outage["trained"]
    undisturbed = over_http.wait(over_http.submit(**TRAINED).job_id, seconds=240)
    assert disturbed.status is JobStatus.COMPLETED, disturbed.error_message
    assert (disturbed.attempt, disturbed.crashes) == (1, 0)
    assert disturbed.current_timesteps == TIMESTEPS
    assert over_http.versions_of(disturbed.job_id) == [1]
    assert_same_training(over_http, undisturbed, disturbed)


def test_a_stop_is_carried_out_without_the_server_and_told_when_it_is_back(outage, over_http):
    job = outage["stopped"]
    assert job.status is JobStatus.STOPPED
    assert (job.attempt, job.crashes) == (1, 0)
    assert job.checkpoint is not None
    assert_ends_with_what_was_trained(over_http, job)
    over_http.runner.resume(job.job_id)
    over_http.training(job.job_id, timesteps=job.current_timesteps + 1, seconds=120)
    over_http.runner.stop(job.job_id)
    assert over_http.wait(job.job_id).status is JobStatus.STOPPED


def test_a_failure_without_the_server_is_told_when_it_is_back(outage, over_http):
    job = outage["failed"]
    assert job.status is JobStatus.FAILED
    assert "the floor gave way" in job.error_message
    assert (job.attempt, job.crashes) == (1, 0)
    assert "RuntimeError: the floor gave way" in over_http.log(job.job_id)
    assert_ends_with_what_was_trained(over_http, job)


def assert_ends_with_what_was_trained(over_http, job):
    histories = over_http.histories(job.job_id)
    for key in (Metric.TIMESTEPS, Metric.REWARD):
        steps = [step for step, _ in histories[key]]
        assert steps == sorted(set(steps)), key
        assert len(steps) > 2
        # the slice of the run that was not full yet is in the checkpoint
        assert job.current_timesteps - steps[-1] <= 2 * ITERATION


def test_a_run_has_at_most_max_metric_points_a_key_and_starts_and_ends_with_them(over_http):
    job = over_http.submit(total_timesteps=20_000, max_metric_points=40, n_eval_episodes=5)
    assert over_http.wait(job.job_id, seconds=240).status is JobStatus.COMPLETED
    histories = over_http.histories(job.job_id)
    assert len(histories) > 15
    assert max(len(points) for points in histories.values()) <= 40
    rewards = histories[Metric.REWARD]
    assert len(rewards) > 30
    assert rewards[-1][0] > 0.95 * 20_000
    assert histories[Metric.TIMESTEPS][-1] == (20_000, 20_000)


def test_jobs_wait_for_an_artifact_root_that_vanished_and_no_other_is_made(tmp_path):
    """As a volume that is not mounted: checkpoints, logs and versions stay in one tree."""
    root, away = tmp_path / "mlruns", tmp_path / "away"
    job = {"total_timesteps": 30_000, "seed": 3, "n_eval_episodes": 2, "checkpoint_seconds": 0.2}
    with platform(tmp_path) as running:
        trained = running.submit(**job)
        running.training(trained.job_id)
        root.rename(away)
        running.until(trained.job_id, lambda record: record.current_timesteps == 30_000)
        time.sleep(3.0)
        assert running.status(trained.job_id) is JobStatus.RUNNING
        with pytest.raises(StoreGoneError, match="mounted"):
            running.submit(**job)
        assert not root.exists()
        away.rename(root)
        done = running.wait(trained.job_id)
        assert done.status is JobStatus.COMPLETED, done.error_message
        assert (done.attempt, running.versions_of(trained.job_id)) == (1, [1])
        assert running.weights(done)
