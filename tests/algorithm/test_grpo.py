"""The object that a notebook holds: what it takes, what it gives, and its files."""

import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from torch import nn

from grpo import (
    GRPO,
    REWARD_PRESETS,
    CheckpointError,
    ConfigError,
    Reporter,
    Trainer,
    checkpoint,
    resolve_config,
)
from grpo.errors import IncompatibleError, OutOfRangeError, UnknownNameError
from tests.algorithm.toy_environments import registered

SHORT = {"n_steps": 16, "n_epochs": 2, "n_eval_episodes": 2}


def make_cartpole(**kwargs):
    return gym.make("CartPole-v1", **kwargs)


def upright(next_observations, actions, rewards, terminated):
    """How upright the pole stands."""
    return 1.0 - np.abs(next_observations[:, 2])


def centred(returns, alive):
    return returns - returns.mean(axis=2, keepdims=True)


class Wide(nn.Module):
    def __init__(self, observation_space, width=8):
        super().__init__()
        self.features_dim = width
        self.layer = nn.Linear(observation_space.shape[0], width)

    def forward(self, observations):
        return torch.relu(self.layer(observations))


def everything_handed_in(**more):
    return {
        "env": make_cartpole,
        "policy": "ActorCriticPolicy",
        "policy_kwargs": {"features_extractor_class": Wide, "net_arch": [8]},
        "reward": upright,
        "advantage": centred,
        **more,
    }


def learned(model, timesteps=300):
    return model.learn(timesteps)


def test_the_first_lines_of_everybody():
    model = learned(GRPO("CartPole-v1", seed=7, **SHORT), 600)
    action, state = model.predict(np.zeros(4), deterministic=True)
    assert action.shape == ()
    assert action in (0, 1)
    assert state is None
    assert model.num_timesteps == 600
    assert model.evaluate(3).returns.shape == (3,)
    assert model.get_env().num_members == 2
    assert repr(model) == "GRPO(CartPole-v1, MlpPolicy 64×64, optimized_cartpole, 600 timesteps)"


def test_it_trains_what_the_trainer_trains_with_the_same_config():
    model = learned(GRPO("CartPole-v1", seed=3, **SHORT), 400)
    result = Trainer(resolve_config(seed=3, total_timesteps=400, **SHORT)).train()
    np.testing.assert_array_equal(model.policy.flat, result.policy.flat)


@pytest.mark.parametrize("env", ["Acrobot-v1", gym.spec("Acrobot-v1"), gym.make("Acrobot-v1")])
def test_presets_apply_to_what_is_left_out(env):
    assert GRPO(env).config.env_name == "Acrobot-v1"
    assert GRPO(env).config.group_size == 8
    assert GRPO("Acrobot-v1", group_size=3).config.group_size == 3


@pytest.mark.parametrize(
    "env",
    [
        "CartPole-v1",
        gym.spec("CartPole-v1"),
        make_cartpole,
        make_cartpole(),
        lambda: gym.wrappers.TimeLimit(CartPoleEnv(), 500),
    ],
    ids=["id", "spec", "function", "live", "lambda"],
)
def test_an_environment_is_an_id_a_spec_a_function_or_one_that_knows_its_spec(env):
    preset = REWARD_PRESETS["CartPole-v1"]["environment"]
    fields = {"reward": "environment", "normalize_rewards": False, **preset, **SHORT}
    model, by_id = learned(GRPO(env, **fields), 200), learned(GRPO("CartPole-v1", **fields), 200)
    np.testing.assert_array_equal(model.policy.flat, by_id.policy.flat)
    assert model.evaluate(2).lengths.tolist() == by_id.evaluate(2).lengths.tolist()


def test_a_wrapped_live_environment_is_made_again_with_its_wrappers():
    live = gym.wrappers.TimeLimit(gym.make("CartPole-v1"), 9)
    model = GRPO(live, n_steps=64)
    assert model.get_env().spec.max_episode_steps == 9
    assert model.evaluate(2).lengths.max() <= 9


def test_an_environment_that_cannot_make_more_of_itself_says_what_to_pass():
    with pytest.raises(IncompatibleError, match="function that makes one"):
        GRPO(CartPoleEnv())


def test_a_function_that_makes_no_environment_is_told():
    with pytest.raises(ConfigError, match="is a int, not a gymnasium"):
        GRPO(lambda: 3)


def test_everything_can_be_handed_in_and_is_trained_on():
    rewards = []

    def noted(next_observations, actions, rewards_, terminated):
        rewards.append(rewards_)
        return upright(next_observations, actions, rewards_, terminated)

    model = learned(GRPO(**everything_handed_in(reward=noted)))
    assert rewards
    assert isinstance(model.policy.policy_net[0], Wide)
    assert model.config.advantage == "<tests.algorithm.test_grpo.centred>"


def test_two_functions_of_one_name_are_two():
    first = GRPO(lambda: make_cartpole(), reward=lambda o, a, r, t: -r, **SHORT)
    names = {first.config.env_name, first.config.reward_function_type}
    assert len(names) == 2
    learned(first, 50)


# --- learning on ---------------------------------------------------------------------------


def test_learn_goes_on_and_counts_as_told():
    model = GRPO("CartPole-v1", **SHORT)
    learned(model, 200)
    before = model.policy.flat.copy()
    learned(model, 100)
    assert model.num_timesteps == 100
    assert not np.array_equal(model.policy.flat, before)
    model.learn(150, reset_num_timesteps=False)
    assert model.num_timesteps == 250
    assert model.config.total_timesteps == 250


def test_a_budget_is_kept_and_one_below_a_step_refused():
    model = GRPO("CartPole-v1", **SHORT)
    with pytest.raises(OutOfRangeError, match="total_timesteps must be at least 1"):
        model.learn(0)
    assert learned(model, 1).num_timesteps == 1


def test_the_schedule_runs_over_each_call():
    rates = []

    class Noting(Reporter):
        def on_update(self, stats):
            rates.append(model._trainer._learner.updater._policy_adam.learning_rate)

    model = GRPO("CartPole-v1", learning_rate_schedule="linear", callback=Noting(), **SHORT)
    for _ in range(2):
        learned(model, 100)
    half = len(rates) // 2
    assert rates[0] == rates[half] == pytest.approx(model.config.learning_rate, rel=0.05)
    assert rates[half - 1] < 0.5 * rates[0]


@pytest.mark.parametrize("way", ["function", "reporter", "at_learn"])
def test_a_callback_that_says_false_ends_training_and_learning_goes_on_after(way):
    class Ending(Reporter):
        def on_rollout(self, stats):
            return len(stats.episodes) < 1

    def until_100(stats):
        return stats.timesteps < 100

    hook = Ending() if way == "reporter" else until_100
    model = GRPO("CartPole-v1", callback=None if way == "at_learn" else hook, **SHORT)
    model.learn(5_000, callback=hook if way == "at_learn" else None)
    assert model.result.stopped
    assert 0 < model.num_timesteps < 5_000
    model._callback = None
    model.learn(50, reset_num_timesteps=False)  # the environments are still open
    assert not model.result.stopped


def test_callbacks_that_say_nothing_do_not_end_it():
    heard = []
    model = GRPO("CartPole-v1", callback=lambda stats: heard.append(stats.timesteps), **SHORT)
    learned(model, 200)
    assert heard[-1] == 200


def test_progress_is_one_line_that_ends(capsys):
    GRPO("CartPole-v1", **SHORT).learn(200, progress_bar=True)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "100% 200/200" in said


# --- predicting ----------------------------------------------------------------------------


def test_one_observation_or_a_batch_and_nothing_else():
    model = GRPO("CartPole-v1")
    one, _ = model.predict([0.0, 0.0, 0.1, 0.0], deterministic=True)
    batch, _ = model.predict([[0.0, 0.0, 0.1, 0.0]] * 3, deterministic=True)
    assert batch.tolist() == [one] * 3
    for wrong in ([0.0] * 3, np.zeros((4, 3)), np.zeros((1, 1, 4)), 3.0):
        with pytest.raises(IncompatibleError, match=r"shape \(4,\), or a batch"):
            model.predict(wrong)
    with pytest.raises(IncompatibleError, match="NaN"):
        model.predict([0.0, np.nan, 0.0, 0.0])


def test_samples_follow_the_seed():
    draws = [GRPO("CartPole-v1", seed=s).predict(np.zeros((50, 4)))[0].tolist() for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_actions_are_the_environments_own():
    class Shifted(gym.ActionWrapper):
        def __init__(self):
            super().__init__(CartPoleEnv())
            self.action_space = gym.spaces.Discrete(2, start=5)

        def action(self, action):
            assert action in (5, 6)
            return action - 5

    with registered(Shifted, max_episode_steps=20) as env_name:
        model = learned(GRPO(env_name, **SHORT), 100)
        assert set(model.predict(np.zeros((30, 4)))[0].tolist()) == {5, 6}
        assert model.evaluate(2).lengths.min() > 1
    continuous = GRPO("Pendulum-v1").predict(np.zeros((9, 3)))[0]
    assert continuous.shape == (9, 1)
    assert np.abs(continuous).max() <= 2.0


# --- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [{"env": "CartPole-v1"}, everything_handed_in()])
def test_a_saved_model_goes_on_bit_for_bit(tmp_path, parts):
    model = learned(GRPO(**parts, **SHORT))
    model.save(tmp_path / "model.npz")
    given = {k: v for k, v in parts.items() if k != "policy"} if len(parts) > 1 else {}
    again = GRPO.load(tmp_path / "model.npz", **given)
    assert repr(again) == repr(model)
    x = np.random.default_rng(0).standard_normal((5, 4))
    assert again.predict(x, True)[0].tolist() == model.predict(x, True)[0].tolist()
    for one in (model, again):
        one.learn(200, reset_num_timesteps=False)
    np.testing.assert_array_equal(again.policy.flat, model.policy.flat)


def test_what_was_handed_in_is_named_in_the_file_and_asked_for(tmp_path):
    GRPO(**everything_handed_in()).save(tmp_path / "model.npz")
    with zipfile.ZipFile(tmp_path / "model.npz") as archive:
        assert b"test_grpo.upright" in archive.read("meta.npy")
    given = {"env": make_cartpole, "reward": upright, "advantage": centred}
    classes = {"policy_kwargs": {"features_extractor_class": Wide}}
    for missing, what in (
        ("env", "make_cartpole"),
        ("reward", "upright"),
        ("advantage", "centred"),
    ):
        some = {name: thing for name, thing in given.items() if name != missing}
        with pytest.raises(IncompatibleError, match=rf"{what} was handed in"):
            GRPO.load(tmp_path / "model.npz", **some, **classes)
    with pytest.raises(IncompatibleError, match="Wide was handed in"):
        GRPO.load(tmp_path / "model.npz", **given)


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="Cannot read"):
        GRPO.load(tmp_path / "none.npz")
    model = GRPO("CartPole-v1")
    checkpoint.save(tmp_path / "bare.npz", model._trainer.state(), {})
    with pytest.raises(CheckpointError, match="was not written by GRPO"):
        GRPO.load(tmp_path / "bare.npz")


# --- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "kind", "says"),
    [
        ({"lerning_rate": 1}, OutOfRangeError, "Did you mean 'learning_rate'"),
        ({"n_steps": 0}, OutOfRangeError, "n_steps must be at least 1"),
        ({"policy": "MlpPolcy"}, UnknownNameError, "Did you mean 'MlpPolicy'"),
        ({"policy": CartPoleEnv}, IncompatibleError, "not a class below"),
        ({"policy_kwargs": {"width": 3}}, OutOfRangeError,
         "takes log_std_init in policy_kwargs"),
        ({"policy": "ActorCriticPolicy", "policy_kwargs": {"width": 3}}, IncompatibleError,
         "cannot be built"),
        ({"policy_kwargs": {"activation_fn": "Tan"}}, UnknownNameError, "Tanh"),
        ({"policy_kwargs": {"features_extractor_class": nn.ReLU}}, OutOfRangeError,
         "features_dim"),
        ({"advantage": "dp"}, UnknownNameError, "Unknown advantage"),
        ({"reward": 3}, IncompatibleError, "not a RewardDefinition or a function"),
        ({"device": "gpu"}, UnknownNameError, "device"),
    ],
)  # fmt: skip
def test_bad_input_is_told_before_the_first_step(fields, kind, says):
    with pytest.raises(kind, match=says):
        GRPO("CartPole-v1", **fields)
