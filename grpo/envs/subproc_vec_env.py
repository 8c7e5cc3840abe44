"""Members in processes of their own, for environments that are slow: several are stepped at once.

Each worker is a `SyncVecEnv` over its share of the members. What they observe and do lies in memory
that all processes share; snapshots travel through pipes, so that a state of one worker's member is
restored in any other's. Equal seeds give equal bits with any number of workers.
"""

import contextlib
import gc
import json
import logging
import math
import mmap
import multiprocessing
import os
import select
import selectors
import signal
import sys
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import IO, Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from grpo.envs.branching import Brancher
from grpo.envs.spec import EnvironmentSpec
from grpo.envs.sync_vec_env import SyncVecEnv
from grpo.envs.vec_env import FloatArray, IntArray, Snapshot, StepResult, VecEnv
from grpo.errors import EnvironmentFaultError, GRPOError, IncompatibleError, in_words

__all__ = ["SubprocVecEnv"]

_log = logging.getLogger(__name__)

_SILENCE_SECONDS: Final = 600.0
"""How long a worker may take for one step, reset or restore of its members."""

_ARRAY: Final = "__array__"
_ERRORS: Final = {"fault": EnvironmentFaultError, "refused": IncompatibleError}

_MOST_OUTPUT: Final = 1 << 20
"""Bytes of what a worker printed that are kept; then it begins anew."""

_LAST_OUTPUT: Final = 2_000
"""Bytes of what a lost worker printed last that its error tells."""

_END_SECONDS: Final = 5.0

_AWAKE_SECONDS: Final = 100e-6
"""How long a worker looks out for the next call before it sleeps, where each may have a processor
of its own: to be woken takes as long as that."""

_STEP: Final = b"step"
_RESET: Final = b"reset"
"""Ask a worker to step, or to reset, those of its members that are `chosen`."""

_DONE: Final = b"done"
"""The answer where there is nothing to tell."""


class SubprocVecEnv(VecEnv):
    """`num_members` members over `num_workers` processes, forked from this one.

    Args:
        spec: the environment.
        num_members: how many.
        num_workers: processes, at most one for each member.
        make_brancher: the way into visited states; one whose snapshots can be stored.
        afresh: see `SyncVecEnv`.
        reason: why this brancher.
        silence_seconds: how long a worker may take.

    Attributes:
        observations: what each member observed last, in shared memory, as are the next four.
        actions: what each member is to do.
        results: reward, terminated, truncated of each member's last step.
        seeds: of the episodes that members are to start.
        chosen: whether a member is to be stepped, or reset.
        awake_seconds: how long a worker waits for a call without going to sleep.

    Raises:
        EnvironmentFaultError: a worker was lost while it made its members.
    """

    def __init__(
        self,
        spec: EnvironmentSpec,
        num_members: int,
        num_workers: int,
        make_brancher: Callable[[], Brancher],
        *,
        afresh: bool = False,
        reason: str = "",
        silence_seconds: float = _SILENCE_SECONDS,
    ) -> None:
        self.spec = spec
        self.num_members = num_members
        self._brancher = make_brancher()
        self.branching = self._brancher.branching
        self.branching_reason = reason
        self.storable_snapshots = self._brancher.storable
        self.steps_taken = 0
        self._silence = silence_seconds
        processors = len(os.sched_getaffinity(0))
        self.awake_seconds = _AWAKE_SECONDS if num_workers <= processors else 0.0
        self._owner = np.arange(num_members) % num_workers
        self._place = np.arange(num_members) // num_workers
        self.observations = _shared((num_members, *spec.observation_shape), spec.observation.dtype)
        self.actions = _shared((num_members, *spec.action.shape), np.dtype(np.float64))
        self.results = _shared((num_members, 3), np.dtype(np.float64))
        self.seeds = _shared((num_members,), np.dtype(np.int64))
        self.chosen = _shared((num_members,), np.dtype(np.bool_))
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        # also where nobody closes it, as in a notebook
        self._end = weakref.finalize(self, _end, self._workers, self._selector, spec.env_name)
        try:
            for index in range(num_workers):
                members = np.flatnonzero(self._owner == index)
                self._workers.append(self._fork(index, members, make_brancher, afresh))
                self._selector.register(self._workers[-1].pipe, selectors.EVENT_READ, index)
            self._answers(range(num_workers))
        except BaseException:
            self.close()
            raise

    def reset(self, members: IntArray, seeds: Sequence[int] | IntArray) -> FloatArray:
        """See `VecEnv.reset`."""
        self.seeds[members] = seeds
        self._move(members, _RESET)
        return self.observations[members]

    def step(self, members: IntArray, actions: npt.NDArray[Any]) -> StepResult:
        """See `VecEnv.step`."""
        self.actions[members] = actions
        self._move(members, _STEP)
        self.steps_taken += len(members)
        rewards, terminated, truncated = self.results[members].T
        return StepResult(self.observations[members], rewards.copy(), terminated > 0, truncated > 0)

    def snapshot(self, member: int) -> Snapshot:
        """See `VecEnv.snapshot`."""
        (found,) = self._call("snapshot", np.array([member]))
        snapshot: Snapshot = found
        return snapshot

    def restore(self, members: IntArray, snapshot: Snapshot) -> FloatArray:
        """See `VecEnv.restore`."""
        self.steps_taken += sum(self._call("restore", members, snapshot))
        return self.observations[members]

    def restore_cost(self, snapshot: Snapshot) -> int:
        """See `VecEnv.restore_cost`."""
        return self._brancher.cost(snapshot)

    def close(self) -> None:
        """See `VecEnv.close`."""
        self._end()

    # --- workers --------------------------------------------------------------------------

    def _fork(
        self, index: int, members: IntArray, make_brancher: Callable[[], Brancher], afresh: bool
    ) -> "_Worker":
        ours, theirs = multiprocessing.Pipe()
        output = tempfile.TemporaryFile()  # noqa: SIM115 - the worker's own, until it ends
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            for other in (ours, *(worker.pipe for worker in self._workers)):
                other.close()
            self._selector.close()
            _serve(self, theirs, output, members, make_brancher, afresh)
        theirs.close()
        return _Worker(index, pid, ours, output)

    def _move(self, members: IntArray, how: bytes) -> None:
        """Step or reset members: all that there is to say lies in shared memory."""
        self.chosen[:] = False
        self.chosen[members] = True
        asked = sorted(set(self._owner[members].tolist()))
        for index in asked:
            self._send(index, how)
        self._answers(asked)

    def _call(self, name: str, members: IntArray, given: object = None) -> list[Any]:
        """What the members' workers answer, each about its own."""
        owners = self._owner[members]
        asked = np.unique(owners).tolist()
        for index in asked:
            chosen = np.flatnonzero(owners == index)
            asking = members[chosen]
            message = {
                "name": name,
                "asked": asking.tolist(),
                "places": self._place[asking].tolist(),
                "given": given,
            }
            self._send(index, _written(message))
        return self._answers(asked)

    def _send(self, index: int, message: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `_answers` tells
            self._workers[index].pipe.send_bytes(message)

    def _answers(self, asked: Sequence[int]) -> list[Any]:
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + self._silence
        while len(answers) < len(asked):
            ready = self._selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                lost = self._workers[min(set(asked) - answers.keys())]
                raise self._lost(lost, f"gave no answer for {self._silence:g} s")
            for key, _ in ready:
                worker = self._workers[key.data]
                try:
                    answers[key.data] = _read(worker.pipe.recv_bytes())
                except (EOFError, OSError):
                    raise self._lost(worker, worker.ending()) from None
        for answer in answers.values():
            if "error" in answer:
                raise _ERRORS[answer["kind"]](answer["error"])
        return [answers[index]["value"] for index in asked]

    def _lost(self, worker: "_Worker", how: str) -> EnvironmentFaultError:
        members = ", ".join(map(str, np.flatnonzero(self._owner == worker.index)))
        printed = worker.last_output()
        said = f" It last printed: {printed}" if printed else ""
        return EnvironmentFaultError(
            f"Worker {worker.index} of {self.spec.env_name}, which steps members {members}, {how}."
            f"{said}"
        )


class _Worker:
    """One process, as its parent sees it."""

    def __init__(
        self, index: int, pid: int, pipe: "Connection[Any, Any]", output: IO[bytes]
    ) -> None:
        self.index = index
        self.pipe = pipe
        self._pid = pid
        self._output = output
        self._status: int | None = None

    def ending(self) -> str:
        """What ended it, in words."""
        self.end(_END_SECONDS)
        code = os.waitstatus_to_exitcode(self._status or 0)
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def end(self, seconds: float) -> None:
        """Wait for its end; kill it if that takes longer."""
        deadline = time.monotonic() + seconds
        while self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = status
            elif time.monotonic() >= deadline:
                os.kill(self._pid, signal.SIGKILL)
                self._status = os.waitpid(self._pid, 0)[1]
            else:
                time.sleep(0.005)

    def forget(self) -> None:
        """Let go of what it printed."""
        self._output.close()

    def last_output(self) -> str:
        """The end of what it printed."""
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - _LAST_OUTPUT))
        return " ".join(self._output.read().decode(errors="replace").split())


def _end(workers: list[_Worker], selector: selectors.BaseSelector, env_name: str) -> None:
    """Let workers end, or end them, and tell what they printed last."""
    selector.close()
    for worker in workers:
        worker.pipe.close()
    deadline = time.monotonic() + _END_SECONDS
    for worker in workers:
        worker.end(max(0.0, deadline - time.monotonic()))
        if printed := worker.last_output():
            _log.info("Worker %d of %s printed: %s", worker.index, env_name, printed)
        worker.forget()
    workers.clear()


def _written(value: object) -> bytes:
    """JSON values and arrays as bytes: the length of the JSON part, that part, and the arrays."""
    arrays: list[npt.NDArray[Any]] = []

    def aside(item: object) -> object:
        if isinstance(item, np.ndarray | np.generic):
            array = np.ascontiguousarray(item)
            arrays.append(array)
            return {_ARRAY: [array.dtype.str, np.shape(item)]}
        if isinstance(item, Mapping):  # a snapshot
            return dict(item)
        raise TypeError(f"a snapshot holds a {type(item).__name__}, which cannot be handed over")

    text = json.dumps(value, default=aside).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *(a.tobytes() for a in arrays)])


def _read(content: bytes) -> dict[str, Any]:
    """Inverse of `_written`."""
    if content == _DONE:
        return {"value": None}
    end = 8 + int.from_bytes(content[:8], "little")

    def back(item: dict[str, Any]) -> Any:  # noqa: ANN401
        nonlocal end
        if item.keys() != {_ARRAY}:
            return item
        dtype, shape = np.dtype(item[_ARRAY][0]), tuple(item[_ARRAY][1])
        count = math.prod(shape)
        array = np.frombuffer(content, dtype, count, end).reshape(shape).copy()
        end += count * dtype.itemsize
        return array

    found: dict[str, Any] = json.loads(content[8:end], object_hook=back)
    return found


def _shared(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """An array that this process and its children see alike."""
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), dtype, int(np.prod(shape))).reshape(shape)


# --- in a worker --------------------------------------------------------------------------------


def _serve(
    shared: SubprocVecEnv,
    pipe: "Connection[Any, Any]",
    output: IO[bytes],
    members: IntArray,
    make_brancher: Callable[[], Brancher],
    afresh: bool,
) -> NoReturn:
    """Do what is asked until the parent is gone; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
        # the parent's may lead elsewhere, as a notebook's do
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
        envs = SyncVecEnv(shared.spec, len(members), make_brancher(), afresh=afresh)
        gc.freeze()  # what the parent had is there for good: looking at it would copy its pages
        pipe.send_bytes(_DONE)
        poller = select.poll()
        poller.register(pipe.fileno(), select.POLLIN)
        while True:
            until = time.perf_counter() + shared.awake_seconds
            while time.perf_counter() < until and not poller.poll(0):
                os.sched_yield()
            try:
                message = pipe.recv_bytes()
            except EOFError:
                break
            answer = {}
            try:
                if message in _MOVES:
                    _MOVES[message](shared, envs, members)
                else:
                    answer = {"value": _obey(shared, envs, _read(message))}
            except IncompatibleError as error:
                answer = {"error": str(error), "kind": "refused"}
            except GRPOError as error:
                answer = {"error": str(error), "kind": "fault"}
            except Exception as error:  # noqa: BLE001 - foreign code may raise anything
                said = f"{shared.spec.env_name}: {in_words(error)}."
                answer = {"error": said, "kind": "fault"}
            pipe.send_bytes(_written(answer) if answer else _DONE)
            sys.stdout.flush()
            if os.fstat(1).st_size > _MOST_OUTPUT:
                os.ftruncate(1, 0)
        envs.close()
        code = 0
    except BaseException:  # noqa: BLE001 - the last frame of this process
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _step(shared: SubprocVecEnv, envs: SyncVecEnv, members: IntArray) -> None:
    """Step those of this worker's members that are chosen."""
    places = np.flatnonzero(shared.chosen[members])
    asked = members[places]
    result = envs.step(places, shared.actions[asked])
    shared.observations[asked] = result.observations
    shared.results[asked, 0] = result.rewards
    shared.results[asked, 1] = result.terminated
    shared.results[asked, 2] = result.truncated


def _reset(shared: SubprocVecEnv, envs: SyncVecEnv, members: IntArray) -> None:
    """Start an episode of each that is chosen."""
    places = np.flatnonzero(shared.chosen[members])
    asked = members[places]
    shared.observations[asked] = envs.reset(places, shared.seeds[asked])


_MOVES: Final = {_STEP: _step, _RESET: _reset}


def _obey(shared: SubprocVecEnv, envs: SyncVecEnv, message: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Tell a member's state, or put members into one and tell how many steps that took."""
    asked, places = np.array(message["asked"]), np.array(message["places"])
    if message["name"] == "snapshot":
        return envs.snapshot(int(places[0]))
    before = envs.steps_taken
    shared.observations[asked] = envs.restore(places, message["given"])
    return envs.steps_taken - before
