"""Evaluation is seeded, vectorised and on the native reward; its statistics equal SciPy's."""

import gymnasium as gym
import numpy as np
import pytest

from grpo.errors import IncompatibleError, OutOfRangeError, UnknownNameError
from grpo.evaluation import (
    FIRST_EVALUATION_SEED,
    STEP_LIMIT,
    evaluate,
    evaluation_seeds,
    mean_interval,
    paired_difference,
)
from tests.algorithm.toy_environments import Shaped, Walk, registered


class Prediction:
    def __init__(self, actions):
        self.actions = actions


class Leaner:
    """Pushes to where the pole falls; sampled, it errs every third time."""

    def act(self, observations):
        return (observations[:, 2] + 0.4 * observations[:, 3] > 0).astype(np.int64)

    def predict(self, observations, deterministic=True, rng=None):
        actions = self.act(observations)
        if not deterministic:
            actions = np.where(rng.random(len(actions)) < 1 / 3, 1 - actions, actions)
        return Prediction(actions)


class First(Leaner):
    def act(self, observations):
        return np.zeros(len(observations), dtype=np.int64)


def play(policy, env_name, seed):
    """One episode, by the book."""
    env = gym.make(gym.spec(env_name), disable_env_checker=True)
    observation, _ = env.reset(seed=int(seed))
    total, length, done = 0.0, 0, False
    while not done:
        action = policy.act(observation[None])[0]
        observation, reward, terminated, truncated, _ = env.step(action)
        total, length, done = total + reward, length + 1, terminated or truncated
    env.close()
    return total, length


@pytest.mark.parametrize(
    ("env_name", "policy"),
    [("CartPole-v1", First()), ("Acrobot-v1", First()), ("LunarLander-v3", First())],
)
def test_episodes_side_by_side_are_those_one_by_one(env_name, policy):
    n = 20 if env_name == "LunarLander-v3" else 6  # more than there are instances
    found = evaluate(policy, env_name, n_episodes=n, seed=3)
    expected = [play(policy, env_name, seed) for seed in found.seeds]
    assert found.returns.tolist() == [total for total, _ in expected]
    assert found.lengths.tolist() == [length for _, length in expected]
    assert found.mean == pytest.approx(np.mean(found.returns))
    assert found.std == pytest.approx(np.std(found.returns))


def test_equal_seeds_give_equal_episodes_and_others_do_not():
    first = evaluate(First(), "CartPole-v1", n_episodes=30)
    again = evaluate(First(), "CartPole-v1", n_episodes=30)
    other = evaluate(First(), "CartPole-v1", n_episodes=30, seed=1)
    assert first.returns.tolist() == again.returns.tolist()
    assert (first.ci_low, first.ci_high) == (again.ci_low, again.ci_high)
    assert first.returns.tolist() != other.returns.tolist()


def test_sampled_actions_are_seeded_too():
    runs = [
        evaluate(Leaner(), "CartPole-v1", n_episodes=10, seed=s, deterministic=False).returns
        for s in (0, 0, 1)
    ]
    assert runs[0].tolist() == runs[1].tolist()
    assert runs[0].tolist() != runs[2].tolist()
    assert evaluate(Leaner(), "CartPole-v1", n_episodes=10).mean > runs[0].mean()


def test_seeds_lie_apart_from_trainings_and_nest():
    seeds = evaluation_seeds(1000)
    assert seeds.min() >= FIRST_EVALUATION_SEED
    assert seeds.max() < 2**32
    assert len(set(seeds.tolist())) == 1000
    assert evaluation_seeds(7).tolist() == seeds[:7].tolist()
    from grpo import rollout

    assert rollout._RESET_SEEDS == FIRST_EVALUATION_SEED


def test_the_reward_is_the_environments_own_and_kwargs_count():
    found = evaluate(First(), "CartPole-v1", env_kwargs={"max_episode_steps": 4}, n_episodes=3)
    assert found.returns.tolist() == [4.0] * 3
    found = evaluate(First(), "CartPole-v1", env_kwargs={"sutton_barto_reward": True}, n_episodes=3)
    assert found.returns.tolist() == [-1.0] * 3


def test_without_a_time_limit_an_episode_is_cut():
    with registered(lambda: Shaped(reward=0.5)) as env_name:
        found = evaluate(First(), env_name, n_episodes=1)
    assert found.lengths.tolist() == [STEP_LIMIT]
    assert found.mean == 0.5 * STEP_LIMIT


def test_an_evaluation_of_endless_episodes_is_bounded_and_says_so(caplog):
    with registered(lambda: Shaped(reward=0.5)) as env_name:
        found = evaluate(First(), env_name, n_episodes=100)
    assert found.lengths.tolist() == [1000] * 100
    assert found.cut == found.to_dict()["cut"] == 100
    assert "100 of 100 episodes of Toy-v0 had not ended after 1000 steps" in caplog.text
    assert "max_episode_steps" in caplog.text


def test_time_limits_are_the_environments_own_up_to_a_limit(caplog):
    with registered(lambda: Shaped(reward=0.5), max_episode_steps=1200) as env_name:
        found = evaluate(First(), env_name, n_episodes=100)
    assert found.lengths.tolist() == [1200] * 100
    assert found.cut == 0
    assert not caplog.text


def test_what_cannot_be_evaluated():
    with pytest.raises(OutOfRangeError):
        evaluate(First(), "CartPole-v1", n_episodes=0)
    with pytest.raises(UnknownNameError):
        evaluate(First(), "NoSuch-v0")


def test_few_instances_where_each_costs_much():
    made = []

    class Named(First):
        def act(self, observations):
            return super().act(observations) + Walk.action_space.start

    class Counted(Walk):
        def __init__(self):
            super().__init__()
            made.append(self)

    with registered(Counted, max_episode_steps=5) as env_name:
        first = evaluate(Named(), env_name, n_episodes=40)  # makes some more, to try them
        made.clear()
        again = evaluate(Named(), env_name, n_episodes=40)
        assert len(made) == 16
        assert again.returns.tolist() == first.returns.tolist()


def test_the_interval_beside_the_mean_is_the_means():
    """Returns as CartPole gives them: the interquartile mean's interval leaves the mean out."""
    with registered(lambda: Shaped(reward=1.0), max_episode_steps=5) as env_name:
        found = evaluate(First(), env_name, n_episodes=3)
    assert (found.mean, found.ci_low, found.ci_high) == (5.0, 5.0, 5.0)
    found = evaluate(Leaner(), "CartPole-v1", n_episodes=60, deterministic=False)
    assert (found.mean, found.ci_low, found.ci_high) == mean_interval(found.returns)


def test_paired_differences():
    good = evaluate(Leaner(), "CartPole-v1", n_episodes=40)
    bad = evaluate(First(), "CartPole-v1", n_episodes=40)
    interval = paired_difference(good, bad)
    assert interval.estimate == pytest.approx(np.mean(good.returns - bad.returns))
    assert 0 < interval.low < interval.estimate < interval.high
    back = paired_difference(bad, good)
    assert (back.low, back.high) == pytest.approx((-interval.high, -interval.low))
    assert paired_difference(good, good) == (0.0, 0.0, 0.0)
    for other in (
        evaluate(First(), "CartPole-v1", n_episodes=40, seed=1),
        evaluate(First(), "CartPole-v1", n_episodes=41),
        evaluate(First(), "CartPole-v0", n_episodes=40),
    ):
        with pytest.raises(IncompatibleError, match="same seeds"):
            paired_difference(good, other)


def test_figures_as_json():
    figures = evaluate(First(), "CartPole-v1", n_episodes=5).to_dict()
    assert figures["n_episodes"] == 5
    assert figures["mean_length"] == figures["mean"]
