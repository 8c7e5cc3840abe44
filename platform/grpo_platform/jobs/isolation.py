"""Foreign code (environments, plug-ins) in processes of its own, each with a time limit.

A constructor may crash in C, call `exit`, or never come back; whatever it does, the server that
asked for it goes on, and says what happened. A question takes some milliseconds: its process is
forked from one that has `grpo` imported (`isolation_process.py`), which is started when it is
first needed.
"""

import base64
import contextlib
import functools
import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import gymnasium

import grpo
from grpo import errors, rewards
from grpo.config import AUTO
from grpo.envs import check_environment
from grpo.envs.catalogue import allowed_modules
from grpo.evaluation import Evaluation
from grpo.policies import default_policy
from grpo.registry import plug_ins
from grpo.scenarios.results import SuiteResult
from grpo.scenarios.suite import Suite
from grpo_platform.core.errors import BusyError
from grpo_platform.core.process import ending
from grpo_platform.jobs import isolation_process
from grpo_platform.jobs.fork_server import ForkServer
from grpo_platform.jobs.isolation_process import (
    SUITE_FILE,
    Message,
    error_from_json,
    try_environment,
)
from grpo_platform.jobs.serialization import evaluation_from_json
from grpo_platform.registry.integrity import PolicyFiles
from grpo_platform.registry.policy_files import evaluate_files

__all__ = ["Isolation"]

_MAX_LINE: Final = 1 << 26
_START_SECONDS: Final = 120.0
"""Until a process that imports torch has forked the first one that answers, on a busy machine."""

_PLAY_SECONDS: Final = 3600.0
_GRACE_SECONDS: Final = 30.0
"""After the time of a suite, in which a process that looks at the clock says so itself."""

_AT_ONCE: Final = 16
"""Callers that wait for an answer; a server has 40 threads for all its calls."""

_ATTEMPTS: Final = 3
_KEPT: Final = 1024
_JUDGED: Final = (
    "env_name", "env_kwargs", "reward_function_type", "advantage", "policy", "policy_kwargs",
    "net_arch",
)  # fmt: skip
"""What the answer depends on; each field's own range was looked at before."""

_HARMLESS_KWARGS: Final = {"max_episode_steps"}


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
        self._forks = ForkServer(isolation_process.__name__)
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        self._known: dict[str, Future[Any]] = {}

    def start(self) -> None:
        """Begin to warm up where plug-ins are installed, since then all calls need it."""
        if _plug_ins():
            self._forks.start()

    def close(self) -> None:
        """End the process that questions are forked from, and with it all of them."""
        self._forks.close()

    def validate(self, config: grpo.GRPOConfig) -> None:
        """As `grpo.validate`.

        Raises:
            grpo.ConfigError: what is wrong, also where it crashed, or did not come to an end.
            BusyError: as many callers wait for an answer as may.
        """
        # a torch policy may be large, and its arguments anything
        is_trusted = not config.policy_kwargs and _is_trusted(config.env_name, config.env_kwargs)
        if is_trusted and _policy_of(config) == "MlpPolicy":
            grpo.validate(config)
            return
        about = [config.to_dict()[name] for name in _JUDGED]
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

    def environment_names(self) -> list[str]:
        """Ids of all environments that are registered, sorted; raises what `validate` does."""
        if not _plug_ins():
            return sorted(gymnasium.registry)
        with self._as_unsupported("The plug-ins"):
            found: list[list[str]] = self._once(
                "names", lambda: list(self._ask("names", self._limit))
            )
        return found[0]

    def try_environments(self, names: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """Each name with what `try_environment` says of it as it is registered."""
        here = {name for name in names if _is_trusted(name, {})}
        yield from ((name, try_environment(name)) for name in names if name in here)
        waiting = deque(name for name in names if name not in here)
        while waiting:
            try:
                for found in self._ask("try", self._limit, names=list(waiting)):
                    yield waiting.popleft(), found
            except _LostError as lost:
                if waiting:
                    name = waiting.popleft()
                    yield name, {"reason": f"{name} cannot be used here: {lost}."}

    def evaluate(
        self,
        files: PolicyFiles,
        name: str,
        env_name: str,
        /,
        *,
        env_kwargs: Mapping[str, Any] | None,
        n_episodes: int,
        seed: int,
        skip: int,
    ) -> Evaluation:
        """As `evaluate_files`, for at most an hour; a plug-in's policy is built there, never here.

        Raises:
            UnsafeModelError: the files hold no policy.
            grpo.ConfigError: the environment cannot be evaluated, or the policy not be built.
            grpo.EnvironmentFaultError: it raised, crashed, or did not come to an end.
        """
        game = {"env_kwargs": env_kwargs, "n_episodes": n_episodes, "seed": seed, "skip": skip}
        if _is_trusted(env_name, env_kwargs or {}):
            return evaluate_files(files, name, env_name, **game)
        with TemporaryDirectory() as folder:
            for file, content in files._asdict().items():
                (Path(folder) / file).write_bytes(content)
            arguments = {"folder": folder, "name": name, "env_name": env_name, **game}
            try:
                (found,) = self._ask("evaluate", _PLAY_SECONDS, **arguments)
            except _LostError as lost:
                raise errors.EnvironmentFaultError(
                    f"{env_name} cannot be played: {lost}."
                ) from lost
        return evaluation_from_json(found)

    def check_suite(self, suite: Suite, env_name: str, env_kwargs: Mapping[str, Any]) -> None:
        """As `grpo.scenarios.playing.check_suite`.

        Raises:
            grpo.ConfigError: what is wrong, also where it crashed, or did not come to an end.
            grpo.EnvironmentFaultError: the environment raised.
        """
        with self._as_unsupported(env_name), TemporaryDirectory() as folder:
            (Path(folder) / SUITE_FILE).write_text(json.dumps(suite.to_dict()), encoding="utf-8")
            arguments = {"folder": folder, "env_name": env_name, "env_kwargs": dict(env_kwargs)}
            list(self._ask("check_suite", self._limit, **arguments))

    def play_suite(
        self,
        files: PolicyFiles,
        name: str,
        env_name: str,
        /,
        *,
        env_kwargs: Mapping[str, Any],
        suite: Suite,
        seconds: float,
    ) -> SuiteResult:
        """As `play_suite_files`, in a process of its own whatever the environment is.

        Raises:
            UnsafeModelError: the files hold no policy.
            grpo.ConfigError: the environment cannot be put through it, or the policy not be built.
            grpo.EnvironmentFaultError: it raised, crashed, or did not come to an end.
        """
        late = seconds + _GRACE_SECONDS
        found = self._ask_about(
            "play_suite", late, files, suite, name, env_name, env_kwargs=dict(env_kwargs),
            seconds=seconds,
        )  # fmt: skip
        return SuiteResult.from_dict(found)

    def _ask_about(
        self,
        call: str,
        limit: float,
        files: PolicyFiles,
        suite: Suite,
        name: str,
        env_name: str,
        **arguments: object,
    ) -> Any:  # noqa: ANN401
        """What a call says of a policy and a suite, which are handed over as files."""
        with TemporaryDirectory() as folder:
            for file, content in files._asdict().items():
                (Path(folder) / file).write_bytes(content)
            (Path(folder) / SUITE_FILE).write_text(json.dumps(suite.to_dict()), encoding="utf-8")
            try:
                (found,) = self._ask(
                    call, limit, folder=folder, name=name, env_name=env_name, **arguments
                )
            except _LostError as lost:
                raise errors.EnvironmentFaultError(
                    f"{env_name} cannot be played: {lost}."
                ) from lost
        return found

    def observe(
        self,
        files: PolicyFiles,
        name: str,
        env_name: str,
        /,
        *,
        env_kwargs: Mapping[str, Any],
        most_numbers: int,
    ) -> dict[str, Any]:
        """As `grpo_platform.jobs.seen.observed`; raises what `evaluate` does."""
        with TemporaryDirectory() as folder:
            for file, content in files._asdict().items():
                (Path(folder) / file).write_bytes(content)
            try:
                (found,) = self._ask(
                    "observe", _PLAY_SECONDS, folder=folder, name=name, env_name=env_name,
                    env_kwargs=dict(env_kwargs), most_numbers=most_numbers,
                )  # fmt: skip
            except _LostError as lost:
                raise errors.EnvironmentFaultError(
                    f"{env_name} cannot be played: {lost}."
                ) from lost
        return dict(found)

    def picture(self, env_name: str) -> bytes:
        """A drawn frame of an environment, as WebP, from a process of its own.

        Raises:
            grpo.ConfigError: it cannot be drawn, also where it crashed, or did not come to an end.
        """
        with self._as_unsupported(env_name):
            (found,) = self._ask("picture", self._limit, env_name=env_name)
        return base64.b64decode(found)

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
        question = {"call": call, "arguments": arguments}
        for attempt in range(_ATTEMPTS):
            ours, theirs = socket.socketpair()
            with ours:
                mark = self._forks.fork(question, theirs)
                try:
                    yield from _listen(ours, limit)
                    return
                except _NotStartedError:
                    if attempt == _ATTEMPTS - 1:
                        raise
            self._forks.restart(mark)


class _LostError(Exception):
    """A question's process has ended without an answer, or gave none in time."""


class _NotStartedError(_LostError):
    """There was no such process yet, so that it can be asked again."""


@functools.cache
def _plug_ins() -> bool:
    return bool(plug_ins() or allowed_modules())


def _is_trusted(env_name: str, env_kwargs: Mapping[str, Any]) -> bool:
    """Whether all code that is run is Gymnasium's own, or that of no environment."""
    if _plug_ins():  # which may also register Gymnasium's names anew
        return False
    registered = gymnasium.registry.get(env_name)
    if registered is None:
        return True
    entry = registered.entry_point
    module = entry if isinstance(entry, str) else getattr(entry, "__module__", "")
    if registered.additional_wrappers or not f"{module}.".startswith("gymnasium.envs."):
        return False
    is_classic = module.startswith("gymnasium.envs.classic_control.")
    if is_classic and "wrappers" not in env_kwargs:
        return True
    return not set(env_kwargs) - _HARMLESS_KWARGS  # some could make others endless, or huge


def _policy_of(config: grpo.GRPOConfig) -> str:
    """Name of the policy that an environment which is trusted is trained with."""
    if config.policy != AUTO:
        return config.policy
    return default_policy(check_environment(config.env_name, config.env_kwargs).observation)


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
                raise _LostError(f"it took longer than {stream.gettimeout():g} s{doing}") from None
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
                raise error_from_json(message["error"])
            elif "ended" in message:
                reason = ending(message["ended"]) or "ended without an answer"
                raise _LostError(f"the process that tried it {reason}{doing}")


def _message(line: bytes) -> Message:
    try:
        found = json.loads(line)
    except ValueError:  # cut off where the process died
        return {}
    return found if isinstance(found, dict) else {}
