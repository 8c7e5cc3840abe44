"""What can be trained is found out before a step is run; what cannot is refused in words."""

import json
import logging
from importlib.metadata import EntryPoint, EntryPoints

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import grpo.envs
from grpo.actions import BoxActions, DiscreteActions, action_spec_from_dict
from grpo.envs import catalogue, check_environment, make_vec_env
from grpo.errors import (
    ConfigError,
    EnvironmentFaultError,
    IncompatibleError,
    OutOfRangeError,
    UnknownNameError,
    UnsupportedEnvironmentError,
)
from grpo.registry import plug_ins
from tests.algorithm.toy_environments import Shaped, Thermostat, Walk, registered


def test_cartpole():
    spec = check_environment("CartPole-v1")
    assert spec.observation_shape == (4,)
    assert spec.action == DiscreteActions(n=2)
    assert (spec.max_episode_steps, spec.reward_threshold) == (500, 475.0)
    assert check_environment("CartPole-v1", {}) is spec
    assert check_environment("CartPole-v1", {"max_episode_steps": 3}).max_episode_steps == 3
    described = json.loads(json.dumps(spec.to_dict(), allow_nan=False))
    assert described["observation"]["high"][1] is None
    assert described["observation"]["low"][0] == pytest.approx(-4.8)


def test_box_actions_and_observations_of_any_shape():
    assert check_environment("Pendulum-v1").action == BoxActions((1,), (-2.0,), (2.0,))
    with registered(Walk) as env_name:
        spec = check_environment(env_name)
    assert spec.observation_shape == (2, 2)
    assert spec.action == DiscreteActions(n=2, start=5)
    assert spec.max_episode_steps is None


@pytest.mark.parametrize("name", ["NoSuch-v0", "CartPole", "", "../../etc/passwd"])
def test_unknown_names_list_those_there_are(name):
    with pytest.raises(UnknownNameError, match="CartPole-v1") as caught:
        check_environment(name)
    assert caught.value.field == "env_name"
    assert "phys2d/CartPole-v1" not in caught.value.allowed


def test_a_name_never_imports():
    with pytest.raises(IncompatibleError, match="GRPO_ENV_MODULES=this"):
        check_environment("this:CartPole-v1")  # `gymnasium.make` would import `this`, which prints
    assert "this" not in __import__("sys").modules


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"gravity": 1}, IncompatibleError, "gravity"),
        ({"render_mode": "human"}, IncompatibleError, "does not render"),
        ({"xml_file": "/etc/passwd"}, IncompatibleError, "file"),
        ({"id": "Acrobot-v1"}, IncompatibleError, "env_name"),
        ({"disable_env_checker": False}, IncompatibleError, "disable_env_checker"),
        ({"max_episode_steps": -1}, OutOfRangeError, "positive integer"),
        ({"max_episode_steps": True}, OutOfRangeError, "positive integer"),
        ({"max_episode_steps": 2.5}, OutOfRangeError, "positive integer"),
        ({"sutton_barto_reward": float("nan")}, IncompatibleError, "JSON"),
        ({"sutton_barto_reward": object()}, IncompatibleError, "JSON"),
    ],
)
def test_keyword_arguments_that_are_refused(kwargs, error, message):
    with pytest.raises(error, match=message) as caught:
        check_environment("CartPole-v1", kwargs)
    assert caught.value.field == "env_kwargs"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"observation_space": spaces.Text(3)}, "Text observations"),
        ({"observation_space": spaces.Dict(a=spaces.Box(0, 1))}, "has no a"),
        ({"observation_space": spaces.Box(0, 1, (0,))}, "empty"),
        ({"observation_space": spaces.Box(0, 1, (5,)), "first": np.zeros(4)}, r"shape \(4,\)"),
        ({"observation_space": spaces.Box(0, 1, (1,)), "first": np.array([np.nan])}, "not finite"),
        ({"action_space": spaces.Text(3)}, "Text actions"),
        ({"action_space": spaces.Box(0, 1, (2, 0))}, "empty Box actions"),
    ],
)
def test_spaces_that_are_refused(kwargs, message):
    with (
        registered(lambda: Shaped(**kwargs)) as env_name,
        pytest.raises(UnsupportedEnvironmentError, match=message) as caught,
    ):
        check_environment(env_name)
    assert caught.value.field == "env_name"


def failing(error):
    def make():
        raise error

    return make


RAISED = failing.__code__.co_firstlineno + 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("no engine"), "ImportError: no engine."),
        (AssertionError(), f"AssertionError: line {RAISED} of test_envs_check.py, `raise error`."),
        (OSError("gone."), "OSError: gone."),
        (RuntimeError("first\n  second..."), "RuntimeError: first second."),
        (SystemExit(3), "SystemExit: 3."),
    ],
)
def test_environments_that_cannot_be_made(error, said):
    with (
        registered(failing(error)) as env_name,
        pytest.raises(UnsupportedEnvironmentError) as caught,
    ):
        check_environment(env_name)
    assert str(caught.value) == f"{env_name} cannot be made here: {said}"


def test_names_of_old_versions_are_told_where_they_went():
    with pytest.raises(UnsupportedEnvironmentError, match="gymnasium-robotics"):
        check_environment("HalfCheetah-v3")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'LunarLander-v3'\?.*examples/plugin"):
        check_environment("LunarLander-v2")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'Taxi-v4'\?"):
        check_environment("Taxi-v3")
    assert check_environment("CartPole-v0")  # older than v1, and no warning: those are errors here


def test_a_name_registered_anew_is_looked_at_anew():
    with registered(lambda: Shaped(action_space=spaces.Discrete(4))) as env_name:
        assert check_environment(env_name).action == DiscreteActions(n=4)
    with registered(lambda: Shaped(action_space=spaces.Discrete(7))) as env_name:
        assert check_environment(env_name).action == DiscreteActions(n=7)


def test_mujocos_warnings_go_to_the_log_and_not_to_a_file(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.WARNING)
    catalogue.import_environment(gym.registry["Hopper-v5"])
    import mujoco

    mujoco.get_mju_user_warning()("made up for a test")
    assert "MuJoCo: made up for a test" in caplog.text
    make_vec_env("HalfCheetah-v5", {}, 1, branching=False).close()
    assert not list(tmp_path.iterdir())


def step(envs, action=5):
    return envs.step(np.array([0]), np.array([action]))


def test_what_an_environment_raises_is_told():
    with registered(Walk, kwargs={"fail_at": 2}) as env_name:
        envs = make_vec_env(env_name, {}, 1, branching=False)
        envs.reset(np.array([0]), [0])
        step(envs)
        step(envs)
        with pytest.raises(
            EnvironmentFaultError, match=r"Toy-v0 raised RuntimeError in step: the floor gave way"
        ):
            step(envs)
        envs.close()


def test_indices_are_given_as_the_environment_names_them():
    with registered(Walk) as env_name:
        envs = make_vec_env(env_name, {}, 1, branching=False)
        envs.reset(np.array([0]), [0])
        for action in envs.spec.action.to_env(np.array([0, 1])):
            step(envs, action)
        assert [name for name, _ in envs.envs[0].unwrapped.history] == [5, 6]
        envs.close()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"observation": np.array([np.nan, 0], np.float32)},
            r"an observation that is not finite, \[nan +0\.\], in environment step 1 since",
        ),
        ({"reward": np.inf}, "a reward that is not finite, inf, in environment step 1 since"),
        ({"reward": np.zeros(2)}, r"a reward has shape \(2,\), but must be one number"),
        ({"observation": np.zeros(1, np.float32)}, r"shape \(1,\)"),
        ({"reward": None}, "TypeError"),
    ],
)
def test_steps_that_give_what_they_must_not(kwargs, message):
    with registered(lambda: Shaped(**kwargs)) as env_name:
        envs = make_vec_env(env_name, {}, 1, branching=False)
        envs.reset(np.array([0]), [0])
        with pytest.raises(EnvironmentFaultError, match=message):
            step(envs)
        envs.close()


@pytest.mark.parametrize("reward", [np.array([3.0]), [[3]], np.array(3.0), np.float32(3), 3])
def test_a_reward_may_be_an_array_of_one_value(reward):
    with registered(lambda: Shaped(reward=reward)) as env_name:
        envs = make_vec_env(env_name, {}, 1, branching=False)
        envs.reset(np.array([0]), [0])
        assert step(envs).rewards.tolist() == [3.0]
        envs.close()


def test_a_later_first_observation_that_is_not_finite_is_told():
    class Sour(Shaped):
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.full(2, np.nan if seed == 7 else 0.0), {}

    with registered(Sour) as env_name:
        envs = make_vec_env(env_name, {}, 1, branching=False)
        with pytest.raises(EnvironmentFaultError, match=r"not finite in reset, with the seed 7:"):
            envs.reset(np.array([0]), [7])
        envs.close()


@pytest.mark.parametrize("whole", [False, True])
def test_scalars_and_whole_numbers_reach_the_environment_as_it_declares_them(whole):
    with registered(lambda: Thermostat(whole=whole), max_episode_steps=30) as env_name:
        spec = check_environment(env_name)
        assert spec.observation_shape == ()
        assert spec.action == (
            BoxActions((2,), (-3, -3), (5, 5), integer=True)
            if whole
            else BoxActions((), (-1.0,), (1.0,))
        )
        assert action_spec_from_dict(json.loads(json.dumps(spec.action.to_dict()))) == spec.action
        envs = make_vec_env(env_name, {}, 2)
        first = envs.reset(np.array([0, 1]), [0, 1])
        assert first.shape == (2,)
        raw = np.array([[0.15, -0.35], [-0.2, 0.98]]) if whole else np.array([[0.5], [-0.5]])
        actions = spec.action.to_env(raw)
        result = envs.step(np.array([0, 1]), actions)
        moved = result.observations - first
        assert moved == pytest.approx([2.0, 5.0] if whole else [0.5, -0.5])
        envs.restore(np.array([1]), envs.snapshot(0))
        assert envs.observation_of(1) == envs.observation_of(0)
        envs.close()


def test_nothing_resets_by_itself():
    with registered(Walk, max_episode_steps=3) as env_name:
        envs = make_vec_env(env_name, {}, 2, branching=False)
        envs.reset(np.array([0, 1]), [0, 1])
        results = [step(envs) for _ in range(3)]
        assert [bool(r.truncated[0]) for r in results] == [False, False, True]
        assert not any(r.terminated[0] for r in results)
        last = results[-1].observations[0]
        assert np.array_equal(envs.observation_of(0), last)
        assert len(envs.envs[0].unwrapped.history) == 3
        assert len(envs.envs[1].unwrapped.history) == 0
        envs.close()


def test_exported_names():
    assert all(hasattr(grpo.envs, name) for name in grpo.envs.__all__)
    assert issubclass(UnknownNameError, ConfigError)


def register_toy():
    gym.register("Brought-v0", entry_point=Walk)


def register_nothing():
    gym.register("Never-v0", entry_point=Walk)
    raise RuntimeError("half done")


def test_a_group_of_which_nothing_is_loaded_brings_no_plug_in(monkeypatch):
    groups = ("gymnasium.envs", "gymnasium.envs.__root__", "grpo.rewards", "others")
    found = EntryPoints(EntryPoint("name", "module:function", group) for group in groups)
    monkeypatch.setattr("grpo.registry.entry_points", lambda **chosen: found.select(**chosen))
    assert [entry.group for entry in plug_ins()] == ["grpo.rewards", "gymnasium.envs"]


def test_environments_come_in_by_entry_point(monkeypatch, caplog):
    here = "tests.algorithm.test_envs_check"
    entries = [
        EntryPoint("broken", f"{here}:register_nothing", catalogue.ENTRY_POINT_GROUP),
        EntryPoint("ours", f"{here}:register_toy", catalogue.ENTRY_POINT_GROUP),
        EntryPoint("__root__", f"{here}:register_toy", catalogue.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(catalogue, "entry_points", lambda *, group: entries)
    catalogue.load_plug_ins.cache_clear()
    try:
        assert check_environment("ours/Brought-v0").observation_shape == (2, 2)
        assert check_environment("Brought-v0").observation_shape == (2, 2)
        assert {"ours/Brought-v0", "Brought-v0"} <= set(catalogue.registered_names())
        assert "RuntimeError: half done" in caplog.text
    finally:
        for name in ("broken/Never-v0", "ours/Brought-v0", "Brought-v0"):
            gym.registry.pop(name, None)
        catalogue.load_plug_ins.cache_clear()
