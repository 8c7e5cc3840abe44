"""Jobs in the MLflow store: made, adopted, found, listed, deleted."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mlflow.entities import LifecycleStage, Run
from mlflow.tracking._tracking_service.utils import _get_store

from grpo_platform.core.access import Signer
from grpo_platform.core.errors import (
    ConflictError,
    InvalidRequestError,
    PlatformError,
    StoreError,
    StoreUnavailableError,
)
from grpo_platform.core.names import EXPERIMENT, JOB_READY, Tag, env_tag, model_tag, seeds_tag
from grpo_platform.core.request import JobRequest
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.tracking.exceptions import retrying
from grpo_platform.tracking.experiments import ensure_experiment
from grpo_platform.tracking.idempotency import (
    await_made,
    is_elected,
    is_made,
    key_tag,
    used_otherwise,
)
from grpo_platform.tracking.lifecycle import JobLifecycle
from grpo_platform.tracking.provenance import provenance_tags
from grpo_platform.tracking.reader import (
    Cursor,
    Page,
    RunQuery,
    RunRow,
    decode_token,
    list_digest,
    page_of,
)
from grpo_platform.tracking.records import RUN_STATUS, JobRecord, differing, params_of, record_of
from grpo_platform.tracking.runs import now_ms
from grpo_platform.tracking.store import check_artifacts_reachable

__all__ = ["JobStore"]

_QUOTABLE = re.compile(r"[\w./:-]{1,200}")
_ALL = 100_000


_MAX_TAG_LENGTH: Final = 8000
_MANY: Final = 100
_CHECK_SECONDS: Final = 1.0
_PURGED: Final = (
    f"The experiment {EXPERIMENT} was deleted for good in MLflow: start the server again, which "
    "makes it anew."
)
_SOME_ID: Final = "0" * 32

_Records = list[JobRecord]


class JobStore(JobLifecycle):
    """All jobs of one MLflow store; safe to use from several threads.

    Raises what `RunStore` raises.

    Args:
        tracking_uri: of the store, absolute.
        experiment_id: where `create` puts jobs; None looks the experiment up by name.
        signer: of the server that queues; others need none.
    """

    def __init__(
        self, tracking_uri: str, experiment_id: str | None = None, signer: Signer | None = None
    ) -> None:
        super().__init__(tracking_uri, signer)
        self._experiment_id = experiment_id
        self._checked = float("-inf")

    def create(self, request: JobRequest) -> JobRecord:
        """Make a queued job: a SCHEDULED run with all params and tags.

        Others see the job only when it is whole, since the last of the three calls marks it.

        Raises:
            InvalidRequestError: a value too long to be stored.
        """
        draft = self.draft(request)
        with self.discarding(draft.job_id):
            self.publish(draft)
        return draft

    def create_once(self, request: JobRequest, key: str) -> tuple[JobRecord, bool]:
        """As `create`, unless there is a job with this idempotency key, or another server makes it.

        `find_idempotent` tells the former sooner.

        Returns:
            The job, and whether this call made it.

        Raises:
            InvalidRequestError: the key is an experiment's.
        """
        tag = key_tag(key)
        draft = self.draft(request, extra_tags={tag: JOB_READY})
        with self.discarding(draft.job_id):
            if is_elected(draft.job_id, lambda: self._of_key(tag), self.discard):
                self.publish(draft)
                return draft, True
        self.discard(draft.job_id)
        return _job_of(await_made(lambda: self._of_key(tag), self.discard)), False

    def draft(
        self,
        request: JobRequest,
        *,
        run_name: str | None = None,
        extra_tags: Mapping[str, str] | None = None,
    ) -> JobRecord:
        """Make a run that `publish` makes a queued job; until then nobody sees it.

        Raises:
            InvalidRequestError: a value too long to be stored.
        """
        params_of(request, _SOME_ID)  # refuses before there is a run
        origin = provenance_tags(request, environment=False)  # which the worker adds
        tags = _request_tags(request) | origin | dict(extra_tags or {})
        name = run_name or f"{request.config.env_name} seed {request.config.seed}"
        run = self.schedule_run(name, tags)
        return JobRecord(
            job_id=run.info.run_id,
            experiment_id=run.info.experiment_id,
            status=JobStatus.QUEUED,
            request=request,
            stored_request=tags[Tag.REQUEST],
            signature=self.signer.sign(run.info.run_id, tags[Tag.REQUEST]),
            start_time=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
            metrics={},
            model_name=request.model_name_for(run.info.run_id),
            artifact_uri=run.info.artifact_uri,
        )

    def publish(self, draft: JobRecord) -> None:
        """Make a draft a queued job; again is fine.

        Raises:
            InvalidRequestError: a value too long to be stored.
        """
        tags = {Tag.JOB: JOB_READY, model_tag(draft.model_name): JOB_READY}
        tags |= self._signature(draft.job_id, draft.stored_request)
        self._log(draft.job_id, params=params_of(draft.request, draft.job_id), tags=tags)

    @contextlib.contextmanager
    def discarding(self, run_id: str) -> Iterator[None]:
        """Discard a run that an error keeps from becoming what it was made for."""
        try:
            yield
        except PlatformError:
            self.discard(run_id)
            raise

    def discard(self, run_id: str) -> None:
        """Delete a run that is not to become what it was made for, as far as that can be done."""
        with contextlib.suppress(PlatformError):
            retrying(lambda: self._client.delete_run(run_id))

    def schedule_run(self, name: str, tags: Mapping[str, str]) -> Run:
        """Make a SCHEDULED run that is neither a job nor a parent of jobs yet."""
        self._files.guard.require_writable()
        start_time = now_ms()
        own = {**tags, Tag.CREATING: JOB_READY, Tag.LEDGER: self._ledger.current()}

        def create() -> Run:
            made = self._experiment()
            return retrying(
                lambda: self._client.create_run(
                    made, start_time=start_time, tags=own, run_name=name
                )
            )

        try:
            run = create()
        except StoreUnavailableError:
            raise
        except StoreError:
            if not self._find_experiment_again():
                raise
            run = create()
        run_id = run.info.run_id
        try:
            retrying(lambda: self._client.update_run(run_id, status=RUN_STATUS[JobStatus.QUEUED]))
        except PlatformError:
            self.discard(run_id)
            raise
        return run

    def adopt(self, run_id: str, request: JobRequest) -> JobRecord:
        """Make a run that exists already a job: `mlflow run` made it and logged some params.

        Raises:
            InvalidRequestError: a param is logged with another value than the request's.
            StoreError: this process could not write the run's artifacts.
        """
        run = self._run(run_id)
        if Tag.JOB in run.data.tags:
            return self.get(run_id)
        check_artifacts_reachable(self.tracking_uri, run.info.artifact_uri)
        params = params_of(request, run_id)
        if names := differing(params, run.data.params):
            raise InvalidRequestError(
                f"Run {run_id} already has other values for: {', '.join(names)}.", field=names[0]
            )
        absent = {name: text for name, text in params.items() if name not in run.data.params}
        # what MLflow knows of the run already, such as its commit, stays
        origin = {k: v for k, v in provenance_tags(request).items() if k not in run.data.tags}
        tags = _request_tags(request) | origin
        tags |= {
            Tag.JOB: JOB_READY,
            model_tag(request.model_name_for(run_id)): JOB_READY,
            Tag.HEARTBEAT: str(now_ms()),
            Tag.LEDGER: self._ledger.current(),
        }
        tags |= self._signature(run_id, tags[Tag.REQUEST])
        retrying(
            lambda: self._client.set_experiment_tag(run.info.experiment_id, Tag.JOB, JOB_READY)
        )
        self._log(run_id, params=absent, tags=tags)
        return self.get(run_id)

    def begin_run(self, experiment_id: str, tags: Mapping[str, str], name: str) -> str:
        """Make a run that is no job yet, for `adopt`; returns its id."""
        run = retrying(
            lambda: self._client.create_run(experiment_id, tags=dict(tags), run_name=name)
        )
        return str(run.info.run_id)

    def abandon(self, run_id: str, reason: str) -> None:
        """Mark a run FAILED that nobody works on any more, be it a job yet or not."""
        if self._run(run_id).info.status in ("RUNNING", "SCHEDULED"):
            self._log(run_id, tags={Tag.ERROR: reason})
            self._write(run_id, lambda: self._client.set_terminated(run_id, "FAILED"))

    def finish_run(self, run_id: str, files: Sequence[Path], tags: Mapping[str, str]) -> None:
        """End a run that is no job, with its files and its tags."""
        location = self._reader.get(run_id).artifact_uri
        for path in files:
            self._files.upload(location, path, "", verify=False)
        self.set_tags(run_id, tags)
        self._write(run_id, lambda: self._client.set_terminated(run_id))

    def sign(self, job_id: str) -> JobRecord:
        """Vouch for a job that is there: servers with this token will train it."""
        record = self.get(job_id)
        tags = self._signature(job_id, record.stored_request)
        self.set_tags(job_id, tags | {Tag.STATUS_MESSAGE: ""})
        return self.get(job_id)

    def unsigned(self) -> _Records:
        """Jobs that may be trained yet, and that this server does not vouch for, by status."""
        found = [r for s in JobStatus if s is not JobStatus.COMPLETED for r in self._oldest(s)]
        return [record for record in found if not self.vouches_for(record)]

    def list(
        self,
        *,
        status: JobStatus | None = None,
        env_name: str | None = None,
        model_name: str | None = None,
        experiment: str | None = None,
        limit: int = 100,
        page_token: str | None = None,
    ) -> Page[JobRecord]:
        """Jobs, newest first, of any MLflow experiment.

        Args:
            status: that they have.
            env_name: that they train on.
            model_name: that they write.
            experiment: id of the parent run whose seeds they train.
            limit: most jobs of the page.
            page_token: of the page before.

        Raises:
            InvalidPageTokenError: the token is not one that this list gave out.
        """
        digest = list_digest(status, env_name, model_name, *filter(None, (experiment,)))
        after = decode_token(page_token, digest) if page_token is not None else None
        query = filtered(
            Tag.JOB, limit + 1, after, status=status, env_name=env_name, model_name=model_name,
            experiment=experiment,
        )  # fmt: skip
        if query is None:
            return Page([], None)
        return page_of(self._reader.find(query), limit, digest, record_of)

    def queued(self, limit: int) -> _Records:
        """At most `limit` jobs that wait, oldest first."""
        return self._oldest(JobStatus.QUEUED, limit)

    def running(self) -> _Records:
        """All jobs that the store calls running, oldest first."""
        return self._oldest(JobStatus.RUNNING)

    def _oldest(self, status: JobStatus, limit: int = _ALL) -> _Records:
        query = RunQuery(
            tag_keys=(Tag.JOB,), status=RUN_STATUS[status], newest_first=False, limit=limit
        )
        return [record_of(row) for row in self._reader.find(query)]

    def find_idempotent(self, key: str) -> JobRecord | None:
        """The oldest job that was created under this idempotency key.

        Raises:
            InvalidRequestError: the key is an experiment's.
        """
        made = [row for row in self._of_key(key_tag(key)) if is_made(row)]
        return _job_of(made[-1]) if made else None

    def _of_key(self, tag: str) -> Sequence[RunRow]:
        return self._reader.find(RunQuery(tag_keys=(tag,), limit=_MANY))

    def delete(self, job_id: str) -> None:
        """Delete a finished job: artifacts, then the run; its models stay.

        In a database the rows are removed for good. An MLflow server has no call for that: there
        the run is marked deleted, until its administrator runs `mlflow gc`.

        Raises:
            ConflictError: the job is not finished.
        """
        record = self.get(job_id)
        if record.status not in TERMINAL:
            raise ConflictError(f"Job {job_id} is {record.status.value}; stop it first.")
        self.delete_run(job_id, record.artifact_uri)

    def delete_run(self, run_id: str, artifact_uri: str) -> None:
        """Delete a run that nobody holds, as `delete` does a job."""
        self._files.delete(artifact_uri)
        self._write(run_id, lambda: self._client.delete_run(run_id))
        if (forever := _hard_delete(self.tracking_uri)) is not None:
            retrying(lambda: forever(run_id), run_id)

    def ask_for_checkpoint(self, job_id: str) -> None:
        """Let whoever trains the job make a checkpoint after the iteration that it is in.

        Raises:
            UnknownJobError: no such job.
            StoreError: the store refused.
        """
        self.set_tags(job_id, {Tag.CHECKPOINT_WANTED: str(now_ms())})

    def check_writable(self) -> None:
        """Refuse, as `create` would, where a job cannot be stored; looks at most once a second.

        Raises:
            StoreUnavailableError: the database or the artifacts are away, full, or read-only.
            StoreError: the store refused.
        """
        now = time.monotonic()
        if now - self._checked < _CHECK_SECONDS:
            return
        self._files.guard.require_writable()
        if retrying(lambda: self._client.get_experiment_by_name(EXPERIMENT)) is None:
            raise StoreError(_PURGED)
        self._ledger.touch(str(now_ms()))
        self._checked = now

    def _find_experiment_again(self) -> bool:
        """Whether jobs can be made now where they could not: their experiment was deleted."""
        found = retrying(lambda: self._client.get_experiment_by_name(EXPERIMENT))
        if found is None:
            raise StoreError(_PURGED)
        changed = found.experiment_id != self._experiment_id
        if found.lifecycle_stage == LifecycleStage.DELETED:
            ensure_experiment(self._client, EXPERIMENT)
            changed = True
        self._experiment_id = found.experiment_id
        return changed

    def _experiment(self) -> str:
        if self._experiment_id is None:
            found = retrying(lambda: self._client.get_experiment_by_name(EXPERIMENT))
            if found is None:
                raise StoreError(f"There is no experiment {EXPERIMENT}; start the server once.")
            self._experiment_id = found.experiment_id
        return self._experiment_id


def filtered(
    mark: str,
    limit: int,
    after: Cursor | None,
    *,
    status: JobStatus | None = None,
    env_name: str | None = None,
    model_name: str | None = None,
    experiment: str | None = None,
) -> RunQuery | None:
    """Which runs with a mark a list shows, by its filters; None where none can be."""
    tagged = ((env_tag, env_name), (model_tag, model_name), (seeds_tag, experiment))
    given = [(tag, name) for tag, name in tagged if name is not None]
    if not all(_QUOTABLE.fullmatch(name) for _, name in given):
        return None  # no run can carry such a name, and a filter cannot quote it
    return RunQuery(
        tag_keys=(mark, *(tag(name) for tag, name in given)),
        status=None if status is None else RUN_STATUS[status],
        after=after,
        limit=limit,
    )


def _request_tags(request: JobRequest) -> dict[str, str]:
    text = request.to_json()
    if len(text) > _MAX_TAG_LENGTH:
        raise InvalidRequestError(
            f"The request takes {len(text)} characters as JSON; at most {_MAX_TAG_LENGTH} can be "
            "stored. Shorten env_kwargs.",
            field="env_kwargs",
        )
    return {
        Tag.REQUEST: text,
        env_tag(request.config.env_name): JOB_READY,
        Tag.ATTEMPT: "1",
        Tag.CRASHES: "0",
        Tag.SEED: str(request.config.seed),
    }


def _hard_delete(tracking_uri: str) -> Callable[[str], None] | None:
    """What `mlflow gc` removes a run's rows with; None where the store is an MLflow server."""
    open_store: Callable[[str], object] = _get_store
    return getattr(open_store(tracking_uri), "_hard_delete_run", None)


def _job_of(row: RunRow) -> JobRecord:
    """The job that was made under a key.

    Raises:
        InvalidRequestError: it is an experiment.
    """
    if Tag.JOB not in row.tags:
        raise used_otherwise()
    return record_of(row)
