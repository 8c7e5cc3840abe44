"""Foreign code (environments, plug-ins) in processes of its own, each with a time limit.

A constructor may crash in C, call `exit`, or never come back; whatever it does, the server that
asked for it goes on, and says what happened. A question takes some milliseconds: its process is
forked from one that has `grpo` imported, `python -m grpo_platform.isolation CONTROL`, which this
module's `Isolation` starts when it is first needed.

CONTROL is a sequenced-packet socket, on which the server sends `{"call", "arguments"}` together
with one end of a stream. On that come JSON objects, a line each: `{"started"}`, what the call says
(`doing`, `value`, then `done` or `error`), and at last `{"ended"}` with the status of waitpid(2). A
stream that the server closes ends its process.
"""

import contextlib
import faulthandler
import functools
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple, NoReturn

import gymnasium

import grpo
from grpo import errors, rewards
from grpo.envs import catalogue
from grpo.evaluation import EVALUATION_SEED, Evaluation
from grpo_platform.errors import BusyError
from grpo_platform.jobs.exchange import (
    evaluation_from_json,
    evaluation_to_json,
    load_policy,
    save_policy,
)
from grpo_platform.jobs.identity import die_with_parent, ending
from grpo_platform.jobs.resources import default_memory_bytes, restrict_memory
from grpo_platform.settings import child_environment

__all__ = ["Isolation", "main"]

_log = logging.getLogger(__name__)

_Message = dict[str, Any]

_MAX_QUESTION: Final = 1 << 17
_MAX_LINE: Final = 1 << 26
_START_SECONDS: Final = 120.0
"""Until a process that imports torch has forked the first one that answers, on a busy machine."""

_PLAY_SECONDS: Final = 3600.0
_AT_ONCE: Final = 16
"""Callers that wait for an answer; a server has 40 threads for all its calls."""

_ATTEMPTS: Final = 3
_KEPT: Final = 1024
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_PLUG_IN_GROUPS: Final = (catalogue.ENTRY_POINT_GROUP, rewards.ENTRY_POINT_GROUP)
_HARMLESS_KWARGS: Final = {"max_episode_steps"}


# --- the server's end ------------------------------------------------------------------------


class Isolation:
    """Asks about environments, and plays them, without running their code in this process.

    Gymnasium's own, made as they are registered, are trusted and looked at right here; answers
    about all others are kept. Safe to call from several threads.

    Args:
        limit_seconds: how long making an environment, or loading the plug-ins, may take.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        self._known: dict[str, Future[Any]] = {}

    def start(self) -> None:
        """Begin to warm up where plug-ins are installed, since then all calls need it."""
        if _plug_ins():
            with self._lock:
                self._launch()

    def close(self) -> None:
        """End the process that questions are forked from, and with it all of them."""
        with self._lock:
            if self._control is not None:
                self._control.close()
                self._control = None
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def validate(self, config: grpo.GRPOConfig) -> None:
        """As `grpo.validate`.

        Raises:
            grpo.ConfigError: what is wrong, also where it crashed, or did not come to an end.
            BusyError: as many callers wait for an answer as may.
        """
        if _is_trusted(config.env_name, config.env_kwargs):
            grpo.validate(config)
            return
        about = (config.env_name, config.env_kwargs, config.reward_function_type)
        with self._as_unsupported(config.env_name):
            self._once(
                json.dumps(about, sort_keys=True),
                lambda: list(self._ask("validate", self._limit, config=config.to_dict())),
            )

    def rewards(self) -> list[dict[str, str]]:
        """As `grpo.rewards.describe_rewards`; raises what `validate` does."""
        if not _plug_ins():
            return rewards.describe_rewards()
        with self._as_unsupported("The plug-ins"):
            found: list[list[dict[str, str]]] = self._once(
                "rewards", lambda: list(self._ask("rewards", self._limit))
            )
        return found[0]

    def evaluate(
        self,
        policy: grpo.Policy,
        env_name: str,
        *,
        env_kwargs: Mapping[str, Any] | None = None,
        n_episodes: int = 100,
        seed: int = EVALUATION_SEED,
        skip: int = 0,
        deterministic: bool = True,
    ) -> Evaluation:
        """As `grpo.evaluate`, for at most an hour.

        Raises:
            grpo.ConfigError: the environment cannot be evaluated.
            grpo.EnvironmentFaultError: it raised, crashed, or did not come to an end.
        """
        game: dict[str, Any] = {
            "n_episodes": n_episodes, "seed": seed, "skip": skip, "deterministic": deterministic,
        }  # fmt: skip
        if _is_trusted(env_name, env_kwargs or {}):
            return grpo.evaluate(policy, env_name, env_kwargs=env_kwargs, **game)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "policy.npz"
            save_policy(policy, path)
            arguments = {"path": str(path), "env_name": env_name, "env_kwargs": env_kwargs, **game}
            try:
                (found,) = self._ask("evaluate", _PLAY_SECONDS, **arguments)
            except _LostError as lost:
                raise errors.EnvironmentFaultError(
                    f"{env_name} cannot be played: {lost}."
                ) from lost
        return evaluation_from_json(found)

    @contextlib.contextmanager
    def _as_unsupported(self, what: str) -> Iterator[None]:
        try:
            yield
        except _LostError as lost:
            raise errors.UnsupportedEnvironmentError(
                f"{what} cannot be used here: {lost}. The server's log has what was printed.",
                field="env_name",
            ) from lost

    def _once(self, key: str, ask: Callable[[], Any]) -> Any:  # noqa: ANN401
        """The answer that is known, or that another caller is just waiting for; failures go."""
        with self._lock:
            future = self._known.get(key)
            is_first = future is None
            if future is None:
                future = self._known[key] = Future()
                while len(self._known) > _KEPT:
                    del self._known[next(iter(self._known))]
        if future.done():
            return future.result()
        if not self._places.acquire(blocking=False):
            if is_first:
                self._forget(key, future, BusyError())
            raise BusyError
        try:
            if is_first:
                try:
                    future.set_result(ask())
                except BaseException as error:
                    self._forget(key, future, error)
                    raise
            return future.result()
        finally:
            self._places.release()

    def _forget(self, key: str, future: Future[Any], error: BaseException) -> None:
        with self._lock:
            self._known.pop(key, None)
        future.set_exception(error)

    def _ask(self, call: str, limit: float, **arguments: object) -> Iterator[Any]:
        """What a call says, as it says it; the limit is one of silence.

        Raises:
            _LostError: its process ended or was silent for too long.
            grpo.GRPOError: what the call raised.
        """
        question = json.dumps({"call": call, "arguments": arguments}).encode()
        for attempt in range(_ATTEMPTS):
            ours, theirs = socket.socketpair()
            with ours:
                control = self._hand_over(question, theirs)
                try:
                    yield from _listen(ours, limit)
                    return
                except _NotStartedError:
                    if attempt == _ATTEMPTS - 1:
                        raise
            with self._lock:
                if self._control is control:
                    self._launch()

    def _hand_over(self, question: bytes, stream: socket.socket) -> socket.socket:
        with stream, self._lock:
            control = self._launch() if self._control is None else self._control
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(control, [question], [stream.fileno()])
            return control

    def _launch(self) -> socket.socket:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=child_environment() | _ONE_THREAD,
                start_new_session=True,
            )
        return self._control


class _LostError(Exception):
    """A question's process has ended without an answer, or gave none in time."""


class _NotStartedError(_LostError):
    """There was no such process yet, so that it can be asked again."""


@functools.cache
def _plug_ins() -> bool:
    return any(entry_points(group=group) for group in _PLUG_IN_GROUPS)


def _is_trusted(env_name: str, env_kwargs: Mapping[str, Any]) -> bool:
    """Whether all code that is run is Gymnasium's own, or that of no environment."""
    if _plug_ins():  # which may also register Gymnasium's names anew
        return False
    registered = gymnasium.registry.get(env_name)
    if registered is None:
        return True
    entry = registered.entry_point
    if not isinstance(entry, str) or registered.additional_wrappers:
        return False
    if entry.startswith("gymnasium.envs.classic_control"):  # no argument makes those endless
        return True
    return entry.startswith("gymnasium.envs.") and not set(env_kwargs) - _HARMLESS_KWARGS


def _listen(stream: socket.socket, limit: float) -> Iterator[Any]:
    """The values of a call, until it is done."""
    doing = ""
    started = False
    stream.settimeout(_START_SECONDS)
    with stream.makefile("rb") as lines:
        while True:
            try:
                line = lines.readline(_MAX_LINE)
            except TimeoutError:
                raise _LostError(f"it took longer than {limit:g} s{doing}") from None
            if not line:
                kind = _LostError if started else _NotStartedError
                raise kind(f"the process that tries environments was ended{doing}; try again")
            message = _message(line)
            if "started" in message:
                started = True
                stream.settimeout(limit)
            elif "doing" in message:
                doing = f" while {message['doing']}"
            elif "value" in message:
                yield message["value"]
            elif "done" in message:
                return
            elif "error" in message:
                raise _error_from_json(message["error"])
            elif "ended" in message:
                reason = ending(message["ended"]) or "ended without an answer"
                raise _LostError(f"the process that tried it {reason}{doing}")


def _message(line: bytes) -> _Message:
    try:
        found = json.loads(line)
    except ValueError:  # cut off where the process died
        return {}
    return found if isinstance(found, dict) else {}


# --- the process that is forked, and those that answer ---------------------------------------


class _Child(NamedTuple):
    pid: int
    pidfd: int
    stream: socket.socket


def main(control_fd: int) -> None:
    """Fork a process for each question until the server is gone; its questions go with it."""
    control = socket.socket(fileno=control_fd)
    poller = select.poll()
    poller.register(control, select.POLLIN)
    children: dict[int, _Child] = {}
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == control.fileno():
                text, descriptors, _, _ = socket.recv_fds(control, _MAX_QUESTION, 1)
                if not text:
                    for child in children.values():
                        _kill(child)
                    return
                child = _fork(control, json.loads(text), socket.socket(fileno=descriptors[0]))
                children[child.pidfd] = children[child.stream.fileno()] = child
                poller.register(child.pidfd, select.POLLIN)
                poller.register(child.stream, 0)  # only that the server closed it
            elif descriptor not in children:  # it went with another of this turn
                continue
            elif descriptor == (child := children[descriptor]).pidfd:
                for known in (descriptor, child.stream.fileno()):
                    del children[known]
                    with contextlib.suppress(KeyError):
                        poller.unregister(known)
                _bury(child)
            else:
                poller.unregister(descriptor)
                _kill(child)


def _fork(control: socket.socket, question: _Message, stream: socket.socket) -> _Child:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        control.close()
        _answer(parent, question, stream)
    return _Child(pid, os.pidfd_open(pid), stream)


def _bury(child: _Child) -> None:
    _kill(child)  # what it started itself, while its id cannot be another's yet
    _, status = os.waitpid(child.pid, 0)
    with contextlib.suppress(OSError):
        child.stream.sendall(b"\n")  # it may have died within a line
        _say(child.stream, {"ended": status})
    child.stream.close()
    os.close(child.pidfd)


def _kill(child: _Child) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(child.pid, signal.SIGKILL)


def _answer(parent: int, question: _Message, stream: socket.socket) -> NoReturn:
    code = 1
    try:
        os.setsid()
        _say(stream, {"started": True})
        die_with_parent(parent)
        restrict_memory(default_memory_bytes())
        faulthandler.enable()
        os.dup2(2, 1)  # what environments print goes to the server's log
        for message in _CALLS[question["call"]](**question["arguments"]):
            _say(stream, message)
        _say(stream, {"done": True})
        code = 0
    except grpo.GRPOError as error:
        _say(stream, {"error": _error_to_json(error)})
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last frame of this process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _say(stream: socket.socket, message: _Message) -> None:
    stream.sendall(json.dumps(message).encode() + b"\n")


def _load_plug_ins() -> Iterator[_Message]:
    yield {"doing": "the installed plug-ins were loaded"}
    catalogue.load_plug_ins()
    rewards.reward_names()


def _validate(config: _Message) -> Iterator[_Message]:
    yield from _load_plug_ins()
    yield {"doing": f"{config['env_name']} was made and reset"}
    grpo.validate(grpo.GRPOConfig(**config))


def _rewards() -> Iterator[_Message]:
    yield from _load_plug_ins()
    yield {"value": rewards.describe_rewards()}


def _evaluate(path: str, env_name: str, **game: Any) -> Iterator[_Message]:  # noqa: ANN401
    yield from _load_plug_ins()
    yield {"doing": f"{env_name} was played"}
    found = grpo.evaluate(load_policy(Path(path)), env_name, **game)
    yield {"value": evaluation_to_json(found)}


_CALLS: Final[Mapping[str, Callable[..., Iterable[_Message]]]] = {
    "evaluate": _evaluate,
    "rewards": _rewards,
    "validate": _validate,
}


def _error_to_json(error: grpo.GRPOError) -> _Message:
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "attributes": {name: getattr(error, name) for name in ("field", "allowed")
                       if hasattr(error, name)},
    }  # fmt: skip


def _error_from_json(values: _Message) -> grpo.GRPOError:
    kind: type[grpo.GRPOError] = getattr(errors, values["kind"])
    error = kind.__new__(kind, values["message"])  # each has an __init__ of its own
    for name, value in values["attributes"].items():
        setattr(error, name, value)
    return error


if __name__ == "__main__":
    main(int(sys.argv[1]))
