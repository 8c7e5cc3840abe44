"""Group-relative advantages: hand-computed tables, properties, and the faults of old."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grpo.advantages import ADVANTAGES, group_advantages, segment_returns
from grpo.errors import AdvantageError, IncompatibleError
from grpo.registry import name_of

ROOT = np.sqrt(1.5)  # z-score of the extremes of three equidistant values


def everyone(shape):
    return np.ones(shape, np.bool_)


def test_an_advantage_that_is_handed_in_is_called_and_checked():
    returns, alive = np.arange(6.0).reshape(1, 2, 3), everyone((1, 2, 3))
    name = name_of(test_an_advantage_that_is_handed_in_is_called_and_checked)
    centred = group_advantages(name, returns, alive, {name: lambda r, a: r - r.mean()})
    np.testing.assert_array_equal(centred.values, returns - 2.5)
    assert centred.informative.all()
    equal = group_advantages(name, np.ones((1, 2, 3)), alive, {name: lambda r, a: r})
    assert not equal.values.any()
    assert equal.degenerate_fraction == 1.0
    for wrong in (lambda r, a: r[0], lambda r, a: r * np.nan, lambda r, a: 1 / 0):
        with pytest.raises(AdvantageError, match="lambda"):
            group_advantages(name, returns, alive, {name: wrong})
    with pytest.raises(IncompatibleError, match="pass it again"):
        group_advantages(name, returns, alive)
    with pytest.raises(IncompatibleError, match="not a function"):
        group_advantages(name, returns, alive, {name: 3})


# --- returns -------------------------------------------------------------------------------


def test_returns_of_terminated_truncated_and_cut_segments():
    # three members, γ = 0.5: one dies at step 2, one is truncated there, one is cut at step 3
    rewards = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [99.0, 99.0, 4.0]])
    alive = np.array([[1, 1, 1], [1, 1, 1], [0, 0, 1]], np.bool_)
    tail = np.array([0.0, 10.0, 20.0])  # V(s_end), 0 beyond a terminal state
    expected = [
        [1 + 0.5 * 2, 1 + 0.5 * (2 + 0.5 * 10), 1 + 0.5 * (2 + 0.5 * (4 + 0.5 * 20))],
        [2, 2 + 0.5 * 10, 2 + 0.5 * (4 + 0.5 * 20)],
        [0, 0, 4 + 0.5 * 20],
    ]
    np.testing.assert_allclose(segment_returns(rewards, alive, 0.5, tail), expected, rtol=1e-15)


@given(st.data())
def test_returns_equal_the_explicit_sum(data):
    steps = data.draw(st.integers(1, 12))
    rewards = data.draw(hnp.arrays(np.float64, (steps, 3), elements=st.floats(-5, 5)))
    lengths = np.array(data.draw(st.lists(st.integers(1, steps), min_size=3, max_size=3)))
    tail = np.array([0.0, 3.0, -2.0])
    alive = np.arange(steps)[:, None] < lengths
    returns = segment_returns(rewards, alive, 0.9, tail)
    for m, length in enumerate(lengths):
        for t in range(length):
            k = length - t
            slow = sum(0.9**j * rewards[t + j, m] for j in range(k)) + 0.9**k * tail[m]
            assert returns[t, m] == pytest.approx(slow, abs=1e-12)


# --- each variant by hand ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("z_time", [[-ROOT, 0, ROOT], [-1, 0, 1]]),
        ("dr", [[-1, 0, 1], [-2, 0, 2]]),
        ("loo_time", [[-1.5, 0, 1.5], [-4, 0, 4]]),
        ("outcome", [[-ROOT, 0, ROOT], [-ROOT, 0, ROOT]]),
    ],
)
def test_variants_by_hand(name, expected):
    # the second member has ended at the second index: two are compared there
    returns = np.array([[[1.0, 2.0, 3.0]], [[2.0, 0.0, 6.0]]])
    alive = np.array([[[1, 1, 1]], [[1, 0, 1]]], np.bool_)
    result = group_advantages(name, returns, alive)
    np.testing.assert_allclose(result.values[:, 0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(result.informative, alive)
    assert result.degenerate_fraction == 0.0


def test_global_by_hand():
    # group means 2 and 5 over members and time; one deviation over the batch
    returns = np.array([[[1.0, 3.0], [4.0, 6.0]], [[0.0, 4.0], [5.0, 5.0]]])
    result = group_advantages("global", returns, everyone(returns.shape))
    centred = np.array([[[-1, 1], [-1, 1]], [[-2, 2], [0, 0]]])
    np.testing.assert_allclose(result.values, centred / np.sqrt(12 / 8), rtol=1e-12)


def test_blend_is_half_of_each():
    returns = np.random.default_rng(0).standard_normal((5, 2, 4))
    alive = everyone(returns.shape)
    mean = 0.5 * sum(group_advantages(name, returns, alive).values for name in ("z_time", "global"))
    np.testing.assert_allclose(group_advantages("blend", returns, alive).values, mean, rtol=1e-12)


def test_where_all_are_equal_blend_is_half_of_global():
    # the first index differs by less than the threshold: 0.5 in ten million
    returns = np.array([[[1e7, 1e7 + 0.5]], [[0.0, 1e7]]])
    alive = everyone(returns.shape)
    pooled = group_advantages("global", returns, alive).values
    blended = group_advantages("blend", returns, alive).values
    np.testing.assert_array_equal(blended[0], 0.5 * pooled[0])
    assert blended[0].all()


# --- degenerate comparisons ----------------------------------------------------------------


@pytest.mark.parametrize("name", ADVANTAGES.names())
@pytest.mark.parametrize("noise", [0.0, 1e-15, 1e-13])
@pytest.mark.parametrize("level", [1e-6, 1.0, -3e5, 1e9])
def test_equal_returns_give_exactly_zero(name, noise, level):
    # dividing round-off by (std + 1e-10) made advantages in the thousands of it
    rng = np.random.default_rng(0)
    returns = level * (1.0 + noise * rng.standard_normal((6, 2, 4)))
    result = group_advantages(name, returns, everyone(returns.shape))
    assert not result.values.any()
    assert not result.informative.any()
    assert result.degenerate_fraction == 1.0


@pytest.mark.parametrize("name", ADVANTAGES.names())
def test_small_returns_that_differ_are_not_equal(name):
    returns = 1e-9 * np.random.default_rng(0).standard_normal((6, 2, 4))
    result = group_advantages(name, returns, everyone(returns.shape))
    assert result.informative.all()
    assert result.degenerate_fraction == 0.0


@pytest.mark.parametrize("name", ADVANTAGES.names())
def test_returns_that_only_time_tells_apart_are_equal(name):
    returns = np.broadcast_to(np.arange(6.0, 0.0, -1.0)[:, None, None], (6, 1, 4))
    assert not group_advantages(name, returns, everyone((6, 1, 4))).values.any()


def test_a_degenerate_index_is_counted_and_the_others_are_not():
    returns = np.array([[[1.0, 1.0]], [[1.0, 2.0]], [[5.0, 0.0]]])
    alive = np.array([[[1, 1]], [[1, 1]], [[1, 0]]], np.bool_)
    result = group_advantages("z_time", returns, alive)
    np.testing.assert_array_equal(result.values[:, 0], [[0, 0], [-1, 1], [0, 0]])
    np.testing.assert_array_equal(result.informative[:, 0], [[0, 0], [1, 1], [0, 0]])
    assert result.degenerate_fraction == pytest.approx(2 / 3)


def test_a_single_member_is_compared_with_nobody():
    result = group_advantages("z_time", np.array([[[3.0]]]), everyone((1, 1, 1)))
    assert result.values.item() == 0.0
    assert not result.informative.any()


# --- invariances ---------------------------------------------------------------------------

shapes = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(2, 5))


@st.composite
def groups(draw):
    shape = draw(shapes)
    returns = draw(
        hnp.arrays(np.float64, shape, elements=st.floats(-100, 100).map(lambda x: round(x, 2)))
    )
    lengths = draw(hnp.arrays(np.int64, shape[1:], elements=st.integers(1, shape[0])))
    alive = np.arange(shape[0])[:, None, None] < lengths
    return returns * alive, alive


@given(groups(), st.sampled_from(ADVANTAGES.names()), st.randoms(use_true_random=False))
def test_member_order_does_not_matter(group, name, random):
    returns, alive = group
    order = list(range(returns.shape[2]))
    random.shuffle(order)
    there = group_advantages(name, returns, alive).values[:, :, order]
    here = group_advantages(name, returns[:, :, order], alive[:, :, order]).values
    np.testing.assert_allclose(here, there, rtol=1e-9, atol=1e-9)


@given(groups(), st.sampled_from(["z_time", "outcome", "global", "blend"]), st.floats(1e-3, 1e3))
def test_reward_scale_does_not_matter_where_it_is_divided_out(group, name, scale):
    returns, alive = group
    here = group_advantages(name, returns * scale, alive).values
    np.testing.assert_allclose(
        here, group_advantages(name, returns, alive).values, rtol=1e-6, atol=1e-6
    )


@given(groups(), st.sampled_from(["z_time", "dr", "loo_time", "outcome"]), st.floats(-50, 50))
def test_a_constant_on_every_return_does_not_matter(group, name, constant):
    returns, alive = group
    shifted = (returns + constant) * alive
    here = group_advantages(name, shifted, alive)
    there = group_advantages(name, returns, alive)
    same = here.informative == there.informative  # a shift may hide what is near round-off
    np.testing.assert_allclose(here.values[same], there.values[same], rtol=1e-6, atol=1e-6)


@given(groups(), st.sampled_from(ADVANTAGES.names()))
def test_advantages_are_finite_and_zero_where_silent(group, name):
    returns, alive = group
    result = group_advantages(name, returns, alive)
    assert np.isfinite(result.values).all()
    assert not result.values[~result.informative].any()
    assert not result.informative[~alive].any()
    assert np.abs(result.values).max(initial=0.0) <= 1e4


@given(groups(), st.sampled_from(["z_time", "dr", "loo_time"]))
def test_advantages_of_a_comparison_sum_to_zero(group, name):
    returns, alive = group
    total = group_advantages(name, returns, alive).values.sum(axis=2)
    np.testing.assert_allclose(total, 0.0, atol=1e-9)


@given(groups(), st.sampled_from(ADVANTAGES.names()))
def test_what_lies_outside_a_segment_is_never_read(group, name):
    returns, alive = group
    tail = np.zeros(alive.shape[1:])
    clean = segment_returns(returns, alive, 0.9, tail)
    dirty = segment_returns(np.where(alive, returns, np.nan), alive, 0.9, tail)
    np.testing.assert_array_equal(dirty, clean)
    here, there = (group_advantages(name, values, alive) for values in (dirty, clean))
    np.testing.assert_array_equal(here.values, there.values)


@given(groups())
def test_groups_do_not_touch_each_other(group):
    returns, alive = group
    whole = group_advantages("z_time", returns, alive).values
    for g in range(returns.shape[1]):
        alone = group_advantages("z_time", returns[:, g : g + 1], alive[:, g : g + 1]).values
        np.testing.assert_array_equal(whole[:, g : g + 1], alone)


# --- what the advantages do to a gradient ----------------------------------------------------


def bandit_gradient(name, p, q, size):
    """Expected REINFORCE gradient by the logits of softmax p, over all groups of `size` arms."""
    arms, total = len(p), np.zeros(len(p))
    for drawn in np.ndindex(*(arms,) * size):
        advantages = group_advantages(name, q[list(drawn)][None, None], everyone((1, 1, size)))
        score = np.eye(arms)[list(drawn)] - p
        total += np.prod(p[list(drawn)]) * (advantages.values[0, 0] @ score) / size
    return total


@pytest.mark.parametrize("size", [2, 3, 4])
def test_leave_one_out_is_the_policy_gradient_of_a_bandit(size):
    p, q = np.array([0.2, 0.5, 0.3]), np.array([1.0, -2.0, 4.0])
    exact = p * (q - p @ q)
    np.testing.assert_allclose(bandit_gradient("loo_time", p, q, size), exact, rtol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_with_self_in_the_mean_the_gradient_shrinks(size):
    p, q = np.array([0.2, 0.5, 0.3]), np.array([1.0, -2.0, 4.0])
    exact = (size - 1) / size * p * (q - p @ q)
    np.testing.assert_allclose(bandit_gradient("dr", p, q, size), exact, rtol=1e-12)


class TabularMDP:
    """Two states, two actions, random lengths: action 1 in state 1 ends the episode.

    State 0 goes on to state 1 under action 1; every step pays `rewards[state, action]`.
    """

    rewards = np.array([[1.0, 0.5], [2.0, 3.0]])
    horizon = 3

    def trajectories(self, p):
        """Every trajectory from state 0: (probability, states, actions, rewards)."""

        def extend(probability, states, actions, rewards, state):
            if state is None or len(actions) == self.horizon:
                yield probability, states, actions, rewards
                return
            for action in (0, 1):
                following = (1 if action else 0) if state == 0 else (None if action else 1)
                yield from extend(
                    probability * p[state, action], [*states, state], [*actions, action],
                    [*rewards, self.rewards[state, action]], following,
                )  # fmt: skip

        yield from extend(1.0, [], [], [], 0)


@pytest.mark.parametrize("size", [2, 3])
def test_leave_one_out_is_unbiased_on_an_enumerated_mdp(size):
    # At each index the expectation is the policy gradient's term, times the chance that some
    # other member is still there to be compared with.
    mdp, p, gamma = TabularMDP(), np.array([[0.4, 0.6], [0.7, 0.3]]), 0.9
    paths = list(mdp.trajectories(p))
    steps = mdp.horizon
    survival = [sum(path[0] for path in paths if len(path[1]) > t) for t in range(steps)]
    assert survival[1] > survival[2] > 0.0  # lengths are random
    exact, estimated = np.zeros((steps, 2, 2)), np.zeros((steps, 2, 2))
    for probability, states, actions, rewards in paths:
        for t, (state, action) in enumerate(zip(states, actions, strict=True)):
            future = sum(gamma**j * r for j, r in enumerate(rewards[t:]))
            others = 1.0 - (1.0 - survival[t]) ** (size - 1)
            exact[t, state] += probability * others * (np.eye(2)[action] - p[state]) * future
    for drawn in itertools.product(paths, repeat=size):
        rewards, alive = np.zeros((steps, 1, size)), np.zeros((steps, 1, size), np.bool_)
        for k, path in enumerate(drawn):
            rewards[: len(path[3]), 0, k] = path[3]
            alive[: len(path[3]), 0, k] = True
        returns = segment_returns(rewards, alive, gamma, np.zeros((1, size)))
        advantages = group_advantages("loo_time", returns, alive).values[:, 0]
        weight = np.prod([path[0] for path in drawn])
        for k, (_, states, actions, _) in enumerate(drawn):
            for t, (state, action) in enumerate(zip(states, actions, strict=True)):
                score = np.eye(2)[action] - p[state]
                estimated[t, state] += weight * advantages[t, k] * score / size
    np.testing.assert_allclose(estimated, exact, rtol=1e-10, atol=1e-12)
