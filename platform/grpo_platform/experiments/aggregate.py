"""What an experiment's seeds tell together: evaluation, learning curve, how soon they were good.

A seed is one observation: its evaluation is the mean return of its final episodes, and intervals
are over seeds. Only seeds that completed are counted; how many did not is told beside it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np

from grpo.statistics import (
    Curves,
    Interval,
    aggregate_curves,
    area_under_curve,
    iqm_interval,
    mean_interval,
    steps_to_threshold,
    stratified_bootstrap_interval,
)
from grpo.verdict import in_words
from grpo_platform.core.names import Metric
from grpo_platform.core.states import JobStatus
from grpo_platform.experiments.records import SeedRecord
from grpo_platform.tracking.group_records import GroupMember
from grpo_platform.tracking.histories import History
from grpo_platform.tracking.records import JobRecord

__all__ = [
    "Results",
    "SeedResult",
    "aggregate",
    "aggregate_histories",
    "counted_histories",
    "curve_key",
    "evaluation_of",
    "threshold_of",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedResult:
    """What one seed came to."""

    seed: int
    job_id: str
    state: str
    evaluation: float | None
    """Mean return of its final evaluation; None until it is completed."""

    timesteps: int
    """Environment timesteps that it trained."""

    model_version: int | None

    area_under_curve: float | None
    """Mean height of its learning curve over the whole budget; None until it is completed."""

    steps_to_threshold: int | None
    """First step at which its learning curve reached the threshold; None where it did not, and
    until it is completed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """What the seeds that completed came to together; None where there are none."""

    completed: int
    mean: Interval | None
    """Of the evaluations, over seeds."""

    iqm: Interval | None
    """Interquartile mean of the evaluations, over seeds."""

    bootstrap: tuple[float, float] | None
    """The interquartile mean's interval by stratified bootstrap over seeds, as papers print it
    (Agarwal et al. 2021); too short where there are few seeds, which `iqm` is not."""

    over_random: Interval | None
    """Mean over seeds of by how much their evaluations exceed random actions."""

    over_start: Interval | None
    """The same of what the trainings started from."""

    curve_key: str
    """Metric of the learning curve."""

    area_under_curve: Interval | None
    """Interquartile mean over seeds."""

    threshold: float | None
    """Return that counts as solved; None where nobody says."""

    reached: int
    """Seeds among the completed ones whose learning curve reached the threshold."""

    steps_to_threshold: float | None
    """Median over the completed seeds; one that never reached it needed more than all others.
    None where half of them or more did not."""

    seeds: tuple[SeedResult, ...]
    """Of every seed, in their order."""

    @property
    def better(self) -> bool | None:
        """Whether the configuration learns: both differences lie above 0; None where unknown."""
        if self.over_random is None or self.over_start is None:
            return None
        return self.over_random.low > 0.0 and self.over_start.low > 0.0

    @property
    def verdict(self) -> str | None:
        """The same in words, with the figures."""
        if self.over_random is None or self.over_start is None:
            return None
        return in_words(self.over_random, self.over_start)


def curve_key(job: JobRecord | None) -> str:
    """Metric that an experiment's learning curve is of: evaluations where they are made on the way.

    Args:
        job: of one of its seeds.
    """
    evaluated = job is not None and job.request.config.eval_freq > 0
    return Metric.EVAL_MEAN if evaluated else Metric.EPISODE_RETURN


def threshold_of(job: JobRecord | None) -> float | None:
    """Return that counts as solved: the job's `target_return`, else what the environment says.

    Args:
        job: of one of the experiment's seeds.
    """
    if job is None:
        return None
    config = job.request.config
    if config.target_return is not None:
        return config.target_return
    registered = gymnasium.registry.get(config.env_name)
    return None if registered is None else registered.reward_threshold


def evaluation_of(seed: GroupMember) -> float | None:
    """Mean return of a seed's final evaluation; None until its job is completed."""
    if seed.job is None or seed.job.status is not JobStatus.COMPLETED:
        return None
    return seed.job.metrics.get(Metric.EVAL_MEAN)


def aggregate(
    seeds: Sequence[SeedRecord],
    histories: Mapping[str, History],
    key: str,
    threshold: float | None,
) -> Results:
    """What the seeds came to.

    Args:
        seeds: all of an experiment.
        histories: of the metric `key`, by job; those of completed ones are enough.
        key: metric of the learning curve.
        threshold: return that counts as solved, if any does.
    """
    found = tuple(_result(seed, histories.get(seed.job_id), threshold) for seed in seeds)
    scores = [seed.evaluation for seed in found if seed.evaluation is not None]
    areas = [seed.area_under_curve for seed in found if seed.area_under_curve is not None]
    done = [seed for seed in found if seed.evaluation is not None]
    reached = [seed.steps_to_threshold for seed in done if seed.steps_to_threshold is not None]
    steps = [*reached, *[math.inf] * (len(done) - len(reached))]
    median = float(np.median(steps)) if reached else math.inf
    return Results(
        completed=len(scores),
        mean=mean_interval(scores) if scores else None,
        iqm=iqm_interval(scores) if scores else None,
        bootstrap=stratified_bootstrap_interval(np.array(scores)[:, None]) if scores else None,
        over_random=_over(seeds, Metric.OVER_RANDOM),
        over_start=_over(seeds, Metric.OVER_START),
        curve_key=key,
        area_under_curve=iqm_interval(areas) if areas else None,
        threshold=threshold,
        reached=len(reached),
        steps_to_threshold=median if math.isfinite(median) else None,
        seeds=found,
    )


def _over(seeds: Sequence[SeedRecord], key: str) -> Interval | None:
    """Mean difference from a baseline over completed seeds; None below two of them."""
    found = [
        seed.job.metrics[key]
        for seed in seeds
        if seed.job is not None and evaluation_of(seed) is not None and key in seed.job.metrics
    ]
    return mean_interval(found) if len(found) > 1 else None


def aggregate_histories(
    seeds: Sequence[SeedRecord], histories: Mapping[str, History], points: int = 100
) -> Curves | None:
    """Interquartile mean and interval of the seeds' histories at common steps.

    Histories may be of different lengths: each is counted within its own range. None where no seed
    that counts has a point.

    Args:
        seeds: of an experiment.
        histories: of one metric, by job.
        points: common steps.
    """
    counted = list(counted_histories(seeds, histories).values())
    return aggregate_curves(counted, points) if counted else None


def counted_histories(
    seeds: Sequence[SeedRecord], histories: Mapping[str, History]
) -> dict[str, History]:
    """Those of the seeds that did not fail, by job, each up to where its training ended.

    A metric of episodes has its last point where the last one ended, somewhat before that.
    """
    return {
        seed.job_id: histories[seed.job_id].held_until(
            seed.job.current_timesteps if seed.state == "completed" else 0
        )
        for seed in seeds
        if seed.job is not None and seed.state != "failed" and seed.job_id in histories
    }


def _result(seed: SeedRecord, history: History | None, threshold: float | None) -> SeedResult:
    job, score = seed.job, evaluation_of(seed)
    area = reached = None
    if history is not None and job is not None and score is not None:
        area = area_under_curve(history.steps, history.values, job.total_timesteps)
        if threshold is not None:
            reached = steps_to_threshold(history.steps, history.values, threshold)
    version = None if job is None or job.model_version is None else int(job.model_version)
    return SeedResult(
        seed=seed.seed,
        job_id=seed.job_id,
        state=seed.state,
        evaluation=score,
        timesteps=0 if job is None else job.current_timesteps,
        model_version=version,
        area_under_curve=area,
        steps_to_threshold=reached,
    )
