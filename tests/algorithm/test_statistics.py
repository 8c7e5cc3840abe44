"""Intervals are SciPy's where it has them, hand-computed, without chance, and order counts not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from grpo import evaluation, statistics
from grpo.bootstrap import student_series
from grpo.errors import OutOfRangeError
from grpo.statistics import (
    aggregate_curves,
    area_under_curve,
    difference,
    holm,
    iqm,
    iqm_interval,
    mean_interval,
    mean_limits,
    p_value,
    performance_profile,
    probability_of_improvement,
    steps_to_threshold,
    stratified_bootstrap_interval,
    student_quantile,
)

A = np.random.default_rng(10).normal(100.0, 20.0, 11)
B = np.random.default_rng(11).normal(90.0, 40.0, 8)
PAIRED = A[:8] + np.random.default_rng(12).normal(5.0, 10.0, 8)


def samples(least=1, most=25):
    return st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=least, max_size=most)


def bits(*values):
    return [np.float64(v).tobytes() for v in np.ravel(values)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_iqm_is_scipys_trimmed_mean(values):
    assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-9, abs=1e-6)


def test_iqm_along_an_axis():
    values = np.random.default_rng(0).normal(size=(5, 8, 3))
    assert iqm(values, axis=1) == pytest.approx(stats.trim_mean(values, 0.25, axis=1))
    assert iqm([1.0, 2.0, 3.0, 100.0]) == 2.5


def test_the_interval_is_scipys_percentile_bootstrap():
    returns = np.random.default_rng(1).normal(100, 20, 60)
    low, high = stratified_bootstrap_interval(returns[:, None], resamples=20_000)
    expected = stats.bootstrap(
        (returns,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), vectorized=True,
        n_resamples=20_000, method="percentile", rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.5)
    assert low < iqm(returns) < high


def test_tasks_are_resampled_apart_from_each_other():
    # drawn together, each run's two scores would cancel and leave no spread at all
    runs = np.random.default_rng(0).standard_normal(20)
    low, high = stratified_bootstrap_interval(np.column_stack([runs, -runs]))
    assert low < -0.1
    assert high > 0.1


def test_the_bootstrap_is_stratified():
    """Two tasks without spread of their own: drawing within each leaves nothing to chance."""
    scores = np.repeat([[0.0, 1.0]], 10, axis=0)
    assert stratified_bootstrap_interval(scores) == (0.5, 0.5)
    spread = scores + np.random.default_rng(0).normal(0, 0.1, scores.shape)
    low, high = stratified_bootstrap_interval(spread)
    assert 0.3 < low < high < 0.7


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        low, high = stratified_bootstrap_interval(rng.normal(size=(50, 1)), resamples=400)
        hits += low <= 0.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_equal_returns_give_an_interval_without_width():
    assert stratified_bootstrap_interval(np.full((100, 1), 500.0)) == (500.0, 500.0)


SAMPLES = {
    "skewed": np.random.default_rng(4).lognormal(size=80),
    "two values": np.random.default_rng(5).choice([0.0, 500.0], 60, p=[0.1, 0.9]),
    "normal": np.random.default_rng(6).normal(1e6, 3.0, 200),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_interval_of_the_mean_is_scipys_t_or_bca_whichever_is_wider(name):
    sample = SAMPLES[name]
    estimate, low, high = mean_interval(sample)
    t = stats.t.interval(0.95, len(sample) - 1, sample.mean(), stats.sem(sample))
    # expanded for small samples: SciPy is asked for the confidence that gives the same width
    expanded = -t_quantile(0.975, len(sample)) * np.sqrt(len(sample) / (len(sample) - 1))
    bca = stats.bootstrap(
        (sample,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(2),
        confidence_level=1 - 2 * stats.norm.cdf(expanded),
    ).confidence_interval  # fmt: skip
    assert estimate == sample.mean()
    close = {"abs": 0.05 * (high - low)}
    assert low == pytest.approx(max(min(t[0], bca.low), sample.min()), **close)
    assert high == pytest.approx(min(max(t[1], bca.high), sample.max()), **close)


def t_quantile(p, n):
    return stats.t.ppf(p, n - 1)


@pytest.mark.parametrize("n", [2, 2.5, 3, 6, 10, 100, 5_000])
def test_students_quantile_is_scipys(n):
    for p in (0.6, 0.9, 0.975, 0.9995):
        assert student_quantile(p, n - 1) == pytest.approx(t_quantile(p, n), rel=1e-9)
    if n != 2.5:  # further out, between one and two degrees of freedom, it is rougher
        assert student_quantile(1 - 5e-7, n - 1) == pytest.approx(t_quantile(1 - 5e-7, n), rel=1e-6)


@pytest.mark.parametrize(
    ("draw", "n"),
    [
        (lambda rng, shape: rng.normal(size=shape), 20),
        (lambda rng, shape: 1.0 - rng.exponential(size=shape), 60),
        (lambda rng, shape: 500.0 - 400.0 * ((rng.random(shape) < 0.03) - 0.03), 200),
        (lambda rng, shape: rng.standard_t(2, shape), 60),
    ],
    ids=["normal", "skewed", "rare failures", "heavy tails"],
)
def test_the_interval_of_the_mean_covers_it_as_often_as_it_says(draw, n):
    samples = draw(np.random.default_rng(3), (n, 500))
    truth = 500.0 if samples.mean() > 100 else 0.0
    low, high = mean_limits(samples)
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.997


def test_one_failure_in_a_hundred_is_in_the_interval_and_nothing_impossible_is():
    returns = np.full(100, 500.0)
    returns[3] = 100.0
    estimate, low, high = mean_interval(returns)
    # the failure may have a chance of 5.4 % (Clopper & Pearson), which would give 478
    assert (estimate, high) == (496.0, 500.0)
    assert low == pytest.approx(478.0, abs=4.0)


def test_intervals_of_samples_that_say_little():
    assert mean_interval([3.0]) == (3.0, 3.0, 3.0)
    # t = 12.706 standard errors of 1: two values say nothing of what lies beyond them
    assert mean_interval([3.0, 5.0]) == pytest.approx((4.0, -8.7062, 16.7062), abs=1e-4)
    assert mean_interval(np.full(100, 0.1)) == (0.1, 0.1, 0.1)


def test_what_evaluation_exported_is_the_same():
    for name in ("Interval", "iqm", "mean_interval", "mean_limits"):
        assert getattr(evaluation, name) is getattr(statistics, name)
    assert evaluation.stratified_bootstrap_interval is stratified_bootstrap_interval


def test_the_interval_of_few_values_is_students_and_longer_on_the_side_of_the_skew():
    # by hand: mean 5, deviations -3 -2 -1 1 1 4, squares 32, third powers 30: k3 = 6/(5*4)*30
    t = t_quantile(0.975, 6)
    error = np.sqrt(32.0 / 5.0 / 6.0)
    skew = 6.0 / 20.0 * 30.0 / 6.0**2 / error**3
    longer = 1.0 + 4 / 5 * 6.5 / np.sqrt(6.0) * 5 / 6 * skew**0.75  # 4 of 5 steps are none of a tie
    found = mean_interval([2.0, 3.0, 4.0, 6.0, 6.0, 9.0])
    assert found == pytest.approx((5.0, 5.0 - t * error, 5.0 + longer * t * error))
    mirrored = mean_interval([-2.0, -3.0, -4.0, -6.0, -6.0, -9.0])
    assert mirrored == pytest.approx((-5.0, -found.high, -found.low))
    symmetric = [1.0, 2.0, 4.0, 5.0]
    expected = stats.t.interval(0.95, 3, 3.0, stats.sem(symmetric))
    assert mean_interval(symmetric)[1:] == pytest.approx(expected)


def midp_limit(count, n):
    """The upper end of a share, by definition: a tail of 2.5 %, the count itself in it by half."""

    def tail(p):
        return stats.binom.cdf(count, n, p) - stats.binom.pmf(count, n, p) / 2.0 - 0.025

    return optimize.brentq(tail, count / n, 1.0 - 1e-12)


def test_equal_values_have_a_width_where_others_show_how_far_away_values_can_lie():
    assert midp_limit(0, 3) == pytest.approx(1.0 - 0.05 ** (1 / 3))
    won, lost = np.full(3, 1.0), np.zeros(3)
    for paired in (False, True):
        found = difference(won, lost, paired=paired).mean
        assert found == pytest.approx((1.0, 1.0 - np.sqrt(2.0) * midp_limit(0, 3), 1.0))
        assert difference(won, won, paired=paired).mean == (0.0, 0.0, 0.0)
    # the same on every seed, which differ: as if they were independent, as few pairs tell no spread
    seeds = np.array([0.0, 1.0, 1.0, 5.0])
    assert difference(seeds, seeds, paired=True) == difference(seeds, seeds, paired=False)
    # of many, as before: they tell that there is none
    many = np.arange(40.0)
    assert difference(many, many, paired=True).mean == (0.0, 0.0, 0.0)


def test_a_middle_half_of_equal_values_has_a_width_where_the_rest_differs():
    share = (midp_limit(1, 5) - 0.25) / 0.5
    assert iqm_interval([0.0, 0.0, 8.0, 0.0, 0.0])[:2] == (0.0, 0.0)
    assert iqm_interval([0.0, 0.0, 8.0, 0.0, 0.0]).high == pytest.approx(8.0 * share)
    assert iqm_interval([8.0, 8.0, 0.0, 8.0, 8.0]).low == pytest.approx(8.0 - 8.0 * share)
    assert iqm_interval(np.full(5, 8.0)) == (8.0, 8.0, 8.0)
    few_of_many = np.r_[np.zeros(5), np.full(95, 500.0)]  # at most 11 % lie below: no quarter
    assert iqm_interval(few_of_many) == (500.0, 500.0, 500.0)


def test_an_evaluations_interval_keeps_its_bits():
    """As commit 96c55ac gave it: an evaluation of then is reproduced bit for bit."""
    returns = np.random.default_rng(100).exponential(size=100) * 100
    then = (107.3849017942813, 87.80222460698718, 128.66068751204233)
    assert mean_interval(returns) == then
    for p in (0.975, 0.9995):
        assert student_series(p, 39) == pytest.approx(t_quantile(p, 40), rel=1e-6)


def test_the_interval_of_the_iqm_is_scipys_yuen_or_wider_where_it_is_skewed():
    nothing = np.zeros(8)  # a sample without spread leaves one sample's interval

    def yuen(sample):
        found = stats.ttest_ind(sample, nothing, equal_var=False, trim=0.25)
        return tuple(found.confidence_interval())

    for n in (3, 4, 5, 9, 24):
        symmetric = np.linspace(-1.0, 1.0, n) ** 3 + 7.0
        found = iqm_interval(symmetric)
        assert found == pytest.approx((7.0, *yuen(symmetric)))
        skewed = np.random.default_rng(n).exponential(size=n)
        found = iqm_interval(skewed)
        low, high = yuen(skewed)
        assert (found.low == pytest.approx(low), found.high == pytest.approx(high)).count(True) >= 1
        assert found.low <= low + 1e-9
        assert found.high >= high - 1e-9
        assert found.estimate == pytest.approx(stats.trim_mean(skewed, 0.25))


def test_the_interval_of_the_iqm_by_hand():
    # of 1 2 3 4 9: 2 3 4 are left, winsorised 2 2 3 4 4, squares 4, over 3·2; t of 2 is 4.3027
    found = iqm_interval([9.0, 1.0, 3.0, 2.0, 4.0])
    assert found == pytest.approx((3.0, 3.0 - 4.302653 * np.sqrt(4 / 6), 3.0 + 3.513102), abs=1e-5)


def test_differences_of_independent_means_are_welchs_where_nothing_is_skewed():
    one = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    # by hand: errors squared 0.5 and 4.5; 5^2 / ((0.25 + 20.25) / 6) - 2 degrees of freedom
    t = stats.t.ppf(0.975, 25.0 / (20.5 / 6.0) - 2.0)
    found = difference(one, one * 3.0, paired=False).mean
    assert found == pytest.approx((-6.0, -6.0 - t * np.sqrt(5.0), -6.0 + t * np.sqrt(5.0)))
    expected = stats.ttest_ind(one, one * 3.0, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx(
        (expected.low, expected.high), rel=0.05, abs=0.2
    )
    # a long tail of the second upwards is one of the difference downwards
    tail = np.array([0.0, 0.0, 1.0, 2.0, 12.0])
    skewed = difference(one, tail, paired=False).mean
    assert skewed.estimate - skewed.low > 1.2 * (skewed.high - skewed.estimate)


@pytest.mark.filterwarnings("ignore:.*trim.*")
def test_differences_of_independent_iqms_are_scipys_yuen():
    found = difference(A, B, paired=False, confidence=0.9).iqm
    expected = stats.ttest_ind(A, B, equal_var=False, trim=0.25).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.estimate == pytest.approx(iqm(A) - iqm(B))


def test_differences_in_pairs_leave_out_what_a_seed_does_to_both():
    mean, iqms = difference(PAIRED, A[:8], paired=True)
    assert mean == pytest.approx(mean_interval(PAIRED - A[:8]))
    apart = difference(PAIRED, A[:8], paired=False)
    assert mean.high - mean.low < 0.7 * (apart.mean.high - apart.mean.low)
    assert iqms.high - iqms.low < apart.iqm.high - apart.iqm.low
    # by hand: winsorised 2 2 3 3 minus 1 1 1 1 are 2 2 ones and 2 twos less: t of 1 times √(1/2)
    iqms = difference([0.0, 2.0, 3.0, 9.0], [1.0, 1.0, 1.0, 1.0], paired=True).iqm
    assert iqms == pytest.approx((1.5, 1.5 - 12.7062 * np.sqrt(0.5), 1.5 + 12.7062 * np.sqrt(0.5)))


def test_the_chance_of_improvement_is_mann_and_whitneys():
    found = probability_of_improvement(A, B)
    assert found.estimate == stats.mannwhitneyu(A, B).statistic / (len(A) * len(B))
    ties = [1.0, 2.0, 2.0, 3.0], [2.0, 2.0, 1.0]
    assert probability_of_improvement(*ties).estimate == stats.mannwhitneyu(*ties).statistic / 12
    # three of three against three of three: by chance once in ten, so that a half is inside
    sure = probability_of_improvement([4.0, 5.0, 6.0], [1.0, 2.0, 3.0])
    assert sure.estimate == sure.high == 1.0
    assert 0.2 < sure.low <= 0.5
    assert probability_of_improvement(A + 100.0, B).low > 0.5


def test_the_chance_of_improvement_in_pairs_is_wilsons_share():
    a, b = np.array([2.0, 3.0, 4.0, 5.0, 6.0, 0.0]), np.ones(6)
    found = probability_of_improvement(a, b, paired=True)
    expected = stats.binomtest(5, 6).proportion_ci(method="wilson")
    assert found == pytest.approx((5 / 6, expected.low, expected.high))
    with_ties = probability_of_improvement([1.0, 1.0, 1.0, 2.0], np.ones(4), paired=True)
    assert with_ties.estimate == 0.625
    assert probability_of_improvement(np.ones(9), np.ones(9), paired=True).estimate == 0.5


def test_rliables_own_examples():
    """The numbers in its tests (google-research/rliable, tests/rliable/metrics_test.py)."""
    x = np.array([[1, 2], [2, 2], [1, 1], [2, 1]])
    y = np.array([[1, 1], [2, 2], [3, 3]])
    assert (iqm(x), iqm(y)) == (1.5, 2.0)
    each = [probability_of_improvement(x[:, task], y[:, task]).estimate for task in range(2)]
    assert np.mean(each) == pytest.approx(1 / 3)
    x = np.arange(80).reshape(5, 16)  # and of tests/rliable/library_test.py
    profile = performance_profile(x.ravel(), [0.0, 0.25, 0.5, 1.0])
    assert profile.shares.tolist() == [79 / 80, 79 / 80, 79 / 80, 78 / 80]
    mirrored = np.flip(x, axis=0)
    assert probability_of_improvement(x[:, 0], mirrored[:, 0]).estimate == 0.5


def test_what_rliable_itself_gives_on_generated_scores():
    """Version 1.2.0, run apart: it pins an arch that numpy 2 has no wheel of, so is no dependency.

    Its bootstrap drew 50,000 times; ours differs by chance alone.
    """
    rng = np.random.default_rng(2021)
    x = rng.gamma(2.0, 1.5, (10, 6)).round(3)
    y = rng.normal(2.5, 1.0, (7, 6)).round(1)
    assert iqm(x) == pytest.approx(2.370133333333333, rel=1e-12)
    assert iqm(y) == pytest.approx(2.518181818181818, rel=1e-12)
    each = [probability_of_improvement(*pair).estimate for pair in zip(x.T, y.T, strict=True)]
    assert np.mean(each) == pytest.approx(0.5190476190476191, rel=1e-12)
    shares = performance_profile(x.ravel(), [0.0, 1.0, 2.0, 3.0, 5.0]).shares
    assert shares.tolist() == pytest.approx([1.0, 53 / 60, 35 / 60, 20 / 60, 5 / 60])
    interval = stratified_bootstrap_interval(x, resamples=20_000)
    assert interval == pytest.approx((2.0049, 2.8056), abs=0.02)


def test_a_profile_has_wilsons_band():
    profile = performance_profile([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 4.0])
    assert profile.shares.tolist() == [1.0, 0.5, 0.0]
    for k, low, high in zip((4, 2, 0), profile.low, profile.high, strict=True):
        expected = stats.binomtest(k, 4).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high))


def test_curves_of_different_lengths_at_common_steps():
    found = aggregate_curves([([0, 10], [0.0, 10.0]), ([0, 20], [2.0, 2.0]), ([], [])], points=5)
    assert found.steps.tolist() == [0.0, 5.0, 10.0, 15.0, 20.0]
    assert found.iqm.tolist() == [1.0, 3.5, 6.0, 2.0, 2.0]
    assert found.count.tolist() == [2, 2, 2, 1, 1]
    assert (found.low[-1], found.high[-1]) == (2.0, 2.0)
    assert found.low[0] == pytest.approx(1.0 - 12.7062, abs=1e-4)


def test_curves_with_gaps_and_points_out_of_order():
    found = aggregate_curves([([5, 0, 5], [9.0, 0.0, 5.0]), ([20, 30], [1.0, np.nan])], points=5)
    assert found.steps.tolist() == [0.0, 5.0, 20.0]
    assert found.iqm.tolist() == [0.0, 5.0, 1.0]
    assert aggregate_curves([([3], [4.0])]).steps.tolist() == [3.0]
    with pytest.raises(OutOfRangeError, match="No run has a point"):
        aggregate_curves([([], [])])


def test_the_area_is_the_mean_height_and_ends_are_held():
    assert area_under_curve([0, 10], [0.0, 10.0], 10) == 5.0
    assert area_under_curve([5, 10], [4.0, 8.0], 20) == (5 * 4 + 5 * 6 + 10 * 8) / 20
    assert area_under_curve([0, 10], [0.0, 10.0], 5) == 2.5
    for steps, until in (([], 1), ([1.0], 0)):
        with pytest.raises(OutOfRangeError):
            area_under_curve(steps, steps, until)


def test_the_first_step_at_a_threshold():
    assert steps_to_threshold([10, 20, 30], [1.0, 5.0, 9.0], 5.0) == 20
    assert steps_to_threshold([10, 20], [1.0, 5.0], 5.1) is None


def test_holm_by_hand():
    # 0.01·4, 0.02·3, then no less than that: 0.03·2 = 0.06, 0.5
    assert holm([0.03, 0.01, 0.5, 0.02]).tolist() == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_p_values_are_scipys():
    sample = np.array([1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 8.0, 10.0, 11.0, 12.0])  # not skewed
    found = p_value(lambda c: iqm_interval(sample, c), 4.0)
    zero = np.zeros(8)
    expected = stats.ttest_ind(sample - 4.0, zero, equal_var=False, trim=0.25).pvalue
    assert found == pytest.approx(expected, rel=1e-4)
    assert p_value(lambda c: mean_interval(np.zeros(5), c)) == 1.0
    assert p_value(lambda c: mean_interval(np.ones(5), c)) == 1e-6


CALLS = {
    "mean": lambda a, b: mean_interval(a),
    "iqm": lambda a, b: iqm_interval(a),
    "difference": lambda a, b: difference(a, b, paired=False),
    "probability": lambda a, b: probability_of_improvement(a, b),
}


@pytest.mark.rotated(9)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@settings(max_examples=40, deadline=None)
@given(a=samples(most=18), b=samples(most=18), seed=st.integers(0, 99))
def test_equal_inputs_give_equal_bits_in_any_order_and_the_estimate_is_inside(call, a, b, seed):
    rng = np.random.default_rng(seed)
    found = call(np.array(a), np.array(b))
    again = call(rng.permutation(a), rng.permutation(b))
    assert np.ravel(found).tolist() == pytest.approx(np.ravel(again).tolist(), rel=1e-12)
    assert bits(found) == bits(call(np.array(a), np.array(b)))
    for estimate, low, high in np.reshape(found, (-1, 3)):
        assert low <= estimate <= high


@pytest.mark.parametrize("kind", ["difference", "probability"])
@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30),
       seed=st.integers(0, 99))  # fmt: skip
def test_pairs_in_any_order_give_equal_bits(kind, pairs, seed):
    call = difference if kind == "difference" else probability_of_improvement
    data = np.array(pairs, dtype=float)
    mixed = np.random.default_rng(seed).permutation(data)
    found, again = (call(x[:, 0], x[:, 1], paired=True) for x in (data, mixed))
    assert bits(found) == bits(again)
    mirrored = np.reshape(call(data[:, 1], data[:, 0], paired=True), (-1, 3))
    for (estimate, low, high), other in zip(np.reshape(found, (-1, 3)), mirrored, strict=True):
        assert low <= estimate <= high
        if kind == "probability":
            assert other == pytest.approx((1 - estimate, 1 - high, 1 - low), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(a=samples(2), b=samples(2))
def test_whoever_is_first_the_difference_is_the_same(a, b):
    one, other = difference(a, b, paired=False), difference(b, a, paired=False)
    for x, y in zip(one, other, strict=True):
        scale = 1.0 + abs(x.low) + abs(x.high)
        assert (x.low, x.high) == pytest.approx((-y.high, -y.low), abs=1e-6 * scale)
    chance = probability_of_improvement(a, b)
    back = probability_of_improvement(b, a)
    assert (chance.low, chance.high) == pytest.approx((1 - back.high, 1 - back.low), abs=1e-6)


def test_values_that_say_nothing_are_refused():
    for values in ([], [np.nan], [1.0, np.inf]):
        for call in (mean_interval, iqm_interval):
            with pytest.raises(OutOfRangeError, match="finite"):
                call(values)
    with pytest.raises(OutOfRangeError, match="equally many"):
        difference([1.0], [1.0, 2.0], paired=True)
