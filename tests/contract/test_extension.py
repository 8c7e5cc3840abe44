"""What a user may add is added here, from outside the source tree, and trained, saved and served.

A folder with a distribution's metadata brings a reward, an advantage, a distribution over actions,
a network, an environment, a policy class and a backend by entry points. A real server finds them by
name.
"""

import os
import textwrap
from collections.abc import Iterator

import numpy as np
import pytest

from grpo_platform.client import GRPOClient
from tests.e2e.processes import Server, server

pytestmark = [pytest.mark.slow, pytest.mark.rotated(14)]

CODE = '''
"""A stranger's extension."""
import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from grpo import ActorCriticPolicy
from grpo.distributions import Distribution
from grpo_platform.jobs.local import LocalBackend


class Line(gymnasium.Env):
    """Walk on a line towards 0; ten steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-1.0, 1.0), 0
        return np.array([self.x], np.float32), {}

    def step(self, action):
        self.x, self.t = self.x + 0.3 * float(action[0]), self.t + 1
        return np.array([self.x], np.float32), -abs(self.x), self.t >= 10, False, {}


def register():
    gymnasium.register("Line-v0", entry_point="stranger:Line", max_episode_steps=10)


def near(next_observations, actions, rewards, terminated):
    """How near 0 the walker is."""
    return np.exp(-np.abs(next_observations[:, 0]))


def doubled(returns, alive):
    """Twice the distance from the group's mean."""
    count = np.maximum(alive.sum(axis=2, keepdims=True), 1)
    return 2.0 * (returns - returns.sum(axis=2, keepdims=True) / count) * alive


class Kumaraswamy(Distribution):
    """On (-1, 1) per component: closed forms of everything, and no normal distribution."""

    def __init__(self, action):
        self.k = self.n_noise = action.size
        self.n_outputs = 2 * action.size

    def _shapes(self, outputs):
        a, b = torch.nn.functional.softplus(outputs).chunk(2, dim=-1)
        return a + 1.0, b + 1.0

    def sample(self, outputs, log_std, uniform):
        a, b = self._shapes(outputs)
        return 2.0 * (1.0 - uniform ** (1.0 / b)) ** (1.0 / a) - 1.0

    def mode(self, outputs):
        a, b = self._shapes(outputs)
        return 2.0 * ((a - 1.0) / (a * b - 1.0)) ** (1.0 / a) - 1.0

    def log_prob(self, outputs, log_std, actions):
        a, b = self._shapes(outputs)
        x = ((actions + 1.0) / 2.0).clamp(1e-6, 1.0 - 1e-6)
        logs = torch.log(a * b / 2.0) + (a - 1.0) * torch.log(x) + (b - 1.0) * torch.log1p(-(x**a))
        return logs.sum(dim=-1)

    def entropy(self, outputs, log_std):
        steps = torch.linspace(0.05, 0.95, 10)
        drawn = [self.sample(outputs, log_std, outputs.new_full((len(outputs), self.k), float(u)))
                 for u in steps]
        return -torch.stack([self.log_prob(outputs, log_std, x) for x in drawn]).mean(dim=0)


class Wide(nn.Module):
    """A network below the hidden layers."""

    def __init__(self, observation_space, width=12):
        super().__init__()
        self.features_dim = width
        self.layers = nn.Sequential(
            nn.Linear(observation_space.shape[0], width), nn.LayerNorm(width), nn.SiLU()
        )

    def forward(self, observations):
        return self.layers(observations)


class Residual(ActorCriticPolicy):
    """A policy class of one's own."""

    def make_network(self, n_outputs, last_gain):
        n = self.spec.observation_size
        return nn.Sequential(_Skip(n), nn.Linear(n, n_outputs))


class Noting(LocalBackend):
    """Local processes, and a line for each."""

    def submit(self, task):
        with open("submitted.txt", "a", encoding="utf-8") as file:
            print(task.job_id, file=file)
        super().submit(task)


def noting(store, settings):
    return Noting(store)


class _Skip(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.layer = nn.Linear(n, n)

    def forward(self, x):
        return x + torch.tanh(self.layer(x))
'''

ENTRY_POINTS = """
[gymnasium.envs]
__root__ = stranger:register
[grpo.rewards]
near = stranger:near
[grpo.advantages]
doubled = stranger:doubled
[grpo.distributions]
Kumaraswamy = stranger:Kumaraswamy
[grpo.features_extractors]
Wide = stranger:Wide
[grpo.policies]
Residual = stranger:Residual
[grpo.backends]
noting = stranger:noting
"""

LINE = {
    "env_name": "Line-v0", "total_timesteps": 600, "n_steps": 10, "n_eval_episodes": 4, "seed": 1,
}  # fmt: skip
JOBS = {
    "environment": LINE,
    "reward": LINE | {"reward_function_type": "near"},
    "advantage": LINE | {"advantage": "doubled"},
    "distribution": LINE
    | {"policy": "ActorCriticPolicy", "policy_kwargs": {"distribution_class": "Kumaraswamy"}},
    "network": LINE
    | {
        "policy": "ActorCriticPolicy",
        "policy_kwargs": {
            "features_extractor_class": "Wide",
            "features_extractor_kwargs": {"width": 6},
            "activation_fn": "ReLU",
        },
    },
    "policy": LINE | {"policy": "Residual"},
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    site = tmp_path_factory.mktemp("site")
    (site / "stranger.py").write_text(textwrap.dedent(CODE))
    metadata = site / "stranger-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    folder = tmp_path_factory.mktemp("server")
    with server(folder, PYTHONPATH=path, GRPO_JOB_BACKEND="noting") as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Server) -> Iterator[GRPOClient]:
    with GRPOClient(running.url) as found:
        yield found


@pytest.fixture(scope="module")
def jobs(client: GRPOClient) -> dict[str, str]:
    """All of them at once."""
    return {
        name: client.start_training(model_name=f"own-{name}", **fields)["job_id"]
        for name, fields in JOBS.items()
    }


@pytest.mark.parametrize("name", JOBS)
def test_what_a_stranger_adds_is_trained_saved_and_served(running, client, jobs, name):
    job = client.wait(jobs[name])
    assert job["status"] == "completed", job["error_message"]
    reply = client.predict(f"own-{name}", [0.5])
    assert len(reply["action"]) == 1
    assert -1.0 <= reply["action"][0] <= 1.0
    assert np.isfinite(reply["value"])
    assert jobs[name] in (running.folder / "submitted.txt").read_text()
    sampled = client.predict_batch(f"own-{name}", [[0.0]] * 20, deterministic=False)
    assert len({action[0] for action in sampled["actions"]}) > 1


def test_a_job_goes_on_from_a_version_of_a_strangers_policy(client, jobs):
    client.wait(jobs["network"])
    fields = JOBS["network"] | {"init_from": "own-network/1", "total_timesteps": 100}
    job = client.wait(client.start_training(model_name="own-network", **fields)["job_id"])
    assert job["status"] == "completed", job["error_message"]
