"""The process that talks to Ray for a server: what Ray does to its driver stays out of the server.

Ray ends a driver whose cluster goes away; then the server starts another one of these. It runs as
`python -m grpo_platform.jobs.ray_driver CONTROL`, an inherited sequenced-packet socket. The server
sends `{"event": "submit", "task", "store", "resources"}`, and `stop` and `kill` with a `job_id`;
back come `ready`, or `failed` with a `message`; and, with `job_id` and `attempt`, `waits` with
the fields of `Wait`, `placed`, `started` with `worker`, and `ended` with the fields of `Exit`.
"""

import contextlib
import json
import logging
import os
import queue
import select
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import ray

from grpo_platform.core.process import MAX_MESSAGE, machine
from grpo_platform.jobs.ray_actor import WorkerActor
from grpo_platform.jobs.resources import in_words

__all__ = ["main", "wait_of"]

_nodes: Final[Callable[[], list[dict[str, Any]]]] = ray.nodes
_CALLS_AT_ONCE: Final = 4  # start or finish, stop, kill
_KEEP_SECONDS: Final = 5.0
"""How long an actor without a job keeps its resources: one that is there saves the next job the
seconds of a new one's imports."""
_CHECK_SECONDS: Final = 2.0
_SIZES_NAMED: Final = 5
_MUTE_SECONDS: Final = 15.0
"""How long a job may wait for a node that could have it before that is worth a word: an actor
takes seconds to start."""


@dataclass(slots=True)
class _Place:
    """A job, and the actor that has its resources or waits for them."""

    task: dict[str, Any]
    resources: dict[str, float]
    since: float
    actor: Any = None
    placed: bool = False
    told: str = ""

    @property
    def name(self) -> dict[str, Any]:
        """What every message about it carries."""
        return {"job_id": self.task["job_id"], "attempt": self.task["attempt"]}

    def lost(self, error: BaseException) -> dict[str, Any]:
        """The `Exit` of a job whose actor is gone."""
        words = " ".join(str(error).split())[-500:]
        return self.name | {"reason": f"was lost by Ray ({type(error).__name__}: {words})"}


@dataclass(frozen=True, slots=True, eq=False)
class _Idle:
    """An actor that has no job."""

    actor: Any
    resources: dict[str, float]
    since: float


def main(control_fd: int) -> None:
    """Connect to the cluster, and pass on orders and news until either side is gone."""
    control = socket.socket(fileno=control_fd)
    try:
        _probe(os.environ.get("RAY_ADDRESS", ""))
        ray.init(
            address="auto",
            namespace="grpo-platform",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        _send(control, {"event": "failed", "message": str(error).strip().splitlines()[0]})
        return
    _send(control, {"event": "ready"})
    _Driver(control).serve()


def _probe(address: str) -> None:
    """Raise ConnectionError at once where nothing listens: Ray itself tries for over a minute."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdecimal():
        return  # "auto", or nothing: Ray looks for a cluster of this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
    except OSError as error:
        raise ConnectionError(f"nothing answers at RAY_ADDRESS={address} ({error})") from error


class _Driver:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._places: dict[str, _Place] = {}
        self._idle: list[_Idle] = []
        self._next_look = 0.0
        self._news: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe()
        self._environment = {k: v for k, v in os.environ.items() if k.startswith("MLFLOW_")}

    def serve(self) -> None:
        while ray.is_initialized():
            watched: list[Any] = [self._control, self._wake_read]
            readable, _, _ = select.select(watched, [], [], _CHECK_SECONDS)
            if self._wake_read in readable:
                os.read(self._wake_read, 4096)
            while not self._news.empty():
                self._news.get()()
            if self._control in readable:
                message = self._control.recv(MAX_MESSAGE)
                if not message:
                    return  # the server is gone: Ray ends the actors, and their workers leave
                self._obey(json.loads(message))
            self._give_back(_KEEP_SECONDS)
            self._tell_what_waits()

    def _obey(self, order: dict[str, Any]) -> None:
        if order["event"] == "submit":
            self._submit(order["task"], order["store"], order["resources"])
            return
        place = self._places.get(order["job_id"])
        if place is None:
            return
        if not place.placed:
            ray.kill(place.actor)  # its end follows
        elif order["event"] == "stop":
            place.actor.stop.remote(order["job_id"])
        else:
            place.actor.kill.remote(order["job_id"])

    # --- actors --------------------------------------------------------------------------

    def _submit(
        self, task: dict[str, Any], store: dict[str, Any], resources: dict[str, float]
    ) -> None:
        place = self._places[task["job_id"]] = _Place(task, resources, time.monotonic())
        for idle in self._idle:
            if idle.resources == resources:
                self._idle.remove(idle)
                place.actor = idle.actor
                self._run(place)
                return
        self._give_back(0.0)  # what they keep may be what this one waits for
        slot = ray.remote(WorkerActor).options(
            max_restarts=0, max_concurrency=_CALLS_AT_ONCE, **resources
        )
        actor: Any = slot.remote(store, self._environment, machine())
        place.actor = actor
        self._when_done(actor.__ray_ready__.remote(), lambda done: self._ready(place, actor, done))

    def _ready(self, place: _Place, actor: object, future: Future[Any]) -> None:
        if place.actor is not actor:
            return  # the job has another's place by now
        error = future.exception()
        if error is None:
            self._run(place)
        else:
            self._end(place, place.lost(error))

    def _run(self, place: _Place) -> None:
        place.placed = True
        _send(self._control, {"event": "placed"} | place.name)
        start = place.actor.start.remote(place.task)
        self._when_done(start, lambda future: self._started(place, future))

    def _started(self, place: _Place, future: Future[Any]) -> None:
        error = future.exception()
        if error is not None:
            self._end(place, place.lost(error))
            return
        if future.result() is not None:
            _send(self._control, {"event": "started", "worker": future.result()} | place.name)
        self._when_done(place.actor.finish.remote(), lambda done: self._finished(place, done))

    def _finished(self, place: _Place, future: Future[Any]) -> None:
        error = future.exception()
        if error is not None:
            self._end(place, place.lost(error))
            return
        self._end(place, future.result())
        waiting = [other for other in self._places.values() if not other.placed]
        successor = next((p for p in waiting if p.resources == place.resources), None)
        if successor is not None:  # an actor that is there is seconds sooner than a new one
            ray.kill(successor.actor)
            successor.actor = place.actor
            self._run(successor)
        else:
            self._idle.append(_Idle(place.actor, place.resources, time.monotonic()))
            if waiting:
                self._give_back(0.0)

    def _end(self, place: _Place, ended: dict[str, Any]) -> None:
        if self._places.get(place.task["job_id"]) is place:
            del self._places[place.task["job_id"]]
        _send(self._control, {"event": "ended"} | ended)

    def _give_back(self, seconds: float) -> None:
        """End the actors that had no job for so long."""
        since = time.monotonic() - seconds
        for idle in [idle for idle in self._idle if idle.since <= since]:
            self._idle.remove(idle)
            ray.kill(idle.actor)

    def _when_done(
        self, reference: "ray.ObjectRef[Any]", then: Callable[[Future[Any]], None]
    ) -> None:
        def tell(future: Future[Any]) -> None:
            self._news.put(lambda: then(future))
            os.write(self._wake_write, b"w")

        reference.future().add_done_callback(tell)

    # --- what waits ----------------------------------------------------------------------

    def _tell_what_waits(self) -> None:
        """Say of each job that no node has taken what it waits for, when that has changed."""
        now = time.monotonic()
        waiting = [place for place in self._places.values() if not place.placed]
        if not waiting or now < self._next_look:
            return
        self._next_look = now + _CHECK_SECONDS
        nodes = [node["Resources"] for node in _nodes() if node["Alive"]]
        for place in waiting:
            message, hopeless = wait_of(place.resources, nodes)
            if message != place.told and (hopeless or now > place.since + _MUTE_SECONDS):
                place.told = message
                _send(
                    self._control,
                    {"event": "waits", "message": message, "hopeless": hopeless} | place.name,
                )


def wait_of(resources: dict[str, float], nodes: list[dict[str, float]]) -> tuple[str, bool]:
    """What a job waits for that has no place yet, and whether no node could ever have it.

    Args:
        resources: `num_cpus` and `num_gpus` of the job.
        nodes: by resource, all that each node of the cluster has, busy or not.
    """
    cpus, gpus = resources["num_cpus"], resources["num_gpus"]
    wanted = in_words(cpus, gpus)
    sizes = [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes]
    if any(cpus <= has_cpus and gpus <= has_gpus for has_cpus, has_gpus in sizes):
        return f"It waits until a node of the Ray cluster has {wanted} free.", False
    there = ", ".join(sorted({in_words(*size) for size in sizes if any(size)})[:_SIZES_NAMED])
    return (
        f"It waits for a node with {wanted}, which the Ray cluster does not have"
        f"{f' (its nodes: {there})' if there else ''}. Add one, or stop the job and ask for less."
    ), True


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the next read tells
        control.send(json.dumps(message).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
