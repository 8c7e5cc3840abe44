"""Each hint in a training that really goes wrong in that way, once; none in one that learns."""

import contextlib

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from grpo import GRPO
from grpo.errors import TrainingDivergedError
from grpo.hints import Hints


class Noise(gymnasium.Env):
    """Ten steps whose reward is chance, that no seed repeats, or nothing, whatever is done."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, actions=2, reward=0.0):
        self.action_space = spaces.Discrete(actions)
        self.reward, self.chance = reward, np.random.default_rng()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._look(), {}

    def step(self, action):
        self.time += 1
        reward = self.reward * self.chance.normal()
        return self._look(), reward, False, self.time == 10, {}

    def _look(self):
        return self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)


def hints(env, timesteps, **fields):
    model = GRPO(env, seed=1, **fields)
    heard = Hints(model.policy.spec.action)
    with contextlib.suppress(TrainingDivergedError):  # it was told before
        model.learn(timesteps, callback=heard)
    return heard.found


@pytest.mark.rotated(13)
@pytest.mark.parametrize(
    ("env", "timesteps", "fields", "expected"),
    [
        ("CartPole-v1", 5_000, {}, []),
        ("Pendulum-v1", 40_000, {}, []),
        (Noise, 3_000, {}, ["groups_degenerate"]),
        (Noise, 3_000, {"baseline": "group"}, ["groups_degenerate"]),
        (lambda: Noise(1, 1.0), 3_000, {}, ["no_gradient"]),
        ("CartPole-v1", 1_000, {"learning_rate": 1e-12}, ["policy_unchanged"]),
        ("CartPole-v1", 1_000, {"learning_rate": 1.0},
         ["values_exploding", "entropy_gone", "groups_degenerate"]),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # such learning rates overflow
def test_what_goes_wrong_is_told_with_what_to_try(env, timesteps, fields, expected):
    found = hints(env, timesteps, **fields)
    assert sorted(found) == sorted(expected)
    assert all("learning_rate" in text or "reward" in text for text in found.values())


@pytest.mark.rotated(13)
def test_a_policy_of_numbers_without_randomness_is_told():
    still = {"policy_kwargs": {"log_std_init": -6.0}, "learning_rate": 1e-5}
    assert "entropy_gone" in hints("Pendulum-v1", 40_000, **still)
