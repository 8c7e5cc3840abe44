"""Experiments by command line and client, on a real server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from grpo_platform.client import ApiError, GRPOClient
from tests.e2e.processes import ROOT, environment, server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.rotated(14)]

SHORT = ("--timesteps", "400", "--set", "n_eval_episodes=3", "--set", "promote=always")


def test_the_command_line_and_the_client_train_show_and_delete_an_experiment(
    tmp_path: Path,
) -> None:
    with server(tmp_path) as running:

        def command(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "grpo_platform", "--url", running.url, *words],
                cwd=tmp_path, env=environment(COLUMNS="250"), timeout=240,
                capture_output=True, text=True, check=False,
            )  # fmt: skip

        done = command("train", "m", *SHORT, "--seeds", "3,14", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        experiment_id = found["experiment_id"]
        assert (found["status"], found["counts"]) == ("completed", {"completed": 2})
        scores = {seed["seed"]: seed["evaluation"] for seed in found["seeds"]}
        assert scores.keys() == {3, 14}
        assert found["results"]["mean"]["estimate"] == pytest.approx(sum(scores.values()) / 2)
        assert found["iqm"] == found["results"]["iqm"]["estimate"]
        assert found["results"]["threshold"] == 475.0
        assert scores[found["selection"]["seed"]] == max(scores.values())
        assert found["selection"]["evaluation"]["episodes"] == 3

        client = GRPOClient(running.url)
        (version,) = client.model("m")["versions"]
        assert version["evaluation"] == found["selection"]["evaluation"]
        assert "was chosen as the best of 2 seeds" in version["selection"]
        history = client.experiment_history(experiment_id, points=20)
        assert list(history.columns) == ["iqm", "ci_low", "ci_high", "seeds"]
        assert history["seeds"].iloc[-1] == 2
        assert history.index.is_monotonic_increasing
        table = client.experiment_seeds(experiment_id, threshold=1.0)
        assert table["steps_to_threshold"].notna().all()
        assert client.experiments()["experiment_id"].tolist() == [experiment_id]
        with pytest.raises(ApiError, match="Unknown key"):
            client.experiment_history(experiment_id, "rollout/nothing")

        shown = command("experiments", "show", experiment_id)
        assert "Return over 2 seeds: IQM" in shown.stdout, shown.stderr
        assert "was chosen as the best of 2 seeds" in shown.stdout
        listed = json.loads(command("experiments", "list", "--json").stdout)
        assert [one["experiment_id"] for one in listed] == [experiment_id]
        for words, said in (
            (("experiments", "stop", experiment_id), "completed already"),
            (("experiments", "retry", experiment_id), "No seed"),
            (("experiments", "resume", experiment_id), "completed"),
            (("experiments", "show", "x"), "experiments list"),
            (("train", "--seeds", "1"), "2 to 100"),
            (("train", "--seeds", "3,3"), "more than once"),
        ):
            refused = command(*words)
            assert refused.returncode == 1, words
            assert said in refused.stderr, (words, refused.stderr)
        for words in (("train", "--seeds", "many"), ("train", "--register", "each")):
            assert command(*words).returncode == 2
        assert "deleted" in command("experiments", "delete", experiment_id).stdout
        assert list(client.iter_experiments()) == []
        assert client.model("m")["champion"] == 1


def test_mlflow_run_trains_an_experiment_in_its_own_run(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def run(seeds: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager=local",
             "-P", f"seeds={seeds}", "-P", "total_timesteps=400", "-P", "n_eval_episodes=2",
             "-P", "model_name=m"],
            cwd=tmp_path, env=environment(MLFLOW_TRACKING_URI=uri),
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip

    done = run("5,8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 seeds: 2 completed" in done.stdout
    store = MlflowClient(tracking_uri=uri)
    (parent,) = store.search_runs(["0"])
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["grpo.experiment"] == "1"
    assert parent.data.metrics["experiment/completed"] == 2
    assert len(store.search_model_versions("name = 'm'")) == 1
    refused = run("1")
    assert refused.returncode != 0
    assert "2 to 100" in refused.stderr
