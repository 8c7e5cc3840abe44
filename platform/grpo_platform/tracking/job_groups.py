"""Parent runs with numbered jobs nested under them, in the MLflow store: sweeps and experiments.

A job claims its number in the parent's ledger: a number is given away once, whoever tries, and the
job is made visible only after that. So no number is ever trained twice, whoever crashes.
"""

import abc
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final, Generic, TypeVar

from grpo_platform.core.access import not_vouched_for
from grpo_platform.core.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PlatformError,
    StoreError,
    StoreUnavailableError,
    UnknownJobError,
)
from grpo_platform.core.names import JOB_READY, Tag, env_tag, model_tag
from grpo_platform.core.request import JobRequest
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.tracking.exceptions import retrying
from grpo_platform.tracking.group_records import GroupKind, GroupMember, GroupRecord, GroupRequest
from grpo_platform.tracking.jobs import JobStore, filtered
from grpo_platform.tracking.lifecycle import Lifecycle
from grpo_platform.tracking.reader import Page, RunQuery, RunRow, decode_token, list_digest, page_of
from grpo_platform.tracking.records import RUN_STATUS, JobRecord, record_of
from grpo_platform.tracking.runs import require_job_id

__all__ = ["JobGroupStore"]

_MOST: Final = 1000


_G = TypeVar("_G", bound=GroupRecord)
_M = TypeVar("_M", bound=GroupMember)


class JobGroupStore(Lifecycle[_G], abc.ABC, Generic[_G, _M]):
    """All parents of one kind in one MLflow store; safe to use from several threads.

    Every method raises `StoreUnavailableError` while the store is away, `StoreError` when it
    refuses, and `unknown` for ids that are not a parent of this kind.

    Args:
        jobs: of the same store.

    Attributes:
        noun: what a parent is called in messages.
        kind: how its runs are told.
        unknown: the error for ids that are not one.
    """

    kind: ClassVar[GroupKind]
    unknown: ClassVar[type[NotFoundError]]

    def __init__(self, jobs: JobStore) -> None:
        super().__init__(jobs.tracking_uri, jobs.signer)
        self._jobs = jobs

    @abc.abstractmethod
    def _read(self, row: RunRow) -> _G:
        """The parent that a run stands for."""

    @abc.abstractmethod
    def _member(self, group: _G, number: int, job_id: str, row: RunRow | None) -> _M:
        """The numbered job that a run of a parent stands for; None: it is gone for good."""

    def _draft(self, request: GroupRequest) -> str:
        """Make a SCHEDULED run that `_publish` makes a queued parent; returns its id."""
        tags = {self.kind.request: request.to_json()}
        run = self._jobs.schedule_run(f"{self.noun.lower()} of {request.env_name}", tags)
        return str(run.info.run_id)

    def _publish(
        self, group_id: str, request: GroupRequest, extra_tags: Mapping[str, str] | None = None
    ) -> None:
        """Make a draft a queued parent, which others see from now on."""
        tags = _marks(group_id, request) | self._signature(group_id, request.to_json())
        tags |= {self.kind.mark: JOB_READY}
        self._log(group_id, params=request.params(), tags=tags | dict(extra_tags or {}))

    def _adopt(self, run_id: str, request: GroupRequest) -> None:
        """Make a run that exists a parent: `mlflow run` made it and logged some params."""
        run = self._run(run_id)
        if self.kind.mark in run.data.tags:
            return
        params = {k: v for k, v in request.params().items() if k not in run.data.params}
        tags = {self.kind.request: request.to_json(), self.kind.mark: JOB_READY}
        tags |= _marks(run_id, request)
        tags[Tag.LEDGER] = self._ledger.current()
        tags |= self._signature(run_id, request.to_json())
        experiment = run.info.experiment_id
        retrying(lambda: self._client.set_experiment_tag(experiment, Tag.JOB, JOB_READY))
        self._log(run_id, params=params, tags=tags)

    def may_lead(self, group: _G) -> bool:
        """Whether this server may make jobs for a parent; the parent says so where it may not."""
        if self.vouches_for(group):
            return True
        if group.error_message != (said := not_vouched_for(group.group_id)):
            self.set_tags(group.group_id, {Tag.ERROR: said})
        return False

    def sign(self, group_id: str) -> _G:
        """Vouch for a parent that is there, and for its jobs."""
        group = self._find(group_id)
        signature = self._signature(group_id, group.stored_request)
        for member in self.members(group):
            if member.job is not None:
                self._jobs.sign(member.job_id)
        self.set_tags(group_id, signature | {Tag.ERROR: ""})
        return self._find(group_id)

    def id_of(self, text: str) -> str:
        """The id of the parent that a text means: see `RunStore._id_of`."""
        return self._id_of(text, self.kind.mark, self.unknown)

    def _find(self, run_id: str) -> _G:
        try:
            require_job_id(run_id)
            row = self._reader.get(run_id)
        except UnknownJobError as error:
            raise self.unknown(run_id) from error
        if self.kind.mark not in row.tags or row.deleted:
            raise self.unknown(run_id)
        return self._read(row)

    def page(
        self,
        limit: int = 100,
        page_token: str | None = None,
        *,
        status: JobStatus | None = None,
        env_name: str | None = None,
        model_name: str | None = None,
    ) -> Page[_G]:
        """Parents, newest first; filters as `JobStore.list` has them.

        Raises:
            InvalidPageTokenError: the token is not one that this list gave out.
        """
        digest = list_digest(self.kind.mark, status, env_name, model_name)
        after = decode_token(page_token, digest) if page_token is not None else None
        query = filtered(
            self.kind.mark, limit + 1, after, status=status, env_name=env_name,
            model_name=model_name,
        )  # fmt: skip
        rows = [] if query is None else self._reader.find(query)
        return page_of(rows, limit, digest, self._read)

    def unfinished(self) -> list[_G]:
        """Parents that are queued or running, oldest first."""
        return self._of(JobStatus.RUNNING, JobStatus.QUEUED)

    def unsigned(self) -> list[_G]:
        """Parents that may go on yet, and that this server does not vouch for, by status."""
        found = self._of(*(status for status in JobStatus if status is not JobStatus.COMPLETED))
        return [group for group in found if not self.vouches_for(group)]

    def _of(self, *statuses: JobStatus) -> list[_G]:
        found: list[_G] = []
        for status in statuses:
            query = RunQuery(
                tag_keys=(self.kind.mark,),
                status=RUN_STATUS[status],
                newest_first=False,
                limit=_MOST,
            )
            found += [self._read(row) for row in self._reader.find(query)]
        return found

    def members(self, group: _G) -> list[_M]:
        """Jobs of a parent by number; one whose run somebody deleted is still there."""
        return self.members_of([group])[group.group_id]

    def members_of(self, groups: Sequence[_G]) -> dict[str, list[_M]]:
        """Jobs of many parents, by parent and number, read together."""
        rows = self._reader.get_all([job for group in groups for job in group.jobs.values()])
        return {
            group.group_id: [
                self._member(group, number, job_id, rows.get(job_id))
                for number, job_id in sorted(group.jobs.items())
            ]
            for group in groups
        }

    def claim_job(
        self, group_id: str, number: int, request: JobRequest, run_name: str
    ) -> JobRecord | None:
        """Make the draft of a number's job, unless the number is taken.

        A server that dies before the draft is published leaves a job that nobody sees, which
        `publish` completes.

        Returns:
            The draft; None where another server was faster.
        """
        tags = {
            Tag.PARENT_RUN: group_id,
            self.kind.member: JOB_READY,
            self.kind.members(group_id): JOB_READY,
        }
        draft = self._jobs.draft(request, run_name=run_name, extra_tags=tags)
        try:
            # before the claim: a server that completes a dead one's job must know whose it is
            if signature := self._signature(draft.job_id, draft.stored_request):
                self.set_tags(draft.job_id, signature)
            won = self._claim(group_id, self.kind.claim(number), draft.job_id)
        except StoreUnavailableError:
            raise  # perhaps it was written: the claim tells at the next look
        except PlatformError:
            self._jobs.discard(draft.job_id)
            raise
        if not won:
            self._jobs.discard(draft.job_id)
            return None
        return draft

    def discard_drafts(self, group: _G) -> None:
        """Delete runs that a server made for a number and died before it claimed that.

        Only once all numbers are given away: then no draft can become a job any more.
        """
        query = RunQuery(tag_keys=(self.kind.members(group.group_id),), limit=_MOST)
        jobs = set(group.jobs.values())
        for row in self._reader.find(query):
            if Tag.JOB not in row.tags and row.run_id not in jobs:
                self._jobs.discard(row.run_id)

    def publish(self, job_id: str) -> JobRecord | None:
        """Complete a job that its server could not; None where none will be queued.

        One that cannot be stored, or that no server of ours made, becomes a failed job.
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
            self._publish_job(draft)
        except InvalidRequestError as error:
            self.set_tags(job_id, {Tag.JOB: JOB_READY})
            self._jobs.finish(job_id, JobStatus.FAILED, str(error))
            return None
        return draft

    def _publish_job(self, draft: JobRecord) -> None:
        try:
            self._jobs.publish(draft)
        except StoreUnavailableError:
            raise
        except StoreError:
            # another leader does the same at this moment, and MLflow refused the later of the two
            self._jobs.publish(draft)

    def resume(self, group_id: str) -> _G:
        """Take a stopped or failed parent up again, with its stopped and failed jobs.

        Raises:
            ConflictError: it is completed, or not finished, or not this server's to lead.
        """
        group = self._resumable(group_id)
        return self._resume(group, [m for m in self.members(group) if m.resumable])

    def _resume(self, group: _G, members: Iterable[_M]) -> _G:
        """Queue a parent again, with these of its jobs."""
        waiting = {m.number: m.job.attempt for m in members if m.job is not None}
        tags = {Tag.STOP_REQUESTED: "false", Tag.ERROR: ""}
        self.set_tags(group.group_id, tags | {self.kind.resuming: json.dumps(waiting)})
        if group.status in TERMINAL:
            self._set_status(group.group_id, JobStatus.QUEUED)
        return self._find(group.group_id)

    def describe(self, group_id: str, note: str) -> None:
        """Set the description that the MLflow UI shows, Markdown."""
        self.set_tags(group_id, {Tag.NOTE: note})

    def upload_file(self, group_id: str, path: Path, folder: str = "") -> str:
        """Store a file with the parent run; returns its artifact path."""
        uri = self._reader.get(group_id).artifact_uri
        return self._files.upload(uri, path, folder, verify=False)

    def delete(self, group_id: str) -> None:
        """Delete a parent that has ended; its jobs stay.

        Raises:
            ConflictError: it is not finished.
        """
        group = self._find(group_id)
        if group.status not in TERMINAL:
            raise ConflictError(f"{self.noun} {group_id} is {group.status.value}; stop it first.")
        self._jobs.delete_run(group_id, group.artifact_uri)

    def strays(self, unfinished: Collection[str]) -> tuple[list[str], list[_G]]:
        """Jobs that wait or run without a parent that does.

        Args:
            unfinished: ids of the parents that do.

        Returns:
            Jobs whose parent somebody deleted, and parents that ended before their jobs: somebody
            resumed one.
        """
        jobs: defaultdict[str, list[str]] = defaultdict(list)
        for status in (JobStatus.QUEUED, JobStatus.RUNNING):
            query = RunQuery(
                tag_keys=(self.kind.member, Tag.JOB), status=RUN_STATUS[status], limit=_MOST
            )
            for row in self._reader.find(query):
                jobs[row.tags.get(Tag.PARENT_RUN, "")].append(row.run_id)
        others = [parent for parent in jobs if parent not in unfinished]
        rows = self._reader.get_all(others)
        there = {i: r for i, r in rows.items() if self.kind.mark in r.tags and not r.deleted}
        orphans = [job for parent in others if parent not in there for job in jobs[parent]]
        ended = [group for group in map(self._read, there.values()) if group.status in TERMINAL]
        return orphans, ended

    def _row(self, job_id: str) -> RunRow | None:
        try:
            return self._reader.get(job_id)
        except UnknownJobError:
            return None


def _marks(group_id: str, request: GroupRequest) -> dict[str, str]:
    """Tags that lists are filtered by."""
    names = (env_tag(request.env_name), model_tag(request.model_name_for(group_id)))
    return dict.fromkeys(names, JOB_READY)
