"""A store that commit 3e58ed8 made is opened, served, and its stopped job goes on.

To the bit only on a processor like the one that it was made on: BLAS has code for each kind.
"""

import gzip
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import pytest
import torch

from grpo.actions import DiscreteActions
from grpo.policies import PolicySpec
from grpo_platform.client import GRPOClient
from grpo_platform.registry.packaging import save_policy
from tests.e2e.processes import ROOT, Server, environment, server
from tests.service.registry_support import random_policy

pytestmark = [pytest.mark.slow, pytest.mark.rotated(10)]

DATA = Path(__file__).parents[1] / "data" / "platform-3e58ed8"
FACTS = json.loads((DATA / "facts.json").read_text())
OBSERVATIONS = {"balance": [0.1, 0.0, 0.05, 0.0], "swing": [1.0, 0.0, 0.5]}


def restore(folder: Path) -> None:
    """The store of 3e58ed8, at home in a folder."""
    dump = gzip.decompress((DATA / "mlflow.sql.gz").read_bytes()).decode()
    connection = sqlite3.connect(folder / "mlflow.db")
    connection.executescript(dump.replace("{folder}", str(folder)))
    connection.close()
    shutil.copytree(DATA / "artifacts", folder / "mlruns" / "grpo")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("earlier")
    restore(folder)
    with server(folder) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Server) -> Iterator[GRPOClient]:
    with GRPOClient(running.url) as found:
        yield found


def test_jobs_and_models_are_listed_as_they_were(client):
    statuses = {job["model_name"]: job["status"] for job in client.iter_jobs()}
    assert statuses["balance"] == statuses["swing"] == "completed"
    assert client.job(FACTS["balance"])["model_version"] == 1
    champions = {model["name"]: model["champion"] for model in client.iter_models()}
    assert champions["balance"] == champions["swing"] == 1
    card = client.model("balance")["versions"][0]
    assert (card["job_id"], card["seed"]) == (FACTS["balance"], 1)
    assert card["evaluation"]["interval_of"] == "iqm"  # the mean's in versions made since
    assert len(client.history(FACTS["balance"], "rollout/reward")) == 667


@pytest.mark.parametrize("name", ["balance", "swing"])
def test_models_answer_as_they_did(client, name):
    reply = client.predict(name, OBSERVATIONS[name])
    was = FACTS[f"{name}_reply"]
    assert reply["action"] == pytest.approx(was["action"], rel=1e-6)
    assert reply["value"] == pytest.approx(was["value"], rel=1e-6)
    if was["action_probs"]:
        assert reply["action_probs"] == pytest.approx(was["action_probs"], rel=1e-6)


def test_models_load_by_both_flavors(running):
    (folder,) = [path.parent for path in _models(running) if _input_shape(path.parent) == (4,)]
    observations = np.array([OBSERVATIONS["balance"]] * 2, np.float32)
    table = mlflow.pyfunc.load_model(str(folder)).predict(observations)
    assert table["action"].tolist() == [FACTS["balance_reply"]["action"]] * 2
    outputs = mlflow.pytorch.load_model(str(folder))(torch.from_numpy(observations))
    assert int(outputs["action"][0]) == FACTS["balance_reply"]["action"]


def test_models_of_both_releases_load_in_one_process(running, tmp_path):
    """Each by the loader that it carries, whichever of them Python met first."""
    earlier = next(path.parent for path in _models(running) if _input_shape(path.parent) == (3,))
    spec = PolicySpec(observation_shape=(3,), action=DiscreteActions(2), policy="ActorCriticPolicy")
    policy = random_policy(spec, seed=1)
    save_policy(policy, tmp_path / "new", metadata={}, model_id="m-1", run_id="r-1")
    observations = np.array([[0.1, -0.3, 0.2]], np.float32)
    before = mlflow.pyfunc.load_model(str(earlier)).predict(observations)
    answers = mlflow.pyfunc.load_model(str(tmp_path / "new")).predict(observations)
    expected = policy.predict(observations)
    np.testing.assert_allclose(answers["value"], expected.values, rtol=1e-5)
    assert answers["action"].tolist() == expected.actions.tolist()
    again = mlflow.pyfunc.load_model(str(earlier)).predict(observations)
    np.testing.assert_equal(again, before)


def _models(running: Server) -> Iterator[Path]:
    yield from (running.folder / "mlruns" / "grpo" / "models").glob("*/artifacts/MLmodel")


def _input_shape(folder: Path) -> tuple[int, ...]:
    return tuple(json.loads((folder / "policy" / "spec.json").read_text())["observation_shape"])


def test_a_job_is_trained_again_by_the_code_that_trained_it(running):
    """Its entry points had another module's name then."""
    commit = "3e58ed89998b303b41802c23259b9f8ff25907df"
    known = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    if subprocess.run(known, cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("this checkout has no history")
    done = subprocess.run(
        [sys.executable, "-m", "grpo_platform", "reproduce", FACTS["balance"], "--json"],
        cwd=running.folder, env=environment(), capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert result["metrics_compared"] >= 15
    assert result["verdict"] in ("identical", "equivalent"), result


def test_the_stopped_job_goes_on_as_if_it_had_never_been_stopped(client):
    job_id = FACTS["paused"]
    before = client.job(job_id)
    assert before["status"] == "stopped"
    assert before["current_timesteps"] == FACTS["stopped_at"]
    client.resume(job_id)
    after = client.wait(job_id)
    assert after["status"] == "completed", after["error_message"]
    metrics = {key: after["metrics"][key] for key in FACTS["twin"]}
    assert metrics == pytest.approx(FACTS["twin"], rel=1e-5)
