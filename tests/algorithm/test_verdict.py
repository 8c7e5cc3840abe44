"""What learned nothing says so: beside random actions, and beside what it started from."""

import json

import numpy as np
import pytest

from grpo import GRPO, Trainer, checkpoint, resolve_config
from grpo.actions import BoxActions, DiscreteActions, choices
from grpo.evaluation import Evaluation, evaluation_seeds
from grpo.statistics import Interval
from grpo.verdict import LEAST_EPISODES, Baseline, in_words
from tests.algorithm.builders import ACTIONS, CHOICES, NESTED


def evaluation(returns) -> Evaluation:
    returns = np.array(returns, np.float64)
    n = len(returns)
    return Evaluation(
        env_name="Toy-v0", returns=returns, lengths=np.ones(n, np.int64), seeds=evaluation_seeds(n),
        mean=returns.mean(), std=0.0, iqm=0.0, ci_low=0.0, ci_high=0.0,
    )  # fmt: skip


def test_a_baseline_by_hand():
    found = Baseline.of(evaluation([5.0, 7.0, 9.0, -100.0]), np.array([1.0, 2.0, 3.0]))
    # differences 4, 5, 6: mean 5, Student's t 4.303 of two degrees, 1 / sqrt(3)
    assert (found.episodes, found.mean, found.difference) == (3, 2.0, 5.0)
    assert found.ci_low == pytest.approx(5.0 - 4.3027 / 3**0.5, abs=1e-3)
    assert found.beaten
    assert not Baseline.of(evaluation([1.0, 2.0]), np.array([1.0, 2.0])).beaten


@pytest.mark.parametrize(
    ("random", "start", "said"),
    [
        ((9.0, 8.0, 10.0), (3.0, 2.0, 4.0), "Better than random actions by 9.00 (95 % interval "
         "8.00 to 10.00) and than its start by 3.00 (95 % interval 2.00 to 4.00)."),
        ((9.0, 8.0, 10.0), (0.0, 0.0, 0.0), "Better than random actions by 9.00 (95 % interval "
         "8.00 to 10.00), but not better than its start: difference +0.00 (95 % interval +0.00 to "
         "+0.00)."),
        ((-1.0, -2.0, 0.5), (0.0, 0.0, 0.0), "Not better than random actions: difference -1.00 "
         "(95 % interval -2.00 to +0.50), and not better than its start: difference +0.00 (95 % "
         "interval +0.00 to +0.00)."),
    ],
)  # fmt: skip
def test_the_words(random, start, said):
    assert in_words(Interval(*random), Interval(*start)) == said


def test_what_learned_is_better_than_both_and_what_did_not_than_its_start_never():
    learned = GRPO("CartPole-v1", seed=7)
    learned.learn(5_000)
    found = learned.verdict()
    assert found.better
    assert found.random.mean == pytest.approx(22.0, abs=8.0)
    assert found.random.ci_low > 400.0
    assert found.start.ci_low > 300.0
    # its observations are standardised by now: the same weights act in another way
    idle = GRPO("CartPole-v1", seed=7, learning_rate=1e-12)
    idle.learn(5_000)
    found = idle.verdict()
    assert found.random.beaten  # by luck
    assert (found.start.difference, found.start.ci_low, found.start.ci_high) == (0.0, 0.0, 0.0)
    assert not found.better
    assert "not better than its start" in found.sentence


def test_negative_returns():
    model = GRPO("Pendulum-v1", seed=1)
    model.learn(30_000)
    found = model.verdict(n_episodes=30)
    assert found.better
    assert found.random.mean < -900.0
    assert found.random.difference > 0.0


def test_one_that_starts_from_another_is_compared_with_that_one(tmp_path):
    parent = GRPO("CartPole-v1", seed=7)
    parent.learn(5_000)
    fields = {"seed": 8, "learning_rate": 1e-12, "normalize_observations": True}
    config = resolve_config(**fields, total_timesteps=2_000)
    trainer = Trainer(config, initial_policy=parent.policy)
    found = trainer.verdict(trainer.train().evaluation)
    assert found.random.beaten
    assert not found.start.beaten
    assert found.start.mean > 400.0
    # one that goes on from a checkpoint knows its parent still
    checkpoint.save(tmp_path / "half.npz", trainer.state(), {})
    state, _ = checkpoint.load(tmp_path / "half.npz")
    again = Trainer(config, state=state)
    assert again.verdict(again.train().evaluation) == found


def test_a_checkpoint_of_one_that_was_untrained_is_as_before(tmp_path):
    model = GRPO("CartPole-v1", seed=7)
    model.learn(600)
    model.save(tmp_path / "half.npz")
    with np.load(tmp_path / "half.npz") as file:
        assert "start" not in json.loads(file["meta"].tobytes())["state"]
    assert GRPO.load(tmp_path / "half.npz").verdict(30) == model.verdict(30)


def test_asking_changes_nothing_of_what_is_learned_after():
    asked, other = (GRPO("CartPole-v1", seed=3) for _ in range(2))
    for model in (asked, other):
        model.learn(1_000)
        before = model.policy.flat.copy(), model.policy.observation_mean.numpy().copy()
        if model is asked:
            assert model.verdict(30) == model.verdict(30)
        np.testing.assert_array_equal(model.policy.flat, before[0])
        np.testing.assert_array_equal(model.policy.observation_mean.numpy(), before[1])
        model.learn(1_000, reset_num_timesteps=False)
    np.testing.assert_array_equal(asked.policy.flat, other.policy.flat)


def test_baselines_play_no_more_steps_than_a_twentieth_of_the_training():
    short = GRPO("Pendulum-v1", seed=1)  # 200 steps an episode
    short.learn(1_000)
    assert short.verdict(30).random.episodes == LEAST_EPISODES
    assert short.verdict(3).random.episodes == 3
    trainer = short._trainer
    trainer._collector.timesteps = 100_000
    found = trainer.verdict(short.evaluate(30))
    assert (found.random.episodes, found.start.episodes) == (25, 25)


@pytest.mark.parametrize("name", ACTIONS)
def test_random_actions_are_uniform(name):
    action, rng = ACTIONS[name], np.random.default_rng(0)
    drawn = action.random(rng, 40_000).reshape(40_000, -1)
    assert drawn.shape == (40_000, int(np.prod(action.shape)))
    if name != "nested":
        return
    gear, force, unbounded, count, *_ = drawn.T
    for values, expected in ((gear, [-1, 0, 1]), (count, range(10))):
        found, counts = np.unique(values, return_counts=True)
        assert found.tolist() == list(expected)
        np.testing.assert_allclose(counts / 40_000, 1 / len(found), atol=0.01)
    assert (force.min(), force.max()) == pytest.approx((-1.0, 1.0), abs=1e-3)
    assert force.std() == pytest.approx(1 / 3**0.5, abs=0.01)
    assert (unbounded.min(), unbounded.max() > 2.0) == (-2.0, True)


@pytest.mark.parametrize("action", [DiscreteActions(n=3, start=4), CHOICES, NESTED])
def test_random_actions_are_among_those_allowed(action):
    rng = np.random.default_rng(0)
    allowed = np.zeros((500, sum(choices(action))), bool)
    last = np.cumsum(choices(action)) - 1
    allowed[:, last] = True  # of each choice the last one only
    once = action.random(rng, 500, allowed)
    parts = [action] if isinstance(action, DiscreteActions) else [p for _, p in action.parts]
    columns = [once[:, None]] if isinstance(action, DiscreteActions) else list(action.split(once))
    for part, column in zip(parts, columns, strict=True):
        if isinstance(part, BoxActions):
            assert len(np.unique(column, axis=0)) > 1
        else:
            assert len(np.unique(column, axis=0)) == 1
    if isinstance(action, DiscreteActions):
        assert set(once.tolist()) == {6}
        allowed[:, 0] = True
        assert set(action.random(rng, 500, allowed).tolist()) == {4, 6}
