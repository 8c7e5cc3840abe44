"""A restored member goes on exactly as the one that it was copied from, family by family."""

import io
import json
import subprocess
import sys
import time

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from grpo.actions import DiscreteActions
from grpo.envs import check_environment, make_vec_env, verification
from grpo.envs.branching import AttributeState, DeepCopy, MujocoState, Replay
from grpo.envs.verification import find_branching, resets_afresh, why_not_exact
from grpo.errors import EnvironmentFaultError, IncompatibleError
from tests.algorithm.toy_environments import (
    Clinging,
    Locked,
    Opaque,
    Slow,
    Walk,
    Weary,
    Wild,
    registered,
)

FIRST, SECOND, THIRD = (np.array([i]) for i in range(3))


def walk(envs, member, n, seed):
    """Step one member until its episode ends; everything that it saw."""
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(n):
        if isinstance(envs.spec.action, DiscreteActions):
            action = envs.spec.action.to_env(rng.integers(0, envs.spec.action.n, 1))
        else:
            action = rng.uniform(envs.spec.action.low, envs.spec.action.high)[None]
        result = envs.step(member, action)
        seen.append(tuple(part.tolist() for part in result))
        if result.terminated[0] or result.truncated[0]:
            break
    return seen


def ended(seen):
    return bool(seen) and (seen[-1][2][0] or seen[-1][3][0])


def stored(snapshot):
    """As a checkpoint would hold it: arrays in an npz without pickle, scalars in JSON."""
    arrays = {key: value for key, value in snapshot.items() if isinstance(value, np.ndarray)}
    scalars = {key: value for key, value in snapshot.items() if key not in arrays}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, allow_pickle=False)
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as file:
        return {**json.loads(json.dumps(scalars)), **{key: file[key] for key in arrays}}


def assert_branches_exactly(env_name, prefix, tail, **env_kwargs):
    envs = make_vec_env(env_name, env_kwargs, 3)
    try:
        for seed in range(3):
            envs.reset(FIRST, [seed])
            if ended(walk(envs, FIRST, prefix, seed)):
                continue
            observation = envs.observation_of(0).copy()
            snapshot = envs.snapshot(0)
            if envs.storable_snapshots:
                snapshot = stored(snapshot)
            original = walk(envs, FIRST, tail, seed + 10)
            envs.reset(SECOND, [seed + 100])
            walk(envs, SECOND, 60, seed + 20)
            for member in (SECOND, FIRST, THIRD):  # THIRD has never been reset before
                before = envs.steps_taken
                assert np.array_equal(envs.restore(member, snapshot)[0], observation)
                assert envs.steps_taken - before == envs.restore_cost(snapshot)
                assert walk(envs, member, tail, seed + 10) == original
        return envs
    finally:
        envs.close()


@pytest.mark.parametrize("env_name", ["Hopper-v5", "HalfCheetah-v5", "Reacher-v5", "Ant-v5"])
def test_mujoco_by_its_integration_state(env_name):
    envs = assert_branches_exactly(env_name, prefix=12, tail=60)
    assert (envs.branching, envs.storable_snapshots) == ("exact", True)
    assert find_branching(envs.spec).brancher is MujocoState


@pytest.mark.parametrize("env_name", ["LunarLander-v3", "LunarLanderContinuous-v3"])
def test_box2d_by_replay(env_name):
    envs = assert_branches_exactly(env_name, prefix=40, tail=60)
    assert (envs.branching, envs.storable_snapshots) == ("replay", True)


@pytest.mark.slow
def test_box2d_walkers_by_replay_on_new_instances():
    assert assert_branches_exactly("BipedalWalker-v3", prefix=40, tail=150).branching == "replay"


@pytest.mark.parametrize(
    ("entry_point", "brancher", "branching", "storable"),
    [
        (Walk, AttributeState, "exact", True),
        (Opaque, DeepCopy, "exact", False),
        (Locked, Replay, "replay", True),
    ],
)
def test_unknown_environments_by_what_is_proved(entry_point, brancher, branching, storable):
    with registered(entry_point, max_episode_steps=50) as env_name:
        envs = assert_branches_exactly(env_name, prefix=9, tail=60)
        assert find_branching(envs.spec).brancher is brancher
        assert (envs.branching, envs.storable_snapshots) == (branching, storable)


def test_environments_that_nothing_repeats_are_not_branched(caplog):
    with registered(Wild, max_episode_steps=50) as env_name:
        envs = make_vec_env(env_name, {}, 2)
        assert envs.branching == "none"
        assert "every group starts at a seeded reset" in caplog.text
        assert "differs from one run to the next" in caplog.text
        envs.reset(FIRST, [0])
        with pytest.raises(IncompatibleError, match="start_states='reset'"):
            envs.snapshot(0)
        with pytest.raises(IncompatibleError, match="start_states='reset'"):
            envs.restore(FIRST, {})
        envs.close()


@pytest.mark.parametrize(
    ("env_name", "brancher"),
    [
        ("Hopper-v5", DeepCopy),  # a deep copy of MuJoCo goes on differently
        ("Hopper-v5", AttributeState),  # the simulation is no plain data
        ("LunarLander-v3", AttributeState),
    ],
)
def test_ways_that_are_wrong_for_a_family_are_refused(env_name, brancher):
    assert why_not_exact(check_environment(env_name), brancher) is not None


def test_a_stack_of_frames_is_plain_data():
    stack = {"name": "FrameStackObservation", "kwargs": {"stack_size": 3}}
    with registered(Walk, max_episode_steps=50) as env_name:
        envs = assert_branches_exactly(env_name, prefix=9, tail=60, wrappers=[stack])
        assert find_branching(envs.spec).brancher is AttributeState


def test_state_in_a_foreign_object_is_not_taken_for_plain_data():
    with registered(Opaque) as env_name:
        reason = why_not_exact(check_environment(env_name), AttributeState)
        assert "engine" in reason


def test_a_way_that_forgets_something_is_refused():
    class Forgetful(AttributeState):
        def restore(self, owner, member, snapshot):
            super().restore(owner, member, snapshot)
            owner.envs[member].unwrapped.memory["best"] = np.float64(0.0)

    with registered(Walk) as env_name:
        reason = why_not_exact(check_environment(env_name), Forgetful)
        assert "went on differently" in reason


def test_mujoco_needs_what_it_derived_in_its_last_step():
    """Ant's speed is read from a position that lags the state by a step."""

    class NoLag(MujocoState):
        def restore(self, owner, member, snapshot):
            super().restore(owner, member, snapshot)
            core = owner.envs[member].unwrapped
            mujoco.mj_forward(core.model, core.data)

    spec = check_environment("Ant-v5")
    assert why_not_exact(spec, MujocoState) is None
    assert "went on differently" in why_not_exact(spec, NoLag)


def test_an_instance_that_ages_is_made_anew_for_each_reset():
    with registered(Weary, max_episode_steps=50) as env_name:
        spec = check_environment(env_name)
        assert resets_afresh(spec)
        envs = assert_branches_exactly(env_name, prefix=9, tail=30)
        assert envs.branching == "exact"
    with registered(Walk) as env_name:
        assert not resets_afresh(check_environment(env_name))


def test_box2d_walkers_do_age():
    """The reason for new instances: a used world does not repeat an episode."""
    env = gym.make(gym.spec("BipedalWalker-v3"), disable_env_checker=True)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (300, 4)).astype(np.float32)

    def episode(seed):
        seen = [env.reset(seed=seed)[0]]
        for action in actions:
            observation, _, terminated, _, _ = env.step(action)
            seen.append(observation)
            if terminated:
                break
        return np.array(seen)

    new = [episode(seed) for seed in range(3)]
    used = [episode(seed) for seed in range(3)]
    env.close()
    assert any(not np.array_equal(a, b) for a, b in zip(new, used, strict=True))
    spec = check_environment("BipedalWalker-v3")
    assert resets_afresh(spec)


def test_what_is_raised_in_close_rules_a_way_out_and_nothing_else(caplog):
    with registered(Clinging, max_episode_steps=50) as env_name:
        spec = check_environment(env_name)
        plan = find_branching(spec)
        assert plan.brancher is Replay
        assert "DeepCopy (Toy-v0 raised RuntimeError in close: Not connected" in plan.reason
        envs = make_vec_env(env_name, {}, 2)
        for env in envs.envs:
            env.close()
        envs.close()
        assert "RuntimeError in close" in caplog.text


def test_trials_of_a_slow_environment_end_in_time_and_are_told(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(verification, "TRIAL_SECONDS", 0.4)
    with registered(Slow, max_episode_steps=5000) as env_name:
        started = time.monotonic()
        envs = make_vec_env(env_name, {}, 2)
        seconds = time.monotonic() - started
        assert envs.branching == "exact"
        envs.close()
    assert seconds < 5.0
    assert "Trying how Toy-v0 can be put into visited states" in caplog.text


@pytest.mark.rotated(14)
def test_what_trials_took_long_for_is_remembered_until_the_code_changes(tmp_path, monkeypatch):
    """Two processes: the second one knows, and asks anew when the module has changed."""
    module = tmp_path / "cached_toy.py"
    module.write_text(TOY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def steps_of_trials():
        run = subprocess.run(
            [sys.executable, "-c", ASK], capture_output=True, text=True, timeout=100, check=True
        )
        branching, steps = run.stdout.split()
        assert branching == "exact"
        return int(steps)

    assert steps_of_trials() > 100
    assert steps_of_trials() == 0
    assert (tmp_path / "cache" / "grpo-trials").stat().st_mode & 0o077 == 0
    module.write_text(TOY + "\n")
    assert steps_of_trials() > 100


TOY = """
import gymnasium as gym, numpy as np

class Toy(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.random(1)
        return self.state.copy(), {}

    def step(self, action):
        Toy.steps += 1
        self.state = self.state * 0.9
        return self.state.copy(), 1.0, False, False, {}
"""

ASK = """
import gymnasium as gym
gym.register("Toy-v0", entry_point="cached_toy:Toy", max_episode_steps=50)
from grpo.envs import make_vec_env, verification
verification._WORTH_KEEPING_SECONDS = 0.0
envs = make_vec_env("Toy-v0", {}, 2)
import cached_toy
print(envs.branching, cached_toy.Toy.steps)
"""


def test_every_step_is_counted_replays_included():
    with registered(Locked, max_episode_steps=500) as env_name:
        envs = make_vec_env(env_name, {}, 3)
        Locked.steps = 0  # proofs ran on instances of their own, and do not count
        envs.reset(np.array([0, 1, 2]), [1, 1, 1])
        walk(envs, FIRST, 11, 0)
        snapshot = envs.snapshot(0)
        assert envs.restore_cost(snapshot) == 11
        envs.restore(np.array([1, 2]), snapshot)
        envs.restore(FIRST, snapshot)  # there already, and replayed all the same
        assert envs.steps_taken == Locked.steps == 44
        walk(envs, SECOND, 5, 0)
        assert envs.steps_taken == Locked.steps == 49
        envs.close()


def test_an_episode_that_does_not_repeat_is_noticed_in_a_replay():
    with registered(Locked, max_episode_steps=500) as env_name:
        envs = make_vec_env(env_name, {}, 2)
        envs.reset(FIRST, [1])
        walk(envs, FIRST, 3, 0)
        snapshot = {**envs.snapshot(0), "seed": 2}
        with pytest.raises(EnvironmentFaultError, match="did not repeat"):
            envs.restore(SECOND, snapshot)
        envs.close()


def test_members_reset_with_the_same_seed_share_their_first_observation():
    for env_name in ("CartPole-v1", "LunarLander-v3", "Hopper-v5"):
        envs = make_vec_env(env_name, {}, 3, branching=False)
        observations = envs.reset(np.array([0, 1, 2]), [5, 5, 6])
        assert np.array_equal(observations[0], observations[1])
        assert not np.array_equal(observations[0], observations[2])
        envs.close()
