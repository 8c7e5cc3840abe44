"""From a rollout to a batch: bootstrap, normaliser, reference; and what is said about an update."""

import numpy as np
import pytest
import torch

from grpo import learner, torch_updater
from grpo.learner import Learner
from grpo.rng import Streams
from grpo.rollout import Rollout
from tests.algorithm.builders import make_policy, short_config


def make_rollout(seed=0):
    """Three members: one dies at its second step, one is truncated there, one is cut after three.

    All pay 1 a step.
    """
    rng = np.random.default_rng(seed)
    alive = np.array([[[1, 1, 1]], [[1, 1, 1]], [[0, 0, 1]]], np.bool_)
    return Rollout(
        alive=alive,
        observations=5.0 + rng.standard_normal((7, 4)),
        actions=rng.integers(0, 3, 7),
        rewards=np.ones(7),
        last_observations=5.0 + rng.standard_normal((3, 4)),
        terminated=np.array([True, False, False]),
        shared=np.ones(1, np.bool_),
        timesteps=np.array([3, 6, 7]),
        episodes=(),
    )


def make_learner(policy, **fields):
    return Learner(policy, short_config(gamma=0.5, **fields), Streams.from_seed(0))


def by_member(rollout, values):
    return rollout.padded(np.asarray(values, np.float64))[:, 0].T


def test_without_bootstrap_nothing_lies_beyond_a_segment():
    rollout = make_rollout()
    returns = make_learner(make_policy()).compare(rollout).returns
    np.testing.assert_array_equal(
        by_member(rollout, returns), [[1.5, 1, 0], [1.5, 1, 0], [1.75, 1.5, 1]]
    )


def test_with_bootstrap_only_a_terminal_state_has_nothing_beyond_it():
    rollout, policy = make_rollout(), make_policy()
    returns = by_member(rollout, make_learner(policy, bootstrap=True).compare(rollout).returns)
    _, truncated, cut = policy.values(policy.encode(rollout.last_observations))
    assert min(abs(truncated), abs(cut)) > 1e-3
    expected = [
        [1.5, 1, 0],
        [1.5 + truncated / 4, 1 + truncated / 2, 0],
        [1.75 + cut / 8, 1.5 + cut / 4, 1 + cut / 2],
    ]
    np.testing.assert_allclose(returns, expected, rtol=1e-12)


def test_a_rollout_is_in_the_normaliser_before_it_is_learned_from():
    rollout, policy = make_rollout(), make_policy()
    inputs = make_learner(policy).compare(rollout).encoded
    np.testing.assert_allclose(inputs[:-1].mean(axis=1), 0.0, atol=1e-9)
    np.testing.assert_allclose(inputs[:-1].std(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(inputs[-1], 1.0)


def test_the_reference_is_refreshed_after_so_many_iterations():
    policy = make_policy()
    learner = make_learner(policy, kl_coef=0.1, reference_iterations=3, bootstrap=True)
    assert learner.reference is None
    references, before = [], []
    for seed in range(7):
        before.append(policy.policy_parameters.flat.copy())
        rollout = make_rollout(seed)
        learner.learn(rollout, learner.compare(rollout))
        references.append(learner.reference)
    assert not np.array_equal(before[0], before[1])
    for iteration, reference in enumerate(references):
        np.testing.assert_array_equal(reference, before[iteration // 3 * 3])


def test_without_a_kl_term_there_is_no_reference():
    learner = make_learner(make_policy(), bootstrap=True)
    rollout = make_rollout()
    learner.learn(rollout, learner.compare(rollout))
    assert learner.reference is None


# --- diagnostics -----------------------------------------------------------------------------

RATIOS = np.array([0.5, 0.75, 1.0, 1.15, 1.4])


def test_clip_fraction_by_hand():
    assert learner.clip_fraction(np.log(RATIOS), 0.2, 0.3) == pytest.approx(3 / 5)
    assert learner.clip_fraction(np.log(RATIOS), 0.3, 0.1) == pytest.approx(3 / 5)
    assert learner.clip_fraction(np.log(RATIOS), 0.6, 0.3) == pytest.approx(1 / 5)


def test_divergence_by_hand():
    expected = np.mean([0.5 - 1 - np.log(0.5), 3.0 - 1 - np.log(3.0)])
    assert learner.k3_old_new(np.log([0.5, 3.0])) == pytest.approx(expected)
    assert learner.k3_old_new(np.zeros(3)) == 0.0


def test_explained_variance_by_hand():
    returns = np.array([1.0, 2.0, 3.0, 6.0])
    assert learner.explained_variance(returns, returns) == 1.0
    assert learner.explained_variance(np.full(4, 9.0), returns) == pytest.approx(0.0)
    assert learner.explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert learner.explained_variance(returns, np.ones(4)) == 0.0


@pytest.mark.parametrize("clip", [(0.2, 0.2), (0.1, 0.3)])
def test_the_reported_loss_is_the_one_that_is_minimised(clip):
    rng = np.random.default_rng(0)
    log_ratio, advantages = 0.4 * rng.standard_normal(60), rng.standard_normal(60)
    zeros = torch.zeros(60, dtype=torch.float64)
    expected = torch_updater.clipped_surrogate(
        torch.from_numpy(log_ratio), zeros, torch.from_numpy(advantages), *clip
    )
    assert learner.surrogate_loss(log_ratio, advantages, *clip) == pytest.approx(float(expected))
