"""From what a client gave to a sweep: fill in, check, hand over."""

import secrets
from typing import Any

from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.request import JOB_FIELDS, with_wrappers
from grpo_platform.experiments.request import seeds_from
from grpo_platform.services.container import Services
from grpo_platform.services.training import check_request
from grpo_platform.sweeps.records import SweepRecord
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.sweeps.space import Choices, check_space

__all__ = ["check_sweep", "submit_sweep"]


def submit_sweep(services: Services, given: dict[str, Any]) -> SweepRecord:
    """Check the sweep, and queue it; raises what `check_sweep` raises."""
    return services.sweep_runner.submit(check_sweep(services, given))


def check_sweep(services: Services, given: dict[str, Any]) -> SweepRequest:
    """Check the sweep against everything that can be known before its first trial.

    Raises:
        grpo.ConfigError: its space has a corner that cannot be trained.
        InvalidRequestError: over the server's ceiling, or more seeds than the queue takes at once.
        ConflictError: the model's name belongs to another environment.
        UnknownModelError: `init_from` names no version.
    """
    given = dict(given)
    config = {k: v for k, v in given.get("config", {}).items() if v is not None}
    given["config"] = with_wrappers(config)
    if given.get("seed") is None:
        given["seed"] = secrets.randbits(32)
    if isinstance(seeds := given.get("seeds"), int | list):
        given["seeds"] = seeds_from(seeds, given["seed"])
    request = SweepRequest(**given)
    _check_room(services, request)
    space = request.space
    check_space(space, {k: v for k, v in request.config.items() if k not in JOB_FIELDS})
    ceiling = services.settings.max_timesteps
    lowest = {n: s.choices[0] if isinstance(s, Choices) else s.low for n, s in space.items()}
    corners = [lowest]
    for name in ("reward_function_type", "policy", "policy_kwargs"):  # each may not fit by itself
        searched = space.get(name)
        if isinstance(searched, Choices):
            corners += [lowest | {name: choice} for choice in searched.choices[1:]]
    for corner in corners:
        job = request.trial(corner, request.model_name, ceiling)
        check_request(
            job, services.registry, services.store, services.jobs.check, services.isolation.validate
        )
    largest = {n: max(s.choices) if isinstance(s, Choices) else s.high
               for n, s in space.items() if n == "total_timesteps"}  # fmt: skip
    request.trial(lowest | largest, request.model_name, ceiling)
    return request


def _check_room(services: Services, request: SweepRequest) -> None:
    """Refuse trials that would wait for ever: the queue never has room for all their seeds."""
    settings = services.settings
    places = settings.max_queued_jobs + settings.max_concurrent_jobs
    if (seeds := len(request.trial_seeds)) > places:
        raise InvalidRequestError(
            f"A trial's {seeds} jobs are queued together, and the server takes at most {places} "
            "(GRPO_MAX_QUEUED_JOBS, GRPO_MAX_CONCURRENT_JOBS); ask for fewer seeds.",
            field="seeds",
        )
