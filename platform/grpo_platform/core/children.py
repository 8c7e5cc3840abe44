"""Child processes: none outlives its parent, and a forked one does not end as its parent does."""

import ctypes
import os
import signal
import sys
from typing import Final, NoReturn

__all__ = ["die_with_parent", "leave"]

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when its parent ends, however that ends.

    It ends at once where the parent is gone already, which is all that is seen outside of Linux.
    That holds over an exec, but not for children of this process.

    Args:
        parent: process id of the parent.
        by: the signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel was asked
        os._exit(1)


def leave(code: int) -> NoReturn:
    """End a forked process with an exit code, and without what its parent has registered for exit.

    What was printed is written out.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
