"""`grpo-platform worker`: one queued job in the foreground, or a sentence."""

import os
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from grpo_platform.cli import app
from grpo_platform.core.process import Liveness, liveness
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.run_writer import read_log
from tests.service.jobs_support import Onlooker, assert_as_undisturbed
from tests.service.tracking_support import request, working_in

TOKEN = "t" * 32


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return Onlooker(tmp_path_factory.mktemp("worker"))


def start(seen, job_id):
    return subprocess.Popen(
        [sys.executable, "-m", "grpo_platform", "worker", "--job", job_id],
        cwd=seen.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"MLFLOW_TRACKING_URI": ""},
    )  # fmt: skip


def ended(worker):
    said, _ = worker.communicate(timeout=120)
    assert "Traceback" not in said, said
    return worker.returncode, " ".join(said.split())


def refused(seen, job_id, **environment):
    with working_in(seen.folder, MLFLOW_TRACKING_URI=None, **environment):
        result = CliRunner().invoke(app, ["worker", "--job", job_id])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    return result.output


@pytest.mark.rotated(5)
def test_a_queued_job_is_trained_and_what_is_said_is_its_log(seen):
    job = seen.jobs.create(request(total_timesteps=1500, seed=3, n_eval_episodes=3, model_name="w"))
    code, said = ended(start(seen, job.job_id))
    done = seen.jobs.get(job.job_id)
    assert (code, done.status, done.model_version) == (0, JobStatus.COMPLETED, "1")
    assert "Registered w version 1." in said
    assert "Registered w version 1." in read_log(seen.jobs, job.job_id).decode()
    assert_as_undisturbed(seen, done)
    again = refused(seen, job.job_id)
    assert f"Job {job.job_id} is completed, and a worker takes one that is queued." in again


@pytest.mark.rotated(4)
def test_ctrl_c_stops_the_job_and_meanwhile_no_other_worker_has_it(seen):
    job = seen.jobs.create(request(total_timesteps=50_000_000))
    worker = start(seen, job.job_id)
    held = seen.training(job.job_id)
    assert liveness(held.worker) is Liveness.ALIVE
    assert f"is held by the worker {held.worker}" in refused(seen, job.job_id)
    worker.send_signal(signal.SIGINT)
    code, _ = ended(worker)
    stopped = seen.jobs.get(job.job_id)
    assert (code, stopped.status) == (1, JobStatus.STOPPED)
    assert stopped.checkpoint is not None
    assert f"`grpo-platform jobs resume {job.job_id}`" in refused(seen, job.job_id)


def test_a_job_that_is_unknown_claimed_or_queued_by_others_is_refused(seen):
    assert "No training job" in refused(seen, "0" * 32)
    assert "No training job" in refused(seen, "../secret")
    job = seen.jobs.create(request(total_timesteps=300))
    assert f"store sign {job.job_id}" in refused(seen, job.job_id, GRPO_API_TOKEN=TOKEN)
    assert seen.jobs.claim(job.job_id, 1, "elsewhere:1:1")
    assert "held by the worker elsewhere:1:1" in refused(seen, job.job_id)
    assert seen.status(job.job_id) is JobStatus.QUEUED
