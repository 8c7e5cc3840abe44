"""A place for jobs on a node of a Ray cluster: an actor that runs workers as a local job is run."""

import dataclasses
import os
from typing import Any

from grpo_platform.core.errors import PlatformError
from grpo_platform.core.process import machine
from grpo_platform.jobs.backend import Exit, WorkerTask
from grpo_platform.jobs.local import LocalBackend
from grpo_platform.tracking.store import Store, configure_mlflow

__all__ = ["WorkerActor"]


class WorkerActor:
    """Runs one job after the other in processes of their own, on the node that Ray has chosen.

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
        configure_mlflow()
        opened = Store(**store)
        if opened.is_local and machine() != server_machine:
            raise PlatformError(
                "this node cannot open the server's sqlite file: set MLFLOW_TRACKING_URI to an "
                "MLflow server or to PostgreSQL."
            )
        self._backend = LocalBackend(opened)
        self._exits: list[Exit] = []
        self._backend.start()

    def start(self, task: dict[str, Any]) -> str | None:
        """Start `WorkerTask`, as a dict; returns the worker's name, None if it ended before.

        The job before must have ended, as `finish` tells.
        """
        self._backend.submit(WorkerTask(**task))
        while not self._exits:
            worker = self._backend.worker_of(task["job_id"])
            if worker is not None:
                return worker
            self._exits = self._backend.poll(1.0)
        return None

    def finish(self) -> dict[str, Any]:
        """Wait until the job that was started has ended; returns its `Exit` as a dict."""
        while not self._exits:
            self._exits = self._backend.poll(1.0)
        return dataclasses.asdict(self._exits.pop())

    def stop(self, job_id: str) -> None:
        """Make the worker look at its run now."""
        self._backend.stop(job_id)

    def kill(self, job_id: str) -> None:
        """End the worker without asking."""
        self._backend.kill(job_id)
