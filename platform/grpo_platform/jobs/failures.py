"""What a failed training says to its user."""

import errno

from grpo import GRPOError

__all__ = ["OUT_OF_MEMORY", "explain", "lost"]

OUT_OF_MEMORY = (
    "Training ran out of memory. Use a smaller batch_size, n_steps, num_groups, group_size or "
    "net_arch."
)
_LOG = "The traceback is in the job's log (GET /training/{job_id}/logs)."


def explain(error: BaseException) -> str:
    """A sentence that says what happened and, where it can be known, what to do."""
    # torch.OutOfMemoryError by its name: the server should not import torch for this
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full ({error}). Free some space, then resume the job."
    if isinstance(error, GRPOError):
        return f"{error} {_LOG}"
    text = str(error).strip().splitlines()
    detail = f": {text[0][:500]}" if text else ""
    return f"Training raised {type(error).__name__}{detail}. {_LOG}"


def lost(who: str, reason: str, crashes: int) -> str:
    """Why a job failed that lost its worker or trainer `crashes` times, the last for `reason`."""
    times = "" if crashes == 1 else f" {crashes} times, the last time because it"
    return (
        f"The job lost its {who}{times or ', which'} {reason}. Its log says more; resume the job "
        "to go on from its last checkpoint."
    )
