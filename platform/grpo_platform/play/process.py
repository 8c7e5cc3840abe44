"""The process that sessions are forked from, and the session's own.

It runs as `python -m grpo_platform.play.process CONTROL`, and forks as isolation_process.py does. A
session is asked for with `{"env_name", "env_kwargs", "seed", "deterministic", "endless"}`. On its
stream it is told commands, a line of JSON each with an `id`; it tells messages (frames.py): `ready`
or `failed` first, then frames, and a `reply` to each command. It has the lowest priority that there
is, and ends with its stream, or with the process that it was forked from.
"""

import contextlib
import faulthandler
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from typing import Any, Final, NoReturn

import torch

from grpo.envs import catalogue
from grpo.errors import EnvironmentFaultError, GRPOError, IncompatibleError, in_words
from grpo_platform.core.errors import PlatformError
from grpo_platform.core.process import die_with_parent, leave, lower_priority
from grpo_platform.jobs import isolation_process
from grpo_platform.jobs.resources import default_memory_bytes, restrict_memory
from grpo_platform.play.explaining import explain
from grpo_platform.play.frames import as_json, pack
from grpo_platform.play.session import Session

__all__ = ["main"]

_LEAST_PRIORITY: Final = 19
_MOST_LINE: Final = 2**24

Message = dict[str, Any]


def main(control_fd: int) -> None:
    """Fork sessions until the server is gone."""
    torch.set_num_threads(1)
    isolation_process.main(control_fd, _answer)


def _answer(parent: int, question: Message, stream: socket.socket) -> NoReturn:
    code = 1
    try:
        os.setsid()
        die_with_parent(parent)
        lower_priority(_LEAST_PRIORITY)
        restrict_memory(default_memory_bytes())
        faulthandler.enable()
        os.dup2(2, 1)  # what environments print goes to the server's log
        catalogue.load_plug_ins()
        _Loop(stream).run(question)
        code = 0
    except Exception as error:  # noqa: BLE001 - foreign code may raise anything
        if not isinstance(error, GRPOError):
            traceback.print_exc()
        with contextlib.suppress(OSError):
            stream.sendall(pack({"type": "failed", "error": _error_of(error)}))
    except BaseException:  # noqa: BLE001 - the last frame of this process
        traceback.print_exc()
    finally:
        leave(code)


class _Loop:
    """Reads commands, plays in between, and tells what comes of both."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._lines = bytearray()
        self._poller = select.poll()
        self._poller.register(stream, select.POLLIN)
        self._explaining: _Explaining | None = None

    def run(self, question: Message) -> None:
        """Play until nobody is there any more."""
        session = Session(send=self._stream.sendall, **question)
        self._say({"type": "ready", **session.describe()})
        try:
            while True:
                due = session.seconds_until_due(time.monotonic())
                for descriptor, _ in self._poller.poll(None if due is None else 1000.0 * due):
                    if descriptor == self._stream.fileno():
                        if not self._read(session):
                            return
                    else:
                        self._hear()
                session.advance(time.monotonic())
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            self._cancel()

    def _read(self, session: Session) -> bool:
        content = self._stream.recv(2**16)
        self._lines += content
        if not content or len(self._lines) > _MOST_LINE:
            return False
        *lines, rest = self._lines.split(b"\n")
        self._lines = bytearray(rest)
        for line in lines:
            self._obey(session, json.loads(line))
        return True

    def _obey(self, session: Session, command: Message) -> None:
        number = command.pop("id")
        try:
            if command["command"] == "explain":
                self._explain(session, number, command)
                return
            if command["command"] == "cancel":
                result: Message = {"cancelled": self._cancel()}
            else:
                result = session.do(command)
            self._say({"type": "reply", "id": number, "result": result})
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # noqa: BLE001 - one command's fault, which may be any, ends no session
            if not isinstance(error, GRPOError | PlatformError):
                traceback.print_exc()
            self._say({"type": "reply", "id": number, "error": _error_of(error)})

    def _say(self, header: Message) -> None:
        self._stream.sendall(pack(header))

    # --- explaining -----------------------------------------------------------------------

    def _explain(self, session: Session, number: int, command: Message) -> None:
        """Branch in a process of its own, so that this one goes on."""
        self._cancel()
        session.main.require_branching()
        policy, at = session.policy, session.at()
        del command["command"]
        read_end, write_end = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            self._stream.close()
            with contextlib.suppress(BaseException):
                die_with_parent(parent)
                with os.fdopen(write_end, "wb") as file:
                    try:
                        said = {"result": {"at": at, **explain(policy, session.main, **command)}}
                    except GRPOError as error:
                        said = {"error": _error_of(error)}
                    file.write(json.dumps(as_json(said)).encode())
            os._exit(0)
        os.close(write_end)
        self._explaining = _Explaining(pid, read_end, number)
        self._poller.register(read_end, select.POLLIN)

    def _hear(self) -> None:
        running = self._explaining
        if running is None:
            return
        content = os.read(running.descriptor, 2**20)
        running.said.extend(content)
        if content:
            return
        self._bury(running)
        try:
            said = json.loads(running.said)
        except ValueError:
            message = "It could not be explained: the process that branched was ended."
            said = {"error": _error_of(EnvironmentFaultError(message))}
        self._say({"type": "reply", "id": running.number, **said})

    def _cancel(self) -> bool:
        running = self._explaining
        if running is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGKILL)
        self._bury(running)
        with contextlib.suppress(OSError):
            error = _error_of(IncompatibleError("Explaining was cancelled."))
            self._say({"type": "reply", "id": running.number, "error": error})
        return True

    def _bury(self, running: "_Explaining") -> None:
        self._explaining = None
        self._poller.unregister(running.descriptor)
        os.close(running.descriptor)
        os.waitpid(running.pid, 0)


class _Explaining:
    """A process that branches."""

    def __init__(self, pid: int, descriptor: int, number: int) -> None:
        self.pid = pid
        self.descriptor = descriptor
        self.number = number
        self.said = bytearray()


def _error_of(error: Exception) -> Message:
    known = isinstance(error, GRPOError | PlatformError)
    return {
        "kind": type(error).__name__ if known else "EnvironmentFaultError",
        "message": str(error) if known else f"It cannot be played: {in_words(error)}.",
        "attributes": {
            name: getattr(error, name) for name in ("field", "allowed") if hasattr(error, name)
        },
    }


if __name__ == "__main__":
    main(int(sys.argv[1]))
