"""A session's process, as the server sees it: commands go there, frames come back."""

import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final

from grpo.errors import EnvironmentFaultError
from grpo_platform.core.process import ending
from grpo_platform.jobs.fork_server import ForkServer
from grpo_platform.jobs.isolation_process import error_from_json
from grpo_platform.play.frames import split

__all__ = ["Helper"]

_START_SECONDS: Final = 120.0
"""Until a process that imports torch has forked the first one that answers, on a busy machine."""

_ATTEMPTS: Final = 3

Message = dict[str, Any]


class Helper:
    """Starts a session, and talks to it. Safe to call from several threads.

    Args:
        forks: what the process is forked from.
        question: see process.py.
        on_frame: called with each frame's header and the message, from a thread of this object.
        on_end: called once with the reason when the process has ended by itself.

    Attributes:
        described: what `Session.describe` said.

    Raises:
        grpo.ConfigError: the environment cannot be made.
        grpo.EnvironmentFaultError: it raised, or crashed.
        NotReadyError: the server ends.
    """

    def __init__(
        self,
        forks: ForkServer,
        question: Message,
        on_frame: Callable[[Message, bytes], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._on_frame = on_frame
        self._on_end = on_end
        self._lock = threading.Lock()
        self._asked: dict[int, Future[Message]] = {}
        self._number = 0
        self._is_closed = False
        for attempt in range(_ATTEMPTS):
            self._stream, theirs = socket.socketpair()
            self._ready: Future[Message] = Future()
            mark = forks.fork(question, theirs)
            threading.Thread(
                target=self._listen, args=(self._stream, self._ready), name="play-helper",
                daemon=True,
            ).start()  # fmt: skip
            try:
                self.described = self._ready.result(_START_SECONDS)
                return
            except _NotStartedError as error:
                self._stream.close()
                if attempt == _ATTEMPTS - 1:
                    raise EnvironmentFaultError(f"It cannot be played: {error}.") from error
                forks.restart(mark)
            except BaseException as error:
                self.close()
                if isinstance(error, FutureTimeoutError):
                    raise EnvironmentFaultError(
                        f"The environment did not start in {_START_SECONDS:g} s."
                    ) from error
                raise

    def ask(self, command: Message, timeout_seconds: float = 60.0) -> Message:
        """Let a command be obeyed.

        Raises:
            GRPOError: it cannot be done; or the process has ended, or gave no answer in time.
        """
        future: Future[Message] = Future()
        with self._lock:
            if self._is_closed:
                raise EnvironmentFaultError("The session has ended.")
            self._number += 1
            number = self._number
            self._asked[number] = future
        line = json.dumps({**command, "id": number}).encode() + b"\n"
        try:
            with self._lock:
                self._stream.sendall(line)
            return future.result(timeout_seconds)
        except FutureTimeoutError:
            raise EnvironmentFaultError(
                f"The session gave no answer in {timeout_seconds:g} s."
            ) from None
        except OSError as error:
            raise EnvironmentFaultError("The session has ended.") from error
        finally:
            self._asked.pop(number, None)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        # the one that forked it sees that, and kills it with all that it has started
        try:
            self._stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        finally:
            self._stream.close()

    def _listen(self, stream: socket.socket, ready: Future[Message]) -> None:
        buffer, reason = bytearray(), "its process was ended"
        try:
            while content := stream.recv(2**18):
                buffer += content
                for header, message in split(buffer):
                    if header["type"] == "failed" and ready.done():
                        reason = str(header["error"]["message"]).rstrip(".")
                        return
                    self._hear(header, message, ready)
        except (OSError, ValueError, KeyError):  # closed here; or cut off where the process died
            reason = _last_words(bytes(buffer)) or reason
        finally:  # whatever happened: nobody is left to wait
            self._ended(reason, ready)

    def _ended(self, reason: str, ready: Future[Message]) -> None:
        if not ready.done():
            ready.set_exception(_NotStartedError(reason))
            return
        for future in list(self._asked.values()):
            if not future.done():
                future.set_exception(EnvironmentFaultError(f"The session has ended: {reason}."))
        if not self._is_closed:
            self.close()
            self._on_end(f"The session has ended: {reason}.")

    def _hear(self, header: Message, message: bytes, ready: Future[Message]) -> None:
        match header["type"]:
            case "ready":
                ready.set_result(header)
            case "failed":
                ready.set_exception(error_from_json(header["error"]))
            case "reply":
                future = self._asked.get(header["id"])
                if future is None or future.done():
                    return
                if "error" in header:
                    future.set_exception(error_from_json(header["error"]))
                else:
                    future.set_result(header["result"])
            case _:
                self._on_frame(header, message)


class _NotStartedError(Exception):
    """There was no such process yet, so that it can be asked for again."""


def _last_words(rest: bytes) -> str | None:
    """What ended the process, as the one that forked it says."""
    try:
        said = json.loads(rest[rest.rindex(b"\n{") :])
        return ending(said["ended"])
    except (ValueError, KeyError, TypeError):
        return None
