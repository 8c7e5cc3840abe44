"""The worker's end of a trainer: start it, order it, hear it, end it."""

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn, Self

from grpo_platform.core.children import die_with_parent, leave
from grpo_platform.core.request import JobRequest
from grpo_platform.jobs.process import ending

__all__ = ["TrainerHandle", "TrainerProcess"]


class TrainerHandle(ABC):
    """The pipe to a trainer, wherever that one runs. Orders may be given from any thread.

    Args:
        connection: the worker's end of the pipe; `trainer_process.train` has the other.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def begin(
        self, *, checkpoint: Path | None = None, weights: Path | None = None, seconds: float = 0.0
    ) -> None:
        """Train, from a checkpoint or from a policy's weights where one is given.

        Args:
            checkpoint: of an earlier attempt.
            weights: of the policy that the job starts from.
            seconds: that earlier attempts have trained.
        """
        self._send(
            {
                "kind": "start",
                "checkpoint": None if checkpoint is None else str(checkpoint),
                "weights": None if weights is None else str(weights),
                "seconds": seconds,
            }
        )

    def stop(self) -> None:
        """Ask it to stop between two updates; it answers with `done`."""
        self._send({"kind": "stop"})

    @abstractmethod
    def kill(self) -> None:
        """End it without asking; does nothing when it has ended."""

    @abstractmethod
    def _wait(self) -> str | None:
        """Wait for its end, after `kill`; returns what ended it, to follow "its trainer"."""

    def messages(self) -> Iterator[dict[str, Any]]:
        """What it says until it ends, and then `{"kind": "ended", "reason": …}`; one reader."""
        while True:
            try:
                yield json.loads(self._connection.recv_bytes())
            except (EOFError, OSError):
                break
        # it may have closed the pipe and yet live on; and only a killed one can be waited for
        self.kill()
        yield {"kind": "ended", "reason": self._wait() or "ended without a word"}

    def _send(self, message: dict[str, object]) -> None:
        with self._lock, contextlib.suppress(OSError):  # a dead one says so through `messages`
            self._connection.send_bytes(json.dumps(message).encode())


class TrainerProcess(TrainerHandle):
    """A trainer in a process of its own, which dies with this one."""

    def __init__(self, pid: int, connection: Connection) -> None:
        super().__init__(connection)
        self._pid = pid
        self._ended = False

    @classmethod
    def fork(cls, request: JobRequest, folder: Path) -> Self:
        """Start the process; call it before this one has threads or open connections.

        Args:
            request: what it will train, once told to begin.
            folder: existing local directory for its checkpoints.
        """
        parent = os.getpid()
        ours, theirs = Pipe(duplex=True)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _run_child(parent, theirs, request, folder)
        theirs.close()
        return cls(pid, ours)

    def kill(self) -> None:
        """Send SIGKILL."""
        with self._lock:
            if not self._ended:
                os.kill(self._pid, signal.SIGKILL)

    def _wait(self) -> str | None:
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        with self._lock:  # until here the number is its own, and `kill` may use it
            _, status = os.waitpid(self._pid, 0)
            self._ended = True
        return ending(status)


def _run_child(parent: int, connection: Connection, request: JobRequest, folder: Path) -> NoReturn:
    code = 1
    try:
        from grpo_platform.jobs.trainer_process import train

        die_with_parent(parent)
        # the worker decides when this process ends; Ctrl-C and a system's shutdown reach it first
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        train(connection, request, folder)
        code = 0
    except BaseException:  # noqa: BLE001 - the last frame of this process
        traceback.print_exc()
    finally:
        leave(code)
