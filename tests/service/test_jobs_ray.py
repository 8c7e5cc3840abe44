"""What only a cluster can lose: a node, its head, the driver. All bits are those of a twin."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from grpo_platform.core.errors import PlatformError
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.ray_backend import RayBackend
from grpo_platform.jobs.ray_driver import wait_of
from tests.e2e.processes import ROOT, environment
from tests.service.jobs_support import assert_as_undisturbed, kill, long_job, platform
from tests.service.ray_support import ray_cluster
from tests.service.tracking_support import prepare, working_in
from tests.waiting import until

pytestmark = pytest.mark.slow
FIELDS = {"total_timesteps": 60_000, "seed": 6, "checkpoint_seconds": 0.4}


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster() as made:
        yield made


@pytest.fixture(scope="module")
def live(cluster, tmp_path_factory):
    with platform(tmp_path_factory.mktemp("ray"), RayBackend, max_concurrent_jobs=3) as started:
        for _ in range(2):
            cluster.add()
        yield started


def training_with_checkpoint(live, name):
    job = live.submit(**FIELDS, model_name=name)
    live.until(job.job_id, lambda r: r.checkpoint, seconds=120)
    return job


def assert_went_on(live, job):
    done = live.wait(job.job_id, JobStatus.COMPLETED, seconds=200)
    assert done.attempt > 1
    assert_as_undisturbed(live, done)


@pytest.mark.rotated(9)
def test_jobs_that_no_node_can_have_say_so_let_others_pass_and_run_once_there_is_one(live, cluster):
    large = {"num_cpus": 2, "num_gpus": 0.5, "device": "auto"}
    job, *more = [live.submit(**long_job(**large)) for _ in range(4)]  # more than may run at once
    for one in (job, *more):
        told = live.until(one.job_id, lambda record: record.status_message)
        assert told.status is JobStatus.QUEUED
        assert "a node with 2 CPUs and 0.5 GPUs, which the Ray cluster does" in told.status_message
        assert "(its nodes: 1 CPU)" in told.status_message
    assert live.runner.waiting >= 4
    passing = live.submit(total_timesteps=300, model_name="ray-passing")
    live.wait(passing.job_id, JobStatus.COMPLETED)
    for one in more:
        live.runner.stop(one.job_id)
        assert live.status(one.job_id) is JobStatus.STOPPED
    until(lambda: not live.backend.running() & {one.job_id for one in more})
    node = cluster.add(num_cpus=2, num_gpus=1)
    assert live.training(job.job_id).status_message is None
    worker = live.worker(job.job_id)
    assert cluster.node_of(worker) is node
    assert worker.environ()["CUDA_VISIBLE_DEVICES"] == "0"
    params = live.client.get_run(job.job_id).data.params
    assert (float(params["num_cpus"]), float(params["num_gpus"])) == (2, 0.5)
    live.runner.stop(job.job_id)
    live.wait(job.job_id, JobStatus.STOPPED)
    cluster.remove(node)


@pytest.mark.rotated(11)
def test_a_job_that_waits_takes_over_an_actor_which_is_given_back_when_none_does(live):
    busy = [live.submit(**long_job()) for _ in range(2)]
    for job in busy:
        live.training(job.job_id)
    waiting = live.submit(**long_job())
    until(lambda: waiting.job_id in live.backend.running())
    assert live.status(waiting.job_id) is JobStatus.QUEUED
    forkserver = live.worker(busy[0].job_id).parent()
    live.runner.stop(busy[0].job_id)
    live.training(waiting.job_id)
    assert live.worker(waiting.job_id).parent() == forkserver
    for job in (busy[1], waiting):
        live.runner.stop(job.job_id)
    until(lambda: not forkserver.is_running() and not live.backend.running())


@pytest.mark.ray
def test_a_node_that_loses_power_changes_nothing_in_what_is_learned(live, cluster):
    job = training_with_checkpoint(live, "ray-node")
    cluster.cut_off(cluster.node_of(live.worker(job.job_id)))
    assert_went_on(live, job)


@pytest.mark.ray
def test_a_killed_driver_changes_nothing_in_what_is_learned(live):
    job = training_with_checkpoint(live, "ray-driver")
    (driver,) = [
        child for child in psutil.Process().children()
        if "grpo_platform.jobs.ray_driver" in child.cmdline()
    ]  # fmt: skip
    kill(driver)
    assert_went_on(live, job)


@pytest.mark.ray
def test_a_new_head_changes_nothing_in_what_is_learned(live, cluster):
    job = training_with_checkpoint(live, "ray-head")
    cluster.replace(nodes=1)
    assert_went_on(live, job)


@pytest.mark.parametrize(
    ("asked", "nodes", "said", "hopeless"),
    [
        ((1, 0), [{"CPU": 4.0}], "until a node of the Ray cluster has 1 CPU free", False),
        ((1, 0), [], "does not have. Add one", True),
        ((1, 0), [{"memory": 1.0}], "does not have. Add one", True),
        ((8, 0), [{"CPU": 4.0}, {"CPU": 4.0}], "(its nodes: 4 CPUs). Add", True),
        # enough in the cluster, on no single node
        (
            (4, 1),
            [{"CPU": 4.0}, {"CPU": 1.0, "GPU": 2.0}],
            "(its nodes: 1 CPU and 2 GPUs, 4 CPUs)",
            True,
        ),
        ((0.5, 0.25), [{"CPU": 1.0, "GPU": 1.0}], "has 0.5 CPUs and 0.25 GPUs free", False),
    ],
)
def test_what_a_job_waits_for_in_words(asked, nodes, said, hopeless):
    message, never = wait_of(dict(zip(("num_cpus", "num_gpus"), asked, strict=True)), nodes)
    assert never is hopeless
    assert said in message


@pytest.mark.rotated(2)
def test_without_ray_the_start_says_what_to_install_and_makes_nothing(tmp_path):
    # the installed packages but Ray, for an interpreter that knows no others
    installed, without = tmp_path / "installed", tmp_path / "folder"
    installed.mkdir()
    without.mkdir()
    for folder in [Path(entry) for entry in sys.path if entry.endswith("site-packages")]:
        for found in folder.iterdir():
            link = installed / found.name
            ours = found.suffix != ".pth" and not re.match(r"ray(\W|$)", found.name)
            if ours and not link.exists():
                link.symlink_to(found)
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / "run_api.py")],
        cwd=without,
        env=environment(
            GRPO_JOB_BACKEND="ray",
            GRPO_PORT="0",
            PYTHONPATH=os.pathsep.join(map(str, (ROOT / "platform", ROOT, installed))),
        ),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1
    assert "GRPO_JOB_BACKEND=ray needs Ray, which is not installed: pip install" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(without.iterdir()) == []


@pytest.mark.rotated(7)
def test_a_cluster_that_is_not_there_is_a_clear_error(tmp_path):
    with working_in(tmp_path, RAY_ADDRESS="127.0.0.1:1"):
        backend = RayBackend(prepare(tmp_path))
        with pytest.raises(PlatformError, match=r"nothing answers at RAY_ADDRESS=127.0.0.1:1"):
            backend.start()
    assert backend.running() == frozenset()
