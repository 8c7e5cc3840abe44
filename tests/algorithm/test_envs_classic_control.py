"""The fast paths are Gymnasium's own environments, to the last bit."""

import copy

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.actions import DiscreteActions
from grpo.envs import make_vec_env
from grpo.envs.cartpole import CartPoleVecEnv
from grpo.envs.classic_control import ClassicControlVecEnv
from grpo.envs.verification import steps_exactly
from tests.algorithm.toy_environments import Bonus, Masked, Pushes, Truncate, registered

ENVIRONMENTS = [
    ("CartPole-v1", {}),
    ("CartPole-v0", {"max_episode_steps": 30}),
    ("CartPole-v1", {"sutton_barto_reward": True}),
    ("Acrobot-v1", {}),
    ("MountainCar-v0", {}),
    ("MountainCar-v0", {"goal_velocity": 0.02, "max_episode_steps": 400}),
    ("MountainCarContinuous-v0", {}),
    ("MountainCarContinuous-v0", {"goal_velocity": 0.01}),
    ("Pendulum-v1", {}),
    ("Pendulum-v1", {"g": 9.81}),
]
MEMBERS = 5


def steps_at_once(env_name, env_kwargs=None):
    envs = make_vec_env(env_name, env_kwargs, 1, branching=False)
    envs.close()
    return isinstance(envs, ClassicControlVecEnv)


def draw_actions(spec, rng, n):
    if isinstance(spec.action, DiscreteActions):
        return rng.integers(0, spec.action.n, n)
    low, high = spec.action.low[0], spec.action.high[0]
    drawn = rng.uniform(low, high, (n, 1)).astype(np.float32)
    drawn[rng.random(n) < 0.2] = rng.choice([low, high])
    return drawn


def push_uphill(spec, observations, rng, n):
    """Mostly with the motion, so that the mountain cars reach the goal."""
    if "MountainCar" not in spec.env_name or rng.random() < 0.1:
        return draw_actions(spec, rng, n)
    forward = observations[:, 1] >= 0
    if isinstance(spec.action, DiscreteActions):
        return np.where(forward, 2, 0)
    return np.where(forward, 1.0, -1.0).astype(np.float32)[:, None]


def assert_same_step(envs, references, members, actions):
    result = envs.step(members, actions)
    expected = [references[m].step(a) for m, a in zip(members, actions, strict=True)]
    for name, i in (("observations", 0), ("rewards", 1), ("terminated", 2), ("truncated", 3)):
        ours, theirs = getattr(result, name), np.array([row[i] for row in expected])
        assert np.array_equal(ours, theirs), (name, ours, theirs)
    assert result.observations.dtype == expected[0][0].dtype
    return result


@pytest.mark.rotated(6)
@pytest.mark.parametrize(("env_name", "env_kwargs"), ENVIRONMENTS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), greedy=st.booleans())
def test_members_step_as_gymnasium_does(env_name, env_kwargs, seed, greedy):
    envs = make_vec_env(env_name, env_kwargs, MEMBERS)
    assert isinstance(envs, ClassicControlVecEnv)
    references = [
        gym.make(gym.spec(env_name), disable_env_checker=True, **env_kwargs) for _ in range(MEMBERS)
    ]
    rng = np.random.default_rng(seed)
    alive = np.arange(MEMBERS)
    seeds = [int(s) for s in rng.integers(0, 2**32, MEMBERS)]
    observations = envs.reset(alive, seeds)
    for m, s in enumerate(seeds):
        first, _ = references[m].reset(seed=s)
        assert np.array_equal(observations[m], first)
        assert observations.dtype == first.dtype
    steps = 0
    while alive.size and steps < 160 * MEMBERS:
        actions = (
            push_uphill(envs.spec, observations, rng, alive.size)
            if greedy
            else draw_actions(envs.spec, rng, alive.size)
        )
        order = rng.permutation(alive.size)  # members in any order
        result = assert_same_step(envs, references, alive[order], actions[order])
        steps += alive.size
        going = ~(result.terminated | result.truncated)
        alive, observations = alive[order][going], result.observations[going]
    assert envs.steps_taken == steps
    for m, reference in enumerate(references):  # in full precision, which observations hide
        state = envs.snapshot(m)["state"][:-1]
        assert sorted(state) == sorted(float(x) for x in reference.unwrapped.state)


def test_acrobots_first_observation_is_rounded_as_gymnasium_rounds_it():
    """Its sines and cosines are of single precision; one in a thousand shows it."""
    seeds = np.arange(4000)
    envs = make_vec_env("Acrobot-v1", {}, len(seeds))
    reference = gym.make("Acrobot-v1", disable_env_checker=True)
    expected = [reference.reset(seed=seed)[0] for seed in seeds.tolist()]
    assert np.array_equal(envs.reset(seeds, seeds), expected)


@pytest.mark.parametrize(("env_name", "env_kwargs"), ENVIRONMENTS)
@pytest.mark.parametrize("steps", [0, 1, 6])
def test_restored_members_go_on_as_a_copied_gymnasium_environment(env_name, env_kwargs, steps):
    envs = make_vec_env(env_name, env_kwargs, 3)
    assert envs.branching == "exact"
    assert envs.storable_snapshots
    reference = gym.make(gym.spec(env_name), disable_env_checker=True, **env_kwargs)
    rng = np.random.default_rng(steps)
    observation, _ = reference.reset(seed=7)
    envs.reset(np.array([0, 2]), [7, 8])
    for _ in range(steps):
        action = draw_actions(envs.spec, rng, 1)
        envs.step(np.array([0]), action)
        envs.step(np.array([2]), action)
        observation = reference.step(action[0])[0]
    snapshot = envs.snapshot(0)
    envs.step(np.array([0]), draw_actions(envs.spec, rng, 1))  # must not change the snapshot
    assert envs.restore_cost(snapshot) == 0
    before = envs.steps_taken
    restored = envs.restore(np.array([2, 1]), snapshot)
    assert envs.steps_taken == before
    assert np.array_equal(restored, np.stack([observation, observation]))
    twins = {1: copy.deepcopy(reference), 2: copy.deepcopy(reference)}
    for _ in range(40):
        result = assert_same_step(envs, twins, np.array([1, 2]), draw_actions(envs.spec, rng, 2))
        if (result.terminated | result.truncated).any():
            break


def test_the_time_limit_is_part_of_the_state():
    envs = make_vec_env("Pendulum-v1", {"max_episode_steps": 10}, 2)
    first, second = np.array([0]), np.array([1])
    still = np.zeros((1, 1))
    envs.reset(np.array([0, 1]), [0, 1])
    for _ in range(7):
        envs.step(first, still)
    envs.restore(second, envs.snapshot(0))
    assert [bool(envs.step(second, still).truncated[0]) for _ in range(3)] == [False, False, True]
    envs.reset(second, [3])
    assert not envs.step(second, still).truncated[0]


def test_termination_at_the_time_limit_is_both():
    """A fall in the very last step is a termination, and Gymnasium says truncated beside it."""
    envs = make_vec_env("CartPole-v1", {}, 1)
    member, right = np.array([0]), np.array([1])
    envs.reset(member, [0])
    length = 1
    while not envs.step(member, right).terminated[0]:
        length += 1
    short = make_vec_env("CartPole-v1", {"max_episode_steps": length}, 1)
    short.reset(member, [0])
    for _ in range(length - 1):
        result = short.step(member, right)
        assert not result.terminated[0]
        assert not result.truncated[0]
    result = short.step(member, right)
    assert result.terminated[0]
    assert result.truncated[0]


def test_keyword_arguments_that_the_fast_path_does_not_know_leave_it(monkeypatch):
    assert steps_at_once("CartPole-v1", {"max_episode_steps": 9})
    monkeypatch.setattr(CartPoleVecEnv, "kwargs", frozenset())
    assert not steps_at_once("CartPole-v1", {"sutton_barto_reward": True})


def longer():
    env = CartPoleEnv()
    env.x_threshold = 0.3
    return env


class Eager(MountainCarEnv):
    """Overrides a method."""

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(observation[0]), terminated, truncated, info


CHANGED = {
    "truncated": lambda: Truncate(CartPoleEnv()),
    "limited inside": lambda: gym.wrappers.TimeLimit(Truncate(CartPoleEnv(), 9), 30),
    "rewarded": lambda: Bonus(MountainCarEnv()),
    "transformed": lambda: gym.wrappers.TransformReward(PendulumEnv(), lambda reward: reward / 8),
    "named actions": lambda: Pushes(PendulumEnv()),
    "sticky": lambda: gym.wrappers.StickyAction(AcrobotEnv(), 0.25),
    "masked": lambda: Masked(CartPoleEnv()),
    "stacked": lambda: gym.wrappers.FrameStackObservation(CartPoleEnv(), 3),
    "another threshold": longer,
    "a subclass": Eager,
}


@pytest.mark.parametrize("make", CHANGED.values(), ids=CHANGED)
def test_what_is_not_gymnasiums_own_is_stepped_as_it_was_made(make):
    """Wrappers, changed attributes and subclasses: none of it may be lost on the way."""
    with registered(make, max_episode_steps=150) as env_name:
        envs = make_vec_env(env_name, {}, 2, branching=False)
        assert not isinstance(envs, ClassicControlVecEnv)
        references = [gym.make(gym.spec(env_name), disable_env_checker=True) for _ in range(2)]
        everyone, rng = np.array([0, 1]), np.random.default_rng(0)
        for seed in range(2):
            observations = envs.reset(everyone, [seed, seed + 7])
            first = [env.reset(seed=seed + 7 * i)[0] for i, env in enumerate(references)]
            assert np.array_equal(observations, first)
            alive = everyone
            while alive.size:
                actions = push_uphill(envs.spec, observations, rng, alive.size)
                result = assert_same_step(envs, references, alive, actions)
                going = ~(result.terminated | result.truncated)
                alive, observations = alive[going], result.observations[going]
        envs.close()


def test_keyword_arguments_of_the_registration_count():
    """A goal velocity that no caller gave: forty random steps never come near the goal."""
    kwargs = {"goal_velocity": 0.06}
    with registered(MountainCarEnv, max_episode_steps=150, kwargs=kwargs) as env_name:
        assert not steps_at_once(env_name)
        assert steps_at_once("MountainCar-v0", kwargs)


@pytest.mark.parametrize("limit", [None, 30])
def test_time_limits_of_every_layer_count(limit):
    def make():
        return gym.make(gym.spec("Pendulum-v1"), disable_env_checker=True)

    with registered(make, max_episode_steps=limit) as env_name:
        envs = make_vec_env(env_name, {}, 1)
        assert isinstance(envs, ClassicControlVecEnv)
        assert envs.spec.max_episode_steps == (limit or 200)


def test_a_fast_path_that_differs_from_the_installed_gymnasium_is_not_used(monkeypatch, caplog):
    import grpo.envs.cartpole as module

    monkeypatch.setattr(module, "_GRAVITY", np.array(9.81))
    steps_exactly.cache_clear()
    try:
        envs = make_vec_env("CartPole-v1", {}, 2)
        assert not isinstance(envs, ClassicControlVecEnv)
        assert "fast path" in caplog.text
        assert envs.branching == "exact"  # by the attributes of Gymnasium's own
        envs.close()
    finally:
        steps_exactly.cache_clear()
