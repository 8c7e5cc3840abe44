"""Sweeps in the MLflow store: a parent run each, whose trials are jobs nested under it."""

from grpo_platform.core.errors import UnknownSweepError
from grpo_platform.core.names import Tag
from grpo_platform.sweeps.records import SWEEP, SweepRecord, TrialRecord, sweep_of, trial_of
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.tracking.job_groups import JobGroupStore
from grpo_platform.tracking.reader import RunRow
from grpo_platform.tracking.reporter import Point
from grpo_platform.tracking.runs import now_ms

__all__ = ["SweepStore"]


class SweepStore(JobGroupStore[SweepRecord, TrialRecord]):
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
    ) -> TrialRecord:
        return trial_of(number, job_id, row, group.request)

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
        return self.members(sweep)

    def mark_pruned(self, job_id: str) -> None:
        """Say that a trial is stopped since it is worse than the others."""
        self.set_tags(job_id, {Tag.TRIAL_PRUNED: "true"})

    def log_best(self, sweep_id: str, key: str, value: float, completed: int) -> None:
        """Log the best value so far, over the number of trials that completed."""
        # the newest point must be the last one, even where somebody deleted a trial
        step = max(completed, self.last_steps(sweep_id, [key]).get(key, 0))
        point = Point(key=key, value=value, step=step, timestamp_ms=now_ms())
        self.log_points(sweep_id, [point])
