"""Leads experiments: completes what a crash left half-made, and sees to the end of each."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from grpo_platform.core.errors import (
    ConflictError,
    StoreError,
    UnknownExperimentError,
    UnknownJobError,
)
from grpo_platform.core.states import TERMINAL
from grpo_platform.experiments.finalize import complete
from grpo_platform.experiments.records import ExperimentRecord, SeedRecord, failed_of
from grpo_platform.experiments.request import ExperimentRequest
from grpo_platform.experiments.store import ExperimentStore
from grpo_platform.jobs.leader import Leader
from grpo_platform.jobs.runner import Runner
from grpo_platform.registry.promotion import Promoter
from grpo_platform.tracking.jobs import JobStore

__all__ = ["ExperimentRunner"]

_log = logging.getLogger(__name__)


class ExperimentRunner(Leader[ExperimentRecord, SeedRecord]):
    """The experiments of one server; all but `start` and `shutdown` is for any thread.

    Args:
        experiments: in MLflow.
        jobs: of the same store.
        runner: takes the jobs.
        promoter: decides which version serves.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        experiments: ExperimentStore,
        jobs: JobStore,
        runner: Runner,
        promoter: Promoter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(experiments, runner, clock)
        self._experiments = experiments
        self._jobs = jobs
        self._promoter = promoter
        self._idempotency = threading.Lock()
        self._accepting = threading.Lock()

    def submit(
        self, request: ExperimentRequest, *, idempotency_key: str | None = None
    ) -> ExperimentRecord:
        """Accept an experiment that was checked, and queue all its jobs.

        Args:
            request: what to train.
            idempotency_key: a second call with the same key returns the experiment of the first
                one, whatever its request; the caller compares.

        Raises:
            QueueFullError: there is not room for all of them; nothing was made.
            ConflictError: the server is shutting down.
            InvalidRequestError: the key is a job's.
            StoreUnavailableError: the experiment was not accepted; try again.
        """
        if idempotency_key is None:
            return self._create(request, None)
        with self._idempotency:
            earlier = self._experiments.find_idempotent(idempotency_key)
            return earlier or self._create(request, idempotency_key)

    def resume(self, experiment_id: str) -> None:
        """Take an experiment up again that was stopped or failed, with its unfinished seeds.

        Raises:
            UnknownExperimentError: no such experiment.
            ConflictError: it is completed, or not finished.
            QueueFullError: there is not room for all of them.
        """
        experiment = self._experiments.experiment(experiment_id)
        seeds = [seed for seed in self._experiments.seeds(experiment) if seed.resumable]
        with self._runner.room(len(seeds)):
            self._experiments.resume(experiment_id)
        self._wake.set()

    def retry(self, experiment_id: str) -> list[SeedRecord]:
        """Take the failed seeds up again, while others train or after the end; returns them.

        Raises:
            UnknownExperimentError: no such experiment.
            ConflictError: no seed failed, or it is being stopped.
            QueueFullError: there is not room for all of them.
        """
        experiment = self._experiments.experiment(experiment_id)
        failed = failed_of(self._experiments.seeds(experiment))
        if not failed:
            raise ConflictError(f"No seed of experiment {experiment_id} failed.")
        ended = experiment.status in TERMINAL
        if experiment.stop_requested and not ended:
            raise ConflictError(f"Experiment {experiment_id} is being stopped; wait for its end.")
        if not ended:
            for seed in failed:
                self._runner.resume(seed.job_id)
        else:
            with self._runner.room(len(failed)):
                self._experiments.retry(experiment)
        self._wake.set()
        return failed

    def reopen(self, experiment_id: str) -> None:
        """Lead an experiment that has ended again, if it is there: a job of it was resumed."""
        with contextlib.suppress(UnknownExperimentError):
            experiment = self._experiments.experiment(experiment_id)
            if experiment.status in TERMINAL:
                self._outlived(experiment)
        self._wake.set()

    def delete(self, experiment_id: str) -> None:
        """Delete an experiment that has ended, with its jobs; their models stay.

        Raises:
            UnknownExperimentError: no such experiment.
            ConflictError: it is not finished, or one of its jobs is not; nothing was deleted.
        """
        experiment = self._experiments.experiment(experiment_id)
        seeds = self._experiments.seeds(experiment)
        if experiment.status not in TERMINAL:
            raise ConflictError(
                f"Experiment {experiment_id} is {experiment.status.value}; stop it first."
            )
        for seed in seeds:
            if seed.job is not None and not seed.ended:
                raise ConflictError(
                    f"Job {seed.job_id} of seed {seed.seed} is {seed.state}; stop it first."
                )
        for seed in seeds:
            with contextlib.suppress(UnknownJobError):
                self._runner.delete(seed.job_id)
        # last: what a crash leaves can be deleted again
        self._experiments.delete(experiment_id)

    def _create(self, request: ExperimentRequest, key: str | None) -> ExperimentRecord:
        with self._runner.room(len(request.seeds)), self._accepting:
            experiment, is_new = self._experiments.create(request, self._owner, key)
            if is_new:
                try:
                    self._publish_drafts(self._experiments.seeds(experiment))
                except StoreError as error:  # it is accepted: who leads it completes it
                    _log.warning("Experiment %s: %s", experiment.experiment_id, error)
        self._wake.set()
        return experiment

    def _advance(self, group: ExperimentRecord) -> None:
        seeds = self._experiments.seeds(group)
        if group.request_error is not None:
            self._fail(group, seeds, group.request_error)
            return
        if any(seed.job is None and not seed.ended for seed in seeds):
            with self._accepting:  # a call of this server may be publishing them
                self._publish_drafts(self._experiments.seeds(group))
            return  # the next look sees them
        if self._stopped(group, seeds) or self._make_missing(group):
            return
        if waiting := [seed for seed in seeds if seed.waits_in(group)]:
            for seed in waiting:
                self._runner.resume(seed.job_id)
            return
        if all(seed.ended for seed in seeds):
            self._experiments.discard_drafts(group)
            self._end(
                group,
                partial(complete, self._experiments, self._jobs, self._promoter, group, seeds),
            )

    def _make_missing(self, experiment: ExperimentRecord) -> bool:
        """Queue the jobs of seeds that have none, as of a run of `mlflow run`; whether any had."""
        request, made = experiment.request, False
        for seed in request.seeds:
            if seed not in experiment.seed_jobs:
                with self._runner.room():
                    job = self._experiments.claim_seed(experiment.experiment_id, request, seed)
                    if job is not None:
                        self._jobs.publish(job)
                        self._runner.enqueue(job)
                made = True
        return made

    def _outlived(self, group: ExperimentRecord) -> None:
        if self._experiments.vouches_for(group):
            self._experiments.reopen(group)
