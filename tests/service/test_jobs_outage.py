"""A tracking server that is killed while jobs train over it: a delay, and nothing else."""

import time

import pytest

from grpo_platform.jobs.states import JobStatus
from grpo_platform.tracking.names import Metric
from tests.service.jobs_support import assert_same_training, platform
from tests.service.tracking_support import TrackingServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

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
    with platform(tmp_path_factory.mktemp("platform"), uri=server.uri) as running:
        yield running


def test_a_server_that_is_away_for_30_seconds_loses_nothing(server, over_http):
    fields = {"total_timesteps": TIMESTEPS, "seed": 3, "n_eval_episodes": 5, "eval_freq": 20_000}
    calm = over_http.submit(**fields)
    undisturbed = over_http.wait(calm.job_id, seconds=240)

    job = over_http.submit(**fields)
    over_http.training(job.job_id, timesteps=500, seconds=120)
    server.kill()
    time.sleep(AWAY_SECONDS)
    server.start()
    disturbed = over_http.wait(job.job_id, seconds=240)

    assert disturbed.status is JobStatus.COMPLETED, disturbed.error_message
    assert (disturbed.attempt, disturbed.crashes) == (1, 0)
    assert disturbed.current_timesteps == TIMESTEPS
    assert over_http.versions_of(job.job_id) == [1]
    assert_same_training(over_http, undisturbed, disturbed)


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
