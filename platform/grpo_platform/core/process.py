"""Processes: names that stay true, whether they live, what ended them, and children kept running.

Reads Linux's /proc. Elsewhere every worker is `UNKNOWN`, and heartbeats decide.
"""

import array
import contextlib
import ctypes
import gc
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

__all__ = [
    "MAX_MESSAGE",
    "Liveness",
    "Supervisor",
    "die_with_parent",
    "ending",
    "importing",
    "leave",
    "liveness",
    "lower_priority",
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
_AUTOGROUP_TRIES: Final = 10

MAX_MESSAGE: Final = 1 << 17
"""Bytes of the largest message of a child; a request has at most a few thousand."""

_MAX_DESCRIPTORS: Final = 4


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


def lower_priority(niceness: int) -> None:
    """Let other processes come first.

    Where Linux groups processes by session (sched(7), autogroup), it weighs `nice` among those of
    one session only, and the session by a niceness of its own. Both are set, once; the session's
    only by the process that leads it, since it is everyone's in it.

    Args:
        niceness: 1 to 19, the greater the less.
    """
    os.nice(niceness)
    for _ in range(_AUTOGROUP_TRIES if os.getsid(0) == os.getpid() else 0):
        try:
            Path("/proc/self/autogroup").write_text(str(niceness), "ascii")
        except BlockingIOError:  # the kernel takes ten a second, of all processes
            time.sleep(0.1)
        except OSError:  # not grouped
            return
        else:
            return


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """For a block that imports what takes seconds: a sixth of them were garbage collections.

    There is nothing to collect among modules.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def leave(code: int) -> NoReturn:
    """End a forked process with an exit code, and without what its parent has registered for exit.

    What was printed is written out.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Supervisor:
    """Starts a module as a child, hears it, and starts it again when it has ended.

    The forkserver and Ray's driver are such children. Messages are JSON objects, each a packet of a
    SOCK_SEQPACKET socket, with file descriptors where the child passes some on.

    One thread calls all methods but `send` and `wake`, which need the caller's lock.

    Args:
        module: run as `python -m MODULE SOCKET …`, the first argument an inherited descriptor.
        environment: gives the child's variables.
        restart_seconds: from one start to the next at least.
        inherited: further descriptors, the further arguments.

    Attributes:
        ready: the child has said so, and takes orders.
    """

    def __init__(
        self,
        module: str,
        environment: Callable[[], dict[str, str]],
        restart_seconds: float,
        inherited: Iterable[int] = (),
    ) -> None:
        self._module = module
        self._environment = environment
        self._restart_seconds = restart_seconds
        self._inherited = tuple(inherited)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._started_at = 0.0
        self._closed = False
        self.ready = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    @property
    def running(self) -> bool:
        """Whether there is a child, as far as was heard."""
        return self._control is not None

    def start(self) -> None:
        """Start the child; it says `ready` when it is."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            passed = (theirs.fileno(), *self._inherited)
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, *map(str, passed)],
                stdin=subprocess.DEVNULL,
                pass_fds=passed,
                env=self._environment(),
                start_new_session=True,
            )
        self._control = ours
        self._started_at = time.monotonic()

    def start_again(self) -> None:
        """Start the child where it has ended and the pause after its last start is over."""
        if self._control is None and not self._closed and self._until_restart() == 0.0:
            self.start()

    def send(self, message: dict[str, Any]) -> None:
        """Say something to a child that is ready; one that is not hears nothing."""
        if self._control is not None and self.ready:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `receive` tells
                self._control.send(json.dumps(message).encode())

    def wait(self, timeout_seconds: float, also: Iterable[int] = ()) -> None:
        """Wait for a message, for `wake`, for the time to start again, or for the timeout.

        Args:
            timeout_seconds: how long at most.
            also: descriptors that end the wait as well when they can be read.
        """
        poller = select.poll()
        for descriptor in (self._wake_read, *also):
            poller.register(descriptor, select.POLLIN)
        if self._control is not None:
            poller.register(self._control, select.POLLIN)
        elif not self._closed:
            timeout_seconds = min(timeout_seconds, self._until_restart())
        poller.poll(max(0.0, timeout_seconds) * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def wake(self) -> None:
        """End the present or the next `wait`; for any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"w")

    def receive(self) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """What the child has said by now, with the descriptors that came along.

        After its last word comes `{"event": "gone", "status", "was_ready"}`: its return code, and
        whether it had been ready.
        """
        while self._control is not None:
            data, descriptors = _receive_message(self._control)
            if data is None:
                return
            if not data:
                was_ready = self.ready
                yield {"event": "gone", "status": self._end(5.0), "was_ready": was_ready}, []
                return
            message = json.loads(data)
            self.ready |= message["event"] == "ready"
            yield message, descriptors

    def close(self, timeout_seconds: float) -> None:
        """Let the child end, for good; one that takes longer is killed."""
        self._closed = True
        self._end(timeout_seconds)

    def _until_restart(self) -> float:
        return max(0.0, self._started_at + self._restart_seconds - time.monotonic())

    def _end(self, timeout_seconds: float) -> int | None:
        self.ready = False
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _receive_message(control: socket.socket) -> tuple[bytes | None, list[int]]:
    """One message and its descriptors, without waiting: None where there is none, empty at the end.

    Not `socket.recv_fds`: that one ignores flags, and waits.
    """
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    descriptors = array.array("i")
    try:
        data, ancillary, _, _ = control.recvmsg(
            MAX_MESSAGE, socket.CMSG_LEN(_MAX_DESCRIPTORS * descriptors.itemsize), flags
        )
    except BlockingIOError:
        return None, []
    except ConnectionResetError:
        return b"", []
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return data, list(descriptors)
