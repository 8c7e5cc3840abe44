"""Promotion by evidence as a user sees it: real jobs over HTTP, one name, four turns."""

from collections.abc import Iterator

import pytest
import requests
from typer.testing import CliRunner

from grpo_platform.cli import app
from grpo_platform.client import ApiError, GRPOClient
from tests.e2e.processes import Server, server, train, wait_until_answers

pytestmark = pytest.mark.slow

NAME = "story"
FAIR = {"total_timesteps": 2_000, "seed": 1}
WORSE = {"total_timesteps": 64, "seed": 1}
BETTER = {"total_timesteps": 5_000, "seed": 7}
UPRIGHT = [0.0, 0.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("story"), ui=True) as process:
        yield process


def serving(client: GRPOClient) -> int:
    """The version that answers under the bare name."""
    return client.predict(NAME, UPRIGHT)["model_version"]


def test_the_champion_changes_on_evidence_and_by_hand_only(running: Server) -> None:
    client = GRPOClient(running.url)

    first = train(running, model_name=NAME, **FAIR)
    assert (first["model_version"], first["promoted"], serving(client)) == (1, True, 1)
    with pytest.raises(ApiError, match="no earlier champion") as nothing_behind:
        client.rollback(NAME)
    assert nothing_behind.value.status == 409

    words = ("train", NAME, "--timesteps", "64", "--seed", "1")
    refused = CliRunner().invoke(app, ["--url", running.url, *words])
    assert refused.exit_code == 0
    assert f"{NAME} version 2 is registered." in refused.stdout
    assert "It was not promoted." in refused.stdout
    assert refused.stdout.rstrip().endswith("Version 1 stays champion.")
    worse = next(client.iter_jobs(model_name=NAME))
    assert (worse["model_version"], worse["promoted"], serving(client)) == (2, False, 1)
    said = worse["promotion_reason"]
    assert said.startswith("Worse: mean return ")
    assert said.endswith(" Version 1 stays champion.")
    assert said in refused.stdout
    assert f"Not promoted: {said}" in "\n".join(client.logs(worse["job_id"]))
    events = requests.get(f"{running.url}/training/{worse['job_id']}/events", timeout=30).text
    assert said in events.rpartition("event: end")[2]

    better = train(running, model_name=NAME, **BETTER)
    assert (better["model_version"], better["promoted"], serving(client)) == (3, True, 3)
    assert better["promotion_reason"].startswith("Better: mean return ")

    assert client.rollback(NAME)["verdict"] == "rolled_back"
    assert serving(client) == 1
    assert client.promote(NAME, 2)["verdict"] == "kept"
    assert serving(client) == 1
    assert client.promote(NAME, 2, force=True)["forced"] is True
    assert serving(client) == 2

    model = client.model(NAME)
    verdicts = [(d["action"], d["version"], d["verdict"]) for d in model["decisions"]]
    assert verdicts == [
        ("train", 1, "promoted"), ("train", 2, "kept"), ("train", 3, "promoted"),
        ("rollback", 1, "rolled_back"), ("promote", 2, "kept"), ("promote", 2, "promoted"),
    ]  # fmt: skip
    kept, promoted = (d["comparison"] for d in model["decisions"][1:3])
    assert (kept["episodes"], promoted["episodes"]) == (100, 500)  # worse is plain to see sooner
    assert kept["seed"] != promoted["seed"]
    assert kept["ended"] == promoted["ended"] == "evidence"
    assert kept["ci_high"] < 0.0 < promoted["ci_low"]
    assert all(d["actor"] and d["decided_at"] and d["reason"] for d in model["decisions"])
    for version in model["versions"]:
        assert version["job_id"]
        assert version["config"]["seed"] == version["seed"]
        figures = version["evaluation"]
        assert figures["ci_low"] <= figures["mean"] <= figures["ci_high"]
        assert figures["interval_of"] == "mean"
        assert version["observation_shape"] == [4]
        assert version["action"]["n"] == 2
        assert len(version["weights_sha256"]) == 64


@pytest.mark.rotated(11)
def test_what_names_nothing_is_told_and_changes_nothing(running: Server) -> None:
    client = GRPOClient(running.url)
    train(running, model_name="other", **WORSE)
    for call, status in (
        (lambda: client.promote("other", 9), 404),
        (lambda: client.promote("other", 9, force=True), 404),
        (lambda: client.promote("nothing", 1), 404),
        (lambda: client.rollback("nothing"), 404),
        (lambda: client.promote("other", 1), 409),
        (lambda: client.start_training(model_name="other", env_name="Acrobot-v1"), 409),
    ):
        with pytest.raises(ApiError) as refused:
            call()
        assert refused.value.status == status
        assert str(refused.value).endswith(".")
    assert len(client.model("other")["decisions"]) == 1


@pytest.mark.rotated(11)
def test_a_model_deleted_in_the_mlflow_ui_goes_on_answering(running: Server) -> None:
    client = GRPOClient(running.url)
    train(running, model_name="served", **WORSE)
    before = client.predict("served", UPRIGHT)
    ui = str(requests.get(running.url, timeout=30).json()["mlflow_ui"])
    wait_until_answers(f"{ui}/health", running)
    deleted = requests.delete(
        f"{ui}/api/2.0/mlflow/registered-models/delete", json={"name": "served"}, timeout=30
    )
    assert deleted.ok, deleted.text
    assert client.predict("served", UPRIGHT) == before
    with pytest.raises(ApiError) as gone:
        client.model("served")
    assert gone.value.status == 404
