"""`mlflow run .`: the same training, in the run that MLflow created."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import Run

from grpo_platform.core.names import CLOCK_METRICS, SYSTEM_METRICS_PREFIX
from grpo_platform.tracking.jobs import JobStore
from tests.e2e.processes import ROOT, environment, server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

GUIDE = (ROOT / "docs/guide.md").read_text()


def mlflow_run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`mlflow run` of this repository, with its store in `folder`."""
    return subprocess.run(
        ["mlflow", "run", str(ROOT), *arguments],
        cwd=folder, env=environment(MLFLOW_TRACKING_URI=uri(folder), **variables),
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def newest(client: MlflowClient) -> Run:
    (run,) = client.search_runs(["0"], max_results=1, order_by=["attributes.start_time DESC"])
    return run


def histories(client: MlflowClient, run: Run) -> dict[str, list[tuple[int, float]]]:
    """Every point of every metric, those of the clock aside."""
    return {
        key: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics
        if key not in CLOCK_METRICS and not key.startswith(SYSTEM_METRICS_PREFIX)
    }


@pytest.mark.rotated(7)
def test_two_runs_of_one_seed_are_the_same_and_the_api_lists_them(tmp_path: Path) -> None:
    (line,) = re.findall(r"^mlflow run \. (?!-e )(.*)$", GUIDE, re.MULTILINE)
    arguments = shlex.split(line)
    client = MlflowClient(tracking_uri=uri(tmp_path))
    runs = []
    for _ in range(2):
        done = mlflow_run(tmp_path, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        runs.append(newest(client))

    first, second = runs
    assert first.info.run_id != second.info.run_id
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert first.data.params["total_timesteps"] == "5000"
    assert first.data.params["clip_range"] == "0.3", "what was not given is logged as well"
    assert first.data.metrics["eval/mean_reward"] >= 400
    assert len(histories(client, first)["rollout/reward"]) > 100
    assert histories(client, first) == histories(client, second)

    with server(tmp_path) as running:
        jobs = requests.get(f"{running.url}/training/jobs", timeout=30).json()["jobs"]
        answer = requests.post(
            f"{running.url}/inference",
            json={"model_name": "balance/2", "observation": [0.1, 0.0, 0.05, 0.0]},
            timeout=30,
        ).json()
    assert [job["job_id"] for job in jobs] == [second.info.run_id, first.info.run_id]
    assert {job["status"] for job in jobs} == {"completed"}
    assert [job["model_version"] for job in jobs] == [2, 1]
    assert answer["action"] in (0, 1)


@pytest.mark.rotated(6)
def test_parameters_that_cannot_be_trained_fail_the_run(tmp_path: Path) -> None:
    done = mlflow_run(tmp_path, "--env-manager=local", "-P", "learning_rate=fast")
    assert done.returncode != 0
    said = done.stderr.partition("grpo-platform cannot train this:")[2]
    assert "learning_rate: Input should be a valid number" in said
    assert "grpo_platform" not in said, "no traceback"
    assert newest(MlflowClient(tracking_uri=uri(tmp_path))).info.status == "FAILED"


@pytest.mark.rotated(13)
def test_evaluate_logs_to_a_run_that_is_no_job(tmp_path: Path) -> None:
    trained = mlflow_run(
        tmp_path, "--env-manager=local", "-P", "total_timesteps=300", "-P", "model_name=once"
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    client = MlflowClient(tracking_uri=uri(tmp_path))
    job_id = newest(client).info.run_id
    arguments = ["-e", "evaluate", "--env-manager=local", "-P", "model=once/1"]
    done = mlflow_run(tmp_path, *arguments, "-P", "episodes=7")
    assert done.returncode == 0, done.stdout + done.stderr
    run = newest(client)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"model": "once/1", "episodes": "7", "seed": "20240203"}
    assert run.data.tags["grpo.evaluates"] == "once/1"
    assert run.data.metrics["eval/ci_low"] <= run.data.metrics["eval/mean_reward"]
    assert [job.job_id for job in JobStore(uri(tmp_path)).list().items] == [job_id]

    refused = mlflow_run(tmp_path, *arguments, "-P", "episodes=many")
    assert refused.returncode != 0
    assert "grpo-platform cannot evaluate this:\nepisodes: Input should be" in refused.stderr
    assert newest(client).info.status == "FAILED"


@pytest.mark.rotated(8)
@pytest.mark.skipif(
    "PIP_FIND_LINKS" not in os.environ, reason="uv would download gigabytes of CUDA with torch"
)
def test_it_trains_in_the_environment_of_conda_yaml(tmp_path: Path) -> None:
    environments = tmp_path / "environments"
    try:
        done = mlflow_run(
            tmp_path, "--env-manager=uv", "-P", "total_timesteps=500",
            MLFLOW_ENV_ROOT=str(environments), UV_FIND_LINKS=os.environ["PIP_FIND_LINKS"],
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert list(environments.iterdir()), "MLflow made an environment"
    finally:
        shutil.rmtree(environments, ignore_errors=True)
    run = newest(MlflowClient(tracking_uri=uri(tmp_path)))
    assert run.info.status == "FINISHED"
    assert run.data.metrics["time/total_timesteps"] == 500
