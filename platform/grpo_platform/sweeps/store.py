"""Sweeps in the MLflow store: a parent run each, whose trials are jobs nested under it.

The job of a trial claims its number in the parent's ledger: a number is given away once, whoever
tries, and the job is made visible only after that.
"""

import json
from pathlib import Path
from typing import Final

from grpo_platform.core.access import not_vouched_for
from grpo_platform.core.errors import (
    InvalidRequestError,
    PlatformError,
    StoreUnavailableError,
    UnknownJobError,
    UnknownSweepError,
)
from grpo_platform.core.names import JOB_READY, Tag, trial_claim, trials_tag
from grpo_platform.core.request import JobRequest
from grpo_platform.core.states import JobStatus
from grpo_platform.sweeps.records import SweepRecord, TrialRecord, sweep_of, trial_of
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.tracking.exceptions import retrying
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.lifecycle import Lifecycle
from grpo_platform.tracking.reader import Page, RunQuery, RunRow, decode_token, list_digest, page_of
from grpo_platform.tracking.records import RUN_STATUS, JobRecord, record_of
from grpo_platform.tracking.reporter import Point
from grpo_platform.tracking.runs import now_ms, require_job_id

__all__ = ["SweepStore"]

_DIGEST: Final = list_digest("sweeps")
_MOST: Final = 1000


class SweepStore(Lifecycle[SweepRecord]):
    """All sweeps of one MLflow store; safe to use from several threads.

    Every method raises `StoreUnavailableError` while the store is away, `StoreError` when it
    refuses, and `UnknownSweepError` for ids that are not a sweep of ours.

    Args:
        jobs: of the same store.
    """

    noun = "Sweep"

    def __init__(self, jobs: JobStore) -> None:
        super().__init__(jobs.tracking_uri, jobs.signer)
        self._jobs = jobs

    def create(self, request: SweepRequest) -> SweepRecord:
        """Make a queued sweep: a SCHEDULED run; others see it only when it is whole."""
        run = self._jobs.schedule_run(
            f"sweep of {request.env_name}", {Tag.SWEEP_REQUEST: request.to_json()}
        )
        sweep_id = run.info.run_id
        try:
            signature = self._signature(sweep_id, request.to_json())
            self._log(sweep_id, params=request.params(), tags={Tag.SWEEP: JOB_READY} | signature)
        except PlatformError:
            self._jobs.discard(sweep_id)
            raise
        return self.sweep(sweep_id)

    def adopt(self, run_id: str, request: SweepRequest) -> SweepRecord:
        """Make a run that exists a sweep: `mlflow run` made it and logged some params."""
        run = self._run(run_id)
        if Tag.SWEEP not in run.data.tags:
            params = {k: v for k, v in request.params().items() if k not in run.data.params}
            tags = {Tag.SWEEP_REQUEST: request.to_json(), Tag.SWEEP: JOB_READY}
            tags[Tag.LEDGER] = self._ledger.current()
            tags |= self._signature(run_id, request.to_json())
            experiment = run.info.experiment_id
            retrying(lambda: self._client.set_experiment_tag(experiment, Tag.JOB, JOB_READY))
            self._log(run_id, params=params, tags=tags)
        return self.sweep(run_id)

    def may_lead(self, sweep: SweepRecord) -> bool:
        """Whether this server may make trials for a sweep; the sweep says so where it may not."""
        if self.vouches_for(sweep):
            return True
        if sweep.error_message != (said := not_vouched_for(sweep.sweep_id)):
            self.set_tags(sweep.sweep_id, {Tag.ERROR: said})
        return False

    def sign(self, sweep_id: str) -> SweepRecord:
        """Vouch for a sweep that is there, and for its trials."""
        sweep = self.sweep(sweep_id)
        signature = self._signature(sweep_id, sweep.stored_request)
        for trial in self.trials(sweep):
            if trial.job is not None:
                self._jobs.sign(trial.job_id)
        self.set_tags(sweep_id, signature | {Tag.ERROR: ""})
        return self.sweep(sweep_id)

    def sweep(self, sweep_id: str) -> SweepRecord:
        """The sweep as it stands in the store."""
        try:
            require_job_id(sweep_id)
            row = self._reader.get(sweep_id)
        except UnknownJobError as error:
            raise UnknownSweepError(sweep_id) from error
        if Tag.SWEEP not in row.tags or row.deleted:
            raise UnknownSweepError(sweep_id)
        return sweep_of(row)

    def _find(self, run_id: str) -> SweepRecord:
        return self.sweep(run_id)

    def page(self, limit: int = 100, page_token: str | None = None) -> Page[SweepRecord]:
        """Sweeps, newest first.

        Raises:
            InvalidPageTokenError: the token is not one that this list gave out.
        """
        after = decode_token(page_token, _DIGEST) if page_token is not None else None
        query = RunQuery(tag_keys=(Tag.SWEEP,), after=after, limit=limit + 1)
        rows = self._reader.find(query)
        return page_of(rows, limit, _DIGEST, sweep_of)

    def unfinished(self) -> list[SweepRecord]:
        """Sweeps that are queued or running, oldest first."""
        return self._of(JobStatus.RUNNING, JobStatus.QUEUED)

    def unsigned(self) -> list[SweepRecord]:
        """Sweeps that may go on yet, and that this server does not vouch for, by status."""
        found = self._of(*(status for status in JobStatus if status is not JobStatus.COMPLETED))
        return [sweep for sweep in found if not self.vouches_for(sweep)]

    def _of(self, *statuses: JobStatus) -> list[SweepRecord]:
        found: list[SweepRecord] = []
        for status in statuses:
            query = RunQuery(
                tag_keys=(Tag.SWEEP,), status=RUN_STATUS[status], newest_first=False, limit=_MOST
            )
            found += [sweep_of(row) for row in self._reader.find(query)]
        return found

    def trials(self, sweep: SweepRecord) -> list[TrialRecord]:
        """Trials by number; one whose run somebody deleted is still there."""
        query = RunQuery(
            tag_keys=(trials_tag(sweep.sweep_id), Tag.JOB), newest_first=False, limit=_MOST
        )
        rows = {row.run_id: row for row in self._reader.find(query)}
        return [
            trial_of(number, job_id, rows.get(job_id) or self._row(job_id), sweep.request)
            for number, job_id in sorted(sweep.trial_jobs.items())
        ]

    def claim_trial(self, sweep: SweepRecord, number: int, request: JobRequest) -> JobRecord | None:
        """Make the job of a trial, unless the number is taken.

        A server that dies between the two steps leaves a job that nobody sees, which `publish`
        completes.

        Returns:
            The queued job; None where another server was faster.
        """
        tags = {
            Tag.PARENT_RUN: sweep.sweep_id,
            Tag.TRIAL: JOB_READY,
            trials_tag(sweep.sweep_id): JOB_READY,
        }
        draft = self._jobs.draft(request, run_name=f"trial {number}", extra_tags=tags)
        try:
            # before the claim: a server that completes a dead one's trial must know whose it is
            if signature := self._signature(draft.job_id, draft.stored_request):
                self.set_tags(draft.job_id, signature)
            won = self._claim(sweep.sweep_id, trial_claim(number), draft.job_id)
        except StoreUnavailableError:
            raise  # perhaps it was written: the claim tells at the next look
        except PlatformError:
            self._jobs.discard(draft.job_id)
            raise
        if not won:
            self._jobs.discard(draft.job_id)
            return None
        self._jobs.publish(draft)
        return draft

    def discard_drafts(self, sweep: SweepRecord) -> None:
        """Delete runs that a server made for a trial and died before it claimed the number.

        Only once all numbers are given away: then no draft can become a trial any more.
        """
        query = RunQuery(tag_keys=(trials_tag(sweep.sweep_id),), limit=_MOST)
        trials = set(sweep.trial_jobs.values())
        for row in self._reader.find(query):
            if Tag.JOB not in row.tags and row.run_id not in trials:
                self._jobs.discard(row.run_id)

    def publish(self, job_id: str) -> JobRecord | None:
        """Complete a trial's job that its server could not; None where none will be queued.

        One that cannot be stored, or that no server of ours made, becomes a failed trial.
        """
        row = self._row(job_id)
        if row is None or Tag.JOB in row.tags:
            return None
        if row.deleted:
            retrying(lambda: self._client.restore_run(job_id))
        draft = record_of(row)
        try:
            if not self.vouches_for(draft):
                raise InvalidRequestError(not_vouched_for(job_id))
            self._jobs.publish(draft)
        except InvalidRequestError as error:
            self.set_tags(job_id, {Tag.JOB: JOB_READY})
            self._jobs.finish(job_id, JobStatus.FAILED, str(error))
            return None
        return draft

    def resume(self, sweep_id: str) -> SweepRecord:
        """Take a stopped or failed sweep up again, with its stopped and failed trials.

        Raises:
            ConflictError: it is completed, or not finished, or not this server's to lead.
        """
        sweep = self._resumable(sweep_id)
        waiting = {t.number: t.job.attempt for t in self.trials(sweep) if t.job and t.resumable}
        tags = {Tag.STOP_REQUESTED: "false", Tag.ERROR: ""}
        self.set_tags(sweep_id, tags | {Tag.SWEEP_RESUMING: json.dumps(waiting)})
        self._set_status(sweep_id, JobStatus.QUEUED)
        return self.sweep(sweep_id)

    def mark_pruned(self, job_id: str) -> None:
        """Say that a trial is stopped since it is worse than the others."""
        self.set_tags(job_id, {Tag.TRIAL_PRUNED: "true"})

    def log_best(self, sweep_id: str, key: str, value: float, completed: int) -> None:
        """Log the best value so far, over the number of trials that completed."""
        # the newest point must be the last one, even where somebody deleted a trial
        step = max(completed, self.last_steps(sweep_id, [key]).get(key, 0))
        point = Point(key=key, value=value, step=step, timestamp_ms=now_ms())
        self.log_points(sweep_id, [point])

    def describe(self, sweep_id: str, note: str) -> None:
        """Set the description that the MLflow UI shows, Markdown."""
        self.set_tags(sweep_id, {Tag.NOTE: note})

    def upload_figure(self, sweep_id: str, path: Path) -> str:
        """Store a figure with the parent run; returns its artifact path."""
        return self._files.upload(self._reader.get(sweep_id).artifact_uri, path, "", verify=False)

    def orphans(self) -> list[str]:
        """Jobs that wait or run and whose sweep somebody deleted."""
        found = []
        parents: dict[str, bool] = {}
        for status in (JobStatus.QUEUED, JobStatus.RUNNING):
            query = RunQuery(tag_keys=(Tag.TRIAL, Tag.JOB), status=RUN_STATUS[status], limit=_MOST)
            for row in self._reader.find(query):
                parent = row.tags.get(Tag.PARENT_RUN, "")
                if parent not in parents:
                    parents[parent] = self._is_gone(parent)
                if parents[parent]:
                    found.append(row.run_id)
        return found

    def _row(self, job_id: str) -> RunRow | None:
        try:
            return self._reader.get(job_id)
        except UnknownJobError:
            return None

    def _is_gone(self, sweep_id: str) -> bool:
        try:
            self.sweep(sweep_id)
        except UnknownSweepError:
            return True
        return False
