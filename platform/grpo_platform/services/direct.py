"""What faces do without a server: open the store that is there, do one thing, and return."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import grpo
from grpo.evaluation import Evaluation
from grpo_platform.core.access import Signer, not_vouched_for
from grpo_platform.core.errors import (
    ConflictError,
    InvalidRequestError,
    UnknownJobError,
    UnknownModelError,
)
from grpo_platform.core.names import Tag
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import Settings
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.jobs.resources import check_this_machine
from grpo_platform.jobs.worker import run_worker
from grpo_platform.registry.models import Registry
from grpo_platform.registry.records import ModelVersionRef
from grpo_platform.reproduction.environment import EnvironmentImpact, compare_environment
from grpo_platform.reproduction.reproducing import begin_run, plan_reproduction, run_plan
from grpo_platform.reproduction.verdict import Difference, Reproduction
from grpo_platform.services.downloads import onnx_of
from grpo_platform.services.training import check_request
from grpo_platform.services.trajectories import (
    TrajectoryExport,
    TrajectoryFormat,
    export_trajectories,
)
from grpo_platform.tracking.addresses import existing_store_uri
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.records import JobRecord
from grpo_platform.tracking.reporter import Point, evaluation_figures
from grpo_platform.tracking.runs import now_ms
from grpo_platform.tracking.store import Store, configure_mlflow

__all__ = [
    "Played",
    "compare_environment_of",
    "download_version",
    "evaluate_into_run",
    "evaluate_version",
    "export_episodes",
    "export_version",
    "open_store",
    "reproduce_job",
    "run_queued",
    "train_in_run",
]


class Played(NamedTuple):
    """How well a version does."""

    version: ModelVersionRef
    evaluation: Evaluation


def open_store(settings: Settings) -> tuple[JobStore, Registry]:
    """The jobs and the models of the store that the settings name.

    Raises:
        StoreError: there is none.
    """
    configure_mlflow()
    uri = existing_store_uri(settings)
    return JobStore(uri, signer=Signer(settings.api_token)), Registry(uri)


def evaluate_version(
    settings: Settings, reference: str, *, episodes: int, seed: int, deterministic: bool = True
) -> Played:
    """Play a registered version on its environment's own reward.

    Args:
        settings: name the store.
        reference: `name`, `name@alias` or `name/version`.
        episodes: how many, at least 1.
        seed: gives the episodes' seeds.
        deterministic: take the likeliest action instead of sampling.

    Raises:
        UnknownModelError: no such version of ours.
        UnsafeModelError: its files are not what was registered.
        grpo.GRPOError: the environment cannot be evaluated here.
        StoreError: there is no store, or it cannot be used.
    """
    _, registry = open_store(settings)
    version = registry.resolve(reference)
    environment = registry.environment_of(version.name)
    if environment is None:
        raise UnknownModelError(version.name)
    found = grpo.evaluate(
        registry.load_policy(version.label),
        environment.env_name,
        env_kwargs=environment.env_kwargs,
        n_episodes=episodes,
        seed=seed,
        deterministic=deterministic,
    )
    return Played(version, found)


def evaluate_into_run(
    settings: Settings, run_id: str, reference: str, *, episodes: int, seed: int
) -> None:
    """Play a version and log `eval/…` to a run, which is no job; raises as `evaluate_version`."""
    version, found = evaluate_version(settings, reference, episodes=episodes, seed=seed)
    now = now_ms()
    points = [Point(key, value, 0, now) for key, value in evaluation_figures(found).items()]
    store, _ = open_store(settings)
    store.log_points(run_id, points, {Tag.EVALUATES: version.label})


def download_version(settings: Settings, reference: str, target: Path) -> ModelVersionRef:
    """Copy a version's files to a new folder; raises as `Registry.download`."""
    _, registry = open_store(settings)
    return registry.download(reference, target)


def export_version(settings: Settings, reference: str) -> tuple[ModelVersionRef, bytes]:
    """A version as an ONNX model, checked against the policy that it was made of.

    Args:
        settings: name the store.
        reference: `name`, `name@alias` or `name/version`.

    Raises:
        UnknownModelError: no such version of ours.
        UnsafeModelError: its files are not what was registered.
        InvalidRequestError: the extra `onnx` is not installed.
        grpo.GRPOError: the policy cannot be rebuilt here, or not be exported.
        StoreError: there is no store, or it cannot be used.
    """
    _, registry = open_store(settings)
    return onnx_of(registry, reference)


def export_episodes(
    settings: Settings,
    reference: str,
    target: Path,
    *,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    kind: TrajectoryFormat = TrajectoryFormat.PARQUET,
) -> TrajectoryExport:
    """Play a registered version, and write every step of it to a new folder.

    Args:
        settings: name the store.
        reference: `name`, `name@alias` or `name/version`.
        target: must not exist; it appears as a whole or not at all.
        episodes: how many, at least 1.
        seed: gives the episodes' seeds, as an evaluation's.
        deterministic: take the likeliest action instead of sampling.
        kind: what to write.

    Raises:
        UnknownModelError: no such version of ours.
        UnsafeModelError: its files are not what was registered.
        InvalidRequestError: the extra `minari` is not installed.
        grpo.GRPOError: the environment cannot be played here.
        OSError: the folder cannot be written.
        StoreError: there is no store, or it cannot be used.
    """
    _, registry = open_store(settings)
    return export_trajectories(
        registry, registry.resolve(reference), target, kind=kind,
        episodes=episodes, seed=seed, deterministic=deterministic,
    )  # fmt: skip


def reproduce_job(
    settings: Settings,
    job_id: str,
    seed: int | None = None,
    *,
    run_id: str | None = None,
    announce: Callable[[tuple[Difference, ...]], None] = lambda expected: None,
) -> Reproduction:
    """Train a completed job again, and compare.

    Args:
        settings: name the store.
        job_id: the job.
        seed: train with another one.
        run_id: run that exists and becomes the reproduction; made beside the job's by default.
        announce: called before the training with what differs already.

    Raises:
        UnknownJobError: no such job.
        ConflictError: it cannot be reproduced here, or was not trained to its end.
        InvalidRequestError: its stored request cannot be trained.
        StoreError: there is no store, or it cannot be used.
    """
    store, registry = open_store(settings)
    plan = plan_reproduction(store, store.id_of(job_id), seed)
    announce(plan.expected)
    return run_plan(store, registry, plan, run_id or begin_run(store, plan))


def compare_environment_of(settings: Settings, reference: str) -> EnvironmentImpact:
    """Compare a version's environment with the one that it was made in; no training.

    Args:
        settings: name the store.
        reference: `name`, `name@alias`, `name/version`, or the id of the job that made it.

    Raises:
        UnknownJobError, UnknownModelError: no such job or version.
        UnsafeModelError: its files are not what was registered.
        ConflictError: nothing was kept that could be compared.
        grpo.GRPOError: its policy cannot be built here.
        StoreError: there is no store, or it cannot be used.
    """
    store, registry = open_store(settings)
    return compare_environment(store, registry, _whole(store, registry, reference))


def _whole(store: JobStore, registry: Registry, reference: str) -> str:
    """The reference, with the whole id of the job that it begins.

    Raises:
        InvalidRequestError: it is the name of a model, too.
    """
    try:
        job_id = store.id_of(reference)
    except UnknownJobError:
        return reference
    if job_id != reference:
        with suppress(UnknownModelError):
            label = registry.resolve(reference).label
            raise InvalidRequestError(
                f"{reference} is the model {label}, and job {job_id} begins so: say which."
            )
    return job_id


def train_in_run(settings: Settings, run_id: str, request: JobRequest) -> int:
    """Make a run that exists a job, and train it here, in the foreground, as POST /train does.

    Returns:
        Exit code: 0 when the job completed, 1 when it failed or was stopped.

    Raises:
        grpo.ConfigError: it cannot be trained.
        PlatformError: it does not fit what is in the store, or that is away.
    """
    store, registry = open_store(settings)
    check_request(request, registry, store, check_this_machine)
    return _work(store, store.adopt(run_id, request))


def run_queued(job_id: str, settings: Settings) -> int:
    """Train a queued job in this process, in the foreground, as `run_worker` does.

    Args:
        job_id: the job.
        settings: name the store, and hold the token that the job must have been queued with.

    Returns:
        Exit code: 0 when the job completed, 1 when it failed, was stopped, or is another's.

    Raises:
        UnknownJobError: no such job.
        ConflictError: it does not wait, another worker has it, or it was queued by others.
        InvalidRequestError: its stored request cannot be read, or asks for more than there is.
        grpo.ConfigError: its device does not exist.
        StoreError: there is no store, or it cannot be used.
    """
    store, _ = open_store(settings)
    job = store.get(store.id_of(job_id))
    _check_free(job)
    if not store.vouches_for(job):
        raise ConflictError(not_vouched_for(job.job_id))
    if job.request_error is not None:
        raise InvalidRequestError(job.request_error)
    check_this_machine(job.request)
    return _work(store, job)


def _work(store: JobStore, job: JobRecord) -> int:
    place = Store(
        tracking_uri=store.tracking_uri,
        experiment_id=job.experiment_id,
        artifact_location=job.artifact_uri,
    )
    return run_worker(place, job.job_id, job.attempt, job.request)


def _check_free(job: JobRecord) -> None:
    """Refuse a job that no worker may claim."""
    if job.status in TERMINAL:
        again = f"; call POST /training/{job.job_id}/resume first"
        raise ConflictError(
            f"Job {job.job_id} is {job.status.value}, and a worker takes one that is queued"
            f"{'' if job.status is JobStatus.COMPLETED else again}."
        )
    if job.status is JobStatus.RUNNING or job.claimed_by is not None:
        raise ConflictError(
            f"Job {job.job_id} is held by the worker {job.claimed_by or job.worker}. Stop the job "
            "there first, or wait: when that worker is lost, a server queues the job again."
        )
