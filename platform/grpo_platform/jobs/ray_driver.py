"""The process that talks to Ray for a server: what Ray does to its driver stays out of the server.

Ray ends a driver whose cluster goes away; then the server starts another one of these. It runs as
`python -m grpo_platform.jobs.ray_driver CONTROL`, an inherited sequenced-packet socket. The server
sends `{"event": "submit", "task", "store", "resources"}`, and `stop` and `kill` with a `job_id`;
back come `connected`, or `failed` with a `message`; and, with `job_id` and `attempt`, `waits` with
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
from dataclasses import dataclass
from typing import Any, Final

import ray

from grpo_platform.jobs.forkserver import MAX_MESSAGE
from grpo_platform.jobs.identity import machine
from grpo_platform.jobs.ray_slot import Slot
from grpo_platform.jobs.resources import in_words

__all__ = ["main", "wait_of"]

_nodes: Final[Callable[[], list[dict[str, Any]]]] = ray.nodes
_CALLS_AT_ONCE: Final = 4  # run, worker, stop and kill
_CHECK_SECONDS: Final = 2.0
_SIZES_NAMED: Final = 5
_MUTE_SECONDS: Final = 15.0
"""How long a job may wait for a node that could have it before that is worth a word: an actor
takes seconds to start."""


@dataclass(slots=True)
class _Place:
    """A job and the actor that holds its resources."""

    task: dict[str, Any]
    actor: Any
    resources: dict[str, float]
    since: float
    placed: bool = False
    started: bool = False
    told: str = ""

    @property
    def name(self) -> dict[str, Any]:
        """What every message about it carries."""
        return {"job_id": self.task["job_id"], "attempt": self.task["attempt"]}


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
    _send(control, {"event": "connected"})
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
            self._tell_what_waits()

    def _obey(self, order: dict[str, Any]) -> None:
        if order["event"] == "submit":
            self._submit(order["task"], order["store"], order["resources"])
            return
        place = self._places.get(order["job_id"])
        if place is None:
            return
        if not place.started:
            ray.kill(place.actor)  # it waits for resources; its end follows
        elif order["event"] == "stop":
            place.actor.stop.remote(order["job_id"])
        else:
            place.actor.kill.remote(order["job_id"])

    def _submit(
        self, task: dict[str, Any], store: dict[str, Any], resources: dict[str, float]
    ) -> None:
        slot = ray.remote(Slot).options(max_restarts=0, max_concurrency=_CALLS_AT_ONCE, **resources)
        actor: Any = slot.remote(store, self._environment, machine())
        place = self._places[task["job_id"]] = _Place(task, actor, resources, time.monotonic())
        self._when_done(actor.__ray_ready__.remote(), lambda future: self._placed(place, future))
        self._when_done(actor.run.remote(task), lambda future: self._ended(place, future))
        self._when_done(actor.worker.remote(), lambda future: self._started(place, future))

    def _when_done(self, reference: Any, then: Callable[[Any], None]) -> None:  # noqa: ANN401
        def tell(future: Any) -> None:  # noqa: ANN401
            self._news.put(lambda: then(future))
            os.write(self._wake_write, b"w")

        reference.future().add_done_callback(tell)

    def _placed(self, place: _Place, future: Any) -> None:  # noqa: ANN401
        if future.exception() is None:
            place.placed = True
            _send(self._control, {"event": "placed"} | place.name)

    def _started(self, place: _Place, future: Any) -> None:  # noqa: ANN401
        if future.exception() is not None or future.result() is None:
            return  # its end says why
        place.started = True
        _send(self._control, {"event": "started", "worker": future.result()} | place.name)

    def _ended(self, place: _Place, future: Any) -> None:  # noqa: ANN401
        job_id = place.task["job_id"]
        if self._places.get(job_id) is place:
            del self._places[job_id]
        error = future.exception()
        if error is None:
            ended = future.result()
            ray.kill(place.actor)
        else:
            words = " ".join(str(error).split())[-500:]
            reason = f"was lost by Ray ({type(error).__name__}: {words})"
            ended = place.name | {"reason": reason}
        _send(self._control, {"event": "ended"} | ended)

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
