"""An environment of one's own, in a file beside the server: from POST /train to an action."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from mlflow.tracking import MlflowClient

from grpo_platform.client import GRPOClient
from tests.e2e.processes import Server, environment, server, train

pytestmark = [pytest.mark.slow, pytest.mark.rotated(9)]

WORLD = """
import gymnasium
import numpy as np
from gymnasium import spaces

print("world is imported")

class World(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None, size=8):
        self.render_mode, self.size = render_mode, size
        self.observation_space = spaces.Dict({
            "map": spaces.Box(0, 255, (size, size, 3), np.uint8),
            "tool": spaces.Discrete(3, start=1),
            "self": spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.MultiBinary(2)]),
        })
        self.action_space = spaces.MultiDiscrete([3, 2])

    def look(self):
        self.image = self.np_random.integers(0, 255, (self.size, self.size, 3), dtype=np.uint8)
        self.allowed = int(self.np_random.integers(3))
        observation = {
            "map": self.image,
            "tool": int(self.np_random.integers(1, 4)),
            "self": (np.zeros(2, np.float32), np.array([1, 0], np.int8)),
        }
        return observation, {"action_mask": (np.eye(3, dtype=np.int8)[self.allowed], np.ones(2))}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.look()

    def step(self, action):
        if action[0] != self.allowed:
            raise ValueError("this is forbidden")
        self.time += 1
        observation, info = self.look()
        return observation, float(action[1]), self.time > 9, False, info

    def render(self):
        return np.kron(self.image, np.ones((8, 8, 1), np.uint8))

gymnasium.register("World-v0", World)
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("world")
    (folder / "world.py").write_text(WORLD)
    with server(folder, GRPO_ENV_MODULES="world") as found:
        yield found


def post(running: Server, path: str, **body: object) -> requests.Response:
    return requests.post(f"{running.url}{path}", json=body, timeout=60)


def test_a_world_of_trees_images_and_masks_is_trained_judged_filmed_and_served(running):
    done = train(
        running, env_name="world:World-v0", total_timesteps=600, n_steps=10, seed=1,
        model_name="world", n_eval_episodes=5, env_kwargs={"size": 9}, promote="always",
        policy_kwargs={"features_extractor_kwargs": {"cnn_output_dim": 16}},
    )  # fmt: skip
    assert done["status"] == "completed", done["error_message"]
    assert done["promoted"]
    assert done["env_name"] == "World-v0"  # whatever way it was found
    assert 0.0 <= done["metrics"]["eval/mean_reward"] <= 10.0
    seen = {
        "map": np.zeros((9, 9, 3), int).tolist(),
        "tool": 2,
        "self": [[0.0, 0.5], [0, 1]],
    }
    reply = post(
        running, "/inference", model_name="world", observation=seen, action_mask=[0, 0, 1, 1, 1]
    ).json()
    assert reply["action"][0] == 2
    assert reply["action_probs"][0] == [0, 0, 1]
    wrong = post(running, "/inference", model_name="world", observation=seen | {"tool": 0})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["field"] == "observation.tool"
    with GRPOClient(running.url) as caller:
        mask = [np.array([0, 1, 0]), np.ones(2)]
        found = {"map": np.zeros((9, 9, 3), np.uint8), "tool": np.int64(2), "self": seen["self"]}
        assert caller.predict("world", found, action_mask=mask)["action"][0] == 1
        batch = caller.predict_batch("world", [found] * 2, action_masks=[None, mask])
        assert batch["actions"][1][0] == 1
    command = [sys.executable, "-m", "grpo_platform", "--url", running.url, "predict", "world"]
    told = subprocess.run(
        [*command, json.dumps(seen), "--mask", "[1, 0, 0, 1, 1]", "--json"],
        env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert json.loads(told.stdout)["action"][0] == 0
    client = MlflowClient(f"sqlite:///{running.folder}/mlflow.db")
    run = client.get_run(done["job_id"])
    assert "sha256:" in run.data.tags["grpo.packages"]
    files = [file.path for file in client.list_artifacts(done["job_id"], "media")]
    files += [file.path for file in client.list_artifacts(done["job_id"])]
    assert any(path.endswith(".mp4") for path in files) or "media" in files, files
    log = requests.get(f"{running.url}/training/{done['job_id']}/logs", timeout=30).text
    assert "cannot be filmed" not in log
    command = [sys.executable, "-m", "grpo_platform", "evaluate", "world", "--episodes", "3"]
    played = subprocess.run(
        command, cwd=running.folder, env=environment(GRPO_ENV_MODULES="world"),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert played.returncode == 0, played.stderr


def test_it_is_listed_by_its_name(running):
    reply = requests.get(f"{running.url}/environments", params={"name": "World"}, timeout=60)
    assert "World-v0" in [each["env_name"] for each in reply.json()["environments"]]


def test_wrappers_are_part_of_the_environment_from_training_to_promotion(running):
    stacked = [{"name": "FrameStackObservation", "kwargs": {"stack_size": 2}}]
    body = {
        "env_name": "CartPole-v1", "total_timesteps": 300, "model_name": "stacked", "seed": 1,
        "n_eval_episodes": 3, "wrappers": stacked,
    }  # fmt: skip
    assert train(running, **body)["status"] == "completed"
    again = train(running, **body | {"seed": 2})
    assert again["status"] == "completed"
    assert again["promoted"] is not None
    seen = [[0.0] * 4, [0.1] * 4]
    assert post(running, "/inference", model_name="stacked", observation=seen).ok
    other = post(running, "/train", **body | {"wrappers": []})
    assert other.status_code == 409
    searched = {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-3}}
    config = {name: value for name, value in body.items() if name != "model_name"}
    sweep = post(running, "/sweeps", search_space=searched, n_trials=1, config=config)
    assert sweep.ok, sweep.text
    assert post(running, f"/sweeps/{sweep.json()['sweep_id']}/stop").ok
    unknown = post(running, "/train", **body | {"wrappers": ["FrameStack"]})
    assert unknown.status_code == 400
    assert "FrameStackObservation" in unknown.json()["detail"]
    assert unknown.json()["errors"][0]["field"] == "wrappers"


def test_what_a_client_names_is_not_imported(running):
    (running.folder / "secret.py").write_text("raise RuntimeError('imported')")
    for env_name in ("secret:World-v0", "os:World-v0", "world.secret:World-v0"):
        reply = post(running, "/train", env_name=env_name)
        assert reply.status_code == 400
        assert "GRPO_ENV_MODULES" in reply.json()["detail"]
    assert "imported')" not in running.log


def test_a_module_with_an_impossible_name_is_refused_at_the_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "grpo_platform", "serve", "--env-module", "../world"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "GRPO_ENV_MODULES" in done.stderr
