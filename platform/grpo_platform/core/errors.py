"""Every error that the platform raises on purpose; `api/errors.py` gives each its HTTP status.

PlatformError
├── NotFoundError
│   ├── AmbiguousIdError           several ids begin so
│   ├── UnknownJobError
│   ├── UnknownSweepError
│   ├── UnknownExperimentError
│   ├── UnknownComparisonError
│   └── UnknownModelError          no such name, version or alias
├── ConflictError                  the request does not fit the present state
├── InvalidRequestError            a value that is malformed, with the field at fault
│   ├── InvalidPageTokenError
│   └── InvalidObservationError    wrong length, NaN or infinity; names the expected shape
├── BusyError                      as many environments are being tried as may
├── NotReadyError                  the server starts or ends, and takes no jobs
├── QueueFullError                 try again after `retry_after_seconds`
├── TooManyWatchersError           try again after `retry_after_seconds`
├── TooManySessionsError           try again after `retry_after_seconds`
├── UnsafeModelError               a version whose files are not what was released or registered
└── StoreError                     the MLflow store refused or cannot be reached
    └── StoreUnavailableError      it is away; the same call may succeed later
        └── StoreGoneError         a file or folder of it is not where it was
"""

import re
from collections.abc import Sequence

__all__ = [
    "AmbiguousIdError",
    "BusyError",
    "ConflictError",
    "InvalidObservationError",
    "InvalidPageTokenError",
    "InvalidRequestError",
    "NotFoundError",
    "NotReadyError",
    "PlatformError",
    "QueueFullError",
    "StoreError",
    "StoreGoneError",
    "StoreUnavailableError",
    "TooManySessionsError",
    "TooManyWatchersError",
    "UnknownComparisonError",
    "UnknownExperimentError",
    "UnknownJobError",
    "UnknownModelError",
    "UnknownSweepError",
    "UnsafeModelError",
]


_OF_A_MODEL = re.compile(r"([\w.-]+)(?:/\d+|@[\w.-]+)")
"""A version or an alias of a model."""


class PlatformError(Exception):
    """Base of the platform's errors; the message is a sentence for the user."""


class NotFoundError(PlatformError):
    """Something named by the caller does not exist."""


class AmbiguousIdError(NotFoundError):
    """Several ids begin with what was given.

    Args:
        text: as it was given.
        ids: some that begin so.
    """

    def __init__(self, text: str, ids: Sequence[str]) -> None:
        super().__init__(f"Several ids begin with {text!r}: {', '.join(ids)}. Give more of yours.")


def _unknown(kind: str, text: str, listed: str) -> str:
    """That there is none, and a hint where it may be the beginning of an id that is too short."""
    is_short = 0 < len(text) < 4 and set(text) <= set("0123456789abcdef")
    hint = " An id may be given by its first four digits or more." if is_short else ""
    return f"No {kind} {text[:64]!r}. {listed} lists them.{hint}"


class UnknownJobError(NotFoundError):
    """No job of ours has this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(_unknown("training job", job_id, "GET /training/jobs"))


class UnknownSweepError(NotFoundError):
    """No sweep of ours has this id."""

    def __init__(self, sweep_id: str) -> None:
        super().__init__(_unknown("sweep", sweep_id, "GET /sweeps"))


class UnknownExperimentError(NotFoundError):
    """No experiment of ours has this id."""

    def __init__(self, experiment_id: str) -> None:
        super().__init__(_unknown("experiment", experiment_id, "GET /experiments"))


class UnknownComparisonError(NotFoundError):
    """No comparison of ours has this id."""

    def __init__(self, comparison_id: str) -> None:
        super().__init__(f"No comparison {comparison_id[:64]!r}. GET /comparisons lists them.")


class UnknownModelError(NotFoundError):
    """No model of ours has this name, version or alias.

    Args:
        name: as it was given.
        hint: a sentence that names the nearest, and a space; or nothing.
    """

    def __init__(self, name: str, hint: str = "") -> None:
        whole, lists = name[:200], "GET /models lists them."
        if found := _OF_A_MODEL.fullmatch(whole):
            lists = f"GET /models/{found[1]} lists its versions."
        super().__init__(f"No model {whole!r}. {hint}{lists}")


class ConflictError(PlatformError):
    """The request is well formed but does not fit the present state."""


class InvalidRequestError(PlatformError):
    """A malformed value.

    Attributes:
        field: the request field at fault, or None.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidPageTokenError(InvalidRequestError):
    """A page token that no list of ours gave out."""

    def __init__(self) -> None:
        super().__init__(
            "This page_token is not one that this list returned; leave it out to start at the "
            "first page.",
            field="page_token",
        )


class InvalidObservationError(InvalidRequestError):
    """An observation of the wrong shape, or with NaN or infinity in it."""


class NotReadyError(PlatformError):
    """The server is starting or ending."""

    def __init__(self) -> None:
        super().__init__("The server is starting or ending and takes no jobs now; try again soon.")


class BusyError(PlatformError):
    """As many callers wait for environments to be tried as may."""

    def __init__(self) -> None:
        super().__init__("Many environments are being tried at this moment; try again soon.")


class QueueFullError(PlatformError):
    """The queue holds as many jobs as it may, or too many to take several more.

    Args:
        limit: how many may wait.
        places: how many were to be queued together.
        retry_after_seconds: when trying again makes sense.

    Attributes:
        retry_after_seconds: when trying again makes sense.
    """

    def __init__(self, limit: int, places: int = 1, retry_after_seconds: int = 30) -> None:
        wait = "1 job waits" if limit == 1 else f"{limit} jobs wait"
        super().__init__(
            f"The queue is full ({wait}). Try again later, or stop queued jobs."
            if places == 1
            else f"The queue has no room for {places} jobs together (at most {limit} may wait, "
            "GRPO_MAX_QUEUED_JOBS). Try again later, ask for fewer seeds, or stop queued jobs."
        )
        self.retry_after_seconds = retry_after_seconds


class TooManyWatchersError(PlatformError):
    """As many clients watch events as may.

    Attributes:
        retry_after_seconds: when trying again makes sense.
    """

    def __init__(self, limit: int, retry_after_seconds: int = 30) -> None:
        super().__init__(
            f"{limit} clients watch events already, as many as may. Try again later, ask for the "
            "job's status instead, or raise GRPO_MAX_WATCHERS."
        )
        self.retry_after_seconds = retry_after_seconds


class TooManySessionsError(PlatformError):
    """As many policies are at play as may be.

    Args:
        limit: how many may be.
        setting: that says so.
        retry_after_seconds: when trying again makes sense.

    Attributes:
        retry_after_seconds: when trying again makes sense.
    """

    def __init__(self, limit: int, setting: str, retry_after_seconds: int = 30) -> None:
        super().__init__(
            f"{limit} sessions are at play already, as many as may be ({setting}). End one of "
            "them, or try again later."
        )
        self.retry_after_seconds = retry_after_seconds


class UnsafeModelError(PlatformError):
    """A model version that is not loaded, since its files are not ours or were changed."""


class StoreError(PlatformError):
    """The MLflow store refused what was asked."""


class StoreUnavailableError(StoreError):
    """The MLflow store cannot be reached now; nothing was lost, try again."""


class StoreGoneError(StoreUnavailableError):
    """The database's file or the artifact root is not where it was; it is waited for."""
