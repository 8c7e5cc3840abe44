"""Finding jobs: only runs that carry our tag, in whatever experiment they are."""

import re

from grpo_platform.core.errors import UnknownJobError
from grpo_platform.core.names import Tag, env_tag, idempotency_tag, model_tag
from grpo_platform.core.states import JobStatus
from grpo_platform.tracking.pages import Page, decode_token, list_digest
from grpo_platform.tracking.reader import RunQuery, RunReader, page_of
from grpo_platform.tracking.records import RUN_STATUS, JobRecord, record_of

__all__ = ["JobSearch", "require_job_id"]

_JOB_ID = re.compile(r"[0-9a-f]{32}")
_QUOTABLE = re.compile(r"[\w./:-]{1,200}")
_ALL = 100_000


def require_job_id(text: str) -> None:
    """Refuse what has not the form of a run id; nothing else is ever handed to MLflow.

    Raises:
        UnknownJobError: it is not an id.
    """
    if not _JOB_ID.fullmatch(text):
        raise UnknownJobError(text)


class JobSearch:
    """Reads lists of jobs; the runs of others are never seen.

    Args:
        reader: of the store.
    """

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader

    def page(
        self,
        *,
        status: JobStatus | None,
        env_name: str | None,
        model_name: str | None,
        limit: int,
        page_token: str | None,
    ) -> Page[JobRecord]:
        """One page of jobs, newest first.

        Raises:
            InvalidPageTokenError: the token is not one that this list gave out.
        """
        digest = list_digest(status, env_name, model_name)
        after = decode_token(page_token, digest) if page_token is not None else None
        names = [name for name in (env_name, model_name) if name is not None]
        if not all(_QUOTABLE.fullmatch(name) for name in names):
            return Page([], None)  # no job can carry such a name, and a filter cannot quote it
        keys = [Tag.JOB]
        if env_name is not None:
            keys.append(env_tag(env_name))
        if model_name is not None:
            keys.append(model_tag(model_name))
        query = RunQuery(
            tag_keys=tuple(keys),
            status=None if status is None else RUN_STATUS[status],
            after=after,
            limit=limit + 1,
        )
        rows = self._reader.find(query)
        return page_of(rows, limit, digest, record_of)

    def oldest(self, status: JobStatus, limit: int = _ALL) -> list[JobRecord]:
        """Jobs of one status, oldest first."""
        query = RunQuery(
            tag_keys=(Tag.JOB,), status=RUN_STATUS[status], newest_first=False, limit=limit
        )
        return [record_of(row) for row in self._reader.find(query)]

    def idempotent(self, digest: str) -> JobRecord | None:
        """The oldest job that was created under the key with this digest."""
        keys = (idempotency_tag(digest), Tag.JOB)
        found = self._reader.find(RunQuery(tag_keys=keys, newest_first=False, limit=1))
        return record_of(found[0]) if found else None
