"""A suite as a user meets it: put, run, asked for by jobs and by hand, and what failed replayed."""

import json

import pytest
import requests
from typer.testing import CliRunner

from grpo_platform.cli import app
from grpo_platform.client import ApiError, GRPOClient
from tests.e2e.processes import ROOT, server, train
from tests.service.tracking_support import working_in

pytestmark = pytest.mark.slow

NAME = "my_cartpole_model"
EXAMPLE = ROOT / "examples/scenarios/cartpole.yaml"
SUITE = """
scenarios:
  - name: tilted
    start:
      - state: {x: 0, x_dot: 0, theta: 0.05, theta_dot: 0}
      - seed: 3
    assert: [length >= 100, never |x| > 2.4]
  - name: late
    perturb: {action_delay: 1, observation_noise: 0.01}
    assert: [mean return >= 60, latency <= 50 ms]
"""
GOOD = {"total_timesteps": 5_000, "seed": 7}
WORSE = {"total_timesteps": 64, "seed": 1}


@pytest.mark.rotated(6)
def test_a_regression_is_refused_a_good_version_promoted_and_a_failure_replayed(tmp_path):
    with server(tmp_path) as running:
        client = GRPOClient(running.url)

        def command(*words, code=0):
            with working_in(tmp_path, COLUMNS="200"):
                done = CliRunner().invoke(app, ["--url", running.url, "scenarios", *words])
            assert done.exit_code == code, done.output
            return done.output

        assert train(running, model_name=NAME, **GOOD)["promoted"] is True
        file = tmp_path / "suite.yaml"
        file.write_text(SUITE)
        assert "2 scenarios" in command("check", str(file), "--model", NAME)
        assert "must pass 2 scenarios" in command("put", NAME, str(file))
        assert SUITE.strip() in command("show", NAME)
        assert "passed: version 1. All 2 scenarios passed." in command("run", NAME)

        refused = train(running, model_name=NAME, **WORSE)
        assert (refused["model_version"], refused["promoted"]) == (2, False)
        assert refused["promotion_reason"].startswith("Scenario 'tilted' failed: 'length >= 100'")
        assert refused["promotion_reason"].endswith(" Version 1 stays champion.")
        good = train(running, model_name=NAME, **GOOD)
        assert (good["model_version"], good["promoted"]) == (3, True)
        assert good["promotion_reason"].startswith("All 2 scenarios passed. Equal on every seed")

        kept = client.promote(NAME, 2)
        assert (kept["verdict"], kept["suite_passed"], kept["comparison"]) == ("kept", False, None)
        found = client.scenario_results(NAME, 2)
        assert len(found["results"]) == 1  # the job's
        failures = [f for s in found["latest"]["scenarios"] for a in s["assertions"]
                    for f in a["failures"]]  # fmt: skip
        assert all(len(failure["actions"]) == failure["steps"] for failure in failures)
        shown = json.loads(command("replay", f"{NAME}/2", "--json"))
        assert [(each["episode"], each["step now"]) for each in shown] == [
            (failure["episode"], failure["step"]) for failure in failures
        ]
        assert {each["verdict"] for each in shown} == {"equal to the last bit"}
        assert "failed: version 2." in command("run", f"{NAME}/2", code=1)
        assert "tilted" in command("results", NAME, "2")
        shown = {v["version"]: v["scenarios"] for v in client.model(NAME)["versions"]}
        assert {number: each["passed"] for number, each in shown.items()} == {
            1: True, 2: False, 3: True,
        }  # fmt: skip
        assert shown[2]["failed"][0] == "tilted"

        forced = client.promote(NAME, 2, force=True)
        assert (forced["verdict"], forced["suite_passed"]) == ("promoted", False)
        assert forced["reason"].startswith("Scenario 'tilted' failed")
        assert client.rollback(NAME)["champion_after"] == 3

        sweeps_and_experiments_are_asked_too(client)
        refuses_what_is_no_suite(running.url, client)
        assert client.put_scenarios(NAME, EXAMPLE.read_text())["scenarios"] == 3
        assert {v["scenarios"] for v in client.model(NAME)["versions"]} == {
            None
        }  # of another suite
        assert "without a suite" in command("delete", NAME)
        with pytest.raises(ApiError, match="has no suite"):
            client.run_scenarios(NAME)


def sweeps_and_experiments_are_asked_too(client):
    space = {"n_epochs": {"type": "int", "low": 1, "high": 2}}
    sweep = client.start_sweep(space, 1, config=WORSE, model_name=NAME)["sweep_id"]
    assert client.wait_for_sweep(sweep, timeout_seconds=120)["status"] == "completed"
    budget = WORSE["total_timesteps"]
    experiment = client.start_experiment(2, total_timesteps=budget, model_name=NAME)
    ended = client.wait_for_experiment(experiment["experiment_id"], timeout_seconds=120)
    assert ended["status"] == "completed"
    decisions = {d["actor"].partition(" ")[0]: d for d in client.model(NAME)["decisions"]}
    for kind in ("sweep", "experiment"):
        assert (decisions[kind]["verdict"], decisions[kind]["suite_passed"]) == ("kept", False)
        assert "Scenario 'tilted' failed" in decisions[kind]["reason"]


def refuses_what_is_no_suite(url, client):
    before = client.scenarios(NAME)
    for suite, status, place in [
        ("scenarios: [", 422, "suite"),
        ({"scenarios": [{"name": "a", "asert": []}]}, 422, "scenarios[0].assert"),
        ("scenarios: [{name: a, assert: [never y > 1]}]", 400, "scenarios[0].assert[0]"),
        ("scenarios: [{name: a, start: {state: {y: 1}}, assert: [return > 1]}]", 400,
         "scenarios[0].start[0]"),
        ("scenarios: [{name: a, perturb: {env_kwargs: {y: 1}}, assert: [return > 1]}]", 400,
         "scenarios[0].perturb.env_kwargs"),
        (3, 422, "suite"),
    ]:  # fmt: skip
        reply = requests.put(f"{url}/models/{NAME}/scenarios", json={"suite": suite}, timeout=60)
        assert (reply.status_code, reply.json()["errors"][0]["field"]) == (status, place)
    assert client.scenarios(NAME) == before
    for call in (client.scenarios, client.run_scenarios, client.delete_scenarios):
        with pytest.raises(ApiError) as unknown:
            call("nobody")
        assert unknown.value.status == 404
