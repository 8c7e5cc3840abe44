"""A child from which processes are forked that have all imported: the server's end of it.

The child runs `isolation_process.main`. It is started when it is first needed, and
again where it has died; what was forked from it ends with it, and it ends with this process.
"""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from typing import Any, Final

from grpo_platform.core.errors import NotReadyError
from grpo_platform.core.settings import child_environment

__all__ = ["ForkServer"]

_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class ForkServer:
    """Starts processes, each with a stream to it. Safe to call from several threads.

    Args:
        module: run as `python -m MODULE CONTROL`, the inherited descriptor of a socket.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._is_closed = False

    def start(self) -> None:
        """Begin to import.

        Raises:
            NotReadyError: it was closed.
        """
        with self._lock:
            if self._control is None:
                self._launch()

    def fork(self, question: dict[str, Any], stream: socket.socket) -> object:
        """Start a process.

        Args:
            question: what it is told, JSON values.
            stream: its end of the stream, which is closed here.

        Returns:
            A mark of the child that it was asked of, for `restart`.

        Raises:
            NotReadyError: it was closed.
        """
        with stream, self._lock:
            control = self._launch() if self._control is None else self._control
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(control, [json.dumps(question).encode()], [stream.fileno()])
            return control

    def restart(self, mark: object) -> None:
        """Start the child again, unless somebody has since `fork` gave the mark."""
        with self._lock:
            if self._control is mark:
                self._launch()

    def rest(self) -> None:
        """End the child and all that was forked from it; the next `fork` starts it again."""
        with self._lock:
            self._end()

    def close(self) -> None:
        """End the child and all that was forked from it, for good."""
        with self._lock:
            self._is_closed = True
            self._end()

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _launch(self) -> socket.socket:
        if self._is_closed:
            raise NotReadyError
        self._end()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=child_environment() | _ONE_THREAD,
                start_new_session=True,
            )
        return self._control
