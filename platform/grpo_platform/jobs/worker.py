"""The process that runs one job: it owns the run in MLflow, and a trainer process."""

import logging
import os
import select
import shutil
import signal
import sys
import threading
from types import FrameType
from typing import Any

from grpo_platform.core.errors import StoreUnavailableError
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import TOKEN_VARIABLE
from grpo_platform.jobs.attempt import Attempt
from grpo_platform.jobs.logs import WorkerLog
from grpo_platform.jobs.resources import restrict_memory
from grpo_platform.jobs.trainer_process import TrainerProcess
from grpo_platform.jobs.workdir import make_workdir, patiently
from grpo_platform.registry.models import Registry
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.store import Store

__all__ = ["run_forked", "run_worker"]

_log = logging.getLogger(__name__)


def run_forked(task: dict[str, Any], lifeline_fd: int) -> int:
    """Be the worker that a server's forkserver has just forked.

    Args:
        task: `WorkerTask` as a dict, `store`: `Store` as a dict, and `memory_bytes`: how much the
            job may take, 0 for no limit.
        lifeline_fd: becomes readable when the server has died.

    Returns:
        Exit code of the process.
    """
    request = JobRequest.from_json(task["request"])
    # a GPU's driver counts addresses as data that it only reserves
    restrict_memory(task["memory_bytes"] if request.config.device == "cpu" else 0)
    return run_worker(
        Store(**task["store"]), task["job_id"], task["attempt"], request, lifeline_fd=lifeline_fd
    )


def run_worker(
    store: Store,
    job_id: str,
    attempt: int,
    request: JobRequest,
    *,
    lifeline_fd: int | None = None,
) -> int:
    """Run one attempt of a job to its end; call it in a process without other threads.

    Args:
        store: where the job is.
        job_id: the job: queued, or adopted from `mlflow run` and thus running already.
        attempt: the attempt to claim.
        request: what the job is to train.
        lifeline_fd: of a server that gets the job back when this worker must leave; None in the
            foreground, where Ctrl-C stops the job, and a lost trainer fails it.

    Returns:
        Exit code: 0; in the foreground, 1 where this worker did not complete the job.
    """
    os.environ.pop(TOKEN_VARIABLE, None)  # plug-ins run in the trainer
    folder = make_workdir()
    try:
        log = patiently(lambda: WorkerLog(folder))
        log.take_records() if lifeline_fd is None else log.take_output()
        # before anything else is opened: the trainer is a fork of this process
        trainer = TrainerProcess.fork(request, folder)
        if attempt == 1 and request.init_from is None:
            trainer.begin()
        work = Attempt(
            _open(store, lifeline_fd),
            trainer, job_id, attempt, request, folder, log,
            foreground=lifeline_fd is None, own_process=True,
        )  # fmt: skip
        _pass_on(work, lifeline_fd)
        return work.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pass_on(work: Attempt, lifeline_fd: int | None) -> None:
    """Let signals, and the end of the server, reach the attempt."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        work.interrupt()

    def watch(lifeline_fd: int) -> None:
        select.select([lifeline_fd], [], [])
        work.leave()

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt if lifeline_fd is None else signal.SIG_IGN)
    if lifeline_fd is not None:
        threading.Thread(target=watch, args=(lifeline_fd,), name="lifeline", daemon=True).start()


def _open(store: Store, lifeline_fd: int | None) -> JobStore:
    """The store, as soon as it is there; until then, the end of the server ends this process."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    while True:
        try:
            jobs = JobStore(store.tracking_uri, store.experiment_id)
            # MLflow opens the registry apart, and then waits ever longer for a store that is away
            Registry(store.tracking_uri).list(limit=1)
            return jobs
        except StoreUnavailableError as error:
            _log.warning("The store is away: %s", error)
        lifelines = [] if lifeline_fd is None else [lifeline_fd]
        if select.select(lifelines, [], [], 1.0)[0]:
            sys.exit(0)
