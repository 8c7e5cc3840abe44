"""One object that holds every service, and the one place that puts them together."""

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from grpo.errors import ConfigError
from grpo.registry import Registry as Names
from grpo_platform.comparisons.sides import SideReader
from grpo_platform.comparisons.store import ComparisonStore
from grpo_platform.core.access import Signer
from grpo_platform.core.errors import ConflictError, NotReadyError, PlatformError
from grpo_platform.core.settings import Settings
from grpo_platform.core.states import JobStatus
from grpo_platform.experiments.runner import ExperimentRunner
from grpo_platform.experiments.store import ExperimentStore
from grpo_platform.jobs.backend import Backend, BackendFactory
from grpo_platform.jobs.isolation import Isolation
from grpo_platform.jobs.runner import Runner
from grpo_platform.play.sessions import PlaySessions
from grpo_platform.registry.deletion import delete_model
from grpo_platform.registry.models import Registry
from grpo_platform.registry.promotion import Promoter
from grpo_platform.scenarios.keeping import Scenarios
from grpo_platform.services.comparisons import Comparisons
from grpo_platform.services.environments import Environments
from grpo_platform.services.pictures import Pictures
from grpo_platform.services.served import Served
from grpo_platform.serving.service import ServingService
from grpo_platform.sweeps.runner import SweepRunner
from grpo_platform.sweeps.store import SweepStore
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.records import JobRecord
from grpo_platform.tracking.store import Store, close_to_others, hold_store, prepare_store
from grpo_platform.tracking.ui import MlflowUI

__all__ = ["Services", "build_services", "find_backend"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """Everything behind the routes."""

    settings: Settings
    store: JobStore
    jobs: Runner
    sweeps: SweepStore
    sweep_runner: SweepRunner
    comparisons: Comparisons
    experiments: ExperimentStore
    experiment_runner: ExperimentRunner
    registry: Registry
    promoter: Promoter
    scenarios: Scenarios
    play: PlaySessions
    serving: ServingService
    served: Served
    ui: MlflowUI
    isolation: Isolation
    environments: Environments
    pictures: Pictures
    closing: threading.Event = field(default_factory=threading.Event)
    """Set when the server begins to shut down: whoever streams ends."""

    def job(self, job_id: str) -> JobRecord:
        """A job; once it is told to be promoted, its version answers under the bare name.

        Raises:
            UnknownJobError: no such job.
            StoreError: the store cannot be reached.
        """
        record = self.store.get(job_id)
        if record.promoted and record.end_time is not None:
            # a clock that was set back must not make every call look the name up again
            ago = max(0.0, (datetime.now(UTC) - record.end_time).total_seconds())
            self.serving.refresh(record.model_name, since=time.monotonic() - ago)
        return record

    def unfinished_jobs(self) -> dict[str, int]:
        """Number of queued and of running jobs.

        Raises:
            StoreError: the store cannot be reached.
        """
        # a job that was just handed to a worker waits no more, and is not marked running yet
        running = max(self.jobs.running, len(self.store.running()))
        return {JobStatus.QUEUED: self.jobs.waiting, JobStatus.RUNNING: running}

    def check_ready(self) -> None:
        """Whether a job could be taken now: the store can be read and written.

        Raises:
            NotReadyError: jobs are not taken.
            StoreError: the store cannot be used.
        """
        if not self.jobs.alive:
            raise NotReadyError
        self.store.check_writable()

    def delete_model(self, name: str) -> None:
        """Delete a model from memory, registry and disk.

        Raises:
            UnknownModelError: no such model of ours.
            ConflictError: a job will write it.
        """
        for status in (JobStatus.QUEUED, JobStatus.RUNNING):
            for job in self.store.list(status=status, model_name=name, limit=1).items:
                raise ConflictError(
                    f"Job {job.job_id} is {status.value} and will write model {name!r}; wait for "
                    "it, or stop it first."
                )
        delete_model(self.registry, name)
        self.serving.evict(name)


def build_services(settings: Settings) -> Services:
    """Everything behind the faces, ready but not started.

    Raises:
        StoreError: the MLflow store cannot be used.
        PlatformError: Ray was asked for, and is not installed, or its cluster cannot be used.
    """
    make_backend = find_backend(settings.job_backend)  # before a store is made
    store = prepare_store(settings)
    if settings.api_token is not None:
        close_to_others(store)
    hold_store(store)
    jobs = JobStore(store.tracking_uri, store.experiment_id, Signer(settings.api_token))
    isolation = Isolation(settings.environment_seconds)
    registry = Registry(store.tracking_uri)
    promoter = Promoter(registry, isolation.evaluate, isolation.play_suite)
    runner = Runner(jobs, make_backend(store, settings), settings)
    sweeps, experiments = SweepStore(jobs), ExperimentStore(jobs)
    serving = ServingService(registry, settings.model_cache_size)
    closing = threading.Event()
    return Services(
        settings=settings,
        store=jobs,
        jobs=runner,
        sweeps=sweeps,
        sweep_runner=SweepRunner(sweeps, jobs, runner, promoter, settings.max_timesteps),
        comparisons=Comparisons(
            ComparisonStore(jobs),
            SideReader(jobs, experiments, sweeps, registry, isolation.evaluate),
        ),
        experiments=experiments,
        experiment_runner=ExperimentRunner(experiments, jobs, runner, promoter),
        registry=registry,
        promoter=promoter,
        scenarios=Scenarios(registry, isolation.check_suite, isolation.play_suite),
        play=PlaySessions(jobs, registry, settings, closing),
        serving=serving,
        served=Served(serving, registry, isolation),
        ui=MlflowUI(
            store.tracking_uri, store.experiment_id, settings.mlflow_ui_port, settings.api_token
        ),
        isolation=isolation,
        environments=Environments(isolation),
        pictures=Pictures(isolation),
        closing=closing,
    )


def find_backend(name: str) -> BackendFactory:
    """The way to run jobs that a name stands for: `local`, `ray`, `memory`, or an installed one.

    Distributions add theirs by an entry point of the group `grpo.backends` that names a
    `BackendFactory`.

    Raises:
        PlatformError: there is no such backend, or it cannot be used here.
    """
    try:
        make = _BACKENDS.get(name)
    except ConfigError as error:
        raise PlatformError(str(error)) from error
    if make is _ray:
        from grpo_platform.jobs.ray_backend import require_ray

        require_ray()
    return make


def _local(store: Store, settings: Settings) -> Backend:
    from grpo_platform.jobs.local import LocalBackend

    limit = settings.max_job_memory_megabytes
    return LocalBackend(store, None if limit is None else limit << 20)


def _ray(store: Store, settings: Settings) -> Backend:
    from grpo_platform.jobs.ray_backend import RayBackend

    del settings
    backend = RayBackend(store)
    backend.start()  # so that the cluster's absence ends the server's start
    return backend


def _memory(store: Store, settings: Settings) -> Backend:
    from grpo_platform.jobs.in_memory import InMemoryBackend

    del settings
    return InMemoryBackend(store)


def _factory(thing: object) -> BackendFactory:
    if not callable(thing):
        raise TypeError(f"it is a {type(thing).__name__}, not a function of a store and settings")
    factory: BackendFactory = thing
    return factory


_BACKENDS: Names[BackendFactory] = Names(
    "GRPO_JOB_BACKEND",
    "grpo.backends",
    {"local": _local, "ray": _ray, "memory": _memory},
    _factory,
)
