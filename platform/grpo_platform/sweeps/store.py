"""Sweeps in the MLflow store: a parent run each, whose trials are jobs nested under it."""

from collections.abc import Sequence

from grpo_platform.core.errors import UnknownSweepError
from grpo_platform.core.names import Tag
from grpo_platform.sweeps.records import (
    SWEEP,
    SweepRecord,
    TrialRecord,
    TrialSeed,
    sweep_of,
    trial_seed_of,
    trials_of,
)
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.tracking.job_groups import JobGroupStore
from grpo_platform.tracking.reader import RunRow
from grpo_platform.tracking.reporter import Point
from grpo_platform.tracking.runs import now_ms

__all__ = ["SweepStore"]


class SweepStore(JobGroupStore[SweepRecord, TrialSeed]):
    """All sweeps of one MLflow store; safe to use from several threads.

    Every method raises `StoreUnavailableError` while the store is away, `StoreError` when it
    refuses, and `UnknownSweepError` for ids that are not a sweep of ours.

    Args:
        jobs: of the same store.
    """

    noun = "Sweep"
    kind = SWEEP
    unknown = UnknownSweepError

    def _read(self, row: RunRow) -> SweepRecord:
        return sweep_of(row)

    def _member(
        self, group: SweepRecord, number: int, job_id: str, row: RunRow | None
    ) -> TrialSeed:
        return trial_seed_of(number, job_id, row, group.request)

    def create(self, request: SweepRequest) -> SweepRecord:
        """Make a queued sweep: a SCHEDULED run; others see it only when it is whole."""
        sweep_id = self._draft(request)
        with self._jobs.discarding(sweep_id):
            self._publish(sweep_id, request)
        return self.sweep(sweep_id)

    def adopt(self, run_id: str, request: SweepRequest) -> SweepRecord:
        """Make a run that exists a sweep: `mlflow run` made it and logged some params."""
        self._adopt(run_id, request)
        return self.sweep(run_id)

    def sweep(self, sweep_id: str) -> SweepRecord:
        """The sweep as it stands in the store."""
        return self._find(sweep_id)

    def trials(self, sweep: SweepRecord) -> list[TrialRecord]:
        """Trials by number; one whose run somebody deleted is still there."""
        return trials_of(self.members(sweep), sweep.request)

    def trials_of(self, sweeps: Sequence[SweepRecord]) -> dict[str, list[TrialRecord]]:
        """Trials of many sweeps, by sweep and number, read together."""
        jobs = self.members_of(sweeps)
        return {sweep.sweep_id: trials_of(jobs[sweep.sweep_id], sweep.request) for sweep in sweeps}

    def mark_pruned(self, job_id: str) -> None:
        """Say that a job is stopped since its trial is worse than the others."""
        self.set_tags(job_id, {Tag.TRIAL_PRUNED: "true"})

    def log_best(self, sweep_id: str, key: str, value: float, completed: int) -> None:
        """Log the best value so far, over the number of trials that completed."""
        # the newest point must be the last one, even where somebody deleted a trial
        step = max(completed, self.last_steps(sweep_id, [key]).get(key, 0))
        point = Point(key=key, value=value, step=step, timestamp_ms=now_ms())
        self.log_points(sweep_id, [point])
