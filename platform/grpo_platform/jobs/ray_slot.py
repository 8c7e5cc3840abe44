"""A job's place on a node of a Ray cluster: an actor that runs the worker as a local job does."""

import dataclasses
import os
import threading
from typing import Any

from grpo_platform.errors import PlatformError
from grpo_platform.jobs.backend import WorkerTask
from grpo_platform.jobs.identity import machine
from grpo_platform.jobs.local import LocalBackend
from grpo_platform.tracking.store import Store

__all__ = ["Slot"]


class Slot:
    """Runs one job in a process of its own on the node that Ray has chosen.

    When this process ends, however it ends, the worker sees it and gives the job back.

    Args:
        store: `Store` as a dict.
        environment: variables that the worker needs of the server's.
        server_machine: `machine()` where the server runs.

    Raises:
        PlatformError: this node cannot reach the store.
    """

    def __init__(
        self, store: dict[str, Any], environment: dict[str, str], server_machine: str
    ) -> None:
        os.environ.update(environment)
        opened = Store(**store)
        if opened.is_local and machine() != server_machine:
            raise PlatformError(
                "this node cannot open the server's sqlite file: set MLFLOW_TRACKING_URI to an "
                "MLflow server or to PostgreSQL."
            )
        self._backend = LocalBackend(opened)
        self._known = threading.Event()
        self._worker: str | None = None
        self._backend.start()

    def run(self, task: dict[str, Any]) -> dict[str, Any]:
        """Run `WorkerTask`, as a dict, to its end; returns its `Exit` as a dict."""
        self._backend.submit(WorkerTask(**task))
        while not (exits := self._backend.poll(1.0)):
            self._worker = self._backend.worker_of(task["job_id"])
            if self._worker is not None:
                self._known.set()
        self._worker = exits[0].worker
        self._known.set()
        return dataclasses.asdict(exits[0])

    def worker(self) -> str | None:
        """Name of the worker, as soon as there is one; None when it ended before it was known."""
        self._known.wait()
        return self._worker

    def stop(self, job_id: str) -> None:
        """Make the worker look at its run now."""
        self._backend.stop(job_id)

    def kill(self, job_id: str) -> None:
        """End the worker without asking."""
        self._backend.kill(job_id)
