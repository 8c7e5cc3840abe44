"""Two configurations, ten seeds each: compared, the better one promoted through a suite."""

from collections.abc import Iterator

import pytest

from grpo_platform.client import GRPOClient
from tests.e2e.processes import Server, server

NAME = "balance"
SUITE = """
scenarios:
  - name: balances
    assert: [return >= 300 in 90% of 20 episodes]
  - name: tilted
    start: [{state: {x: 0, x_dot: 0, theta: 0.1, theta_dot: 0}}]
    assert: [length >= 100]
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("story")) as process:
        yield process


def serving(client: GRPOClient) -> int:
    """The version that answers under the bare name."""
    return int(client.predict(NAME, [0.0] * 4)["model_version"])


@pytest.mark.rotated(9)
@pytest.mark.slow
def test_the_better_configuration_is_promoted_through_the_gate_and_a_regression_is_not(
    running: Server,
) -> None:
    client = GRPOClient(running.url)

    def experiment(learning_rate: float) -> dict[str, object]:
        started = client.start_experiment(
            10, seed=100, model_name=NAME, total_timesteps=3000, learning_rate=learning_rate
        )
        found = client.wait_for_experiment(started["experiment_id"])
        assert found["status"] == "completed", found
        assert found["counts"] == {"completed": 10}
        return found

    weak = experiment(1e-7)
    first = serving(client)
    client.put_scenarios(NAME, SUITE)
    strong = experiment(3e-4)

    compared = client.compare(
        {"experiment": str(strong["experiment_id"])}, {"experiment": str(weak["experiment_id"])}
    )
    (pair,) = compared["pairs"]
    assert pair["paired"]
    assert pair["mean"]["low"] > 200
    assert pair["probability"]["estimate"] == 1.0
    report = client.comparison_report(compared["comparison_id"], "markdown")
    assert pair["sentence"] in report

    champion, decision = serving(client), client.model(NAME)["decisions"][-1]
    assert champion == decision["version"] != first
    assert decision["suite_passed"]

    worse = client.train_model(NAME, timesteps=500, learning_rate=1e-7, seed=5)
    kept = client.job(worse["job_id"])
    assert kept["promoted"] is False
    assert "balances" in str(kept["promotion_reason"])
    assert serving(client) == champion
    assert client.predict(NAME, [0.0, 0.0, 0.05, 0.0])["action"] == 1
