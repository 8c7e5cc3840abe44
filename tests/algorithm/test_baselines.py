"""What a step is judged against when a critic takes part: GAE, siblings' mean, shrinkage."""

import copy
import itertools
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer

from grpo import GRPO
from grpo.advantages import (
    Advantages,
    critic_advantages,
    generalized_advantages,
    group_advantages,
    segment_returns,
    shared_variance,
    standardized,
)
from grpo.config import GRPOConfig
from grpo.errors import IncompatibleError
from grpo.learner import Learner
from grpo.reporting import Reporter
from grpo.rng import Streams
from grpo.rollout import Rollout
from grpo.torch_updater import TorchUpdater
from tests.algorithm.builders import assert_goes_on_as_if_never_paused, make_policy, short_config
from tests.algorithm.test_advantages import TabularMDP, everyone

SHARED, ALONE = np.array([True]), np.array([False])


def test_gae_by_hand():
    # one dies at its second step, one is cut there with a value of 8 to come; γ = 1/2, λ = 1/2
    rewards = np.array([[1.0, 1.0], [2.0, 2.0]])
    values = np.array([[3.0, 3.0], [4.0, 4.0]])
    alive = np.ones((2, 2), np.bool_)
    # δ: 1 + 4/2 − 3 = 0 for both; 2 + 0 − 4 = −2 and 2 + 8/2 − 4 = 2
    expected = [[0.0 - 2.0 / 4, 0.0 + 2.0 / 4], [-2.0, 2.0]]
    found = generalized_advantages(rewards, values, alive, 0.5, 0.5, np.array([0.0, 8.0]))
    np.testing.assert_array_equal(found, expected)


@given(st.data())
def test_gae_equals_the_explicit_sum_for_every_length(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    lengths = np.array(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)))
    gamma, lam = data.draw(st.floats(0.0, 1.0)), data.draw(st.floats(0.0, 1.0))
    alive = np.arange(6)[:, None] < lengths
    rewards, values = rng.standard_normal((2, 6, len(lengths)))
    tail = rng.standard_normal(len(lengths))
    found = generalized_advantages(rewards, values, alive, gamma, lam, tail)
    for k, n in enumerate(lengths):
        v = [*values[:n, k], tail[k]]
        deltas = [rewards[t, k] + gamma * v[t + 1] - v[t] for t in range(n)]
        expected = [sum((gamma * lam) ** i * d for i, d in enumerate(deltas[t:])) for t in range(n)]
        np.testing.assert_allclose(found[:n, k], expected, rtol=1e-9, atol=1e-9)
        assert (found[n:, k] == 0.0).all()


def test_gae_is_that_of_stable_baselines3():
    rng, (steps, members) = np.random.default_rng(0), (7, 3)
    rewards, values = rng.standard_normal((2, steps, members)).astype(np.float32)
    tail = rng.standard_normal(members).astype(np.float32)
    box = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    buffer = RolloutBuffer(steps, box, box, gae_lambda=0.9, gamma=0.97, n_envs=members)
    buffer.rewards[:], buffer.values[:] = rewards, values
    buffer.episode_starts[:] = 0.0
    buffer.compute_returns_and_advantage(torch.from_numpy(tail), np.zeros(members))
    alive = np.ones((steps, members), np.bool_)
    found = generalized_advantages(rewards, values, alive, 0.97, 0.9, tail)
    np.testing.assert_allclose(found, buffer.advantages, rtol=1e-5, atol=1e-6)


def test_what_lies_outside_a_segment_is_never_read():
    rng, alive = np.random.default_rng(1), np.array([[True, True], [True, False]])
    rewards, values = rng.standard_normal((2, 2, 2))
    plain = generalized_advantages(rewards, values, alive, 0.9, 0.9, np.ones(2))
    rewards[1, 1] = values[1, 1] = 1e9
    np.testing.assert_array_equal(
        generalized_advantages(rewards, values, alive, 0.9, 0.9, np.ones(2)), plain
    )


ESTIMATES = np.array([[[4.0, 1.0, 1.0]], [[6.0, 2.0, 0.0]], [[5.0, 0.0, 0.0]]])
THERE = np.array([[[1, 1, 1]], [[1, 1, 0]], [[1, 0, 0]]], np.bool_)


@pytest.mark.parametrize(
    ("baseline", "shared", "expected"),
    [
        ("critic", SHARED, ESTIMATES),
        ("both", SHARED, [[[3, -1.5, -1.5]], [[4, -4, 0]], [[5, 0, 0]]]),
        ("both", ALONE, ESTIMATES),
    ],
)
def test_baselines_by_hand(baseline, shared, expected):
    advantages = critic_advantages(baseline, ESTIMATES, THERE, shared)
    np.testing.assert_allclose(advantages.values, expected, rtol=1e-12)
    np.testing.assert_array_equal(advantages.informative, THERE)
    assert advantages.degenerate_fraction == 0.0


def test_shrinkage_by_hand():
    # a group's weight is what the others show: Σ Â m / Σ m², m being the other member's Â
    estimates = np.array([[[1.0, 3.0], [2.0, 2.0], [1.0, -5.0]]])
    pairs = [(3.0 + 3.0, 10.0), (4.0 + 4.0, 8.0), (-5.0 - 5.0, 26.0)]  # (Σ Â m, Σ m²) of each
    weights = []
    for g in range(3):
        rest = [pair for i, pair in enumerate(pairs) if i != g]
        weights.append(np.clip(sum(p[0] for p in rest) / sum(p[1] for p in rest), 0.0, 1.0))
    assert weights[:2] == [0.0, 0.0]
    assert weights[2] == pytest.approx(14.0 / 18.0)
    found = critic_advantages("shrinkage", estimates, everyone((1, 3, 2)), np.ones(3, np.bool_))
    expected = estimates[0] - np.array(weights)[:, None] * estimates[0][:, ::-1]
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-12)


def test_shrinkage_goes_from_the_critic_to_the_siblings_with_the_critics_error():
    rng, shape = np.random.default_rng(0), (5, 40, 2)
    own, error = rng.standard_normal(shape), rng.standard_normal((5, 40, 1))
    shared = np.ones(40, np.bool_)

    def spread(baseline, size):
        estimates = own + size * error
        return critic_advantages(baseline, estimates, everyone(shape), shared).values.var()

    for size, near in ((0.0, "critic"), (50.0, "both")):
        assert spread("shrinkage", size) == pytest.approx(spread(near, size), rel=0.02)
    between = spread("shrinkage", 1.0)
    assert between < 0.9 * min(spread("critic", 1.0), spread("both", 1.0))


def test_full_returns_and_no_critic_are_todays_comparison_bit_for_bit():
    rng, alive = np.random.default_rng(3), np.arange(9)[:, None, None] < [[9, 9, 5], [9, 7, 6]]
    rewards = rng.standard_normal((9, 2, 3)) * alive
    tail = np.zeros((2, 3))
    returns = segment_returns(rewards, alive, 0.97, tail)
    gae = generalized_advantages(rewards, np.zeros((9, 2, 3)), alive, 0.97, 1.0, tail)
    np.testing.assert_array_equal(gae, returns)
    today = group_advantages("loo_time", returns, alive)
    found = critic_advantages("both", gae, alive, np.ones(2, np.bool_))
    assert today.informative.sum() > 30
    np.testing.assert_array_equal(found.values[today.informative], today.values[today.informative])


def test_what_siblings_have_in_common_by_hand():
    estimates = np.array([[[3.0, 1.0], [-1.0, -1.0]]])
    both = np.ones(2, np.bool_)
    everybody = everyone((1, 2, 2))
    # Σ Â m = 3·1 + 1·3 + 1 + 1, Σ Â² = 9 + 1 + 1 + 1
    assert shared_variance(estimates, everybody, both) == pytest.approx(8 / 12)
    assert shared_variance(estimates, everybody, np.array([True, False])) == pytest.approx(6 / 10)
    assert shared_variance(estimates, everybody, ~both) is None
    assert shared_variance(np.array([[[3.0, -3.0]]]), everyone((1, 1, 2)), both[:1]) == 0.0
    alone = np.array([[[True, False], [True, True]]])
    assert shared_variance(np.where(alone, estimates, 0.0), alone, both) == pytest.approx(1.0)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("error", [0.0, 0.5, 2.0])
def test_what_siblings_have_in_common_is_the_critics_error(size, error):
    rng = np.random.default_rng(7)
    shape = (1, 40_000, size)
    own, common = rng.standard_normal(shape), error * rng.standard_normal((1, 40_000, 1))
    found = shared_variance(own + common, everyone(shape), np.ones(40_000, np.bool_))
    assert found == pytest.approx(error**2 / (1.0 + error**2), abs=0.02)


@pytest.mark.parametrize(("baseline", "groups"), [("critic", 1), ("both", 1), ("shrinkage", 2)])
def test_every_baseline_is_unbiased_on_an_enumerated_mdp(baseline, groups):
    # λ = 1, and a critic that is wrong: the expectation is the exact policy gradient
    mdp, p, gamma, size = TabularMDP(), np.array([[0.4, 0.6], [0.7, 0.3]]), 0.9, 2
    critic, steps = np.array([0.7, -2.0]), TabularMDP.horizon
    paths = list(mdp.trajectories(p))
    exact, estimated = np.zeros((2, 2)), np.zeros((2, 2))
    for probability, states, actions, rewards in paths:
        for t, (state, action) in enumerate(zip(states, actions, strict=True)):
            future = sum(gamma**j * r for j, r in enumerate(rewards[t:]))
            exact[state] += probability * (np.eye(2)[action] - p[state]) * future
    for drawn in itertools.product(paths, repeat=groups * size):
        rewards, values = np.zeros((2, steps, groups, size))
        alive = np.zeros((steps, groups, size), np.bool_)
        for k, (_, states, _, paid) in enumerate(drawn):
            place = np.unravel_index(k, (groups, size))
            rewards[(slice(len(paid)), *place)] = paid
            values[(slice(len(paid)), *place)] = critic[states]
            alive[(slice(len(paid)), *place)] = True
        gae = generalized_advantages(rewards, values, alive, gamma, 1.0, np.zeros((groups, size)))
        found = critic_advantages(baseline, gae, alive, np.ones(groups, np.bool_)).values
        weight = np.prod([path[0] for path in drawn]) / len(drawn)
        for k, (_, states, actions, _) in enumerate(drawn):
            place = np.unravel_index(k, (groups, size))
            for t, (state, action) in enumerate(zip(states, actions, strict=True)):
                score = np.eye(2)[action] - p[state]
                estimated[state] += weight * found[(t, *place)] * score
    np.testing.assert_allclose(estimated, exact, rtol=1e-10, atol=1e-12)


def test_standardized_by_hand():
    values = np.array([[[1.0, 3.0, 100.0]]])
    informative = np.array([[[True, True, False]]])
    found = standardized(Advantages(values, informative, 0.5))
    np.testing.assert_allclose(found.values, [[[-1.0, 1.0, 0.0]]], rtol=1e-7)
    assert found.degenerate_fraction == 0.5
    nobody = Advantages(values, np.zeros_like(informative), 1.0)
    assert standardized(nobody) is nobody


# --- the learner ---------------------------------------------------------------------------


def make_rollout(action_rng):
    """Four members that go on with their own episodes: one dies, one is truncated, two are cut."""
    alive = np.arange(6)[:, None, None] < np.array([[3], [4], [6], [6]])
    n = int(alive.sum())
    return Rollout(
        alive=alive,
        observations=3.0 + 2.0 * action_rng.standard_normal((n, 4)),
        actions=action_rng.integers(0, 3, n),
        rewards=action_rng.standard_normal(n),
        last_observations=3.0 + 2.0 * action_rng.standard_normal((4, 4)),
        terminated=np.array([True, False, False, False]),
        shared=np.zeros(4, np.bool_),
        timesteps=np.cumsum(alive.sum(axis=(1, 2))),
        episodes=(),
    )


@pytest.mark.rotated(8)
@pytest.mark.parametrize("updater", [None, TorchUpdater])
def test_members_that_go_on_with_the_critic_alone_are_ppo(updater):
    """One minibatch of everything: PPO by the book, in loops and autograd, comes to the same."""
    config = short_config(
        num_groups=4, group_size=1, baseline="critic", start_states="continue", batch_size=1_000,
        n_epochs=3, gae_lambda=0.9, gamma=0.95, normalize_advantage=True, ent_coef=0.01,
        learning_rate=3e-3, learning_rate_schedule="constant",
    )  # fmt: skip
    rollout, ours, book = make_rollout(np.random.default_rng(5)), make_policy(), make_policy()
    learner = Learner(ours, config, Streams.from_seed(0), updater and updater(ours, config))
    learner.learn(rollout, learner.compare(rollout))

    book.observe(rollout.observations)
    inputs = torch.from_numpy(book.torch_inputs(book.encode(rollout.observations)).copy())
    values = book.values(book.encode(rollout.observations))
    last = book.values(book.encode(rollout.last_observations))
    rows = np.full(rollout.by_member().shape, -1)
    rows[rollout.by_member()] = np.arange(len(rollout.actions))
    gae = np.zeros(len(values))
    for member in range(4):
        own = [row for row in rows[:, member] if row >= 0]
        following = 0.0 if rollout.terminated[member] else last[member]
        running = 0.0
        for row in reversed(own):
            delta = rollout.rewards[row] + 0.95 * following - values[row]
            running = delta + 0.95 * 0.9 * running
            gae[row], following = running, values[row]
    targets = torch.from_numpy(book.rescale_values(gae + values))
    advantages = torch.from_numpy((gae - gae.mean()) / (gae.std() + 1e-8))
    actions = torch.from_numpy(rollout.actions)
    policy_list, value_list = book.policy_parameters_list(), book.value_parameters_list()
    adams = [torch.optim.Adam(part, lr=3e-3, eps=1e-5) for part in (policy_list, value_list)]
    with torch.no_grad():
        old = torch.log_softmax(book.policy_outputs(inputs)[0], 1).gather(1, actions[:, None])
    for _ in range(3):
        log_probs = torch.log_softmax(book.policy_outputs(inputs)[0], 1)
        ratio = torch.exp(log_probs.gather(1, actions[:, None]) - old).squeeze(1)
        clipped = torch.clamp(ratio, 0.8, 1.2)
        entropy = -(log_probs.exp() * log_probs).sum(1).mean()
        loss = -torch.minimum(ratio * advantages, clipped * advantages).mean() - 0.01 * entropy
        adams[0].zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy_list, 0.5)
        adams[0].step()
    for _ in range(3):
        error = torch.square(book.values_of(book.value_features(inputs)) - targets).mean()
        adams[1].zero_grad()
        error.backward()
        adams[1].step()
    np.testing.assert_allclose(ours.flat, book.flat, rtol=0.0, atol=1e-10)


def test_the_critic_learns_lambda_returns_and_always_bootstraps():
    rollout, policy = make_rollout(np.random.default_rng(1)), make_policy()
    fields = {
        "num_groups": 4, "group_size": 1, "baseline": "critic", "start_states": "continue",
        "gamma": 0.5,
    }  # fmt: skip
    full = Learner(policy, short_config(**fields, gae_lambda=1.0), Streams.from_seed(0))
    comparison = full.compare(rollout)
    tail = np.where(
        rollout.terminated, 0.0, policy.values(policy.encode(rollout.last_observations))
    )
    returns = segment_returns(
        rollout.padded(rollout.rewards), rollout.alive, 0.5, tail.reshape(4, 1)
    )
    np.testing.assert_allclose(comparison.returns, returns[rollout.alive], rtol=1e-9)
    np.testing.assert_allclose(
        comparison.advantages.values[rollout.alive], comparison.returns - comparison.values
    )


def test_normalised_rewards_divide_what_is_judged():
    fields = {"num_groups": 4, "group_size": 1, "baseline": "critic", "start_states": "continue"}
    rollout = make_rollout(np.random.default_rng(1))
    policy = make_policy()
    policy.rescale_values(np.array([0.0, 3.0]))  # so that values are more than noise
    plain, scaled = (
        Learner(
            copy.deepcopy(policy),
            short_config(**fields, normalize_rewards=on),
            Streams.from_seed(0),
        ).compare(rollout)
        for on in (False, True)
    )
    std = plain.return_moments[1]
    assert std != 1.0
    np.testing.assert_allclose(scaled.advantages.values * std, plain.advantages.values)


@pytest.mark.parametrize("unit", [2.0**-30, 1.0, 2.0**30])
def test_a_new_network_knows_nothing_and_its_outputs_become_deviations_of_the_returns(unit):
    fields = {"num_groups": 4, "group_size": 1, "baseline": "critic", "start_states": "continue"}
    rollout = make_rollout(np.random.default_rng(1))
    rollout = replace(rollout, rewards=rollout.rewards * unit)
    policy = make_policy()
    config = short_config(**fields, normalize_rewards=True, gae_lambda=1.0)
    learner = Learner(policy, config, Streams.from_seed(0))
    found = learner.compare(rollout)
    assert not found.values.any()
    rewards, alive = rollout.padded(rollout.rewards), rollout.alive
    returns = segment_returns(rewards, alive, config.gamma, np.zeros(alive.shape[1:]))
    np.testing.assert_allclose(found.returns, returns[rollout.alive])
    before = policy.value_parameters.flat.copy()
    mean, std = found.return_moments
    policy.rescale_values(found.returns, found.return_moments, keep=False)
    np.testing.assert_array_equal(policy.value_parameters.flat, before)
    encoded = policy.encode(rollout.observations)
    assert abs(policy.values(encoded).mean() - mean) < std
    assert learner.compare(rollout).values.any()


@pytest.mark.parametrize(
    ("fields", "field", "way_out"),
    [
        ({"group_size": 1}, "group_size", "baseline='critic'"),
        ({"group_size": 1, "baseline": "both"}, "group_size", "baseline='critic'"),
        ({"start_states": "continue"}, "baseline", "start_states='mixed'"),
        ({"start_states": "continue", "baseline": "both"}, "baseline", "baseline='critic'"),
        ({"start_states": "mixed"}, "baseline", "baseline='shrinkage'"),
        ({"baseline": "shrinkage"}, "num_groups", "baseline='both'"),
    ],
)
def test_what_has_no_siblings_is_not_compared_with_them(fields, field, way_out):
    with pytest.raises(IncompatibleError, match=way_out) as raised:
        GRPOConfig(**fields)
    assert raised.value.field == field


@pytest.mark.rotated(8)
@pytest.mark.parametrize("baseline", ["critic", "both", "shrinkage"])
@pytest.mark.parametrize("start_states", ["branch", "branch_worst", "reset", "mixed"])
@pytest.mark.parametrize("policy", ["MlpPolicy", "RecurrentPolicy"])
def test_every_combination_trains(baseline, start_states, policy):
    model = GRPO(
        "CartPole-v1", policy=policy, baseline=baseline, start_states=start_states, num_groups=2,
        group_size=2, n_steps=16, normalize_advantage=True, n_epochs=2, n_eval_episodes=1,
    )  # fmt: skip
    before = model.policy.flat.copy()
    model.learn(200)
    assert model.num_timesteps == 200
    assert not np.array_equal(model.policy.flat, before)


@pytest.mark.rotated(8)
@pytest.mark.parametrize(
    "fields",
    [
        {"start_states": "continue", "baseline": "critic", "group_size": 1, "num_groups": 5},
        {"start_states": "mixed", "baseline": "shrinkage", "group_size": 2, "num_groups": 3},
    ],
    ids=["continue", "mixed"],
)
@pytest.mark.parametrize(
    ("env", "more"),
    [
        ("CartPole-v1", {}),
        ("Hopper-v5", {}),
        ("LunarLander-v3", {}),  # put into a state by steps that are played again
        pytest.param("Hopper-v5", {"env_workers": 2}, marks=pytest.mark.rotated(8)),
        ("CartPole-v1", {"policy": "RecurrentPolicy"}),
    ],
    ids=["classic", "mujoco", "replay", "processes", "memory"],
)
def test_a_run_goes_on_as_if_never_paused(tmp_path, env, more, fields):
    went_on = assert_goes_on_as_if_never_paused(
        tmp_path, env, seed=4, n_steps=24, total_timesteps=900, n_epochs=2, gae_lambda=0.9,
        normalize_advantage=True, n_eval_episodes=1, **fields, **more,
    )  # fmt: skip
    assert went_on.num_timesteps == 900


def test_members_go_on_in_environments_that_cannot_be_branched(tmp_path):
    class Unpredictable(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.steps = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.steps += 1
            return np.random.default_rng().random(1, np.float32), 1.0, False, self.steps == 40, {}

    fields = {"start_states": "continue", "baseline": "critic", "group_size": 1, "num_groups": 2}
    model = GRPO(Unpredictable, n_steps=16, **fields)
    lengths = []

    class Lengths(Reporter):
        def on_rollout(self, stats):
            lengths.extend(episode.length for episode in stats.episodes)

    model.learn(200, callback=Lengths())
    assert model.get_env().branching == "none"
    assert lengths == [40] * 4
    model.save(tmp_path / "half.npz")  # no state of theirs can be stored: they begin anew
    went_on = GRPO.load(tmp_path / "half.npz", Unpredictable)
    went_on.learn(200, callback=Lengths(), reset_num_timesteps=False)
    assert went_on.num_timesteps == 400
    assert lengths == [40] * 8
