"""What a failed training says to its user."""

import errno
from collections.abc import Iterator

from grpo import GRPOError
from grpo_platform.core.errors import PlatformError
from grpo_platform.jobs.resources import FULL

__all__ = ["OUT_OF_MEMORY", "explain", "files_away", "lost"]

OUT_OF_MEMORY = (
    "Training ran out of memory, or of the part of it that a job may take "
    "(GRPO_MAX_JOB_MEMORY_MEGABYTES). Use a smaller batch_size, n_steps, num_groups, group_size or "
    "net_arch."
)
_LOG = "The traceback is in the job's log."


def explain(error: BaseException) -> str:
    """A sentence that says what happened and, where it can be known, what to do."""
    if any(_is_out_of_memory(cause) for cause in _causes(error)):
        return OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in FULL:
        return f"The disk is full ({error}). Free some space, then resume the job."
    if isinstance(error, PlatformError):
        return str(error)
    if isinstance(error, GRPOError):
        return f"{error} {_LOG}"
    text = str(error).strip().splitlines()
    detail = f": {text[0][:500]}" if text else ""
    return f"Training raised {type(error).__name__}{detail}. {_LOG}"


def files_away(error: OSError) -> str:
    """What ended a process whose local files were taken away, to follow "its worker"."""
    return f"could not use its files ({error})"


def _is_out_of_memory(error: BaseException) -> bool:
    # torch.OutOfMemoryError by its name: the server should not import torch for this
    # and the one on the CPU has none
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def lost(who: str, reason: str, crashes: int) -> str:
    """Why a job failed that lost its worker or trainer `crashes` times, the last for `reason`."""
    times = "" if crashes == 1 else f" {crashes} times, the last time because it"
    return (
        f"The job lost its {who}{times or ', which'} {reason}. Its log says more; resume the job "
        "to go on from its last checkpoint."
    )
