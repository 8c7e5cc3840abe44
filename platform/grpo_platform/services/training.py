"""From what a client gave to a job: fill in, check, hand over."""

from collections.abc import Callable
from typing import Any

import grpo
from grpo import GRPOConfig, resolve_config
from grpo.errors import IncompatibleError
from grpo_platform.core.errors import ConflictError
from grpo_platform.core.request import JobRequest, resolve_request
from grpo_platform.core.states import JobStatus
from grpo_platform.registry.models import Registry
from grpo_platform.services.container import Services
from grpo_platform.tracking.idempotency import used_otherwise
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.records import JobRecord

__all__ = ["changes_from_preset", "check_request", "resume", "submit"]


def submit(
    services: Services, given: dict[str, Any], idempotency_key: str | None = None
) -> JobRecord:
    """Check the request against everything that can be known before a step, and queue the job.

    Args:
        services: everything behind the faces.
        given: fields of `JobRequest` and of `GRPOConfig` that were set.
        idempotency_key: a second call with the same key and fields gives the same job.

    Raises:
        grpo.ConfigError: it cannot be trained.
        InvalidRequestError: over the server's ceiling, more than there is where jobs run, or a
            key that came with another body.
        UnknownModelError: `init_from` names no version.
        ConflictError: the model's name belongs to another environment.
        QueueFullError: too many jobs wait.
    """
    request = resolve_request(given, services.settings.max_timesteps)
    check_request(
        request, services.registry, services.store, services.jobs.check, services.isolation.validate
    )
    job = services.jobs.submit(request, idempotency_key=idempotency_key)
    if job.request != request and not _is_repeat(services, given, job):
        raise used_otherwise()
    return job


def changes_from_preset(config: GRPOConfig) -> dict[str, Any]:
    """What the environment's preset would give, by field that has another value here.

    Args:
        config: of a job, with all values in force.
    """
    asked = {"env_name": config.env_name, "total_timesteps": config.total_timesteps}
    own = resolve_config(**asked).reward_function_type
    preset = resolve_config(**asked, reward_function_type=config.reward_function_type).to_dict()
    preset |= {"reward_function_type": own, "total_timesteps": GRPOConfig().total_timesteps}
    values = config.to_dict()
    return {k: v for k, v in preset.items() if k != "seed" and values[k] != v}


def resume(services: Services, job_id: str) -> JobRecord:
    """Take a stopped or failed job up again, and the experiment that it belongs to.

    Raises:
        UnknownJobError: no such job.
        ConflictError: the job is completed, or not finished.
        QueueFullError: too many jobs wait.
    """
    job = services.jobs.resume(job_id)
    if job.experiment is not None:
        services.experiment_runner.reopen(job.experiment)
    return job


def check_request(
    request: JobRequest,
    registry: Registry,
    store: JobStore,
    check_place: Callable[[JobRequest], None],
    validate: Callable[[GRPOConfig], object] = grpo.validate,
) -> None:
    """Check what depends on the environment and on the models that exist, before a step is made.

    Args:
        request: all values in force.
        registry: has the models.
        store: has the jobs.
        check_place: refuses what can never run where jobs run, as `Backend.check`.
        validate: refuses what cannot be trained; a server's own does so elsewhere than in itself.

    Raises:
        grpo.ConfigError: it cannot be trained.
        InvalidRequestError: it asks for more than there is.
        UnknownModelError: `init_from` names no version.
        ConflictError: the model's name belongs to another environment.
    """
    validate(request.config)
    check_place(request)
    _check_start(registry, request)
    _check_name(registry, store, request)


def _is_repeat(services: Services, given: dict[str, Any], job: JobRecord) -> bool:
    """Whether the body asks for this job: a seed that was left out was drawn once."""
    if given.get("seed") is not None:
        return False
    same_seed = given | {"seed": job.request.config.seed}
    return job.request == resolve_request(same_seed, services.settings.max_timesteps)


def _check_start(registry: Registry, request: JobRequest) -> None:
    if request.init_from is None:
        return
    source = registry.resolve(request.init_from)
    trained_on = registry.environment_of(source.name)
    if trained_on is not None and trained_on.env_name != request.config.env_name:
        raise IncompatibleError(
            f"init_from {request.init_from!r} was trained on {trained_on.env_name}; choose a "
            f"version that was trained on {request.config.env_name}.",
            field="init_from",
        )


def _check_name(registry: Registry, store: JobStore, request: JobRequest) -> None:
    """A name belongs to one environment, from the moment that a job for it is queued."""
    name, config = request.model_name, request.config
    if name is None:
        return
    registry.check_name(name, config.env_name, config.env_kwargs)
    for status in (JobStatus.QUEUED, JobStatus.RUNNING):
        for job in store.list(status=status, model_name=name, limit=1).items:
            other = job.request.config
            if (other.env_name, other.env_kwargs) != (config.env_name, config.env_kwargs):
                raise ConflictError(
                    f"Job {job.job_id} is {status.value} and writes model {name!r} for "
                    f"{other.env_name}; choose another model_name."
                )
