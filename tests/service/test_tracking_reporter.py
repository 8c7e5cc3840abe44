"""Metric points: how many, where, and the same whether or not the run was interrupted."""

import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.evaluation import Evaluation
from grpo.reporting import RolloutStats, UpdateStats
from grpo.rollout import EpisodeStats
from grpo_platform.core.names import CLOCK_METRICS, SYSTEM_METRICS_PREFIX, Metric
from grpo_platform.tracking.reporter import Group, Point, TrackingReporter


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


def rollout(begin, length, members, rng, episodes=0):
    steps = begin + members * np.arange(1, length + 1)
    return RolloutStats(
        timesteps=steps,
        rewards=rng.normal(size=length),
        episodes=tuple(
            EpisodeStats(timestep=int(steps[-1]), episode_return=float(rng.normal()), length=i + 1)
            for i in range(episodes)
        ),
        degenerate_fraction=float(rng.random()),
        sibling_fraction=float(rng.random()),
    )


def update(timesteps, iteration, rng):
    figures = rng.normal(size=8).tolist()
    return UpdateStats(
        timesteps=timesteps, iteration=iteration, n_updates=10 * iteration,
        policy_loss=figures[0], value_loss=figures[1], entropy=figures[2], approx_kl=figures[3],
        clip_fraction=figures[4], grad_norm=figures[5], explained_variance=figures[6],
        return_std=figures[7],
    )  # fmt: skip


def evaluation(mean, length=10):
    return Evaluation(
        env_name="CartPole-v1", returns=np.full(2, mean), lengths=np.full(2, length),
        seeds=np.arange(2), mean=mean, std=0.0, iqm=mean, ci_low=mean, ci_high=mean,
    )  # fmt: skip


def iterations(total, length, members, seed, eval_every=0):
    """Calls that a trainer would make, one list for each iteration."""
    rng = np.random.default_rng(seed)
    done, number = 0, 0
    while done < total:
        number += 1
        steps = min(length, max(1, (total - done) // members))
        alive = members if (total - done) >= members else total - done
        calls = [("on_rollout", rollout(done, steps, alive, rng, episodes=number % 3))]
        done += steps * alive
        calls.append(("on_update", update(done, number, rng)))
        if eval_every and number % eval_every == 0:
            calls.append(("on_evaluation", done, evaluation(float(rng.normal()))))
        yield calls


def play(reporter, chunks):
    points = []
    for calls in chunks:
        for name, *arguments in calls:
            getattr(reporter, name)(*arguments)
        points += reporter.drain()
    return points


def unclocked(points):
    return [
        (p.key, p.value, p.step)
        for p in points
        if p.key not in CLOCK_METRICS and not p.key.startswith(SYSTEM_METRICS_PREFIX)
    ]


properties = settings(deadline=None, max_examples=50)
runs = st.fixed_dictionaries(
    {
        "total": st.integers(1, 1_000),
        "length": st.integers(2, 40),
        "members": st.integers(1, 8),
        "seed": st.integers(0, 2**32 - 1),
        "eval_every": st.integers(0, 4),
    }
)
max_points = st.integers(10, 200)


@properties
@given(run=runs, most=max_points)
def test_never_more_than_max_points_a_key(run, most):
    reporter = TrackingReporter(run["total"], most, Clock())
    points = play(reporter, iterations(**run)) + reporter.finish()
    keys = [p.key for p in points]
    assert max(keys.count(key) for key in set(keys)) <= most
    for key in set(keys):
        steps = [p.step for p in points if p.key == key]
        assert steps == sorted(set(steps))


@properties
@given(run=runs, most=max_points, split=st.integers(0, 10_000))
def test_resumed_equals_uninterrupted_wherever_it_was_split(run, most, split):
    chunks = list(iterations(**run))
    split %= len(chunks) + 1
    whole = TrackingReporter(run["total"], most, Clock())
    expected = play(whole, chunks) + whole.finish()

    first = TrackingReporter(run["total"], most, Clock())
    before = play(first, chunks[:split])
    state = json.loads(json.dumps(first.state_dict()))
    second = TrackingReporter(run["total"], most, Clock())
    second.load_state_dict(state)
    resumed = before + play(second, chunks[split:]) + second.finish()

    assert unclocked(resumed) == unclocked(expected)


@properties
@given(run=runs, most=max_points, stops=st.lists(st.integers(0, 10_000), max_size=40))
def test_stops_never_lead_to_more_than_max_points(run, most, stops):
    chunks = list(iterations(**run))
    cuts = [0, *sorted(stop % (len(chunks) + 1) for stop in stops), len(chunks)]
    points, state = [], None
    for begin, end in itertools.pairwise(cuts):
        reporter = TrackingReporter(run["total"], most, Clock())
        if state is not None:
            reporter.load_state_dict(state)
        # as a worker does: what is logged already is not logged again
        logged = {p.key: p.step for p in points}
        made = play(reporter, chunks[begin:end]) + reporter.finish()
        points += [p for p in made if p.step > logged.get(p.key, 0)]
        state = json.loads(json.dumps(reporter.state_dict()))
    keys = [p.key for p in points]
    assert max(keys.count(key) for key in set(keys)) <= most
    last = max(p.step for p in points if p.key == Metric.TIMESTEPS)
    assert last == run["total"]


@properties
@given(run=runs, most=max_points)
def test_reward_points_are_means_of_their_slices(run, most):
    chunks = list(iterations(**run))
    reporter = TrackingReporter(run["total"], most, Clock())
    points = play(reporter, chunks) + reporter.finish()
    found = {p.step: p.value for p in points if p.key == Metric.REWARD}
    steps = np.concatenate([calls[0][1].timesteps for calls in chunks])
    rewards = np.concatenate([calls[0][1].rewards for calls in chunks])
    begin = 0
    for step in sorted(found):
        members = (steps > begin) & (steps <= step)
        assert found[step] == pytest.approx(rewards[members].mean(), abs=1e-9)
        begin = step
    assert begin == steps[-1]


def test_by_hand():
    # 20 timesteps, at most 6 points: one is reserved, so slices of 20 / 5 = 4 timesteps
    reporter = TrackingReporter(20, 6, Clock())
    stats = RolloutStats(
        timesteps=np.array([2, 4, 6, 8, 10]), rewards=np.array([1.0, 3.0, 5.0, 7.0, 9.0]),
        episodes=(), degenerate_fraction=0.25, sibling_fraction=0.75, shared_variance=0.5,
    )  # fmt: skip
    reporter.on_rollout(stats)
    assert [(p.value, p.step) for p in reporter.drain()] == [(2.0, 4), (6.0, 8)]
    reporter.on_update(update(10, 1, np.random.default_rng(0)))
    tail = {p.key: (p.value, p.step) for p in reporter.finish()}
    assert tail[Metric.REWARD] == (9.0, 10)
    assert tail[Metric.DEGENERATE_FRACTION] == (0.25, 10)
    assert tail[Metric.SIBLING_FRACTION] == (0.75, 10)
    assert tail[Metric.SHARED_VARIANCE] == (0.5, 10)
    assert tail[Metric.N_UPDATES] == (10, 10)


def test_a_short_run_keeps_every_point():
    reporter = TrackingReporter(50, 1_000, Clock())
    points = play(reporter, iterations(50, 10, 1, seed=0)) + reporter.finish()
    assert [p.step for p in points if p.key == Metric.REWARD] == list(range(1, 51))


def test_nothing_but_finite_values_is_logged():
    reporter = TrackingReporter(4, 1_000, Clock())
    stats = RolloutStats(
        timesteps=np.array([1, 2, 3, 4]),
        rewards=np.array([1.0, np.nan, np.inf, 4.0]),
        episodes=(),
        degenerate_fraction=float("nan"),
        sibling_fraction=float("nan"),
    )
    reporter.on_rollout(stats)
    points = reporter.drain() + reporter.finish()
    assert [(p.key, p.value, p.step) for p in points] == [
        (Metric.REWARD, 1.0, 1),
        (Metric.REWARD, 4.0, 4),
    ]


def test_evaluations_are_seen_at_once_and_the_last_one_always():
    reporter = TrackingReporter(1_000, 10, Clock())  # slices of 112 timesteps
    means = {}
    for timesteps, mean in ((100, 1.0), (110, 2.0), (130, 3.0), (140, 4.0), (150, 5.0)):
        reporter.on_evaluation(timesteps, evaluation(mean))
        means[timesteps] = [p.value for p in reporter.drain() if p.key == Metric.EVAL_MEAN]
    assert means == {100: [1.0], 110: [], 130: [3.0], 140: [], 150: []}
    assert [(p.value, p.step) for p in reporter.finish() if p.key == Metric.EVAL_MEAN] == [
        (5.0, 150)
    ]


def test_episode_return_is_the_mean_of_the_last_hundred():
    reporter = TrackingReporter(1_000, 1_000, Clock())
    for i in range(150):
        reporter.on_rollout(
            RolloutStats(
                timesteps=np.array([i + 1]),
                rewards=np.zeros(1),
                episodes=(EpisodeStats(timestep=i + 1, episode_return=float(i), length=2 * i),),
                degenerate_fraction=0.0,
                sibling_fraction=0.0,
            )
        )
    tail = {p.key: p.value for p in reporter.finish()}
    assert tail[Metric.EPISODE_RETURN] == np.mean(np.arange(50, 150))
    assert tail[Metric.EPISODE_LENGTH] == 2 * np.mean(np.arange(50, 150))


def test_the_clock_counts_all_attempts():
    clock = Clock()
    first = TrackingReporter(100, 1_000, clock)
    clock.now += 100.0
    state = first.state_dict()
    assert state["seconds"] == pytest.approx(100.0, abs=2.0)
    second = TrackingReporter(100, 1_000, clock)
    second.load_state_dict(state)
    clock.now += 50.0
    assert second.seconds == pytest.approx(150.0, abs=3.0)


def test_points_carry_the_moment_they_were_made():
    clock = Clock()
    reporter = TrackingReporter(2, 10, wall_clock=clock)
    before = clock.now
    play(reporter, iterations(2, 1, 1, seed=0))
    for point in reporter.finish():
        assert before * 1000 < point.timestamp_ms <= clock.now * 1000
        assert isinstance(point, Point)


def test_the_machine_is_sampled():
    clock = Clock()
    reporter = TrackingReporter(100, 1_000, clock)
    points = play(reporter, iterations(100, 5, 2, seed=0)) + reporter.finish()
    sampled = {p.key: p.value for p in points if p.key.startswith(SYSTEM_METRICS_PREFIX)}
    assert sampled["system/trainer_memory_megabytes"] > 10
    assert 0 <= sampled["system/cpu_utilization_percentage"] <= 100
    assert len(sampled) == 5


def test_a_group_keeps_the_mean_or_the_last_of_a_slice():
    group = Group(10, ("mean", "last", "never"), frozenset({"last"}))
    assert group.add((1.0, 1.0, math.nan), 1) == []
    assert group.add((2.0, 2.0, math.inf), 10) == []
    assert group.add((9.0, 9.0, math.nan), 11) == [("mean", 1.5, 10), ("last", 2.0, 10)]
    assert group.pending() == [("mean", 9.0, 11), ("last", 9.0, 11)]


@pytest.mark.rotated(14)
def test_the_reporter_needs_no_mlflow():
    code = "import sys, grpo_platform.tracking.reporter; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
