"""Members in processes: the same bits with any number, faster, and honest when one is lost."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from grpo import GRPO, GRPOConfig
from grpo.envs import check_environment, make_vec_env
from grpo.envs.branching import AttributeState, NoBranching, Replay
from grpo.envs.subproc_vec_env import SubprocVecEnv
from grpo.envs.sync_vec_env import SyncVecEnv
from grpo.errors import (
    EnvironmentFaultError,
    IncompatibleError,
    OutOfRangeError,
    UnknownNameError,
)
from tests.algorithm.builders import assert_goes_on_as_if_never_paused
from tests.algorithm.test_masks import Strict
from tests.algorithm.test_spaces import Anything
from tests.algorithm.toy_environments import Walk

CORES = len(os.sched_getaffinity(0))


class Plain(Strict):
    """Its state is plain data, unlike that of a space which draws what is seen."""

    def draw(self):
        self.seen = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return super().draw()

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed, options=options)
        return self.seen, info

    def step(self, action):
        return self.seen, *super().step(action)[1:]


class Copied(Strict):
    """Only a deep copy goes on as it does: an attribute is no plain data."""

    def reset(self, *, seed=None, options=None):
        self.past = Past()
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.past.sum += float(np.sum(action))
        observation, reward, *rest = super().step(action)
        return observation, reward + 0.01 * self.past.sum, *rest


class Past:
    sum = 0.0


MAKERS = {
    "plain": Plain,
    "strict": Strict,
    "copied": Copied,
    "trees": lambda: Anything("dict", "dict"),
}


def trained(env: Any, workers: int) -> GRPO:
    model = GRPO(
        env, seed=3, n_steps=8, group_size=3, num_groups=2, env_workers=workers,
        normalize_rewards=True,
    )  # fmt: skip
    model.learn(400)
    return model


@pytest.mark.rotated(13)
@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        "copied",
        pytest.param("Hopper-v5", marks=pytest.mark.rotated(13)),
        *(pytest.param(kind, marks=pytest.mark.long) for kind in ("strict", "trees")),
        pytest.param("LunarLander-v3", marks=pytest.mark.long),
    ],
)
def test_any_number_of_workers_gives_the_same_bits(kind):
    env = MAKERS.get(kind, kind)
    none, one, four = (trained(env, workers) for workers in (0, 1, 4))
    assert type(four.get_env()) is SubprocVecEnv
    assert one.get_env().branching == four.get_env().branching
    np.testing.assert_array_equal(one.policy.flat, four.policy.flat)
    assert none.get_env().storable_snapshots or kind in ("strict", "copied", "trees")
    if none.get_env().storable_snapshots:  # others are copied, and copies cannot travel
        np.testing.assert_array_equal(none.policy.flat, four.policy.flat)
    assert none.num_timesteps == four.num_timesteps == 400
    played = [model.evaluate(3).returns.tolist() for model in (one, four)]
    assert played[0] == played[1]
    for model in (one, four):
        model.get_env().close()


def test_what_cannot_be_handed_over_is_played_again():
    envs = make_vec_env("<e>", {}, 2, objects={"<e>": Copied}, env_workers=2)
    assert (envs.branching, envs.storable_snapshots) == ("replay", True)
    assert "another process" in envs.branching_reason
    assert make_vec_env("<e>", {}, 2, objects={"<e>": Copied}).branching == "exact"
    envs.close()


@pytest.mark.rotated(8)
@pytest.mark.parametrize("workers", [0, 3])
def test_a_run_with_workers_goes_on_as_if_never_paused(tmp_path, workers):
    fields = {"seed": 3, "n_steps": 8, "group_size": 4, "total_timesteps": 400}
    found = assert_goes_on_as_if_never_paused(tmp_path, Plain, env_workers=workers, **fields)
    assert type(found.get_env()) is (SubprocVecEnv if workers else SyncVecEnv)


def test_members_step_as_they_do_in_one_process():
    spec = check_environment("Hopper-v5")
    alone, apart = SyncVecEnv(spec, 5, NoBranching()), SubprocVecEnv(spec, 5, 2, NoBranching)
    members, seeds = np.array([4, 0, 3]), [7, 8, 9]
    np.testing.assert_array_equal(alone.reset(members, seeds), apart.reset(members, seeds))
    for actions in spec.action.random(np.random.default_rng(0), 60).reshape(20, 3, -1):
        for one, two in zip(
            alone.step(members, actions), apart.step(members, actions), strict=True
        ):
            np.testing.assert_array_equal(one, two)
            assert one.dtype == two.dtype
    assert alone.steps_taken == apart.steps_taken == 60
    for envs in (alone, apart):
        envs.close()


class Slow(Strict):
    def step(self, action):
        time.sleep(0.02)
        return super().step(action)


def test_they_are_stepped_side_by_side():
    spec = check_environment("<e>", objects={"<e>": Slow})
    envs = SubprocVecEnv(spec, 8, 8, AttributeState)
    members = np.arange(8)
    rows = envs.reset(members, range(8))
    began = time.monotonic()
    for _ in range(5):
        masks = spec.observation.masks(rows)
        rows = envs.step(members, 3 + masks.argmax(axis=1)).observations
    assert time.monotonic() - began < 0.5 * 5 * 8 * 0.02
    envs.close()


class Faulty(gymnasium.Env[Any, Any]):
    """After some steps of one instance it does what it must not."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)

    def __init__(self, what: str = "raise") -> None:
        self.what, self.time = what, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.time += 1
        print(f"step {self.time} of {self.what}", flush=True)
        if self.time == 5:
            match self.what:
                case "raise":
                    raise RuntimeError("the floor gave way")
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "exit":
                    os._exit(7)
                case "hang":
                    time.sleep(60)
                case "nan":
                    return np.zeros(2, np.float32), float("nan"), False, False, {}
        return np.zeros(2, np.float32), 1.0, False, False, {}


@pytest.mark.rotated(6)
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("raise", "the floor gave way"),
        ("die", "Worker 1 of .*, which steps members 1, 3, was killed by signal 9.*step 5 of die"),
        ("exit", "Worker 1 of .* ended with exit code 7. It last printed: .*step 5 of exit"),
        ("hang", "Worker 1 of .* gave no answer for 1 s. It last printed: .*step 5 of hang"),
        ("nan", "not finite"),
    ],
)
def test_a_worker_that_is_lost_is_named_with_what_it_printed_last(what, says):
    spec = check_environment("<e>", objects={"<e>": lambda: Faulty(what)})
    envs = SubprocVecEnv(spec, 4, 2, NoBranching, silence_seconds=1.0)
    only = np.array([1])
    envs.reset(np.arange(4), range(4))
    for _ in range(4):
        envs.step(only, np.array([0]))
    with pytest.raises(EnvironmentFaultError, match=says):
        envs.step(only, np.array([0]))
    began = time.monotonic()
    envs.close()
    envs.close()
    assert time.monotonic() - began < 7


def test_workers_end_with_their_owner(tmp_path: Path):
    """Killed outright, it leaves nobody behind."""
    pid = os.fork()
    if pid == 0:
        envs = SubprocVecEnv(check_environment("Hopper-v5"), 2, 2, NoBranching)
        (tmp_path / "pids").write_text(" ".join(str(w._pid) for w in envs._workers))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    workers = [int(text) for text in (tmp_path / "pids").read_text().split()]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(map(lives, workers)):
        time.sleep(0.05)
    assert not any(map(lives, workers))


def lives(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def test_more_workers_than_members_are_refused():
    with pytest.raises(IncompatibleError, match="4 members") as caught:
        GRPOConfig(group_size=4, env_workers=5)
    assert caught.value.field == "env_workers"


def test_classic_control_is_one_array_whatever_the_workers():
    model = GRPO("Pendulum-v1", seed=1, env_workers=2)
    assert type(model.get_env()) is not SubprocVecEnv


def test_replays_are_counted_wherever_they_happen():
    spec = check_environment("<e>", objects={"<e>": Strict})
    envs = SubprocVecEnv(spec, 3, 3, Replay)
    rows = envs.reset(np.array([0]), [5])
    for _ in range(4):
        allowed = spec.observation.masks(rows)
        rows = envs.step(np.array([0]), 3 + allowed.argmax(axis=1)).observations
    snapshot = envs.snapshot(0)
    assert envs.restore_cost(snapshot) == 4
    restored = envs.restore(np.array([1, 2]), snapshot)
    np.testing.assert_array_equal(restored, np.concatenate([rows, rows]))
    assert envs.steps_taken == 4 + 2 * 4
    envs.close()


class Busy(Walk):
    """Computes for a while at each step."""

    def step(self, action):
        until = time.process_time() + 0.004
        while time.process_time() < until:
            pass
        return super().step(action)


class Asleep(Walk):
    """Waits at each step, as for a server."""

    def step(self, action):
        time.sleep(0.01)
        return super().step(action)


@pytest.mark.rotated(11)
@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (Walk, {0}),  # talking to processes would take longer
        (Busy, {0} if CORES == 1 else {*range(CORES, 8)}),  # a busy machine interrupts it
        (Asleep, {8}),  # as many as there are members
        ("CartPole-v1", {0}),
    ],
)
def test_auto_takes_as_many_workers_as_pay(env, expected):
    known = env if isinstance(env, str) else "<e>"
    envs = make_vec_env(known, {}, 8, objects={"<e>": env}, env_workers="auto")
    try:
        assert len(getattr(envs, "_workers", [])) in expected
    finally:
        envs.close()


@pytest.mark.rotated(13)
def test_auto_changes_no_result_where_copies_cannot_travel():
    class Slow(Copied):
        def step(self, action):
            time.sleep(0.01)
            return super().step(action)

    envs = make_vec_env("<e>", {}, 4, objects={"<e>": Slow}, env_workers="auto")
    assert type(envs) is SyncVecEnv
    envs.close()


def test_auto_is_a_setting_and_other_words_are_not():
    assert GRPOConfig(env_workers="auto").to_dict()["env_workers"] == "auto"
    with pytest.raises(UnknownNameError, match="auto"):
        GRPOConfig(env_workers="atuo")
    with pytest.raises(OutOfRangeError, match="must be of type int"):
        GRPOConfig(env_workers=1.5)
