"""Experiments in the MLflow store: a parent run each, with one job a seed nested under it."""

import contextlib
from collections.abc import Sequence
from typing import Final

from grpo_platform.core.errors import PlatformError, UnknownExperimentError
from grpo_platform.core.names import JOB_READY, Tag
from grpo_platform.experiments.records import (
    EXPERIMENT,
    ExperimentRecord,
    SeedRecord,
    experiment_of,
    failed_of,
    seed_of,
)
from grpo_platform.experiments.request import ExperimentRequest
from grpo_platform.tracking.idempotency import (
    await_made,
    is_elected,
    is_made,
    key_tag,
    used_otherwise,
)
from grpo_platform.tracking.job_groups import JobGroupStore
from grpo_platform.tracking.reader import RunQuery, RunRow
from grpo_platform.tracking.records import JobRecord
from grpo_platform.tracking.runs import now_ms

__all__ = ["ExperimentStore"]

_MANY: Final = 1000


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

    def create(
        self, request: ExperimentRequest, owner: str | None = None, key: str | None = None
    ) -> tuple[ExperimentRecord, bool]:
        """Make a queued experiment: nobody sees it before every seed has a draft of its job.

        Args:
            request: what to train.
            owner: server that leads it from the beginning; None leaves it to any.
            key: idempotency key; where there is an experiment with it, or another server makes
                it, none is made.

        Returns:
            The experiment, and whether this call made it; `publish` makes queued jobs of its
            drafts.

        Raises:
            InvalidRequestError: the key is a job's.
        """
        experiment_id = self._draft(request)
        try:
            for seed in request.seeds:
                self.claim_seed(experiment_id, request, seed)
            # only now: who waits for an elder draft waits a few seconds
            if elected := key is None or self._is_elected(experiment_id, key):
                tags = {} if owner is None else {Tag.WORKER: owner, Tag.HEARTBEAT: str(now_ms())}
                self._publish(experiment_id, request, tags)
        except PlatformError:
            self._discard_all(experiment_id)
            raise
        if elected or key is None:
            return self.experiment(experiment_id), True
        self._discard_all(experiment_id)
        made = await_made(lambda: self._of_key(key), self._jobs.discard)
        return self._experiment_of_key(made), False

    def find_idempotent(self, key: str) -> ExperimentRecord | None:
        """The oldest experiment that was made under this idempotency key.

        Raises:
            InvalidRequestError: the key is a job's.
        """
        made = [row for row in self._of_key(key) if is_made(row)]
        return self._experiment_of_key(made[-1]) if made else None

    def _is_elected(self, experiment_id: str, key: str) -> bool:
        self.set_tags(experiment_id, {key_tag(key): JOB_READY})
        return is_elected(experiment_id, lambda: self._of_key(key), self._jobs.discard)

    def _of_key(self, key: str) -> Sequence[RunRow]:
        return self._reader.find(RunQuery(tag_keys=(key_tag(key),), limit=_MANY))

    def _experiment_of_key(self, row: RunRow) -> ExperimentRecord:
        if self.kind.mark not in row.tags:
            raise used_otherwise()
        return self._read(row)

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

    def retry(self, experiment: ExperimentRecord) -> ExperimentRecord:
        """Queue an experiment that has ended again, with its failed seeds alone.

        Raises:
            ConflictError: it is completed, or not finished, or not this server's to lead.
        """
        self._resumable(experiment.experiment_id)
        return self._resume(experiment, failed_of(self.seeds(experiment)))

    def reopen(self, experiment: ExperimentRecord) -> ExperimentRecord:
        """Queue an experiment that has ended again, one of whose jobs somebody resumed."""
        return self._resume(experiment, [])

    def _discard_all(self, experiment_id: str) -> None:
        """Delete an experiment that nobody has seen, with the drafts of its jobs."""
        self._jobs.discard(experiment_id)
        with contextlib.suppress(PlatformError):
            query = RunQuery(tag_keys=(self.kind.members(experiment_id),), limit=_MANY)
            for row in self._reader.find(query):
                self._jobs.discard(row.run_id)
