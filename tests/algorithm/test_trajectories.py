"""Episodes that are kept whole: what is in them, and that they repeat bit for bit, or where not."""

import dataclasses

import numpy as np
import pytest

from grpo import GRPO
from grpo.evaluation import evaluate, evaluation_seeds
from grpo.trajectories import Divergence, play, replay
from tests.algorithm.builders import ACTIONS, make_policy
from tests.algorithm.toy_environments import Mixed, Walk, registered


def test_an_episode_is_what_evaluation_played() -> None:
    policy = GRPO("CartPole-v1", seed=3).policy
    seeds = evaluation_seeds(20)
    found = evaluate(policy, "CartPole-v1", n_episodes=20)
    played = list(play(policy, "CartPole-v1", seeds.tolist()))
    assert [one.seed for one in played] == seeds.tolist()
    assert [one.total for one in played] == found.returns.tolist()
    assert [one.length for one in played] == found.lengths.tolist()
    one = played[0]
    assert one.observations.shape == (one.length + 1, 4)
    assert one.terminated
    assert one.ended
    told = policy.predict(one.observations[:-1])
    assert np.array_equal(one.actions, told.actions)
    assert one.values == pytest.approx(told.values, abs=1e-5)
    chosen = told.action_probs[np.arange(one.length), one.actions]
    assert one.log_probs == pytest.approx(np.log(chosen), abs=1e-5)


@pytest.mark.parametrize("env_name", ["CartPole-v1", "Pendulum-v1", "Mixed-v0"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_episodes_repeat_bit_for_bit(env_name, deterministic) -> None:
    with registered(Mixed, "Mixed-v0", max_episode_steps=50):
        policy = GRPO(env_name, seed=3, policy="MlpPolicy").policy
        for one in play(policy, env_name, [5, 6, 7], deterministic=deterministic, step_limit=30):
            assert one.length <= 30
            assert np.isfinite(one.log_probs).all()
            assert replay(one, env_name) is None


def test_a_policy_with_memory_remembers_within_its_episode() -> None:
    policy = GRPO("CartPole-v1", seed=3, policy="RecurrentPolicy").policy
    found = evaluate(policy, "CartPole-v1", n_episodes=4)
    played = play(policy, "CartPole-v1", evaluation_seeds(4).tolist())
    assert [one.total for one in played] == found.returns.tolist()


@pytest.mark.parametrize("kind", sorted(ACTIONS))
def test_log_probabilities_are_those_of_the_samples_before_clipping(kind) -> None:
    policy = make_policy(ACTIONS[kind])
    observations = np.random.default_rng(0).normal(size=(50, 4))
    samples = policy.actor(np.random.default_rng(1)).sample(observations).copy()
    told = policy.predict(observations, False, np.random.default_rng(1))
    assert np.array_equal(told.actions, policy.to_env(samples))
    expected = policy.outputs(policy.encode(observations)).log_prob(samples)
    assert told.log_probs == pytest.approx(expected, rel=1e-9)


def test_the_first_step_that_differs_is_named() -> None:
    with registered(Walk, "Walk-v0", max_episode_steps=12):
        policy = GRPO("Walk-v0", seed=1).policy
        (one,) = play(policy, "Walk-v0", [4])
        assert replay(one, "Walk-v0") is None
        rewards, observations = one.rewards.copy(), one.observations.copy()
        rewards[6] = np.nextafter(rewards[6], np.inf)
        found = replay(dataclasses.replace(one, rewards=rewards), "Walk-v0")
        assert found == Divergence(4, 7, "reward", repr(float(rewards[6])),
                                   repr(float(one.rewards[6])))  # fmt: skip
        observations[3, 1, 0] += 1.0
        found = replay(dataclasses.replace(one, observations=observations), "Walk-v0")
        assert (found.step, found.what) == (3, "observation")
        assert found.then.startswith("[2] ")
        found = replay(dataclasses.replace(one, terminated=not one.terminated), "Walk-v0")
        assert (found.step, found.what) == (one.length, "end")
        found = replay(one, "Walk-v0", env_kwargs={"fail_at": 2})
        assert (found.step, found.what) == (3, "error")
        assert "the floor gave way" in found.now
