"""Several jobs at once on a cluster of several nodes, one of which is lost in mid-training."""

import time

import psutil
import pytest

from grpo_platform.core.names import CLAIM_TAG
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.ray_backend import RayBackend
from tests.service.jobs_support import assert_as_undisturbed, platform
from tests.service.ray_support import ray_cluster

pytestmark = [pytest.mark.slow, pytest.mark.ray]

NODES, CPUS, JOBS = 3, 2, 8
FIELDS = {"total_timesteps": 150_000, "checkpoint_seconds": 0.4, "n_eval_episodes": 5}


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster() as made:
        yield made


@pytest.fixture(scope="module")
def live(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    with platform(folder, RayBackend, max_concurrent_jobs=NODES * CPUS) as started:
        for _ in range(NODES):
            cluster.add(num_cpus=CPUS)
        yield started


def full_node(live, cluster, jobs):
    """A node that trains as many jobs as it can, each with a checkpoint; and these jobs."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        there = {}
        for job in jobs:
            record = live.jobs.get(job.job_id)
            if record.status is JobStatus.RUNNING and record.checkpoint:
                try:
                    node = cluster.node_of(live.worker(job.job_id))
                except (psutil.NoSuchProcess, StopIteration):
                    continue  # it ends at this moment
                there.setdefault(node.node_id, (node, []))[1].append(job.job_id)
        for node, held in there.values():
            if len(held) == CPUS:
                return node, held
        time.sleep(0.1)
    raise TimeoutError([live.jobs.get(job.job_id) for job in jobs])


@pytest.mark.timeout(900)
def test_a_node_that_is_lost_costs_no_job_and_changes_none(live, cluster):
    jobs = [live.submit(**FIELDS, seed=n, model_name=f"nodes-{n}") for n in range(JOBS)]
    node, held = full_node(live, cluster, jobs)
    cluster.cut_off(node)
    for job in jobs:
        done = live.wait(job.job_id, JobStatus.COMPLETED, seconds=300)
        tags = live.client.get_run(job.job_id).data.tags
        claims = {name for name in tags if name.startswith(CLAIM_TAG)}
        assert claims == {f"{CLAIM_TAG}{number}" for number in range(1, done.attempt + 1)}
        assert (done.attempt > 1) == (job.job_id in held)
        assert done.crashes == done.attempt - 1
        assert_as_undisturbed(live, done)
