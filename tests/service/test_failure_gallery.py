"""The gallery of failures: which episodes, cut where, alike how; and played again from there."""

import csv
import json
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from grpo.actions import DiscreteActions
from grpo.envs import check_environment, make_vec_env
from grpo.evaluation import evaluate
from grpo.policies import MlpPolicy, PolicySpec
from grpo.scenarios.suite import snapshot_from_json
from grpo_platform.jobs import failure_gallery
from grpo_platform.jobs.failure_gallery import (
    Gallery,
    find_collapse,
    group_alike,
    make_gallery,
    worst_episodes,
)
from tests.algorithm.toy_environments import Locked, registered

FIRST = np.array([0])


class Trap(gym.Env):
    """A straight road of 30 steps; in one of three episodes the ground gives way after step 12.

    Observed: steps taken, and how far the ground has sunk, which is what the value goes by.
    """

    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float64)
    action_space = spaces.Discrete(2)
    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.state = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.sinks = np.zeros(2), bool(self.np_random.random() < 1 / 3)
        return self.state.copy(), {}

    def step(self, action):
        self.state[0] += 1
        if self.sinks and self.state[0] > 12:
            self.state[1] += 1.0 + 0.01 * self.np_random.normal()
        fell = bool(self.state[1] >= 5)
        return self.state.copy(), 1.0, fell, bool(self.state[0] >= 30), {}

    def render(self):
        return np.full((32, 48, 3), int(40 * min(self.state[1], 5)), np.uint8)


def sinking_policy() -> MlpPolicy:
    """Always goes on; expects 10, and less as the ground sinks."""
    policy = MlpPolicy(PolicySpec(observation_shape=(2,), action=DiscreteActions(2),
                                  net_arch=(4,), normalize_observations=False))  # fmt: skip
    policy.flat[:] = 0.0
    with torch.no_grad():
        policy.policy_net[-1].bias[1] = 9.0
        policy.value_net[0].weight[0, 1] = 0.2
        policy.value_net[1].weight[0, 0] = -5.0
        policy.value_net[1].bias[0] = 10.0
    return policy


@pytest.fixture(scope="module")
def trap():
    with registered(Trap, "Trap-v0"):
        yield check_environment("Trap-v0")


@pytest.fixture(scope="module")
def made(trap, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    evaluation = evaluate(sinking_policy(), "Trap-v0", n_episodes=30)
    return make_gallery(sinking_policy(), trap, evaluation, 6, folder), folder, evaluation


def test_the_worst_are_below_the_median_lowest_first():
    returns = np.array([5.0, 1.0, 9.0, 1.0, 9.0, 9.0, 4.0])
    assert worst_episodes(returns, 10).tolist() == [1, 3, 6]
    assert worst_episodes(returns, 2).tolist() == [1, 3]
    assert worst_episodes(np.full(5, 3.0), 10).tolist() == []
    assert worst_episodes(np.array([2.0]), 10).tolist() == []


@pytest.mark.parametrize(
    ("values", "step", "before", "after", "window"),
    [
        ([5, 5, 5, 5, 1, 1, 1, 1], 3, 5, 1, 2),  # the last step at which all looked well
        ([10, 10, 9, 7, 4, 0, 0, 0], 3, 7, 0, 2),  # T = 8, so w = 2
        ([1, 9, 1, 8, 1, 1, 1, 1], 3, 8, 1, 2),  # from a peak that is not left at once
        ([0, 1, 2, 3, 4, 5, 6, 7], 5, 5, 7, 2),  # never falls: w before the last
        ([3, 3, 3, 3], 2, 3, 3, 1),
        ([3], 0, 3, 3, 0),
        ([9, 2], 0, 9, 2, 1),
    ],
)
def test_the_collapse_is_the_largest_fall_within_the_window(values, step, before, after, window):
    found = find_collapse(np.array(values, float))
    assert (found.step, found.before, found.after, found.window) == (step, before, after, window)


def test_the_window_is_20_steps_at_most():
    values = np.where(np.arange(400) < 200, 5.0, 5.0 - 0.1 * (np.arange(400) - 199))
    found = find_collapse(values)
    assert found.window == 20
    assert found.before - found.after == pytest.approx(2.0)


def test_failures_that_are_alike_are_one_group_and_numbers_follow_the_order():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    kinds = np.array([1, 0, 2, 1, 0, 2, 1, 0, 2])
    features = centres[kinds] + 0.1 * rng.normal(size=(9, 2))
    groups = group_alike(features)
    assert groups.tolist() == [1, 2, 3, 1, 2, 3, 1, 2, 3]
    assert group_alike(features).tolist() == groups.tolist()
    assert group_alike(np.ones((5, 3))).tolist() == [1] * 5
    assert group_alike(features[:2]).tolist() == [1, 1]
    line = np.arange(3.0)[:, None]  # as far from each other as from the next
    assert set(group_alike(line)) == {1}


def test_known_failures_are_found_and_cut_at_the_known_step(made):
    gallery, folder, evaluation = made
    sinking = evaluation.seeds[evaluation.returns < 30]
    assert 6 <= len(sinking) < 15
    assert {failure.seed for failure in gallery.failures} <= set(sinking.tolist())
    assert len(gallery.failures) == 6
    assert [failure.number for failure in gallery.failures] == [1, 2, 3, 4, 5, 6]
    for failure in gallery.failures:
        # 17 or 18 steps, so w = 5: the value before step 12, on firm ground, is the last high one
        assert failure.ended == "terminated"
        assert failure.collapse.step == 12
        assert failure.collapse.before == 10.0
    assert (gallery.episodes, gallery.median, gallery.notes) == (30, 30.0, ())
    written = json.loads((folder / "failures/gallery.json").read_text())
    assert Gallery.from_dict(written) == gallery


def test_a_failure_is_played_again_from_its_snapshot_bit_for_bit(made, trap):
    gallery, folder, _ = made
    envs = make_vec_env("Trap-v0", {}, 1)
    for failure in gallery.failures:
        snapshot = snapshot_from_json(json.loads((folder / failure.snapshot).read_text()))
        observed = envs.restore(FIRST, snapshot)
        with (folder / failure.trace).open(newline="") as file:
            rows = [
                {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)
            ]
        assert len(rows) == failure.length
        assert sum(row["reward"] for row in rows) == failure.total
        for row in rows[failure.collapse.step :]:
            seen = [row["observation_0"], row["observation_1"]]
            assert observed[0].tolist() == seen
            step = envs.step(FIRST, np.array([int(row["action_0"])]))
            assert step.rewards[0] == row["reward"]
            observed = step.observations
        assert step.terminated[0]
    envs.close()


def test_the_page_shows_every_clip_by_itself(made):
    gallery, folder, _ = made
    page = (folder / "failures/index.html").read_text()
    assert page.count("data:video/mp4;base64,") == 6
    assert page.count("<svg") == 6
    assert "http" not in page
    assert all(str(failure.seed) in page for failure in gallery.failures)
    assert all((folder / failure.clip).stat().st_size > 500 for failure in gallery.failures)


def test_what_cannot_be_set_or_filmed_is_told(tmp_path, monkeypatch):
    with registered(Locked, "Locked-v0", max_episode_steps=15):
        spec = check_environment("Locked-v0")
        policy = MlpPolicy(PolicySpec(observation_shape=(2, 2),
                                      action=DiscreteActions(2, start=5)), 1)  # fmt: skip
        evaluation = evaluate(policy, "Locked-v0", n_episodes=12)
        found = make_gallery(policy, spec, evaluation, 3, tmp_path / "locked")
    assert [failure.snapshot for failure in found.failures] == [None] * 3
    assert [failure.clip for failure in found.failures] == [None] * 3
    assert "cannot be set" in found.notes[0]
    assert found.notes[1].startswith("There are no clips: Locked-v0 cannot be filmed here")
    assert not list(tmp_path.rglob("*.mp4"))


def test_no_clips_are_made_where_the_operator_wants_none(trap, tmp_path):
    evaluation = evaluate(sinking_policy(), "Trap-v0", n_episodes=10)
    gallery = make_gallery(sinking_policy(), trap, evaluation, 3, tmp_path, clip_frames=0)
    assert gallery.notes == ("There are no clips: GRPO_VIDEO_FRAMES is 0.",)
    assert [failure.clip for failure in gallery.failures] == [None] * len(gallery.failures) != []
    assert not list(tmp_path.rglob("*.mp4"))


def test_a_policy_without_failures_has_no_gallery(trap, tmp_path, monkeypatch):
    monkeypatch.setattr(Trap, "reset", lambda self, **more: _firm(self, **more))
    evaluation = evaluate(sinking_policy(), "Trap-v0", n_episodes=10)
    monkeypatch.setattr(failure_gallery, "play", None)  # and nothing is played
    assert make_gallery(sinking_policy(), trap, evaluation, 6, tmp_path) is None
    assert not list(tmp_path.iterdir())


def _firm(env, *, seed=None, options=None):
    gym.Env.reset(env, seed=seed)
    env.state, env.sinks = np.zeros(2), False
    return env.state.copy(), {}
