"""Scenarios played: by hand-made policies in environments whose every number is known."""

import json
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from grpo.envs import check_environment, make_vec_env
from grpo.errors import EnvironmentFaultError, IncompatibleError
from grpo.scenarios.assertions import Assertion
from grpo.scenarios.environment import Stage
from grpo.scenarios.playing import MEMBERS, check_suite, play_suite, replay
from grpo.scenarios.results import SuiteResult
from grpo.scenarios.suite import Scenario, Start, Suite, snapshot_to_json
from tests.algorithm.toy_environments import registered


class Line(gym.Env):
    """A place on a line, moved by the action; the reward is the place, an episode has 4 steps."""

    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float64)
    action_space = spaces.Discrete(3)
    stride = 1.0

    def __init__(self, wide: bool = False, slope: float = 0.0) -> None:
        self.slope = slope
        self.place, self.count = 0.0, 0
        if wide:
            self.observation_space = spaces.Box(-100.0, 100.0, (3,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.count = float(seed % 10), 0
        return self._observation(), {}

    def step(self, action):
        self.count += 1
        self.place += self.stride * (int(action) - 1) + self.slope
        return self._observation(), self.place, self.count == 4, False, {}

    def _observation(self):
        return np.array([self.place, self.count, 0.0][: self.observation_space.shape[0]])


class Choosy(Line):
    """Says which actions may be taken."""

    def action_masks(self):
        return np.ones(3, np.int8)


class Scripted:
    """Takes one action after the other, by the steps that an observation tells."""

    def __init__(self, *actions):
        self.actions = np.array(actions)
        self.seen = []

    def act(self, observations):
        self.seen.append(np.array(observations))
        return self.actions[np.clip(observations[:, 1].astype(int), 0, len(self.actions) - 1)]


UP = Scripted(2)


def scenario(*assertions, seeds=(0,), **fields):
    starts = fields.pop("starts", tuple(Start(seed=seed) for seed in seeds))
    fields.setdefault("episodes", len(starts))
    return Scenario(
        name="it", assertions=tuple(map(Assertion.parse, assertions)), starts=starts, **fields
    )


@pytest.fixture(scope="module")
def line():
    with registered(Line) as env_name:
        yield env_name


def play(env_name, one, policy=UP, env_kwargs=None, **further):
    found = play_suite(policy, Suite(scenarios=(one,)), env_name, env_kwargs or {}, **further)
    return found.scenarios[0]


def only(result):
    (assertion,) = result.assertions
    return assertion


@pytest.mark.parametrize(
    ("text", "passed", "held", "failed"),
    [
        # from places 0, 1, 2, 3 upwards: returns 10, 14, 18, 22
        ("return >= 10", True, 4, []),
        ("return > 10", False, 3, [(0, 4, 10.0)]),
        ("return >= 14 in 75% of episodes", True, 3, []),
        ("return >= 15 in 75% of episodes", False, 2, [(0, 4, 10.0), (1, 4, 14.0)]),
        ("return <= 14", False, 2, [(2, 4, 18.0), (3, 4, 22.0)]),
        ("length >= 4", True, 4, []),
        ("length < 4", False, 0, [(0, 4, 4.0), (1, 4, 4.0), (2, 4, 4.0)]),
        ("never observation[0] > 6", False, 3, [(3, 4, 7.0)]),
        ("never observation[0] >= 3", False, 0, [(0, 3, 3.0), (1, 2, 3.0), (2, 1, 3.0)]),
        ("never |observation[0]| > 6 in 75% of episodes", True, 3, []),
        ("always observation[1] < 4", False, 0, [(0, 4, 4.0), (1, 4, 4.0), (2, 4, 4.0)]),
        ("always observation[0] >= 1", False, 3, [(0, 0, 0.0)]),
    ],
)
def test_shares_of_episodes(line, text, passed, held, failed):
    result = play(line, scenario(text, seeds=(0, 1, 2, 3)))
    found = only(result)
    assert (found.passed, found.figures["held"], result.mean_return) == (passed, held, 16.0)
    assert [(f.episode, f.step, f.value) for f in found.failures] == failed
    assert all(f.actions == [2, 2, 2, 2] and f.steps == 4 for f in found.failures)


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("mean return >= 16", True),
        ("mean return > 16", False),
        ("mean length <= 4", True),
        ("mean length < 4", False),
    ],
)
def test_means(line, text, passed):
    found = only(play(line, scenario(text, seeds=(0, 1, 2, 3))))
    assert found.passed is passed
    assert found.figures["mean"] == (16.0 if "return" in text else 4.0)
    assert bool(found.failures) is not passed


def test_a_share_is_told_with_its_interval(line):
    """Wilson's interval of 95 of 100, as Brown, Cai and DasGupta (2001) define it."""
    seeds = [0] * 5 + [1] * 95
    found = only(play(line, scenario("return > 10 in 95% of 100 episodes", seeds=seeds)))
    assert found.passed
    assert found.figures["low"] == pytest.approx(0.88825, abs=1e-5)
    assert found.figures["high"] == pytest.approx(0.97846, abs=1e-5)
    assert not only(play(line, scenario("return > 10 in 95.1% of episodes", seeds=seeds))).passed


def test_an_action_that_is_late(line):
    """Of actions up, stay, stay, down: two steps late, up is held for three steps."""
    policy = Scripted(2, 1, 1, 0)
    for delay, total in [(0, 1 + 1 + 1 + 0), (1, 1 + 2 + 2 + 2), (2, 1 + 2 + 3 + 3)]:
        result = play(line, scenario("return > 99", action_delay=delay), policy)
        assert only(result).failures[0].value == total
    assert only(result).failures[0].actions == [2, 2, 2, 1]


def test_noise_is_seen_and_not_judged_and_is_seeded(line):
    class Watching(Scripted):
        def act(self, observations):
            super().act(observations)
            return np.full(len(observations), 2)

    seen = []
    for seed in (5, 5, 6):
        policy = Watching(2)
        one = scenario(
            "never observation[0] > 4", seed=seed, observation_noise={"observation[0]": 0.5}
        )
        assert only(play(line, one, policy)).passed
        seen.append(np.array(policy.seen)[:, 0])
    drawn = np.random.default_rng([5, 0, 1]).standard_normal((4, 2))
    assert seen[0][:, 0] == pytest.approx(np.arange(4) + 0.5 * drawn[:, 0])
    assert seen[0][:, 1].tolist() == [0, 1, 2, 3]  # of this one no noise was asked for
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])
    both = Watching(2)
    play(line, scenario("length > 0", observation_noise=0.5, seed=5), both)
    assert np.array(both.seen)[:, 0, 1] == pytest.approx(np.arange(4) + 0.5 * drawn[:, 1])


def test_other_physics_and_keyword_arguments(line):
    faster = only(play(line, scenario("return > 99", physics={"stride": 3})))
    assert faster.failures[0].value == 3 + 6 + 9 + 12
    tilted = only(play(line, scenario("return > 99", env_kwargs={"slope": 1.0})))
    assert tilted.failures[0].value == 2 + 4 + 6 + 8
    over = play(line, scenario("return > 99", env_kwargs={"slope": 1.0}), env_kwargs={"slope": 5.0})
    assert only(over).failures[0].value == 2 + 4 + 6 + 8
    assert Line.stride == 1.0


def test_an_episode_is_cut(line):
    assert only(play(line, scenario("length <= 2", max_steps=2))).passed


@pytest.mark.rotated(7)
def test_what_is_timed_is_what_serves(line):
    asked = []

    def slow(row):
        asked.append(row.shape)
        return lambda: time.sleep(0.002)

    one = scenario("latency <= 1 ms", "p99 latency <= 1 s")
    median, p99 = play(line, one, answer=slow).assertions
    assert (median.passed, p99.passed) == (False, True)
    assert median.figures == p99.figures
    assert 2_000 <= median.figures["median_us"] <= median.figures["p99_us"]
    assert set(asked) == {(2,)}
    assert median.failures == ()


def test_what_failed_is_the_same_when_it_is_played_again(line):
    starts = tuple(Start(seed=n) for n in range(MEMBERS + 3))
    one = scenario("return > 99", starts=starts, observation_noise=0.3, action_delay=1, episodes=40)
    suite = Suite(scenarios=(one,))
    policy = Scripted(2, 0, 2, 1)
    result = play_suite(policy, suite, line, {})
    assert SuiteResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    for failure in only(result.scenarios[0]).failures:
        (again,) = replay(policy, suite, "it", failure.episode, line, {}).values()
        assert again == failure
    other = replay(Scripted(0), suite, "it", 0, line, {})
    assert other["return > 99"].trace_sha256 != only(result.scenarios[0]).failures[0].trace_sha256
    with pytest.raises(IncompatibleError, match="no episode 40"):
        replay(policy, suite, "it", 40, line, {})


STATES = [
    ("CartPole-v1", {"x": 0.5, "x_dot": -0.25, "theta": 0.125, "theta_dot": 1.0},
     [0.5, -0.25, 0.125, 1.0]),
    ("MountainCar-v0", {"position": -0.25, "velocity": 0.03125}, [-0.25, 0.03125]),
    ("MountainCarContinuous-v0", {"position": -0.25, "velocity": 0.03125}, [-0.25, 0.03125]),
    ("Pendulum-v1", {"theta": 0.0, "theta_dot": 0.5}, [1.0, 0.0, 0.5]),
    ("Acrobot-v1", {"theta1": 0.0, "theta2": np.pi / 2, "theta1_dot": 0.5, "theta2_dot": -0.5},
     [1.0, 0.0, 0.0, 1.0, 0.5, -0.5]),
]  # fmt: skip


def stage_of(env_name, **fields):
    one = scenario("length > 0", **fields)
    return Stage(check_environment(env_name), one, "scenarios[0]", 2)


@pytest.mark.parametrize(("env_name", "state", "observed"), STATES)
def test_classic_control_is_put_into_named_states(env_name, state, observed):
    stage = stage_of(env_name, starts=(Start(state=state),))
    stage.begin(0, 0, 3)
    assert stage.envs.observation_of(0) == pytest.approx(observed, abs=1e-7)
    core = stage.envs.envs[0].unwrapped
    assert np.allclose(core.state, list(state.values()))
    stage.close()


def test_variables_that_are_not_named_stay_as_the_reset_left_them():
    stage = stage_of("CartPole-v1", starts=(Start(state={"theta": 0.2}),))
    stage.begin(0, 0, 3)
    plain = gym.make("CartPole-v1")
    expected, _ = plain.reset(seed=3)
    expected[2] = np.float32(0.2)
    assert stage.envs.observation_of(0).tolist() == expected.tolist()
    stage.close()
    plain.close()


def test_wrappers_see_the_state():
    wrapped = {"wrappers": [{"name": "FrameStackObservation", "kwargs": {"stack_size": 2}}]}
    one = scenario(
        "always observation[0, 2] > 0", "always observation[0, 2] < 0.15", max_steps=1,
        starts=(Start(state={"theta": 0.1}),),
    )  # fmt: skip

    class Left:
        def act(self, observations):
            return np.zeros(len(observations), int)

    assert play("CartPole-v1", one, Left(), wrapped).passed


@pytest.mark.parametrize("steps", [0, 1, 12])
@pytest.mark.parametrize("env_name", [name for name, _, _ in STATES])
def test_snapshots_of_classic_control_go_on_bit_for_bit(env_name, steps):
    envs = make_vec_env(env_name, None, 1)
    member = np.array([0])
    actions = envs.spec.action.random(np.random.default_rng(0), steps + 8)
    envs.reset(member, [11])
    for action in actions[:steps]:
        envs.step(member, action[None])
    stage = stage_of(env_name, starts=(Start(snapshot=snapshot_to_json(envs.snapshot(0))),))
    stage.begin(1, 0, 5)
    for action in actions[steps:]:
        expected = envs.step(member, action[None])
        found = stage.envs.step(np.array([1]), action[None])
        assert found.observations.tobytes() == expected.observations.tobytes()
        assert found.rewards.tobytes() == expected.rewards.tobytes()
        assert found.truncated == expected.truncated
        if expected.terminated[0]:
            break
    stage.close()


@pytest.mark.parametrize("env_name", ["Hopper-v5", "line"])
def test_other_snapshots_go_on_bit_for_bit(line, env_name):
    name = line if env_name == "line" else env_name
    envs = make_vec_env(name, None, 1)
    member = np.array([0])
    actions = envs.spec.action.random(np.random.default_rng(0), 6)
    envs.reset(member, [11])
    for action in actions[:2]:
        envs.step(member, action[None])
    snapshot = json.loads(json.dumps(snapshot_to_json(envs.snapshot(0))))
    stage = stage_of(name, starts=(Start(snapshot=snapshot),))
    for number in range(2):
        stage.begin(number, 0, 5)
    for action in actions[2:4]:
        expected = envs.step(member, action[None])
        both = stage.envs.step(np.array([0, 1]), np.stack([action, action]))
        for i in range(2):
            assert both.observations[i].tobytes() == expected.observations[0].tobytes()
    stage.close()


def test_mujoco_is_put_into_a_state_and_weighs_more():
    stage = stage_of(
        "Hopper-v5",
        starts=(Start(state={"qpos": [0, 1.5, 0, 0, 0, 0], "qvel": [0.25] * 6}),),
        physics={"gravity": -3.0, "mass_scale": 2, "friction_scale": 0.5, "damping_scale": 1},
    )
    plain = gym.make("Hopper-v5").unwrapped.model
    stage.begin(0, 0, 0)
    assert stage.envs.observation_of(0)[0] == 1.5
    assert stage.envs.observation_of(0)[5:].tolist() == [0.25] * 6
    model = stage.envs.envs[0].unwrapped.model
    assert model.opt.gravity.tolist() == [0, 0, -3]
    assert np.allclose(model.body_mass, 2 * plain.body_mass)
    assert np.allclose(model.geom_friction, 0.5 * plain.geom_friction)
    stage.close()


def test_the_pole_is_longer_and_what_follows_from_it():
    stage = stage_of("CartPole-v1", physics={"length": 1.0, "masspole": 0.5, "gravity": 20})
    core = stage.envs.envs[0].unwrapped
    assert (core.length, core.total_mass, core.polemass_length) == (1.0, 1.5, 0.5)
    assert (core.gravity, gym.make("CartPole-v1").unwrapped.gravity) == (20, 9.8)
    stage.close()


@pytest.mark.parametrize(
    ("env_name", "fields", "place", "said"),
    [
        ("CartPole-v1", {"starts": (Start(state={"tetha": 1}),)}, "start[0]", "mean 'theta'"),
        ("CartPole-v1", {"starts": (Start(seed=1), Start(state={"x": [1]}))}, "start[1]", "one"),
        ("Hopper-v5", {"starts": (Start(state={"qpos": [1.0]}),)}, "start[0]", "6 numbers, not 1"),
        ("line", {"starts": (Start(state={"place": 1}),)}, "start[0]", "seed or a snapshot"),
        ("line", {"starts": (Start(snapshot={"state": [1, 2]}),)}, "start[0]", "not of"),
        ("CartPole-v1", {"starts": (Start(snapshot={"state": [1, 2]}),)}, "start[0]", "not of"),
        ("line", {"starts": (Start(snapshot={"what": 1}),)}, "start[0].snapshot", "no snapshot"),
        (
            "line",
            {"starts": (Start(snapshot={"attributes": "[{}]", "observation": [0, 0]}),)},
            "start[0]",
            "not of this environment",
        ),
        ("CartPole-v1", {"physics": {"gravty": 1}}, "perturb.physics.gravty", "mean 'gravity'"),
        ("Hopper-v5", {"physics": {"mass": 1}}, "perturb.physics.mass", "mass_scale"),
        ("Hopper-v5", {"physics": {"mass_scale": -1}}, "perturb.physics.mass_scale", "factor"),
        ("line", {"env_kwargs": {"nope": 1}}, "perturb.env_kwargs", "does not take"),
        ("line", {"env_kwargs": {"wide": True}}, "perturb.env_kwargs", "policy does not fit"),
        ("line", {"observation_noise": {"y": 1}}, "perturb.observation_noise", "There are"),
        ("Taxi-v4", {"observation_noise": 0.1}, "perturb.observation_noise", "continuously"),
        ("line", {"text": "never y > 1"}, "assert[0]", "observation[0]"),
        ("line", {"text": "never observation[7] > 1"}, "assert[0]", "has shape (2,)"),
        ("CartPole-v1", {"text": "never thetta > 1"}, "assert[0]", "mean 'theta'"),
    ],
)  # fmt: skip
def test_what_an_environment_cannot_take_is_refused_at_its_place(
    line, env_name, fields, place, said
):
    name = line if env_name == "line" else env_name
    text = fields.pop("text", "length > 0")
    suite = Suite(scenarios=(scenario("length > 0"), scenario(text, **fields)))
    with pytest.raises(IncompatibleError) as caught:
        check_suite(suite, name, {})
    assert caught.value.field == f"scenarios[1].{place}"
    assert str(caught.value).startswith(f"scenarios[1].{place}: ")
    assert said in str(caught.value)


def test_late_actions_are_refused_where_some_may_not_be_taken():
    with (
        registered(Choosy, "Choosy-v0") as env_name,
        pytest.raises(IncompatibleError, match="forbidden"),
    ):
        check_suite(Suite(scenarios=(scenario("length > 0", action_delay=1),)), env_name, {})


def test_time_that_is_over_is_told(line):
    with pytest.raises(EnvironmentFaultError, match=r"Scenario 'it': .* time"):
        play(line, scenario("length > 0"), seconds=-1.0)
