"""From the fields that were given to a request with all values in force."""

import secrets
from typing import Any

from grpo.presets import resolve_config
from grpo_platform.errors import InvalidRequestError
from grpo_platform.jobs.request import JobRequest

__all__ = ["resolve_request"]

_SEED_BITS = 32
_JOB_FIELDS = frozenset(JobRequest.__slots__) - {"config"}


def resolve_request(given: dict[str, Any], ceiling: int) -> JobRequest:
    """All values in force: the environment's preset under the given ones, and a seed.

    Args:
        given: fields of `TrainRequest` that were set.
        ceiling: largest `total_timesteps` of one job.

    Raises:
        grpo.ConfigError: values that cannot be trained.
        InvalidRequestError: over the ceiling.
    """
    own = {name: given[name] for name in _JOB_FIELDS if name in given}
    config = {name: value for name, value in given.items() if name not in own}
    if config.get("seed") is None:
        config["seed"] = secrets.randbits(_SEED_BITS)
    resolved = resolve_config(**config)
    if resolved.total_timesteps > ceiling:
        if "total_timesteps" in given:
            raise InvalidRequestError(
                f"total_timesteps may be at most {ceiling} on this server (GRPO_MAX_TIMESTEPS).",
                field="total_timesteps",
            )
        resolved = resolve_config(**config | {"total_timesteps": ceiling})
    return JobRequest(config=resolved, **own)
