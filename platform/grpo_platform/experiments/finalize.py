"""The end of an experiment: what its seeds came to together, and which version serves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from grpo_platform.core.names import ExperimentMetric, Tag
from grpo_platform.core.states import JobStatus
from grpo_platform.experiments import report
from grpo_platform.experiments.aggregate import (
    Results,
    aggregate,
    aggregate_histories,
    counted_histories,
    curve_key,
    threshold_of,
)
from grpo_platform.experiments.records import ExperimentRecord, SeedRecord, Selection
from grpo_platform.experiments.selection import select
from grpo_platform.experiments.store import ExperimentStore
from grpo_platform.registry.promotion import Promoter
from grpo_platform.tracking.histories import History
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.reporter import Point
from grpo_platform.tracking.runs import now_ms

__all__ = ["complete", "outcome"]


def complete(
    experiments: ExperimentStore,
    jobs: JobStore,
    promoter: Promoter,
    experiment: ExperimentRecord,
    seeds: Sequence[SeedRecord],
) -> None:
    """Describe an experiment whose seeds have all ended, and make it terminal; again is fine.

    It is called again where a server dies in it, and after a retry: what it writes replaces what
    was there. Once it has called `experiments.finish`, it is not called any more.

    A version is chosen only once all seeds are completed: what is left when some failed is what
    happened to survive.

    Args:
        experiments: where the parent run is.
        jobs: of the same store, with the histories of the seeds.
        promoter: decides about the version that is to serve, and has the registry.
        experiment: that has ended.
        seeds: all of them; a state is `completed`, `failed` or `stopped`.

    Raises:
        StoreError: the store refused, or is away; it is called again.
    """
    status, message = outcome(seeds)
    experiment_id = experiment.experiment_id
    selection = None
    if status is JobStatus.COMPLETED:
        selection = select(promoter, experiment, seeds)
        if selection is not None:
            experiments.set_tags(experiment_id, _tags(selection))
    job = next((seed.job for seed in seeds if seed.job is not None), None)
    key = curve_key(job)
    histories = jobs.histories_of([seed.job_id for seed in seeds], key)
    results = aggregate(seeds, histories, key, threshold_of(job))
    experiments.log_points(experiment_id, _points(experiment, results))
    _upload(experiments, experiment, seeds, results, histories, selection)
    experiments.finish(experiment_id, status, message)


def outcome(seeds: Sequence[SeedRecord]) -> tuple[JobStatus, str | None]:
    """What an experiment comes to whose seeds have ended: its status, and why it is no other."""
    failed = [seed for seed in seeds if seed.state == "failed"]
    stopped = [seed for seed in seeds if seed.state == "stopped"]
    if failed:
        said = next((s.job.error_message for s in failed if s.job and s.job.error_message), None)
        reason = f"seed {failed[0].seed}: {said}" if said else "their runs were deleted"
        return JobStatus.FAILED, (
            f"{len(failed)} of {len(seeds)} seeds failed ({reason}). Retry the experiment to train "
            "them again."
        )
    if stopped:
        return JobStatus.STOPPED, (
            f"{len(stopped)} of {len(seeds)} seeds were stopped. Resume the experiment to go on "
            "with them."
        )
    return JobStatus.COMPLETED, None


def _tags(selection: Selection) -> dict[str, str]:
    return {Tag.EXPERIMENT_SELECTION: selection.to_json()}


def _points(experiment: ExperimentRecord, results: Results) -> list[Point]:
    """The parent's metrics; of a later call at the same step, the later ones count."""
    figures: dict[str, float | None] = {
        ExperimentMetric.COMPLETED: results.completed,
        ExperimentMetric.STEPS: results.steps_to_threshold,
    }
    if results.iqm is not None and results.mean is not None:
        figures[ExperimentMetric.IQM], low, high = results.iqm
        figures |= {ExperimentMetric.CI_LOW: low, ExperimentMetric.CI_HIGH: high}
        figures[ExperimentMetric.MEAN] = results.mean.estimate
    for key, found in (
        (ExperimentMetric.OVER_RANDOM, results.over_random),
        (ExperimentMetric.OVER_START, results.over_start),
    ):
        if found is not None:
            figures[key], figures[f"{key}_ci_low"], figures[f"{key}_ci_high"] = found
    if results.area_under_curve is not None:
        figures[ExperimentMetric.AREA] = results.area_under_curve.estimate
    if results.threshold is not None:
        figures[ExperimentMetric.REACHED] = results.reached
    step, now = experiment.request.total_timesteps, now_ms()
    return [Point(key, value, step, now) for key, value in figures.items() if value is not None]


def _upload(
    experiments: ExperimentStore,
    experiment: ExperimentRecord,
    seeds: Sequence[SeedRecord],
    results: Results,
    histories: Mapping[str, History],
    selection: Selection | None,
) -> None:
    """Write, draw and store what is kept with the parent run."""
    from grpo_platform.experiments.figures import draw_curves  # matplotlib

    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        report.write_seeds(results, folder / report.SEEDS_TABLE)
        together = aggregate_histories(seeds, histories)
        if together is not None:
            report.write_curves(together, folder / report.CURVES_TABLE)
            draw_curves(
                counted_histories(seeds, histories),
                together,
                title=f"{experiment.request.env_name}, {len(seeds)} seeds",
                key=results.curve_key,
                threshold=results.threshold,
                path=folder / report.CURVES_FILE,
            )
        report.write_report(experiment, results, selection, folder / report.REPORT_FILE)
        for path in sorted(folder.iterdir()):
            experiments.upload_file(experiment.experiment_id, path)
    experiments.describe(experiment.experiment_id, report.describe(experiment, results, selection))
