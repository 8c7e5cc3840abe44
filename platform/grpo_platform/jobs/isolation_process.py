"""The process that questions about foreign code are forked from, and those that answer them.

It runs as `python -m grpo_platform.jobs.isolation_process CONTROL`. CONTROL is a sequenced-packet
socket, on which the server sends `{"call", "arguments"}` together with one end of a stream. On that
come JSON objects, a line each: `{"started"}`, what the call says (`doing`, `value`, then `done` or
`error`), and at last `{"ended"}` with the status of waitpid(2). When the server closes the stream,
the process that answers is ended.
"""

import contextlib
import faulthandler
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import gymnasium

import grpo
from grpo import errors, rewards
from grpo.envs import catalogue, check_environment
from grpo.policies import default_policy
from grpo.scenarios.playing import check_suite
from grpo.scenarios.suite import Suite
from grpo_platform.core.errors import UnsafeModelError
from grpo_platform.core.process import die_with_parent, leave
from grpo_platform.jobs.resources import default_memory_bytes, restrict_memory
from grpo_platform.jobs.seen import observed, picture
from grpo_platform.jobs.serialization import evaluation_to_json
from grpo_platform.registry.integrity import PolicyFiles
from grpo_platform.registry.policy_files import evaluate_files

__all__ = ["SUITE_FILE", "Message", "error_from_json", "main", "try_environment"]

_MOST_SHOWN: Final = 500
"""Characters of a space."""

Message = dict[str, Any]

Answer = Callable[[int, Message, socket.socket], NoReturn]
"""What a forked process does, with its parent's id, a question and its end of the stream."""

SUITE_FILE: Final = "suite.json"
"""In the folder of a question: a suite is too long for a message."""

_MAX_QUESTION: Final = 1 << 17


class _Child(NamedTuple):
    pid: int
    pidfd: int
    stream: socket.socket


def main(control_fd: int, answer: Answer | None = None) -> None:
    """Fork a process for each question until the server is gone; its questions go with it.

    Args:
        control_fd: CONTROL.
        answer: what such a process does, with the question and its end of the stream; it says
            what the calls here do, where left out.
    """
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
                stream = socket.socket(fileno=descriptors[0])
                child = _fork(control, json.loads(text), stream, answer or _answer)
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


def _fork(
    control: socket.socket, question: Message, stream: socket.socket, answer: Answer
) -> _Child:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        control.close()
        answer(parent, question, stream)
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


def _answer(parent: int, question: Message, stream: socket.socket) -> NoReturn:
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
    except (grpo.GRPOError, UnsafeModelError) as error:
        _say(stream, {"error": _error_to_json(error)})
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except Exception as error:  # noqa: BLE001 - foreign code may raise anything
        traceback.print_exc()
        refused = errors.ConfigError(f"This cannot be trained: {errors.in_words(error)}.")
        _say(stream, {"error": _error_to_json(refused)})
    except BaseException:  # noqa: BLE001 - the last frame of this process
        traceback.print_exc()
    finally:
        leave(code)


def _say(stream: socket.socket, message: Message) -> None:
    stream.sendall(json.dumps(message).encode() + b"\n")


def _load_plug_ins() -> Iterator[Message]:
    yield {"doing": "the installed plug-ins were loaded"}
    catalogue.load_plug_ins()
    rewards.REWARDS.names()


def _validate(config: Message) -> Iterator[Message]:
    yield from _load_plug_ins()
    yield {"doing": f"{config['env_name']} was made and reset"}
    check_environment(config["env_name"], config["env_kwargs"])
    yield {"doing": f"{config['policy']} was built"}
    grpo.validate(grpo.GRPOConfig(**config))


def _names() -> Iterator[Message]:
    yield from _load_plug_ins()
    yield {"value": sorted(gymnasium.registry)}


def _try(names: Sequence[str]) -> Iterator[Message]:
    yield from _load_plug_ins()
    for name in names:
        yield {"doing": f"{name} was made and reset"}
        yield {"value": try_environment(name)}


def try_environment(env_name: str) -> dict[str, str]:
    """What an environment observes, does and is read by, in texts; or `reason`, why it cannot."""
    try:
        spec = check_environment(env_name)
    except grpo.ConfigError as error:
        return {"reason": str(error)}
    return {
        "observation_space": _shown(spec.observation_space),
        "action_space": _shown(spec.action_space) + (", masked" if spec.masks != "none" else ""),
        "policy": default_policy(spec.observation),
    }


def _shown(space: object) -> str:
    return " ".join(str(space).split())[:_MOST_SHOWN]


def _rewards() -> Iterator[Message]:
    yield from _load_plug_ins()
    yield {"value": rewards.describe_rewards()}


def _evaluate(folder: str, name: str, env_name: str, **game: object) -> Iterator[Message]:
    yield from _load_plug_ins()
    yield {"doing": f"{env_name} was played"}
    found = evaluate_files(_files_in(folder), name, env_name, **game)
    yield {"value": evaluation_to_json(found)}


def _check_suite(folder: str, env_name: str, env_kwargs: Message) -> Iterator[Message]:
    yield from _load_plug_ins()
    yield {"doing": f"{env_name} was put into the scenarios' start states"}
    check_suite(_suite_in(folder), env_name, env_kwargs)


def _play_suite(folder: str, name: str, env_name: str, **game: Any) -> Iterator[Message]:  # noqa: ANN401
    from grpo_platform.serving.suites import play_suite_files

    yield from _load_plug_ins()
    yield {"doing": f"{env_name} was played"}
    suite = _suite_in(folder)
    found = play_suite_files(_files_in(folder), name, env_name, suite=suite, **game)
    yield {"value": found.to_dict()}


def _files_in(folder: str) -> PolicyFiles:
    return PolicyFiles(*((Path(folder) / file).read_bytes() for file in PolicyFiles._fields))


def _suite_in(folder: str) -> Suite:
    return Suite.from_dict(json.loads((Path(folder) / SUITE_FILE).read_bytes()))


def _observe(folder: str, name: str, env_name: str, **game: Any) -> Iterator[Message]:  # noqa: ANN401
    yield from _load_plug_ins()
    yield {"doing": f"{env_name} was played"}
    yield {"value": observed(_files_in(folder), name, env_name, **game)}


def _picture(env_name: str) -> Iterator[Message]:
    yield from _load_plug_ins()
    yield {"doing": f"{env_name} was drawn"}
    yield {"value": picture(env_name)}


_CALLS: Final[Mapping[str, Callable[..., Iterable[Message]]]] = {
    "check_suite": _check_suite,
    "evaluate": _evaluate,
    "names": _names,
    "observe": _observe,
    "picture": _picture,
    "play_suite": _play_suite,
    "rewards": _rewards,
    "try": _try,
    "validate": _validate,
}


def _error_to_json(error: grpo.GRPOError | UnsafeModelError) -> Message:
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "attributes": {name: getattr(error, name) for name in ("field", "allowed")
                       if hasattr(error, name)},
    }  # fmt: skip


def error_from_json(values: Message) -> grpo.GRPOError | UnsafeModelError:
    """The error that a call raised, as it was raised."""
    kind: type[grpo.GRPOError | UnsafeModelError] = getattr(
        errors, values["kind"], UnsafeModelError
    )
    error = kind.__new__(kind, values["message"])  # each has an __init__ of its own
    for name, value in values["attributes"].items():
        setattr(error, name, value)
    return error


if __name__ == "__main__":
    main(int(sys.argv[1]))
