"""Processes: names that stay true, whether they live, what ended them, and how children end.

Reads Linux's /proc. Elsewhere every worker is `UNKNOWN`, and heartbeats decide.
"""

import ctypes
import hashlib
import os
import signal
import socket
import sys
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Final, NoReturn

__all__ = [
    "Liveness",
    "die_with_parent",
    "ending",
    "leave",
    "liveness",
    "machine",
    "pid_of",
    "worker_name",
]

_PROC = Path("/proc")
_HINTS: dict[int, str] = {
    signal.SIGKILL: " (out of memory?)",
    **dict.fromkeys(
        (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL),
        " (a crash in native code)",
    ),
}
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
_PID_NAMESPACE = _PROC / "self/ns/pid"
_PR_SET_PDEATHSIG: Final = 1


class Liveness(StrEnum):
    """What is known about a worker that this process may not have started itself."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """It runs out of sight: only its heartbeat can tell."""


@cache
def machine() -> str:
    """Host name and a fingerprint of this boot and process namespace.

    Two containers may share a host name, and a process id means nothing after a reboot.
    """
    parts = [socket.gethostname()]
    if _BOOT_ID.exists():
        parts += [_BOOT_ID.read_text("ascii").strip(), os.readlink(_PID_NAMESPACE)]
    fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
    return f"{parts[0].replace(':', '-')[:64]}-{fingerprint}"


def worker_name(pid: int) -> str:
    """`machine:pid:start_time`, the last in the kernel's ticks since boot."""
    _, started = _stat(pid) or ("", 0)
    return f"{machine()}:{pid}:{started}"


def pid_of(worker: str) -> int:
    """Process id in a name that `worker_name` made."""
    return int(worker.split(":")[1])


def liveness(worker: str) -> Liveness:
    """Whether the process with this name runs; unknown where it is another machine's."""
    host, _, rest = worker.partition(":")
    pid, _, started = rest.partition(":")
    if host != machine() or not _BOOT_ID.exists():
        return Liveness.UNKNOWN
    found = _stat(int(pid)) if pid.isdecimal() else None
    if found is None:
        return Liveness.DEAD
    state, ticks = found
    return Liveness.ALIVE if str(ticks) == started and state not in "ZX" else Liveness.DEAD


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time of a process (proc(5), fields 3 and 22); None without one."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def ending(status: int) -> str | None:
    """What ended a process, from its waitpid(2) status; None for a normal exit with code 0."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"was killed by signal {-code}{_HINTS.get(-code, '')}"
    return None if code == 0 else f"ended with exit code {code}"


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
