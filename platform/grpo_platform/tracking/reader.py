"""What is read of a run, and the question that a list asks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from grpo_platform.core.names import CLAIM_PARAM, CLAIM_TAG
from grpo_platform.tracking.pages import Cursor, Page, encode_token

__all__ = ["RunQuery", "RunReader", "RunRow", "claims_of", "page_of"]

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """One MLflow run."""

    run_id: str
    experiment_id: str
    status: str
    """MLflow's word."""

    start_time: int
    """Unix milliseconds."""

    end_time: int | None
    """Unix milliseconds; stays when a run goes on."""

    artifact_uri: str
    deleted: bool
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    """Latest value of each key, NaN and infinities included."""

    claims: Mapping[str, str]
    """Who holds what was claimed: by `attempt_claim` or `trial_claim`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunQuery:
    """Which runs, in which order: by start time, then by id."""

    tag_keys: tuple[str, ...]
    """Tags that a run must carry, whatever their values."""

    limit: int
    status: str | None = None
    """MLflow's word."""

    newest_first: bool = True
    after: Cursor | None = None
    """Only runs that come after this one; only with `newest_first`."""


class RunReader(Protocol):
    """Reads runs that nobody deleted; over HTTP or from the database."""

    def find(self, query: RunQuery) -> Sequence[RunRow]:
        """At most `query.limit` runs, in order."""

    def get(self, run_id: str) -> RunRow:
        """One run, deleted or not.

        Raises:
            UnknownJobError: there is none.
        """


def claims_of(tags: Mapping[str, str], params: Mapping[str, str]) -> dict[str, str]:
    """Claims on a run, by what is claimed.

    Args:
        tags: of the run.
        params: of the run; others than claims are left out.
    """
    return {
        key.removeprefix(prefix): holder
        for prefix, found in ((CLAIM_TAG, tags), (CLAIM_PARAM, params))
        for key, holder in found.items()
        if key.startswith(prefix)
    }


def page_of(
    rows: Sequence[RunRow], limit: int, digest: str, read: Callable[[RunRow], _T]
) -> Page[_T]:
    """The page that the first `limit` rows make; a row more says that another page follows.

    Args:
        rows: up to `limit + 1`, newest first.
        limit: most items of the page.
        digest: of the list.
        read: makes an item of a row.
    """
    items = [read(row) for row in rows[:limit]]
    if len(rows) <= limit:
        return Page(items, None)
    last = rows[limit - 1]
    return Page(items, encode_token(Cursor(last.start_time, last.run_id), digest))
