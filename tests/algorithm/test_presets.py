"""Presets: what is left out is the environment's, under its reward."""

import pytest

from grpo.config import DEFAULT_PRESET, PRESETS, REWARD_PRESETS, GRPOConfig, resolve_config
from grpo.envs.catalogue import registered_names
from grpo.errors import OutOfRangeError
from grpo.trainer import validate


def test_the_defaults_are_cartpoles_preset_with_its_shaped_reward():
    assert resolve_config() == GRPOConfig(reward_function_type="optimized_cartpole")


def test_a_reward_has_settings_of_its_own_which_given_ones_replace():
    plain = resolve_config(env_name="CartPole-v1", reward_function_type="environment")
    expected = {"reward_function_type": "environment"} | dict(
        REWARD_PRESETS["CartPole-v1"]["environment"]
    )
    assert plain == GRPOConfig(**expected)
    given = resolve_config(reward_function_type="environment", n_steps=7, bootstrap=None)
    assert given == GRPOConfig(**expected | {"n_steps": 7})


def test_an_environment_without_a_preset_has_the_defaults_and_rewards_of_any_size():
    config = GRPOConfig(env_name="unknown", normalize_rewards=True)
    assert resolve_config(env_name="unknown") == config
    assert dict(DEFAULT_PRESET) == {"normalize_rewards": True}


def test_names_of_the_wrong_type_are_refused_like_any_value():
    for fields in ({"env_name": 3}, {"reward_function_type": ["a"]}):
        with pytest.raises(OutOfRangeError):
            resolve_config(**fields)


@pytest.mark.parametrize("env_name", sorted({*PRESETS, *REWARD_PRESETS}))
def test_every_preset_can_be_trained(env_name):
    assert env_name in registered_names()
    for reward in [None, *REWARD_PRESETS.get(env_name, {})]:
        validate(resolve_config(env_name=env_name, reward_function_type=reward))
