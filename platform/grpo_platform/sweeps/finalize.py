"""The end of a sweep: its best trial's version is judged, and the parent run tells the result."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from grpo import GRPOError
from grpo_platform.core.errors import ConflictError, NotFoundError, UnsafeModelError
from grpo_platform.core.states import JobStatus
from grpo_platform.registry.promotion import Promoter
from grpo_platform.sweeps.records import SweepRecord, TrialRecord, best_of
from grpo_platform.sweeps.store import SweepStore

__all__ = ["complete"]


def complete(
    sweeps: SweepStore, promoter: Promoter, sweep: SweepRecord, trials: list[TrialRecord]
) -> None:
    """Judge the best trial, describe the sweep, and make it terminal; again is fine.

    Raises:
        StoreError: the store refused, or is away.
    """
    sweeps.discard_drafts(sweep)
    best = best_of(trials, sweep.request)
    if best is None or best.job is None or best.value is None:
        jobs = [seed.job for trial in trials for seed in trial.seeds if seed.job is not None]
        said = next((job.error_message for job in jobs if job.error_message), None)
        message = f"No trial was completed. {said or ''}".strip()
        sweeps.finish(sweep.sweep_id, JobStatus.FAILED, message)
        return
    verdict = _judge(promoter, sweep, best)
    completed = sum(trial.value is not None for trial in trials)
    sweeps.log_best(sweep.sweep_id, sweep.request.metric, best.value, completed)
    files = _draw(sweeps, sweep, trials)
    sweeps.describe(sweep.sweep_id, _description(sweep, trials, best, verdict, files))
    sweeps.finish(sweep.sweep_id, JobStatus.COMPLETED)


def _draw(sweeps: SweepStore, sweep: SweepRecord, trials: list[TrialRecord]) -> list[str]:
    """Draw and store the figures; returns their artifact paths."""
    from grpo_platform.sweeps.figures import draw_importance, draw_parallel_coordinates

    request = sweep.request
    seen = [trial.seen() for trial in trials if trial.params]
    maximize = request.direction == "maximize"
    with TemporaryDirectory() as folder:
        lines, bars = Path(folder) / "parallel_coordinates.png", Path(folder) / "importance.png"
        draw_parallel_coordinates(request.space, seen, request.metric, lines)
        drawn = [lines]
        if draw_importance(request.space, seen, maximize=maximize, path=bars):
            drawn.append(bars)
        return [sweeps.upload_file(sweep.sweep_id, path) for path in drawn]


def _judge(promoter: Promoter, sweep: SweepRecord, best: TrialRecord) -> str:
    """Promote the best trial's version under the usual rule, once."""
    rule = sweep.request.promote
    if rule == "never" or best.job is None or best.job.model_version is None:
        return "The sweep asked for no promotion."
    name, version = best.job.model_name, int(best.job.model_version)
    actor = f"sweep {sweep.sweep_id}"
    try:
        for decision in promoter.registry.get(name).decisions:
            if decision.actor == actor and decision.version == version:
                return decision.reason
        return promoter.promote(name, version, rule == "always", actor).reason
    except (ConflictError, NotFoundError, UnsafeModelError, GRPOError) as error:
        return str(error)  # it is champion already, or was deleted, or cannot be played here


def _description(
    sweep: SweepRecord, trials: list[TrialRecord], best: TrialRecord, verdict: str, files: list[str]
) -> str:
    request = sweep.request
    states = [trial.state for trial in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    rows = "\n".join(f"| `{k}` | {json.dumps(v)} |" for k, v in best.params.items())
    version = "" if best.job is None else f"`{best.job.model_name}` {best.job.model_version}"
    value = f"{best.value:,.1f}"
    if best.interval is not None:
        value += f" (mean of {len(best.seeds)} seeds, 95 % interval {best.interval.low:,.1f} to "
        value += f"{best.interval.high:,.1f})"
        version += f", of seed {best.chosen.seed}, which has the best evaluation"
    figures = "".join(
        f"\n\n![{name}](get-artifact?path={name}&run_uuid={sweep.sweep_id})" for name in files
    )
    return (
        f"**{request.env_name}: best {request.metric} {value}**, trial {best.number} of "
        f"{len(trials)} ({counts}).\n\n| field | best value |\n|---|---|\n{rows}\n\n"
        f"Version {version}. {verdict}{figures}"
    )[:7_900]
