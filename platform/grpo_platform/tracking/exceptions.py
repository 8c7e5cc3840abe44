"""Where MLflow's errors become ours: one table, one context manager, one retry."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

import requests
import sqlalchemy.exc
from mlflow.exceptions import MlflowException

from grpo_platform.core.errors import (
    PlatformError,
    StoreError,
    StoreUnavailableError,
    UnknownJobError,
)
from grpo_platform.core.messages import without_credentials

__all__ = [
    "CODES",
    "DAMAGED",
    "UNAVAILABLE_CAUSES",
    "error_code",
    "is_missing",
    "retrying",
    "store_errors",
    "when_granted",
]

_T = TypeVar("_T")

UNAVAILABLE_CAUSES: Final[tuple[type[BaseException], ...]] = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    requests.exceptions.RetryError,
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.DisconnectionError,
    sqlalchemy.exc.TimeoutError,
)
"""Exceptions that say: the store is away or busy, the same call may succeed later."""

CODES: Final[Mapping[str, type[PlatformError]]] = {
    "ABORTED": StoreUnavailableError,
    "CANCELLED": StoreUnavailableError,
    "COULD_NOT_ACQUIRE_LOCK": StoreUnavailableError,
    "DEADLINE_EXCEEDED": StoreUnavailableError,
    "IO_ERROR": StoreUnavailableError,
    "REQUEST_LIMIT_EXCEEDED": StoreUnavailableError,
    "RESOURCE_EXHAUSTED": StoreUnavailableError,
    "SERVICE_UNDER_MAINTENANCE": StoreUnavailableError,
    "TEMPORARILY_UNAVAILABLE": StoreUnavailableError,
    "WORKSPACE_TEMPORARILY_UNAVAILABLE": StoreUnavailableError,
    "NOT_FOUND": UnknownJobError,
    "PERMISSION_DENIED": UnknownJobError,
    "RESOURCE_DOES_NOT_EXIST": UnknownJobError,
}
"""What MLflow's error codes become; the others become `StoreError`.

`UnknownJobError` only where the call was about a job, else `StoreError`. An MLflow server with
authentication denies permission for what does not exist, unless the user is an administrator.
"""

_UNAUTHENTICATED: Final = frozenset({"CUSTOMER_UNAUTHORIZED", "UNAUTHENTICATED"})
DAMAGED: Final = (
    "The store's database is damaged ({}). Stop the server, and put a backup in its place: "
    "grpo-platform store restore. Without one, `sqlite3 mlflow.db .recover` saves what can be read."
)
"""For the user, with what sqlite says; a full disk or a copy made by hand in use did it."""

_TRY_AGAIN: Final = "The MLflow store cannot be reached now; try again."
_ADVICE: Final = {
    "database or disk is full": "The MLflow store's disk is full: make room, then try again.",
    "readonly database": (
        "The MLflow store's database is read-only: let this account write to it and its directory."
    ),
}
"""What to do about errors of sqlite that pass only when somebody acts."""

_DAMAGE: Final = re.compile(r"file is not a database|disk image is malformed")
_CREDENTIALS: Final = (
    "The MLflow server does not accept the credentials: set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to those of one of its users."
)

_DENIED: Final = (
    "The MLflow server does not permit this to the user of MLFLOW_TRACKING_USERNAME; all servers "
    "of a store must be one user. "
)

_RACE: Final = re.compile(r"\((\S*\.)?(IntegrityError|UniqueViolation)\).*(tags?|datasets?)[._]")
"""Two writers gave one run the same new tag, or two runs the same new dataset: MLflow looks, then
inserts; the later call finds it there."""

RETRY_SECONDS: Final = 2.0
"""How long a call that fails at once is tried again; one that blocks longer is not repeated."""


GRANT_SECONDS: Final = 5.0
"""How long an MLflow server may take to give a user the permission for what the user has made."""


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _kind(error: Exception) -> type[PlatformError]:
    if any(isinstance(cause, UNAVAILABLE_CAUSES) for cause in _causes(error)):
        return StoreUnavailableError
    if _RACE.search(str(error)):
        return StoreUnavailableError
    if isinstance(error, MlflowException):
        return CODES.get(error.error_code, StoreError)
    return StoreError


def _translate(error: Exception, job_id: str | None) -> PlatformError:
    kind = _kind(error)
    if isinstance(error, MlflowException) and error.error_code in _UNAUTHENTICATED:
        return StoreError(_CREDENTIALS)
    if isinstance(error.__cause__, StoreUnavailableError):
        return error.__cause__  # our own guard's, which MLflow wrapped
    if damage := _DAMAGE.search(str(error)):
        return StoreError(DAMAGED.format(damage[0]))
    lines = without_credentials(str(error)).strip().splitlines() or [type(error).__name__]
    if kind is StoreUnavailableError:
        advice = next((said for sign, said in _ADVICE.items() if sign in str(error)), _TRY_AGAIN)
        return StoreUnavailableError(f"{advice} ({lines[0][:300]})")
    if kind is UnknownJobError and job_id is not None:
        return UnknownJobError(job_id)
    if _is_denied(error):
        return StoreError(f"{_DENIED}({lines[0][:300]})")
    return StoreError(f"The MLflow store refused: {lines[0][:300]}")


def _is_denied(error: BaseException | None) -> bool:
    return isinstance(error, MlflowException) and error.error_code == "PERMISSION_DENIED"


@contextmanager
def store_errors(job_id: str | None = None) -> Iterator[None]:
    """Turn what MLflow, SQLAlchemy and requests raise into errors of ours.

    Args:
        job_id: the job that the call is about, where there is one.

    Raises:
        StoreUnavailableError: the store is away or busy.
        UnknownJobError: the store knows no such run.
        StoreError: it refused.
    """
    try:
        yield
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, requests.RequestException) as error:
        raise _translate(error, job_id) from error


def retrying(call: Callable[[], _T], job_id: str | None = None) -> _T:
    """Return `call()`, tried again for up to `RETRY_SECONDS` while the store is away.

    Everything that this package writes may be written twice: tags and claims are equal, points
    are deduplicated by MLflow, and a half-created run is not a job.

    Raises:
        StoreUnavailableError: the store stayed away.
        UnknownJobError: the store knows no such run.
        StoreError: it refused.
    """
    deadline = time.monotonic() + RETRY_SECONDS
    pause = 0.05
    while True:
        try:
            with store_errors(job_id):
                return call()
        except StoreUnavailableError:
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause *= 2


def when_granted(call: Callable[[], _T]) -> _T:
    """Return `call()`, which writes to what another server of ours may have made just now.

    An MLflow server with authentication shows a thing before it permits its maker to write to it.

    Raises:
        StoreUnavailableError: the store is away.
        StoreError: it refused, or permits it not even after `GRANT_SECONDS`.
    """
    deadline = time.monotonic() + GRANT_SECONDS
    while True:
        try:
            return retrying(call)
        except StoreError as error:
            if not _is_denied(error.__cause__) or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def error_code(error: StoreError) -> str | None:
    """MLflow's code of what the store refused."""
    cause = error.__cause__
    return cause.error_code if isinstance(cause, MlflowException) else None


def is_missing(error: StoreError) -> bool:
    """Whether the store refused since there is no such thing.

    An MLflow server with authentication denies permission for what does not exist, unless the user
    is an administrator.
    """
    return error_code(error) in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "PERMISSION_DENIED"}
