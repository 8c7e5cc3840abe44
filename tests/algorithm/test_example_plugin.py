"""The example plug-in, installed by pip, is found by its entry points and can be trained."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).resolve().parents[2] / "examples" / "plugin"

SCRIPT = """
import json, logging
logging.basicConfig(level=logging.ERROR)
import torch
torch.set_num_threads(1)
from grpo.envs import make_vec_env
from grpo.envs.catalogue import registered_names
from grpo.config import resolve_config
from grpo.rewards import describe_rewards
from grpo.trainer import Trainer

def train(**fields):
    return Trainer(resolve_config(seed=0, n_eval_episodes=50, **fields)).train()

envs = make_vec_env("example/Docking-v0", {}, 2)
docking = train(env_name="example/Docking-v0", total_timesteps=8000, bootstrap=True)
untrained = train(env_name="example/Docking-v0", total_timesteps=4, bootstrap=True)
gentle = train(env_name="CartPole-v1", reward_function_type="gentle_cart", total_timesteps=3000)
effort = train(env_name="example/Docking-v0", reward_function_type="effort", total_timesteps=400)
print(json.dumps({
    "environments": registered_names(),
    "rewards": {found["name"]: found["environments"] for found in describe_rewards()},
    "branching": envs.branching, "storable": envs.storable_snapshots,
    "docking": docking.evaluation.mean, "untrained": untrained.evaluation.mean,
    "gentle": gentle.evaluation.mean, "effort": effort.timesteps,
}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([*pip, *options, str(PLUGIN)], check=True, timeout=200)
    return target


@pytest.mark.rotated(10)
@pytest.mark.slow
def test_the_plug_in_is_found_and_trained(site):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert "example/Docking-v0" in found["environments"]
    assert found["rewards"]["gentle_cart"] == "CartPole"
    assert found["rewards"]["effort"] == "any environment"
    assert (found["branching"], found["storable"]) == ("exact", True)
    assert found["docking"] > found["untrained"] + 2
    assert found["gentle"] > 150
    assert found["effort"] == 400
