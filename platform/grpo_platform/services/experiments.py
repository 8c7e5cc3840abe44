"""From what a client gave to an experiment: fill in, check, hand over."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from grpo.errors import IncompatibleError
from grpo.statistics import Curves
from grpo_platform.core.request import resolve_request
from grpo_platform.experiments.aggregate import (
    Results,
    aggregate,
    aggregate_histories,
    curve_key,
    threshold_of,
)
from grpo_platform.experiments.records import ExperimentRecord, SeedRecord
from grpo_platform.experiments.request import ExperimentRequest, seeds_from
from grpo_platform.services.container import Services
from grpo_platform.services.training import check_request
from grpo_platform.tracking.idempotency import used_otherwise

__all__ = ["check_experiment", "history_of", "results_of", "submit_experiment"]


def submit_experiment(
    services: Services, given: Mapping[str, Any], idempotency_key: str | None = None
) -> ExperimentRecord:
    """Check the experiment, and queue all its jobs.

    Args:
        services: what it goes to.
        given: fields of POST /train that were set, `seeds` among them.
        idempotency_key: a second call with the same key and fields gives the same experiment.

    Raises:
        QueueFullError: there is not room for all of them.
        InvalidRequestError: also a key that came with another body.
        PlatformError: and grpo.ConfigError: as `check_experiment`.
    """
    request = check_experiment(services, given)
    experiment = services.experiment_runner.submit(request, idempotency_key=idempotency_key)
    if experiment.request != request:
        # a first seed that was left out was drawn once
        drawn = {"seed": experiment.request.seeds[0]}
        if given.get("seed") is not None or not isinstance(given["seeds"], int):
            raise used_otherwise()
        if experiment.request != _request_of({**given, **drawn}, services.settings.max_timesteps):
            raise used_otherwise()
    return experiment


def check_experiment(services: Services, given: Mapping[str, Any]) -> ExperimentRequest:
    """Check the experiment against everything that can be known before its first step.

    Raises:
        grpo.ConfigError: it cannot be trained, or its fields do not go together.
        InvalidRequestError: seeds that are too few, too many, or there twice; over the server's
            ceiling.
        ConflictError: the model's name belongs to another environment.
        UnknownModelError: `init_from` names no version.
    """
    request = _request_of(given, services.settings.max_timesteps)
    # of the model that is to serve, not of the one that the seeds' versions go to
    first = dataclasses.replace(
        request.job(request.seeds[0], "0" * 32), model_name=request.model_name
    )
    check_request(
        first, services.registry, services.store, services.jobs.check, services.isolation.validate
    )
    return request


def results_of(
    services: Services, seeds: Sequence[SeedRecord], threshold: float | None = None
) -> Results:
    """What the seeds of an experiment that completed came to together.

    Args:
        services: what it is in.
        seeds: all of the experiment.
        threshold: return that counts as solved; that of the configuration or the environment by
            default.
    """
    job = next((seed.job for seed in seeds if seed.job is not None), None)
    key = curve_key(job)
    completed = [seed.job_id for seed in seeds if seed.state == "completed"]
    histories = services.store.histories_of(completed, key, completed)
    wanted = threshold_of(job) if threshold is None else threshold
    return aggregate(seeds, histories, key, wanted)


def history_of(
    services: Services, seeds: Sequence[SeedRecord], key: str, points: int
) -> Curves | None:
    """A metric over the seeds of an experiment, at common steps; None where there is no point.

    Raises:
        UnknownNameError: there is no such metric.
    """
    jobs = [seed.job_id for seed in seeds if seed.job is not None]
    completed = [seed.job_id for seed in seeds if seed.state == "completed"]
    return aggregate_histories(seeds, services.store.histories_of(jobs, key, completed), points)


def _request_of(given: Mapping[str, Any], ceiling: int) -> ExperimentRequest:
    fields = dict(given)
    seeds, register = fields.pop("seeds", None), fields.pop("register", "best")
    if seeds is None:
        raise IncompatibleError(
            "register is about the seeds of an experiment: give seeds, or leave it out.",
            field="register",
        )
    if not isinstance(seeds, int) and fields.get("seed") is not None:
        raise IncompatibleError(
            "seeds lists the seeds, so leave seed out; or give their number, counted from seed.",
            field="seed",
        )
    job = resolve_request(fields, ceiling)
    return ExperimentRequest.of(job, seeds_from(seeds, job.config.seed), register)
