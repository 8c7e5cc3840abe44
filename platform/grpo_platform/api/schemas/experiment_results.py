"""What an experiment's seeds came to together, as the API gives it."""

from typing import Literal

from pydantic import Field

from grpo.statistics import Curves, Interval
from grpo_platform.api.schemas.common import Reply, reply_of
from grpo_platform.api.schemas.models import Decision, Evaluation
from grpo_platform.experiments.aggregate import Results
from grpo_platform.experiments.records import Selection

__all__ = [
    "CurvePoint",
    "ExperimentHistory",
    "ExperimentResults",
    "ExperimentSelection",
    "ExperimentVerdict",
    "SeedsEstimate",
    "history_reply",
    "results_reply",
    "selection_reply",
]


class SeedsEstimate(Reply):
    """An estimate over seeds with its 95 % interval."""

    estimate: float
    low: float
    high: float


class ExperimentVerdict(Reply):
    """Whether a configuration learns: its seeds beside random actions and beside their starts."""

    better: bool
    """Whether the intervals of both differences lie above 0."""

    sentence: str
    """The same in words, with the figures."""

    random: SeedsEstimate
    """Mean over seeds of by how much their evaluations exceed random actions."""

    start: SeedsEstimate
    """The same of what the trainings started from: untrained, or the version of `init_from`."""


class ExperimentResults(Reply):
    """What the seeds that completed came to together."""

    completed: int
    """Seeds that are counted."""

    iqm: SeedsEstimate | None
    """Interquartile mean of the seeds' evaluations; null until one is completed."""

    mean: SeedsEstimate | None
    """Mean of the seeds' evaluations."""

    verdict: ExperimentVerdict | None
    """Null below two completed seeds, and where jobs of earlier releases are among them alone."""

    bootstrap_low: float | None
    """Lower end of the interquartile mean's interval by stratified bootstrap over seeds."""

    bootstrap_high: float | None
    """Upper end of it."""

    curve_key: str
    """Metric of the learning curve that the following are of."""

    area_under_curve: SeedsEstimate | None
    """Interquartile mean of the mean heights of the seeds' learning curves over the budget."""

    threshold: float | None
    """Return that counts as solved; null where nobody says."""

    reached: int
    """Seeds whose learning curve reached the threshold."""

    steps_to_threshold: float | None
    """Median over the seeds; null where half of them or more did not reach it."""


class ExperimentSelection(Reply):
    """The version that was chosen among those of the seeds."""

    rule: Literal["best", "median"]
    seed: int
    job_id: str
    chosen_by: float
    """Mean return of the job's final evaluation, by which it was chosen."""

    evaluation: Evaluation | None
    """On fresh episodes, which it was not chosen by; null where they could not be played."""

    model_version: int | None
    """Under the experiment's model name; null where it could not be registered."""

    promoted: bool
    reason: str
    """How it was chosen, how it does on fresh episodes and why it serves or not, in sentences."""

    decision: Decision | None
    """Whether and why it serves, with the figures; null where it could not be registered, and in
    experiments of earlier releases."""


class CurvePoint(Reply):
    """A metric over the seeds at one step."""

    step: float
    iqm: float
    """Interquartile mean over the seeds."""

    ci_low: float
    """Lower end of its 95 % interval."""

    ci_high: float
    """Upper end of it."""

    seeds: int = Field(ge=1)
    """Seeds that reach the step; the others are not counted there."""


class ExperimentHistory(Reply):
    """A metric over the seeds of an experiment, at common steps."""

    experiment_id: str
    key: str
    points: list[CurvePoint]


def results_reply(results: Results) -> ExperimentResults:
    """The reply that tells these results."""
    low, high = results.bootstrap or (None, None)
    return ExperimentResults(
        completed=results.completed,
        iqm=_estimate(results.iqm),
        mean=_estimate(results.mean),
        verdict=_verdict(results),
        bootstrap_low=low,
        bootstrap_high=high,
        curve_key=results.curve_key,
        area_under_curve=_estimate(results.area_under_curve),
        threshold=results.threshold,
        reached=results.reached,
        steps_to_threshold=results.steps_to_threshold,
    )


def selection_reply(selection: Selection | None) -> ExperimentSelection | None:
    """The reply that tells which version was chosen."""
    return None if selection is None else reply_of(ExperimentSelection, selection)


def history_reply(experiment_id: str, key: str, curves: Curves | None) -> ExperimentHistory:
    """The reply that tells this metric; None: no seed has a point of it."""
    rows = () if curves is None else zip(*curves, strict=True)
    points = [
        CurvePoint(step=step, iqm=iqm, ci_low=low, ci_high=high, seeds=seeds)
        for step, iqm, low, high, seeds in rows
    ]
    return ExperimentHistory(experiment_id=experiment_id, key=key, points=points)


def _verdict(results: Results) -> ExperimentVerdict | None:
    random, start = _estimate(results.over_random), _estimate(results.over_start)
    if random is None or start is None or results.better is None or results.verdict is None:
        return None
    return ExperimentVerdict(
        better=results.better, sentence=results.verdict, random=random, start=start
    )


def _estimate(interval: Interval | None) -> SeedsEstimate | None:
    return None if interval is None else SeedsEstimate(**interval._asdict())
