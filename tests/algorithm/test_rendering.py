"""Instances that are drawn: drawing changes nothing, and says why where it cannot be done."""

import ctypes
import re
from typing import ClassVar

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

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 12}

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


# --- MuJoCo, which draws by OpenGL -------------------------------------------------------


# the viewer that cannot be made complains once more when it is collected
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_mujoco_that_cannot_be_drawn_is_played_and_says_what_to_install(drawn, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    env = drawn("InvertedPendulum-v5")
    assert env.draw() is None
    assert env.why_not_drawn.startswith("InvertedPendulum-v5 cannot be drawn here: ")
    assert "install libegl1 or libosmesa6" in env.why_not_drawn
    there = env.snapshot(0)
    push = np.full((1, 1), 0.3, np.float32)
    first = env.step(ONE, push).observations.tobytes()
    env.restore(ONE, there)
    assert env.step(ONE, push).observations.tobytes() == first


def test_mujoco_is_drawn_without_a_display_where_egl_is_installed(drawn, monkeypatch):
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        pytest.skip("EGL is not installed")
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setenv("DISPLAY", "")
    plain, watched = drawn("InvertedPendulum-v5"), drawn("InvertedPendulum-v5")
    push = np.full((1, 1), 0.3, np.float32)
    first = watched.draw()
    if first is None:  # the library, but nothing that it could draw by
        pytest.skip(watched.why_not_drawn)
    assert first.shape == (480, 480, 3)
    there = watched.snapshot(0)
    for _ in range(6):
        moved = watched.step(ONE, push).observations.tobytes()
        assert moved == plain.step(ONE, push).observations.tobytes()
    assert not np.array_equal(watched.draw(), first)
    watched.restore(ONE, there)
    np.testing.assert_array_equal(watched.draw(), first)
