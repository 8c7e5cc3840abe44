"""Instances that are drawn: drawing changes nothing, and says why where it cannot be done."""

import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from grpo.envs import check_environment
from grpo.envs.rendering import make_drawn
from tests.algorithm.toy_environments import Walk, registered

ONE = np.array([0])


@pytest.fixture
def drawn():
    made = []

    def make(name, **kwargs):
        found = make_drawn(check_environment(name, kwargs))
        found.reset(ONE, [7])
        made.append(found)
        return found

    yield make
    for each in made:
        each.close()


class Painted(Walk):
    """Draws a grey that follows its steps, of the shape that it is told."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012

    def __init__(self, shape=(6, 8, 3), fails=False, render_mode=None) -> None:
        super().__init__()
        self.shape, self.fails, self.render_mode = shape, fails, render_mode

    def render(self):
        if self.fails:
            raise RuntimeError("no display was found")
        return np.full(self.shape, len(self.history), np.uint8)


def go_on(env, steps, action=1):
    for _ in range(steps):
        env.step(ONE, np.array([action]))
    return env.observation_of(0).copy()


def test_an_image_of_each_state_and_the_same_again_once_it_is_restored(drawn):
    env = drawn("CartPole-v1")
    first = env.draw()
    assert first.shape == (400, 600, 3)
    assert first.dtype == np.uint8
    there = env.snapshot(0)
    go_on(env, 6)
    assert not np.array_equal(env.draw(), first)
    env.restore(ONE, there)
    np.testing.assert_array_equal(env.draw(), first)


def test_drawing_changes_no_bit_of_what_comes(drawn):
    plain, watched = drawn("CartPole-v1"), drawn("CartPole-v1")
    for _ in range(8):
        watched.draw()
        assert go_on(watched, 1).tobytes() == go_on(plain, 1).tobytes()
        watched.restore(ONE, watched.snapshot(0))


def test_a_state_holds_nothing_that_draws_and_another_instance_takes_it(drawn):
    one, other = drawn("CartPole-v1"), drawn("CartPole-v1")
    one.draw()
    go_on(one, 5)
    kept = one.snapshot(0)
    assert "pygame" not in repr(kept)
    other.restore(ONE, kept)
    np.testing.assert_array_equal(other.draw(), one.draw())
    assert go_on(other, 5).tobytes() == go_on(one, 5).tobytes()


def test_branching_is_what_it_is_in_training(drawn):
    assert drawn("CartPole-v1").branching == "exact"
    assert drawn("CartPole-v1").fps == 50


def test_what_a_plug_in_draws_is_shown_at_its_own_rate(drawn):
    with registered(Painted) as name:
        env = drawn(name)
        go_on(env, 3, action=6)
        assert env.draw().tolist() == np.full((6, 8, 3), 3).tolist()
        assert env.fps == 12


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"fails": True}, "no display was found"),
        ({"shape": (6, 8)}, r"it draws arrays of shape \(6, 8\), not images"),
    ],
)
def test_what_fails_to_draw_is_played_on_and_says_why(drawn, kwargs, reason):
    with registered(Painted) as name:
        env = drawn(name, **kwargs)
        assert env.draw() is None
        assert env.draw() is None  # and is not tried again
        assert "cannot be drawn here" in env.why_not_drawn
        assert re.search(reason, env.why_not_drawn)
        go_on(env, 3, action=5)
        env.restore(ONE, env.snapshot(0))


class Silent(gym.Env):
    """Knows no way to draw, and refuses to be asked for one."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, False, {}


def test_what_knows_no_way_to_draw_is_played_without(drawn):
    with registered(Silent) as name:
        env = drawn(name)
        assert env.draw() is None
        assert env.why_not_drawn.startswith(f"{name} cannot be drawn here: ")
        assert go_on(env, 2).tolist() == [0.0, 0.0]
        assert env.fps == 30
