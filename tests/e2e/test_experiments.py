"""An experiment on a real server that is killed, twice, while its seeds train."""

from pathlib import Path

import pytest
import requests
from mlflow.tracking import MlflowClient

from grpo_platform.client import GRPOClient
from tests.e2e.processes import Server, server
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.rotated(14)]

SEEDS = 10
SHORT = {"total_timesteps": 500, "n_eval_episodes": 2, "model_name": "ten", "register": "each"}


def kill_once(running: Server, experiment_id: str, completed: int) -> None:
    """Kill a server in the middle of a seed, once so many are completed."""
    client = GRPOClient(running.url)

    def reached() -> bool:
        counts = client.experiment(experiment_id)["counts"]
        return counts.get("completed", 0) >= completed and "running" in counts

    until(reached, 200)
    running.process.kill()
    running.process.wait()


def test_ten_seeds_are_complete_whoever_kills_the_server(tmp_path: Path) -> None:
    with server(tmp_path) as running:
        body = {**SHORT, "seeds": SEEDS, "seed": 1}
        reply = requests.post(f"{running.url}/train", json=body, timeout=120).json()
        experiment_id, jobs = reply["experiment_id"], [job["job_id"] for job in reply["jobs"]]
        kill_once(running, experiment_id, completed=0)
    with server(tmp_path) as running:
        kill_once(running, experiment_id, completed=4)
    with server(tmp_path) as running:
        client = GRPOClient(running.url)
        found = client.wait_for_experiment(experiment_id, timeout_seconds=400)
        versions = client.model("ten")["versions"]
    assert found["status"] == "completed", found["error_message"]
    assert found["counts"] == {"completed": SEEDS}
    assert found["progress"] == 1.0
    assert [seed["seed"] for seed in found["seeds"]] == list(range(1, SEEDS + 1))
    assert [seed["job_id"] for seed in found["seeds"]] == jobs
    assert sorted(v["job_id"] for v in versions) == sorted(jobs)
    store = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiments = [e.experiment_id for e in store.search_experiments()]
    nested = store.search_runs(experiments, f"tags.mlflow.parentRunId = '{experiment_id}'")
    assert sorted(run.info.run_id for run in nested) == sorted(jobs)
    assert store.get_run(experiment_id).info.status == "FINISHED"
