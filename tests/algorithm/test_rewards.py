"""Rewards by hand-computed figures, their plug-ins, and what is refused."""

from importlib.metadata import EntryPoint

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

import grpo.rewards as module
from grpo.envs import check_environment
from grpo.errors import IncompatibleError, RewardError, UnknownNameError
from grpo.rewards import REWARDS, RewardDefinition, describe_rewards, get_reward
from tests.algorithm.toy_environments import Masked, Truncate, registered

CARTPOLE = check_environment("CartPole-v1")
ACROBOT = check_environment("Acrobot-v1")


def score(function, observations, rewards=None):
    n = len(observations)
    rewards = np.ones(n) if rewards is None else np.asarray(rewards, dtype=float)
    observations = np.asarray(observations, dtype=float)
    return function(observations, np.zeros(n, dtype=int), rewards, np.zeros(n, dtype=bool))


def state(x=0.0, theta=0.0):
    return [x, 9.0, theta, -9.0]  # the velocities must not matter


def test_optimized_cartpole_by_hand():
    found = score(
        get_reward("optimized_cartpole", CARTPOLE),
        [state(), state(theta=0.1), state(x=1.0), state(x=-2.3, theta=-0.2), state(x=9.0, theta=3)],
    )
    expected = [
        5.5,  # 1.5 + 3 + 1
        1.5 + 3 * 0.44932896411722156 + 1,  # exp(-0.8)
        1.5 + 3 + 0.22313016014842982,  # exp(-1.5)
        1.5060475459546758,  # 1.5 + 3 exp(-1.6) + exp(-1.5 * 2.3²) - 2 * 0.3, by decimal arithmetic
        0.1,
    ]
    assert found == pytest.approx(expected, abs=1e-9)


def test_optimized_cartpole_stays_within_its_clip():
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(1000, 4)) * 3
    found = score(get_reward("optimized_cartpole", CARTPOLE), observations)
    assert found.min() == 0.1
    assert found.max() <= 6.0


def test_simple_cartpole_by_hand():
    found = score(
        get_reward("simple_cartpole", CARTPOLE),
        [state(x=2), state(theta=0.10475), state(theta=-0.10475), state(theta=0.2095)],
    )
    assert found == pytest.approx([1.0, 0.5, 0.5, 0.1])


def test_environment_is_the_environments_own():
    found = score(get_reward("environment", ACROBOT), np.zeros((2, 6)), [-1.0, 0.0])
    assert found.tolist() == [-1.0, 0.0]


def test_names_and_descriptions():
    assert {"environment", "optimized_cartpole", "simple_cartpole"} <= set(REWARDS.names())
    assert list(REWARDS.names()) == sorted(REWARDS.names())
    described = {entry["name"]: entry for entry in describe_rewards()}
    assert tuple(described) == REWARDS.names()
    assert described["simple_cartpole"]["environments"] == "CartPole"
    assert all(entry["description"] for entry in described.values())


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(UnknownNameError, match="environment, optimized_cartpole") as caught:
        get_reward("../../etc/passwd", CARTPOLE)
    assert caught.value.field == "reward_function_type"


@pytest.mark.parametrize("name", ["optimized_cartpole", "simple_cartpole"])
def test_cartpole_rewards_fit_only_cartpole(name):
    with pytest.raises(
        IncompatibleError, match=r"made for CartPole, not for Acrobot-v1.*environment"
    ):
        get_reward(name, ACROBOT)
    entry_point = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
    with registered(entry_point, "OurCartPole-v3", max_episode_steps=77) as env_name:
        assert get_reward(name, check_environment(env_name))


@pytest.mark.parametrize(
    ("make", "fits"),
    [
        (lambda: gym.wrappers.FrameStackObservation(CartPoleEnv(), 3), False),
        (lambda: Masked(CartPoleEnv()), False),
        (lambda: gym.wrappers.TransformObservation(CartPoleEnv(), np.flip, None), False),
        (lambda: Truncate(CartPoleEnv()), False),  # might change them as well, who knows
        (lambda: gym.wrappers.RecordEpisodeStatistics(CartPoleEnv()), True),
        (lambda: gym.wrappers.TransformReward(CartPoleEnv(), np.sign), True),
        (lambda: gym.wrappers.StickyAction(CartPoleEnv(), 0.25), False),
    ],
)
def test_cartpole_rewards_read_nothing_but_cartpoles_own_observations(make, fits):
    with registered(make, max_episode_steps=77) as env_name:
        spec = check_environment(env_name)
        if fits:
            assert get_reward("optimized_cartpole", spec)
        else:
            with pytest.raises(IncompatibleError, match=r"not for Toy-v0 \(it is wrapped in "):
                get_reward("simple_cartpole", spec)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda o, a, r, t: r[:, None], r"returned shape \(3, 1\).*shape \(3,\)"),
        (lambda o, a, r, t: 1.0, r"returned shape \(\)"),
        (lambda o, a, r, t: r * [1, np.nan, 1], r"NaN or infinity: nan for step 2 of 3, with"),
        (lambda o, a, r, t: r / np.array([1.0, 1.0, np.inf]) + np.inf, "NaN or infinity"),
        (lambda o, a, r, t: "much", "raised ValueError"),
        (lambda o, a, r, t: o[:, 99], "raised IndexError"),
    ],
)
def test_what_is_no_reward_is_refused(function, message):
    reward = get_reward("<bad>", CARTPOLE, {"<bad>": function})
    with pytest.raises(RewardError, match=message):
        score(reward, np.zeros((3, 4)))


def upside_down(next_observations, actions, rewards, terminated):
    """Negative of the environment's own."""
    return -rewards


DEFINITION = RewardDefinition(
    function=upside_down, description="Down.", fits=lambda spec: spec.observation_shape == (6,),
    fits_description="six numbers",
)  # fmt: skip
NOT_A_REWARD = 3


@pytest.fixture
def plug_ins(monkeypatch):
    here = "tests.algorithm.test_rewards"
    entries = [
        EntryPoint("plain", f"{here}:upside_down", module.ENTRY_POINT_GROUP),
        EntryPoint("defined", f"{here}:DEFINITION", module.ENTRY_POINT_GROUP),
        EntryPoint("number", f"{here}:NOT_A_REWARD", module.ENTRY_POINT_GROUP),
        EntryPoint("gone", f"{here}:no_such_thing", module.ENTRY_POINT_GROUP),
        EntryPoint("environment", f"{here}:upside_down", module.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr("grpo.registry.entry_points", lambda *, group: entries)
    vars(REWARDS).pop("_entries", None)  # what was found before
    yield
    vars(REWARDS).pop("_entries", None)


def test_plug_ins_are_found_by_entry_point(plug_ins):
    assert {"plain", "defined"} <= set(REWARDS.names())
    assert score(get_reward("plain", CARTPOLE), np.zeros((2, 4)), [1, 2]).tolist() == [-1, -2]
    assert get_reward("defined", ACROBOT)
    with pytest.raises(IncompatibleError, match="made for six numbers"):
        get_reward("defined", CARTPOLE)
    described = {entry["name"]: entry["description"] for entry in describe_rewards()}
    assert described["plain"] == "Negative of the environment's own."


def test_plug_ins_that_do_not_load_are_left_out_and_say_why(plug_ins, caplog):
    assert not {"number", "gone"} & set(REWARDS.names())
    with pytest.raises(IncompatibleError, match="does not load: it is a int"):
        get_reward("number", CARTPOLE)
    with pytest.raises(IncompatibleError, match="AttributeError"):
        get_reward("gone", CARTPOLE)
    assert "gone" in caplog.text


def test_plug_ins_do_not_replace_what_there_is(plug_ins):
    assert score(get_reward("environment", CARTPOLE), np.zeros((1, 4)), [5]).tolist() == [5]
