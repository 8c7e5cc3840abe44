"""What is served: counted, timed, looked at, and laid beside what an evaluation saw."""

import time

import numpy as np
import pytest

from grpo.actions import DiscreteActions
from grpo.policies import PolicySpec, make_policy
from grpo_platform.registry.policy_files import policy_to_files
from grpo_platform.registry.records import ModelVersionRef
from grpo_platform.serving.figures import ServedFigures, histograms
from grpo_platform.serving.model import LoadedModel

MODEL = LoadedModel(
    ModelVersionRef("m", 3, "m-1", "r", {}),
    policy_to_files(make_policy(PolicySpec(observation_shape=(2,), action=DiscreteActions(2)))),
)


def test_calls_are_counted_and_timed():
    figures = ServedFigures()
    assert figures.of(MODEL.ref.key) is None
    started = time.perf_counter()
    for _ in range(10):
        assert figures.note(MODEL, started - 0.01, [0.0, 1.0], 1) >= 0.01
    figures.note(MODEL, started - 1.0, [[0.0, 1.0]] * 5, np.ones(5), 5)
    found = figures.of(MODEL.ref.key)
    assert (found.name, found.version, found.requests, found.observations) == ("m", 3, 11, 15)
    assert 10.0 <= found.latency_p50_ms < 900.0 <= found.latency_p99_ms
    assert found.requests_per_second == pytest.approx(11.0, rel=0.2)
    assert found.latest == pytest.approx(time.time(), abs=5.0)


def test_a_look_is_taken_seldom_and_no_more_is_kept_than_has_room(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    figures = ServedFigures()
    for i in range(2500):
        now[0] += 0.01
        figures.note(MODEL, now[0] - 0.001, [float(i), 0.0], 0)
    kept = figures.steps(MODEL.ref.key)
    assert 400 <= len(kept.observations) <= 500, "20 a second of 100 a second for 25 s"
    for i in range(8000):
        now[0] += 0.06
        figures.note(MODEL, now[0] - 0.001, [float(i), 0.0], 0)
    kept = figures.steps(MODEL.ref.key)
    assert kept.observations.shape == (1000, 2)
    assert kept.observations[:, 0].min() >= 6999.0


def test_of_a_batch_a_few_are_looked_at():
    figures = ServedFigures()
    rows = np.arange(2000.0).reshape(1000, 2)
    figures.note(MODEL, time.perf_counter(), rows, np.arange(1000), 1000)
    kept = figures.steps(MODEL.ref.key)
    assert 10 <= len(kept.observations) <= 20
    assert kept.observations[:, 0].max() > 1800.0
    assert (kept.actions[:, 0] * 2 == kept.observations[:, 0]).all()


def test_actions_of_another_form_are_left_out():
    figures = ServedFigures()
    figures.note(MODEL, time.perf_counter(), [0.0, 1.0], {"gas": 1.0})
    kept = figures.steps(MODEL.ref.key)
    assert kept.observations.shape == (1, 2)
    assert kept.actions.shape == (1, 0)


def test_absurd_numbers_are_noted_too():
    for observation in ([1e308, -1e308], [1.0, 2.0]):
        figures = ServedFigures()
        figures.note(MODEL, time.perf_counter(), observation, float("nan"))
        kept = figures.steps(MODEL.ref.key)
        assert np.isfinite(kept.observations).all()
        assert len(histograms(["0", "1"], kept.observations, None, None)) == 2


def test_histograms_by_hand():
    served = np.array([[0.0], [1.0], [1.0], [1.0]])
    evaluation = np.array([[0.0], [0.0], [1.0], [1.0]])
    (found,) = histograms(["action"], served, evaluation, range(2))
    assert (found.low, found.high) == (-0.5, 1.5)
    assert found.served == [0.25, 0.75]
    assert found.evaluation == [0.5, 0.5]
    assert found.distance == pytest.approx(0.25)
    (alone,) = histograms(["x"], served, None, None)
    assert alone.evaluation is None
    assert alone.distance is None
    assert sum(alone.served) == pytest.approx(1.0)
    (far,) = histograms(["x"], served, evaluation + 10.0, None)
    assert far.distance == pytest.approx(1.0)
    (same,) = histograms(["x"], np.full((3, 1), 2.0), None, None)
    assert (same.low, same.high) == (1.5, 2.5)


def test_a_note_costs_inference_nothing_that_shows():
    """About 2 µs, of a call that takes more than 100 µs; measured without its looks."""
    figures = ServedFigures()
    figures.note(MODEL, time.perf_counter(), [0.0, 1.0], 1)
    observation = [0.0, 1.0]
    best = np.inf
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(2000):
            figures.note(MODEL, started, observation, 1)
        best = min(best, (time.perf_counter() - started) / 2000)
    assert best < 20e-6  # on a busy machine
