"""What trains, `grpo` and a pipe without MLflow; and the worker's end of that pipe.

The trainer is a process that the job's worker forks before it opens anything, and that dies with
it, or a thread of the in-memory backend. Messages are JSON objects. The worker sends `start` (with
a checkpoint or initial weights to read), `stop` and `checkpoint`, whichever comes first, and `kill`
to a thread; the trainer sends `environment`, `points`, `hint`, `checkpoint`, `checkpoint_failed`,
`finishing` once `max_seconds` have passed, and at last `done`, `failed`, or `ended` where another
attempt may help.
The points that a checkpoint relies on are sent before it.
"""

import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NoReturn, Self

import torch

import grpo
from grpo import checkpoint
from grpo.checkpoint import TrainingState
from grpo.errors import GRPOError
from grpo.evaluation import Evaluation
from grpo.hints import Hints
from grpo.reporting import RolloutStats, UpdateStats
from grpo.threads import math_threads
from grpo.trainer import EndedBy, Trainer
from grpo.verdict import Verdict
from grpo_platform.core.process import die_with_parent, ending, leave
from grpo_platform.core.request import JobRequest
from grpo_platform.jobs.failures import explain, files_away
from grpo_platform.jobs.resources import FULL, patiently
from grpo_platform.jobs.serialization import evaluation_to_json, load_policy
from grpo_platform.tracking.reporter import Point, TrackingReporter

__all__ = ["TrainerHandle", "TrainerProcess", "train"]

_log = logging.getLogger(__name__)

_SEND_SECONDS: Final = 0.25
_STOPPED_BY: Final[dict[EndedBy, str]] = {
    "should_finish": "max_seconds",
    "target_return": "target_return",
}


def train(connection: Connection, request: JobRequest, folder: Path) -> None:
    """Wait for `start`, train, and say how it ended; returns when all is said.

    Args:
        connection: to the worker.
        request: what to train.
        folder: existing local directory that receives checkpoints.
    """
    torch.set_num_threads(1)
    # BLAS on several threads adds up in another order: other bits
    with math_threads().limit(limits=1):
        _train(connection, request, folder)


def _train(connection: Connection, request: JobRequest, folder: Path) -> None:
    pipe = _Pipe(connection)
    try:
        start = pipe.wait_for_start()
        _Session(pipe, request, folder).run(start)  # from here on, time is trained
    except _UnheardError:
        return
    except OSError as error:
        if error.errno in FULL:  # room was waited for already
            pipe.send("failed", message=explain(error), traceback=traceback.format_exc())
        else:
            traceback.print_exc()
            pipe.send("ended", reason=files_away(error))
    except Exception as error:  # noqa: BLE001 - sent to the worker, which says it to the user
        pipe.send("failed", message=explain(error), traceback=traceback.format_exc())


class _UnheardError(BaseException):
    """The worker is gone, or done with this trainer: there is nobody to say anything to."""


class _Pipe:
    """JSON messages to and from the worker."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stop = self._checkpoint = False

    def send(self, kind: str, **values: object) -> None:
        self._connection.send_bytes(json.dumps({"kind": kind, **values}).encode())

    def wait_for_start(self) -> dict[str, Any]:
        """The order to start; a stop that overtook it is kept for `should_stop`."""
        while (message := self._receive())["kind"] != "start":
            self._note(message)
        return message

    def should_stop(self) -> bool:
        """Whether `stop` has arrived; costs one system call."""
        while not self._stop and self._connection.poll(0):
            self._note(self._receive())
        return self._stop

    def should_checkpoint(self) -> bool:
        """Whether `should_stop` has seen that a checkpoint was asked for, since the last call."""
        asked, self._checkpoint = self._checkpoint, False
        return asked

    def _note(self, message: dict[str, Any]) -> None:
        self._stop |= message["kind"] == "stop"
        self._checkpoint |= message["kind"] == "checkpoint"

    def _receive(self) -> dict[str, Any]:
        try:
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            raise _UnheardError from None
        if message["kind"] == "kill":
            raise _UnheardError
        return message


class _Session(grpo.Reporter):
    """One training, and the reporter that passes on what it says."""

    def __init__(self, pipe: _Pipe, request: JobRequest, folder: Path) -> None:
        self._pipe = pipe
        self._request = request
        self._folder = folder
        self._points = TrackingReporter(request.config.total_timesteps, request.max_metric_points)
        self._send_at = 0.0

    def run(self, start: dict[str, Any]) -> None:
        state = self._load(start["checkpoint"])
        # a checkpoint of before 0.2 does not have the policy that the job started from
        self._start_is_unknown = (
            self._request.init_from is not None and state is not None and state.start is None
        )
        self._points.count_earlier(start["seconds"])
        weights = start["weights"]
        trainer = Trainer(
            self._request.config,
            reporter=self,
            should_stop=self._pipe.should_stop,
            should_finish=self._is_time_up,
            checkpoint_seconds=self._request.checkpoint_seconds,
            should_checkpoint=self._pipe.should_checkpoint,
            state=state,
            initial_policy=None if weights is None else load_policy(Path(weights)),
        )
        branching, reason = trainer.branching
        _log.info("Branching: %s. %s", branching, reason)
        self._pipe.send(
            "environment",
            resumes_exactly=trainer.resumes_exactly,
            branching=branching,
            branching_reason=reason,
        )
        self._hints = Hints(trainer.policy.spec.action)
        result = trainer.train()
        verdict = self._judge(trainer, result.evaluation)
        self._send_points([] if result.stopped else self._points.finish())
        path = patiently(lambda: self._save(trainer.state(), "final"))
        self._pipe.send(
            "done",
            path=str(path),
            timesteps=result.timesteps,
            stopped=result.stopped,
            stopped_by=_STOPPED_BY.get(result.ended_by),
            evaluation=result.evaluation and evaluation_to_json(result.evaluation),
            verdict=verdict and dataclasses.asdict(verdict),
        )

    def _judge(self, trainer: Trainer, evaluation: Evaluation | None) -> Verdict | None:
        """What the evaluation is worth; None where that cannot be told, which fails no job."""
        if evaluation is None or self._start_is_unknown:
            return None
        try:
            verdict = trainer.verdict(evaluation)
        except GRPOError as error:
            _log.warning("It is not compared with random actions and its start: %s", error)
            return None
        self._points.on_verdict(verdict)
        return verdict

    def on_rollout(self, stats: RolloutStats) -> None:
        self._points.on_rollout(stats)
        self._hints.on_rollout(stats)

    def on_update(self, stats: UpdateStats) -> None:
        self._points.on_update(stats)
        told = len(self._hints.found)
        self._hints.on_update(stats)
        for hint, text in list(self._hints.found.items())[told:]:
            self._pipe.send("hint", hint=hint, text=text)
        if time.monotonic() >= self._send_at:
            self._send_points()

    def on_evaluation(self, timesteps: int, evaluation: Evaluation) -> None:
        self._points.on_evaluation(timesteps, evaluation)
        self._send_points()

    def on_checkpoint(self, state: TrainingState) -> None:
        self._send_points()
        try:
            path = self._save(state, f"{state.timesteps:012d}")
        except OSError as error:
            self._pipe.send("checkpoint_failed", message=explain(error))
        else:
            self._pipe.send("checkpoint", path=str(path), timesteps=state.timesteps)

    def _is_time_up(self) -> bool:
        limit = self._request.max_seconds
        if limit is None or self._points.seconds < limit:
            return False
        self._pipe.send("finishing")
        return True

    def _load(self, path: str | None) -> TrainingState | None:
        if path is None:
            return None
        state, extra = checkpoint.load(Path(path))
        self._points.load_state_dict(extra["reporter"])
        return state

    def _save(self, state: TrainingState, name: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)  # someone may have cleaned up in TMPDIR
        path = self._folder / f"{name}.npz"
        checkpoint.save(path, state, {"reporter": self._points.state_dict()})
        return path

    def _send_points(self, last: Sequence[Point] = ()) -> None:
        self._send_at = time.monotonic() + _SEND_SECONDS
        points, made = [*self._points.drain(), *last], self._points
        self._pipe.send("points", points=points, timesteps=made.timesteps, seconds=made.seconds)


class TrainerHandle(ABC):
    """The pipe to a trainer, wherever that one runs. Orders may be given from any thread.

    Args:
        connection: the worker's end of the pipe; `train` has the other.
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

    def save_checkpoint(self) -> None:
        """Ask it for a checkpoint after the iteration that it is in."""
        self._send({"kind": "checkpoint"})

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
