"""What an experiment's seeds come to together, by hand; choosing one; figure, table and report."""

import csv
import dataclasses
from datetime import UTC, datetime

import numpy as np
import pytest

from grpo.evaluation import EVALUATION_SEED, evaluation_seeds
from grpo_platform.core.names import Metric
from grpo_platform.core.states import JobStatus
from grpo_platform.experiments import report
from grpo_platform.experiments.aggregate import (
    aggregate,
    aggregate_histories,
    curve_key,
    threshold_of,
)
from grpo_platform.experiments.figures import draw_curves
from grpo_platform.experiments.records import ExperimentRecord, SeedRecord, Selection
from grpo_platform.experiments.request import ExperimentRequest
from grpo_platform.experiments.selection import choose, fresh_seed
from grpo_platform.registry.card import EvaluationCard
from grpo_platform.tracking.histories import History
from grpo_platform.tracking.records import JobRecord
from tests.service.tracking_support import request

BUDGET = 20
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def seed(number, evaluation=None, state="completed", timesteps=BUDGET, **fields):
    """A seed whose job returned so much."""
    job = JobRecord(
        job_id=f"job{number}",
        experiment_id="0",
        status=JobStatus(state),
        request=request(total_timesteps=BUDGET, seed=number, **fields),
        start_time=NOW,
        metrics={} if evaluation is None else {Metric.EVAL_MEAN: evaluation},
        current_timesteps=timesteps,
        model_name="m",
        model_version=str(number) if state == "completed" else None,
        artifact_uri="",
    )
    return SeedRecord(number=number, job_id=job.job_id, job=job, state=state)


def history(*points):
    steps, values = zip(*points, strict=True)
    return History(np.array(steps, np.int64), np.array(values, np.float64))


SEEDS = [
    seed(1, 10.0),
    seed(2, 100.0, timesteps=10),  # its evaluations reached what was asked for
    seed(3, 30.0),
    seed(4, 20.0),
    seed(5, 1e9, "failed"),  # as last seen while it trained
    seed(6, state="running"),
    SeedRecord(number=7, job_id="gone", job=None, state="failed"),
]
HISTORIES = {
    "job1": history((0, 0), (10, 10), (20, 20)),
    "job2": history((0, 0), (10, 30)),  # ended early: what it had is held to the budget's end
    "job3": history((10, 5)),  # one point, all the way
    "job4": history((5, 10), (15, 20)),
    "job5": history((0, -1e6)),
    "job6": history((0, 16), (10, 20)),
}


def test_the_figures_are_those_of_the_completed_seeds_by_hand():
    found = aggregate(SEEDS, HISTORIES, Metric.EPISODE_RETURN, 15.0)
    assert found.completed == 4
    assert found.mean.estimate == 40.0
    assert found.iqm.estimate == 25.0  # of 20 and 30
    assert found.iqm.low < 25.0 < found.iqm.high
    low, high = found.bootstrap
    assert 10.0 <= low < 25.0 < high <= 100.0
    areas = [each.area_under_curve for each in found.seeds]
    # a triangle; half a triangle of 30 and then 30; a level; 10, a slope to 20, 20
    assert areas == [10.0, 22.5, 5.0, 15.0, None, None, None]
    assert found.area_under_curve.estimate == 12.5  # of 10 and 15
    assert [each.steps_to_threshold for each in found.seeds] == [20, 10, None, 15, None, None, None]
    assert found.reached == 3
    assert found.steps_to_threshold == 17.5  # of 10, 15, 20 and never
    assert [each.seed for each in found.seeds] == [1, 2, 3, 4, 5, 6, 7]
    assert [each.model_version for each in found.seeds] == [1, 2, 3, 4, None, None, None]


def test_where_half_the_seeds_never_reach_the_threshold_there_is_no_median():
    found = aggregate(SEEDS, HISTORIES, Metric.EPISODE_RETURN, 20.0)
    assert (found.reached, found.steps_to_threshold) == (3, 17.5)
    found = aggregate(SEEDS, HISTORIES, Metric.EPISODE_RETURN, 25.0)
    assert (found.reached, found.steps_to_threshold) == (1, None)
    found = aggregate(SEEDS, HISTORIES, Metric.EPISODE_RETURN, None)
    assert (found.threshold, found.reached, found.steps_to_threshold) == (None, 0, None)


def test_before_a_seed_is_completed_there_are_no_figures():
    found = aggregate([SEEDS[5]], HISTORIES, Metric.EPISODE_RETURN, 15.0)
    assert (found.completed, found.mean, found.iqm, found.bootstrap) == (0, None, None, None)
    assert aggregate([], {}, Metric.EPISODE_RETURN, None).area_under_curve is None


def test_histories_of_different_lengths_count_within_their_own_range():
    found = aggregate_histories(SEEDS, HISTORIES, points=5)
    assert found.steps.tolist() == [0, 5, 10, 15, 20]
    assert found.count.tolist() == [3, 4, 5, 3, 3]
    # at 0: 0, 0 and 16; at 10: 10, 30, 5, 15 and 20 without the least and the most
    assert found.iqm[0] == pytest.approx(16 / 3)
    assert found.iqm[2] == 15.0
    # what training ended after is held to its end: 15, 5 and 20; of one that trains nothing is
    assert found.iqm[3] == pytest.approx(40 / 3)
    assert found.iqm[4] == 15.0  # of 20, 5 and 20
    assert aggregate_histories(SEEDS, {}) is None
    assert aggregate_histories([SEEDS[4]], HISTORIES) is None  # it failed


def test_the_curve_is_of_evaluations_where_there_are_some_on_the_way():
    assert curve_key(seed(1).job) == Metric.EPISODE_RETURN
    assert curve_key(seed(1, eval_freq=10).job) == Metric.EVAL_MEAN
    assert curve_key(None) == Metric.EPISODE_RETURN


def test_the_threshold_is_the_jobs_own_or_the_environments():
    assert threshold_of(seed(1).job) == 475.0
    assert threshold_of(seed(1, target_return=400.0, eval_freq=10).job) == 400.0
    assert threshold_of(seed(1, env_name="Pendulum-v1").job) is None
    assert threshold_of(None) is None


@pytest.mark.parametrize(
    ("scores", "best", "median"),
    [
        ([10.0, 100.0, 30.0, 20.0], 2, 4),  # 20 and 30 are in the middle: the lower
        ([10.0, 30.0, 20.0], 2, 3),
        ([5.0, 9.0, 9.0], 2, 2),  # of equals the first
        ([7.0, 7.0], 1, 1),
        ([None, 3.0], 2, 2),
        ([None, None], None, None),
    ],
)
def test_the_rule_chooses(scores, best, median):
    seeds = [seed(i, score) for i, score in enumerate(scores, start=1)]
    chosen = [choose(seeds, rule) for rule in ("best", "median")]
    assert [each and each.seed for each in chosen] == [best, median]


def test_fresh_episodes_are_none_of_those_that_a_job_is_evaluated_on_or_trained_on():
    for count in (1, 100, 10_000):
        fresh = evaluation_seeds(count, fresh_seed(count))
        assert not set(fresh.tolist()) & set(evaluation_seeds(count, EVALUATION_SEED).tolist())
        assert fresh.min() >= 2**31  # training's are below


SELECTION = Selection(
    rule="best", seed=2, job_id="job2", chosen_by=100.0, model_version=1, promoted=True,
    evaluation=EvaluationCard(
        episodes=100, mean=90.0, std=1.0, iqm=90.0, ci_low=89.0, ci_high=91.0, interval_of="mean"
    ),
    reason="m/1. Seed 2 was chosen.",
)  # fmt: skip


def test_a_selection_travels_as_json():
    assert Selection.from_json(SELECTION.to_json()) == SELECTION
    assert Selection.from_json("") is Selection.from_json('{"seed": 1}') is None


def experiment(**fields):
    asked = ExperimentRequest.of(request(total_timesteps=BUDGET, model_name="m"), range(1, 8))
    return ExperimentRecord(
        group_id="e" * 32, status=JobStatus.RUNNING, stored_request="", signature="",
        start_time=NOW, end_time=None, error_message=None, owner=None, heartbeat_ms=None,
        jobs={each.seed: each.job_id for each in SEEDS}, stop_requested=False, resuming={},
        request=dataclasses.replace(asked, **fields), metrics={},
    )  # fmt: skip


def test_the_report_tells_the_result_the_selection_every_seed_and_how_to_do_it_again(tmp_path):
    results = aggregate(SEEDS, HISTORIES, Metric.EPISODE_RETURN, 15.0)
    path = tmp_path / "report.md"
    report.write_report(experiment(), results, SELECTION, path)
    text = path.read_text()
    assert "# Experiment: CartPole-v1, 7 seeds" in text
    assert "**CartPole-v1: return 25.0** (interquartile mean over 4 seeds, 95 % interval" in text
    assert "**3 of 7 seeds are not counted**" in text
    assert "3 of 4 seeds reached 15, in 18 timesteps (median)." in text
    assert "m/1. Seed 2 was chosen." in text
    assert "| 5 | failed |  |  |  |  | `job5` |" in text
    assert "| 2 | completed | 100.0 | 22.5 | 10 | 2 | `job2` |" in text
    assert "-P seeds=1,2,3,4,5,6,7" in text
    assert "grpo-platform reproduce job1" in text
    assert "| `total_timesteps` | `20` |" in text
    each = experiment(register="each")
    assert "None was chosen by its result" in report.describe(each, results, None)
    assert "None was chosen" not in report.describe(experiment(), results, None)


def test_the_tables_hold_what_is_known(tmp_path):
    results = aggregate(SEEDS, HISTORIES, Metric.EPISODE_RETURN, 15.0)
    report.write_seeds(results, tmp_path / "seeds.csv")
    report.write_curves(aggregate_histories(SEEDS, HISTORIES, 5), tmp_path / "curves.csv")
    with (tmp_path / "seeds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["evaluation"] for row in rows] == ["10.0", "100.0", "30.0", "20.0", "", "", ""]
    assert rows[1]["area_under_curve"] == "22.5"
    assert rows[6] == {
        "seed": "7", "state": "failed", "evaluation": "", "area_under_curve": "", "timesteps": "0",
        "steps_to_threshold": "", "model_version": "", "job_id": "gone",
    }  # fmt: skip
    with (tmp_path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seeds"] for row in rows] == ["3", "4", "5", "3", "3"]
    assert float(rows[2]["iqm"]) == 15.0


def test_the_figure_is_a_picture(tmp_path):
    path = tmp_path / "curves.png"
    draw_curves(
        HISTORIES, aggregate_histories(SEEDS, HISTORIES), title="seeds", key="x",
        threshold=15.0, path=path,
    )  # fmt: skip
    assert path.read_bytes().startswith(b"\x89PNG")
