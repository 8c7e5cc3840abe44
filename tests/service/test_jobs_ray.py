"""Jobs on a real Ray cluster of several nodes of this machine."""

import os
import shutil
import tempfile
import warnings

import pytest

from grpo_platform.errors import PlatformError
from grpo_platform.jobs.ray_backend import RayBackend
from grpo_platform.jobs.ray_driver import resources
from grpo_platform.jobs.runner import Runner
from grpo_platform.jobs.states import JobStatus
from grpo_platform.settings import Settings
from tests.service.jobs_support import Platform, long_job
from tests.service.tracking_support import prepare, request, working_in

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster():
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path must be short
    os.environ |= {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own imports
        from ray.cluster_utils import Cluster
    small = {"object_store_memory": 80 << 20, "include_dashboard": False}
    made = Cluster()
    try:
        made.add_node(num_cpus=0, **small)
        made.small = small
        yield made
    finally:
        made.shutdown()
        del os.environ["RAY_TMPDIR"], os.environ["RAY_USAGE_STATS_ENABLED"]
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def live(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    with working_in(folder, MLFLOW_TRACKING_URI=None, RAY_ADDRESS=cluster.address):
        for _ in range(2):
            cluster.add_node(num_cpus=1, **cluster.small)
        started = Platform(folder, max_concurrent_jobs=3)
        started.backend = RayBackend(started.place)
        started.runner = Runner(started.jobs, started.backend, Settings(max_concurrent_jobs=3))
        started.runner.start()
        try:
            yield started
        finally:
            started.runner.shutdown()


def test_jobs_complete_wait_for_a_free_node_and_stop(live):
    jobs = [live.submit(**long_job()) for _ in range(2)]
    for job in jobs:
        live.training(job.job_id)
    waiting = live.submit(total_timesteps=500, model_name="ray-waiting")
    assert live.status(waiting.job_id) is JobStatus.QUEUED
    for job in jobs:
        live.runner.stop(job.job_id)
        assert live.wait(job.job_id).status is JobStatus.STOPPED
    done = live.wait(waiting.job_id, JobStatus.COMPLETED)
    assert live.versions_of(done.job_id) == [int(done.model_version)]


def test_a_job_asks_for_a_gpu_where_it_uses_one():
    assert resources(request().to_json()) == {"num_cpus": 1, "num_gpus": 0}
    assert resources(request(device="cuda").to_json()) == {"num_cpus": 1, "num_gpus": 1}


def test_a_cluster_that_is_not_there_is_a_clear_error(tmp_path):
    with working_in(tmp_path, RAY_ADDRESS="127.0.0.1:1"):
        backend = RayBackend(prepare(tmp_path))
        with pytest.raises(PlatformError, match=r"RAY_ADDRESS"):
            backend.start()
    assert backend.running() == frozenset()
