"""Environments as practitioners bring them: rewards of any size, and habits of all kinds."""

import threading
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from grpo import GRPO, resolve_config
from grpo.errors import EnvironmentFaultError


class Choice(gymnasium.Env[Any, Any]):
    """The action that the observation names is right."""

    observation_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (3,))
    action_space = spaces.Discrete(2)
    length = 8
    size = 1.0

    def look(self) -> Any:
        self.right = int(self.np_random.integers(2))
        noise = self.np_random.normal(size=2) * 0.1
        return np.array([2.0 * self.right - 1.0, *noise], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.look(), {}

    def step(self, action):
        reward = self.size * (action == self.right)
        self.time += 1
        return self.look(), reward, self.time >= self.length, False, {}


def of(size: float = 1.0, **attributes: Any) -> type[Choice]:
    return type("Of", (Choice,), {"size": size, **attributes})


def learned(make: Any, timesteps: int = 3_000, **fields: Any) -> float:
    """Mean return after training, in units of the best one."""
    model = GRPO(make, seed=1, n_steps=8, group_size=4, **fields)
    model.learn(timesteps)
    best = make.size * make.length if isinstance(make, type) else 8.0
    return model.evaluate(20).mean / best


@pytest.mark.parametrize("size", [1e6, 1e-6, 1.0])
def test_rewards_of_any_size_are_learned_from(size):
    assert learned(of(size)) > 0.95


def test_the_unit_of_the_reward_changes_nothing_that_the_policy_learns():
    """A power of two, so that every bit can be compared."""
    ours, theirs = (GRPO(of(size), seed=1, n_steps=8) for size in (1.0, 2.0**20))
    for model in (ours, theirs):
        model.learn(400)
    part = ours.policy.policy_size
    np.testing.assert_array_equal(ours.policy.flat[:part], theirs.policy.flat[:part])
    assert ours.evaluate(5).mean * 2.0**20 == theirs.evaluate(5).mean


def test_the_default_follows_from_what_is_known_of_the_environment():
    assert not resolve_config(env_name="CartPole-v1").normalize_rewards
    assert not resolve_config(env_name="Acrobot-v1").normalize_rewards
    assert resolve_config(env_name="Ant-v5").normalize_rewards
    assert not resolve_config(env_name="Ant-v5", normalize_rewards=False).normalize_rewards
    assert GRPO(Choice).config.normalize_rewards


@pytest.mark.rotated(5)
def test_episodes_of_one_step_are_learned_from():
    assert learned(of(length=1)) > 0.95


@pytest.mark.rotated(5)
def test_an_environment_without_a_time_limit_is_learned_from():
    class Endless(Choice):
        def step(self, action):
            observation, reward, _, _, info = super().step(action)
            return observation, reward, False, False, info

    model = GRPO(Endless, seed=1, n_steps=8, group_size=4)
    assert model.get_env().spec.max_episode_steps is None
    model.learn(3_000)
    before = GRPO(Endless, seed=1).predict(np.array([1.0, 0, 0], np.float32), deterministic=True)
    for right in (0, 1):
        seen = np.array([2.0 * right - 1.0, 0.0, 0.0], np.float32)
        assert model.predict(seen, deterministic=True)[0] == right
    assert before[1] is None


def test_features_that_are_constant_or_huge_do_no_harm():
    class Odd(Choice):
        observation_space = spaces.Box(-np.inf, np.inf, (6,), np.float64)

        def look(self):
            return np.concatenate([super().look(), [7.0, 0.0, 1e12 * self.np_random.normal()]])

    assert learned(Odd) > 0.9


def test_an_environment_may_use_the_global_random_state():
    class Global(Choice):
        def look(self):
            observation = super().look()
            observation[1] = np.random.normal() * 0.1
            return observation

    model = GRPO(Global, seed=1, n_steps=8, group_size=4)
    assert model.get_env().branching in ("none", "exact")
    model.learn(3_000)
    assert model.evaluate(20).mean / 8 > 0.95


def test_an_environment_that_cannot_be_copied_is_played_again():
    class Locked(Choice):
        def __init__(self):
            self.lock = threading.Lock()

    model = GRPO(Locked, seed=1, n_steps=8, group_size=4)
    assert model.get_env().branching == "replay"
    model.learn(3_000)
    assert model.evaluate(20).mean / 8 > 0.9


@pytest.mark.rotated(5)
@pytest.mark.parametrize("what", ["raises", "nan reward", "nan observation"])
def test_a_fault_that_comes_once_names_the_step_and_ends_the_training(what):
    class Once(Choice):
        steps = 0

        def step(self, action):
            observation, reward, *rest = super().step(action)
            Once.steps += 1
            if Once.steps == 3_000:
                if what == "raises":
                    raise RuntimeError("the engine is out of memory")
                if what == "nan reward":
                    reward = float("nan")
                else:
                    observation = observation * np.nan
            return observation, reward, *rest

    model = GRPO(Once, seed=1, n_steps=8, start_states="reset")
    with pytest.raises(EnvironmentFaultError, match=r"out of memory|not finite"):
        model.learn(4_000)
    assert np.isfinite(model.policy.flat).all()
    assert 2_000 < model.num_timesteps <= 3_000
