"""One job, or experiment, for one idempotency key, however many servers are asked at one moment.

Each server writes a draft with the key, and only then looks for those of others: of two, one at
least sees the other. The eldest becomes the job when the younger have gone; a younger one goes when
it sees an elder. A younger one that looked before the elder was written is a job by then, or soon,
and the elder goes instead. No clock decides: "eldest" only needs to be the same for all.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from grpo_platform.core.errors import InvalidRequestError, StoreUnavailableError
from grpo_platform.core.names import Tag, idempotency_tag
from grpo_platform.tracking.reader import RunRow

__all__ = ["await_made", "is_elected", "is_made", "key_tag", "used_otherwise"]

PATIENCE_SECONDS: Final = 10.0
"""A draft that is neither job nor gone after this time is a dead server's, and is deleted. Were it
alive, it could not become a job any more: MLflow writes to no deleted run."""

_PAUSE_SECONDS: Final = 0.05

_MADE: Final = frozenset({Tag.JOB, Tag.EXPERIMENT})

Look = Callable[[], Sequence[RunRow]]
"""Reads the drafts and jobs of the key, those that were deleted left out."""

Discard = Callable[[str], None]
"""Deletes a draft."""


def key_tag(key: str) -> str:
    """Key of the tag that marks what is made under an idempotency key."""
    return idempotency_tag(hashlib.sha256(key.encode()).hexdigest())


def is_made(row: RunRow) -> bool:
    """Whether a draft has become what it was made for: a job, or an experiment."""
    return not _MADE.isdisjoint(row.tags)


def used_otherwise() -> InvalidRequestError:
    """The error for a key that came with another body."""
    return InvalidRequestError(
        "This Idempotency-Key was used with another body; use a new key for a new job.",
        field="Idempotency-Key",
    )


def is_elected(run_id: str, look: Look, discard: Discard) -> bool:
    """Whether this draft is to become the job; if not, it must be discarded now.

    Raises:
        StoreUnavailableError: the draft is gone, or the store is away.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        rows = {row.run_id: row for row in look()}
        own = rows.pop(run_id, None)
        if own is None:
            raise _undecided()
        if any(is_made(row) or _age(row) < _age(own) for row in rows.values()):
            return False
        if not rows:
            return True
        if time.monotonic() > deadline:
            for younger in rows:
                discard(younger)
        time.sleep(_PAUSE_SECONDS)


def await_made(look: Look, discard: Discard) -> RunRow:
    """The job, or experiment, that an elder draft becomes.

    Raises:
        StoreUnavailableError: none does, or the store is away.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        rows = look()
        if made := [row for row in rows if is_made(row)]:
            return min(made, key=_age)
        if not rows:
            raise _undecided()
        if time.monotonic() > deadline:
            for row in rows:
                discard(row.run_id)
        time.sleep(_PAUSE_SECONDS)


def _age(row: RunRow) -> tuple[int, str]:
    return row.start_time, row.run_id


def _undecided() -> StoreUnavailableError:
    return StoreUnavailableError(
        "Another server was asked for a job with this Idempotency-Key at the same moment, and did "
        "not finish; try again."
    )
