"""Presets: what is left out is the environment's, under its reward."""

import pytest
import torch

from benchmarks.learning_search import RECOMMENDED, common, deviation_rate
from grpo import GRPO
from grpo.config import PRESETS, REWARD_PRESETS, GRPOConfig, general_preset, resolve_config
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


@pytest.mark.parametrize(
    ("budget", "rate", "n_steps"),
    [
        (1, 1.5e-3, 32), (10_000, 1.5e-3, 32), (100_000, 1e-3, 83), (300_000, 1e-3 / 3, 250),
        (10_000_000, 1e-4, 512),
    ],
)  # fmt: skip
def test_an_environment_without_a_preset_has_the_general_one_for_its_budget(budget, rate, n_steps):
    config = resolve_config(env_name="unknown", total_timesteps=budget)
    assert (config.learning_rate, config.n_steps) == (pytest.approx(rate), n_steps)
    assert (config.baseline, config.start_states) == ("critic", "continue")
    assert (config.num_groups, config.group_size, config.normalize_rewards) == (8, 1, True)
    default = resolve_config(env_name="unknown")
    assert default == resolve_config(env_name="unknown", total_timesteps=10_000)


@pytest.mark.parametrize(
    "chosen",
    [{"advantage": "dr"}, {"group_size": 8}, {"start_states": "reset"}, {"baseline": "group"},
     {"branch_probability": 0.5}],
)  # fmt: skip
def test_whoever_says_how_members_are_compared_gets_the_rest_of_that_way(chosen):
    config = resolve_config(env_name="unknown", **chosen)
    assert config == GRPOConfig(env_name="unknown", normalize_rewards=True, **chosen)


def test_other_choices_leave_the_general_preset_in_force():
    config = resolve_config(env_name="unknown", n_steps=7, gamma=0.5, advantage=None)
    expected = general_preset() | {"n_steps": 7, "gamma": 0.5}
    assert config == GRPOConfig(env_name="unknown", **expected)


@pytest.mark.rotated(14)
def test_the_object_fits_the_general_preset_to_what_it_is_asked_to_learn():
    model = GRPO("Taxi-v4", seed=1, n_eval_episodes=1)
    model.learn(300)
    wanted = resolve_config(env_name="Taxi-v4", total_timesteps=300, seed=1, n_eval_episodes=1)
    assert model.config == wanted
    before = model.config.learning_rate
    model.learn(100, reset_num_timesteps=False)
    assert model.config.learning_rate == before
    model._chosen |= {"learning_rate": 1e-5, "clip_range": 0.4}
    model.learn(50)
    assert model.config.learning_rate == 1e-5
    assert model._trainer._learner.updater.config.clip_range == 0.4


@pytest.mark.parametrize("policy", ["MlpPolicy", "ActorCriticPolicy"])
def test_log_std_keeps_to_its_rate_when_another_budget_is_asked_for(policy):
    model = GRPO("Pendulum-v1", seed=1, n_eval_episodes=1, policy=policy)
    model.learn(600)
    before = model.policy.log_std.detach().clone()
    model._chosen |= {"log_std_rate": 0.0}
    model.learn(600)
    assert torch.equal(model.policy.log_std, before)
    del model._chosen["log_std_rate"]
    model.learn(600)
    assert not torch.equal(model.policy.log_std, before)


def test_the_general_preset_trusts_more_of_an_update_where_the_rate_is_lower():
    of = {budget: general_preset(budget) for budget in (1_000, 100_000, 225_000, 300_000, 10**7)}
    assert [preset["clip_range"] for preset in of.values()] == [0.1, 0.1, 0.15, 0.2, 0.2]
    rates = [preset["learning_rate"] for preset in of.values()]
    assert rates == pytest.approx([1.5e-3, 1e-3, 100 / 225_000, 100 / 300_000, 1e-4])


@pytest.mark.parametrize("budget", [10_000, 50_000, 100_000, 300_000, 500_000])
def test_the_benchmarks_first_trial_of_ours_is_the_general_preset(budget):
    rate, n_steps, clip_range = common(RECOMMENDED["grpo"], budget)
    preset = general_preset(budget)
    assert preset["clip_range"] == clip_range
    assert (preset["learning_rate"], preset["n_steps"]) == pytest.approx((rate, n_steps))
    assert preset["log_std_rate"] == deviation_rate(RECOMMENDED["grpo"], budget)


def test_names_of_the_wrong_type_are_refused_like_any_value():
    for fields in ({"env_name": 3}, {"reward_function_type": ["a"]}):
        with pytest.raises(OutOfRangeError):
            resolve_config(**fields)


@pytest.mark.parametrize("env_name", sorted({*PRESETS, *REWARD_PRESETS}))
def test_every_preset_can_be_trained(env_name):
    assert env_name in registered_names()
    for reward in [None, *REWARD_PRESETS.get(env_name, {})]:
        validate(resolve_config(env_name=env_name, reward_function_type=reward))
