"""The child process that a backend works through: kept running, and talked to over a socket.

The forkserver and Ray's driver are such children. Messages are JSON objects, each a packet of a
SOCK_SEQPACKET socket, with file descriptors where the child passes some on.
"""

import array
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from grpo_platform.jobs.backend import Backend

__all__ = ["MAX_MESSAGE", "Supervisor", "drain"]

MAX_MESSAGE: Final = 1 << 17
"""Bytes of the largest message; a request has at most a few thousand."""

_MAX_DESCRIPTORS: Final = 4


class Supervisor:
    """Starts a module as a child, hears it, and starts it again when it has ended.

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


def drain(backend: Backend, timeout_seconds: float) -> None:
    """Poll until every worker has ended, for so long at most."""
    deadline = time.monotonic() + timeout_seconds
    while backend.running() and time.monotonic() < deadline:
        backend.poll(min(0.5, deadline - time.monotonic()))


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
