"""Sweeps on a real server: killed in the middle, stopped, resumed, deleted, refused."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from mlflow.tracking import MlflowClient

from grpo_platform.client import ApiError, GRPOClient
from tests.e2e.processes import ROOT, Server, environment, server
from tests.e2e.stores import STORES
from tests.service.tracking_support import prepare
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "n_epochs": {"type": "int", "low": 2, "high": 10},
    "advantage": {"type": "categorical", "choices": ["z_time", "dr"]},
}
SHORT = {"total_timesteps": 500, "n_eval_episodes": 2}
LONG = {"total_timesteps": 10**7, "n_eval_episodes": 1}


def nested(folder: Path, sweep_id: str) -> list[str]:
    """Every run below the sweep's, deleted ones aside, whether it is a job or not."""
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.mlflow.parentRunId = '{sweep_id}'")
    return [run.info.run_id for run in found]


@pytest.mark.rotated(13)
@pytest.mark.parametrize(("n_trials", "seeds"), [(6, None), (2, [3, 14, 15])])
def test_a_server_killed_in_the_middle_loses_and_doubles_no_trial(
    tmp_path: Path, n_trials: int, seeds: list[int] | None
) -> None:
    n_jobs = n_trials * len(seeds or [3])
    with server(tmp_path) as running:
        client = GRPOClient(running.url)
        accepted = client.start_sweep(
            SPACE,
            n_trials,
            config=SHORT,
            seed=3,
            seeds=seeds,
            model_name="swept",
            promote="always",
            max_concurrent_trials=2,
            pruner="none",
        )
        sweep_id = accepted["sweep_id"]
        until(lambda: len(nested(tmp_path, sweep_id)) >= 3)
        running.process.kill()
        running.process.wait()
    with server(tmp_path) as running:
        client = GRPOClient(running.url)
        sweep = client.wait_for_sweep(sweep_id, timeout_seconds=480)
        versions = client.model("swept")["versions"]
        table = client.sweep_trials(sweep_id)
        (listed,) = client.iter_sweeps()
    assert sweep["status"] == "completed", sweep["error_message"]
    assert sweep["counts"] == {"completed": n_trials}
    assert [trial["number"] for trial in sweep["trials"]] == list(range(n_trials))
    for trial in sweep["trials"]:
        assert [seed["seed"] for seed in trial["seeds"]] == (seeds or [3])
        assert trial["job_id"] in [seed["job_id"] for seed in trial["seeds"]]
        assert (trial["ci_low"] is None) == (seeds is None)
    jobs = [seed["job_id"] for trial in sweep["trials"] for seed in trial["seeds"]]
    assert sorted(nested(tmp_path, sweep_id)) == sorted(set(jobs))
    assert len(jobs) == len(versions) == n_jobs
    assert sweep["progress"] == 1.0
    best = max(sweep["trials"], key=lambda trial: trial["value"])
    assert sweep["best"]["value"] == sweep["best_value"] == best["value"]
    assert "than random actions" in sweep["best"]["verdict"]["sentence"]
    (champion,) = [v for v in versions if "champion" in v["aliases"]]
    assert champion["version"] == sweep["best"]["model_version"]
    assert table["params.learning_rate"].between(1e-4, 1e-2).all()
    assert listed == {name: value for name, value in sweep.items() if name != "trials"}
    parent = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}").get_run(sweep_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["eval/mean_reward"] == best["value"]
    listed_files = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    names = [file.path for file in listed_files.list_artifacts(sweep_id)]
    assert "parallel_coordinates.png" in names
    assert "best eval/mean_reward" in parent.data.tags["mlflow.note.content"]


@pytest.mark.rotated(14)
def test_a_sweep_stops_with_its_trials_resumes_and_ends_when_it_is_deleted(tmp_path: Path) -> None:
    with server(tmp_path) as running:
        client = GRPOClient(running.url)
        sweep_id = client.start_sweep(SPACE, 2, config=LONG, seed=1)["sweep_id"]

        def trains() -> bool:
            trials = client.sweep(sweep_id)["trials"]
            started = bool(trials) and trials[0]["state"] == "running"
            return started and client.job(trials[0]["job_id"])["current_timesteps"] > 0

        until(trains)
        client.stop_sweep(sweep_id)
        stopped = client.wait_for_sweep(sweep_id, timeout_seconds=240)
        assert stopped["status"] == "stopped"
        (trial,) = stopped["trials"]
        assert trial["state"] == "stopped"
        with pytest.raises(ApiError, match="stopped already"):
            client.stop_sweep(sweep_id)

        client.resume_sweep(sweep_id)
        until(lambda: client.sweep(sweep_id)["trials"][0]["state"] == "running")
        again = client.sweep(sweep_id)
        assert [t["job_id"] for t in again["trials"]] == [trial["job_id"]]
        assert again["status"] == "running"

        MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}").delete_run(sweep_id)
        assert client.wait(trial["job_id"], timeout_seconds=240)["status"] == "stopped"
        with pytest.raises(ApiError, match="GET /sweeps"):
            client.sweep(sweep_id)


@pytest.mark.rotated(12)
@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"search_space": {"gamma": {"type": "float", "low": 0.9, "high": 0.1}}}, 422, "at most"),
        ({"search_space": {"gama": {"type": "float", "low": 0.1, "high": 0.9}}}, 400, "gamma"),
        ({"search_space": {}}, 422, "search_space"),
        ({"n_trials": 0}, 422, "n_trials"),
        ({"metric": "eval/nothing"}, 400, "eval/mean_reward"),
        ({"sampler": "grid"}, 400, "learning_rate as categorical"),
        ({"config": {"learning_rate": 0.1}}, 400, "both fixed and searched"),
        ({"config": {"env_name": "Nope-v0"}}, 400, "Nope-v0"),
        ({"config": {"model_name": "x"}}, 422, "belongs to the sweep"),
        ({"config": {"total_timesteps": 10**9}}, 422, "GRPO_MAX_TIMESTEPS"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_leaves_nothing(
    refusing: tuple[Server, Path], fields: dict[str, object], status: int, said: str
) -> None:
    running, folder = refusing
    body = {"search_space": SPACE, "n_trials": 2} | fields
    refused = requests.post(f"{running.url}/sweeps", json=body, timeout=60)
    assert refused.status_code == status
    assert said in refused.json()["detail"]
    assert requests.get(f"{running.url}/sweeps", timeout=60).json()["sweeps"] == []
    store = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [e for e in store.search_experiments() if e.name != "grpo-claims"]
    assert not store.search_runs([e.experiment_id for e in experiments])


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("refusing")
    with server(folder, GRPO_MAX_TIMESTEPS="100000000") as running:
        yield running, folder


@pytest.mark.rotated(14)
def test_the_command_line_sweeps(tmp_path: Path) -> None:
    with server(tmp_path) as running:
        sweep_by_hand(running, tmp_path)


def sweep_by_hand(running: Server, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("learning_rate: {type: float, low: 1e-4, high: 1e-2, log: true}\n")

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "grpo_platform", "--url", running.url, "sweep", *words],
            cwd=tmp_path, env=environment(COLUMNS="250"), timeout=240,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    fixed = [word for name, value in SHORT.items() for word in ("-s", f"{name}={value}")]
    done = command("start", str(space), "--trials", "2", "--seeds", "3,14", *fixed, "--json")
    assert done.returncode == 0, done.stderr
    sweep = json.loads(done.stdout)
    assert sweep["counts"] == {"completed": 2}
    shown = command("show", sweep["sweep_id"]).stdout
    assert "completed" in shown
    assert f"The seeds of trial {sweep['best']['number']}" in shown
    assert sweep["best"]["verdict"]["sentence"] in shown
    assert all(seed["job_id"] in shown for seed in sweep["best"]["seeds"])
    assert [s["sweep_id"] for s in json.loads(command("list", "--json").stdout)] == [
        sweep["sweep_id"]
    ]
    for words, said in (
        (("stop", sweep["sweep_id"]), "completed already"),
        (("show", "x"), "No sweep"),
        (("start", str(tmp_path / "none.yaml")), "cannot be read"),
    ):
        refused = command(*words)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.rotated(5)
def test_mlflow_run_sweeps_in_its_own_run(tmp_path: Path) -> None:
    space = tmp_path / "space.json"
    space.write_text(json.dumps(SPACE))
    fixed = [word for name, value in SHORT.items() for word in ("-P", f"{name}={value}")]

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def run(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mlflow", "run", str(ROOT), "-e", "sweep",
             "--env-manager=local", "-P", f"search_space={path}", "-P", "n_trials=1",
             "-P", "seeds=3,14", *fixed],
            cwd=tmp_path, env=environment(MLFLOW_TRACKING_URI=uri),
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip

    done = run(space)
    assert done.returncode == 0, done.stdout + done.stderr
    store = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (parent,) = store.search_runs(["0"])
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["grpo.sweep"] == "1"
    assert len(nested(tmp_path, parent.info.run_id)) == 2

    refused = run(tmp_path / "none.json")
    assert refused.returncode != 0
    assert "cannot be read" in refused.stderr
    newest = store.search_runs(["0"], order_by=["attributes.start_time DESC"])[0]
    assert newest.info.status == "FAILED"


@contextlib.contextmanager
def foreground(
    folder: Path, uri: str, fixed: dict[str, int]
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """What `mlflow run -e sweep` calls, for three trials; gives the process and the run's id."""
    space = folder / "space.json"
    space.write_text(json.dumps(SPACE))
    prepare(folder, uri)
    run_id = MlflowClient(tracking_uri=uri).create_run("0").info.run_id
    words = [word for name, value in fixed.items() for word in (f"--{name}", str(value))]
    with (folder / "said.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "grpo_platform.mlproject", "sweep", "--search_space", str(space),
             "--n_trials", "3", *words],
            cwd=folder, env=environment(MLFLOW_TRACKING_URI=uri, MLFLOW_RUN_ID=run_id),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        until(lambda: "1 of 3 trials" in (folder / "said.log").read_text())
        yield process, run_id
    finally:
        process.kill()
        process.wait()


@pytest.mark.rotated(11)
def test_a_sweep_in_the_foreground_outlasts_its_store(tmp_path: Path) -> None:
    said = tmp_path / "said.log"
    with STORES["sqlite"](tmp_path) as store:
        uri = store.settings["MLFLOW_TRACKING_URI"]
        with foreground(tmp_path, uri, SHORT) as (process, run_id):
            with store.away():
                until(lambda: "The sweep waits." in said.read_text())
                assert process.poll() is None
            assert process.wait(200) == 0, said.read_text()
        run = MlflowClient(tracking_uri=uri).get_run(run_id)
    assert "3 of 3 trials" in said.read_text()
    assert run.data.tags["grpo.sweep"] == "1"
    assert len([key for key in run.data.tags if key.startswith("grpo.claim.trial.")]) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.rotated(11)
def test_an_interrupted_sweep_stops_with_its_trials(tmp_path: Path, number: signal.Signals) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    with foreground(tmp_path, uri, LONG) as (process, run_id):
        (trial,) = nested(tmp_path, run_id)
        until(lambda: client.get_run(trial).info.status == "RUNNING")
        process.send_signal(number)
        assert process.wait(240) == 1
    said = (tmp_path / "said.log").read_text()
    assert f"Sweep {run_id} stopped." in said
    assert "Traceback" not in said
    assert {client.get_run(run).info.status for run in (run_id, trial)} == {"KILLED"}
