"""A server whose plug-in does what it must not: it goes on, and says what happened."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import requests

from grpo_platform.client import GRPOClient
from tests.e2e.processes import Server, server, train
from tests.service.faulty_environments import FAULTY, install_plugin

pytestmark = [pytest.mark.slow, pytest.mark.rotated(4)]

WHILE_MADE = "while tests/Faulty-v0 was made and reset"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "PYTHONPATH": install_plugin(tmp_path_factory.mktemp("plugin")),
        "GRPO_ENVIRONMENT_SECONDS": "2",
    }
    with server(tmp_path_factory.mktemp("isolation"), **settings) as found:
        yield found


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("segfault", f"signal 11 (a crash in native code) {WHILE_MADE}"),
        ("exit", f"ended with exit code 7 {WHILE_MADE}"),
        ("hang", f"it took longer than 2 s {WHILE_MADE}"),
        ("leave", "cannot be made here: SystemExit: 3."),
    ],
)
def test_what_a_constructor_does_is_told_and_ends_nothing_else(running, fault, said):
    config = {"env_name": FAULTY, "env_kwargs": {"fault": fault, "after": -1}}
    sweep = {"search_space": {"gamma": {"type": "float", "low": 0.9, "high": 0.99}}, "n_trials": 1}
    for path, body in (("/train", config), ("/sweeps", sweep | {"config": config})):
        reply = requests.post(f"{running.url}{path}", json=body, timeout=60)
        assert reply.status_code == 400, reply.text
        assert said in reply.json()["detail"]
        assert reply.json()["errors"][0]["field"] == "env_name"
    assert requests.get(f"{running.url}/health/ready", timeout=30).ok


def test_client_and_command_line_list_environments_by_trial(running):
    with GRPOClient(running.url) as client:
        assert [each["env_name"] for each in client.environments("faulty")] == [FAULTY]
    command = [sys.executable, "-m", "grpo_platform", "--url", running.url, "environments"]
    done = subprocess.run(
        [*command, "ant-v3", "--refused", "--json"], capture_output=True, text=True, timeout=120
    )
    (ant,) = json.loads(done.stdout)
    assert "gymnasium-robotics" in ant["reason"]


def test_a_promotion_whose_game_crashes_is_refused_and_ends_nothing_else(running, tmp_path):
    fault = tmp_path / "fault"
    kwargs = {"fault": "segfault", "after": 3, "when": str(fault)}
    job = {"env_name": FAULTY, "env_kwargs": kwargs, "total_timesteps": 64, "model_name": "walker"}
    for promote in ("always", "never"):
        ended = train(running, **job, n_eval_episodes=2, promote=promote)
        assert ended["status"] == "completed", ended
    fault.touch()  # from now on
    reply = requests.post(f"{running.url}/models/walker/promote", json={"version": 2}, timeout=120)
    assert reply.status_code == 400, reply.text
    assert "signal 11 (a crash in native code) while tests/Faulty-v0 was played" in reply.text
    assert requests.get(f"{running.url}/health/ready", timeout=30).ok
