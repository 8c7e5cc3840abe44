"""Experiments in the MLflow store: a parent run each, with one job a seed nested under it."""

import contextlib

from grpo_platform.core.errors import PlatformError, UnknownExperimentError
from grpo_platform.core.names import Tag
from grpo_platform.experiments.records import (
    EXPERIMENT,
    ExperimentRecord,
    SeedRecord,
    experiment_of,
    seed_of,
)
from grpo_platform.experiments.request import ExperimentRequest
from grpo_platform.tracking.job_groups import JobGroupStore
from grpo_platform.tracking.reader import RunQuery, RunRow
from grpo_platform.tracking.records import JobRecord
from grpo_platform.tracking.runs import now_ms

__all__ = ["ExperimentStore"]


class ExperimentStore(JobGroupStore[ExperimentRecord, SeedRecord]):
    """All experiments of one MLflow store; safe to use from several threads.

    Every method raises `StoreUnavailableError` while the store is away, `StoreError` when it
    refuses, and `UnknownExperimentError` for ids that are not an experiment of ours.

    Args:
        jobs: of the same store.
    """

    noun = "Experiment"
    kind = EXPERIMENT
    unknown = UnknownExperimentError

    def _read(self, row: RunRow) -> ExperimentRecord:
        return experiment_of(row)

    def _member(
        self, group: ExperimentRecord, number: int, job_id: str, row: RunRow | None
    ) -> SeedRecord:
        return seed_of(number, job_id, row)

    def create(self, request: ExperimentRequest, owner: str | None = None) -> ExperimentRecord:
        """Make a queued experiment: nobody sees it before every seed has a draft of its job.

        Args:
            request: what to train.
            owner: server that leads it from the beginning; None leaves it to any.

        Returns:
            The experiment; `publish` makes queued jobs of the drafts.
        """
        experiment_id = self._draft(request)
        try:
            for seed in request.seeds:
                self.claim_seed(experiment_id, request, seed)
            tags = {} if owner is None else {Tag.WORKER: owner, Tag.HEARTBEAT: str(now_ms())}
            self._publish(experiment_id, request, tags)
        except PlatformError:
            self._discard_all(experiment_id)
            raise
        return self.experiment(experiment_id)

    def adopt(self, run_id: str, request: ExperimentRequest) -> ExperimentRecord:
        """Make a run that exists an experiment: `mlflow run` made it and logged some params.

        Its seeds have no jobs yet; who leads it makes them.
        """
        self._adopt(run_id, request)
        return self.experiment(run_id)

    def claim_seed(
        self, experiment_id: str, request: ExperimentRequest, seed: int
    ) -> JobRecord | None:
        """Make the draft of a seed's job, unless it has one; as `claim_job`."""
        return self.claim_job(experiment_id, seed, request.job(seed, experiment_id), f"seed {seed}")

    def experiment(self, experiment_id: str) -> ExperimentRecord:
        """The experiment as it stands in the store."""
        return self._find(experiment_id)

    def seeds(self, experiment: ExperimentRecord) -> list[SeedRecord]:
        """Its seeds that were given a job, in order of the seeds; read together."""
        return self.members(experiment)

    def _discard_all(self, experiment_id: str) -> None:
        """Delete an experiment that nobody has seen, with the drafts of its jobs."""
        self._jobs.discard(experiment_id)
        with contextlib.suppress(PlatformError):
            query = RunQuery(tag_keys=(self.kind.members(experiment_id),), limit=1000)
            for row in self._reader.find(query):
                self._jobs.discard(row.run_id)
