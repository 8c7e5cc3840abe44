"""What a client asked for: a frozen record that travels as JSON in a tag of the run."""

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

from grpo import GRPOConfig
from grpo.config import resolve_config
from grpo.errors import IncompatibleError
from grpo_platform.core.errors import InvalidRequestError

__all__ = ["MODEL_NAME_PATTERN", "PROMOTE_RULES", "JobRequest", "resolve_request"]

MODEL_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
PROMOTE_RULES = ("always", "if_better", "never")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """One training job.

    Raises:
        InvalidRequestError: a value out of its range, with the field at fault.
        grpo.errors.IncompatibleError: values that do not go together.
    """

    config: GRPOConfig
    """Hyperparameters, all values in force."""

    model_name: str | None = None
    """Registered model that receives the version; None means `grpo_model_<job_id>`."""

    promote: str = "if_better"
    """When the new version becomes champion: one of `PROMOTE_RULES`."""

    init_from: str | None = None
    """Model version (`name/version`, `name@alias` or `name`) whose weights training starts from."""

    max_seconds: float | None = None
    """Budget of time, in seconds trained over all attempts: when it is used, the job is completed
    with the policy so far. None is no limit."""

    checkpoint_seconds: float = 30.0
    """Time between two checkpoints, in seconds."""

    max_attempts: int = 3
    """Workers that may be lost before the job fails."""

    max_metric_points: int = 1000
    """Most points that one metric's history holds, however long the run."""

    num_cpus: float = 1.0
    """CPUs that a cluster keeps for the job; training itself uses one."""

    num_gpus: float | None = None
    """GPUs that a cluster keeps for the job; None means 1 where `device` is `cuda`, else 0."""

    def __post_init__(self) -> None:
        """Validate what the schema of a client may not have seen."""
        if self.model_name is not None and not re.fullmatch(MODEL_NAME_PATTERN, self.model_name):
            raise InvalidRequestError(
                "model_name must start with a letter or digit and have at most 128 letters, "
                "digits, dots, underscores or hyphens.",
                field="model_name",
            )
        if self.promote not in PROMOTE_RULES:
            raise InvalidRequestError(
                f"promote must be one of: {', '.join(PROMOTE_RULES)}.", field="promote"
            )
        for name, low, high in (
            ("max_seconds", 1.0, 1e8), ("checkpoint_seconds", 0.1, 1e6), ("max_attempts", 1, 100),
            ("max_metric_points", 10, 100_000), ("num_cpus", 0.01, 1024.0), ("num_gpus", 0.0, 64.0),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidRequestError(f"{name} must be from {low:g} to {high:g}.", field=name)
        if self.gpus > 1 and not float(self.gpus).is_integer():
            raise InvalidRequestError(
                "num_gpus must be a share of one GPU, or a whole number.", field="num_gpus"
            )
        if self.gpus == 0 and self.config.device == "cuda":
            raise IncompatibleError(
                "device is cuda, so num_gpus must be above 0: leave it out to have 1.",
                field="num_gpus",
            )

    @property
    def gpus(self) -> float:
        """GPUs that a cluster keeps for the job, all values in force."""
        if self.num_gpus is not None:
            return self.num_gpus
        return 1.0 if self.config.device == "cuda" else 0.0

    def model_name_for(self, job_id: str) -> str:
        """Name of the registered model that this job writes."""
        return self.model_name or f"grpo_model_{job_id}"

    def to_dict(self) -> dict[str, Any]:
        """All values in force, flat: the config's fields and this record's own."""
        own = {name: getattr(self, name) for name in self.__slots__ if name != "config"}
        return self.config.to_dict() | own

    def to_json(self) -> str:
        """Compact JSON of `to_dict`, for the request tag."""
        return json.dumps(self.to_dict(), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "JobRequest":
        """Inverse of `to_dict`; unknown keys raise TypeError.

        Raises:
            grpo.ConfigError: the hyperparameters are not valid.
            InvalidRequestError: another value is not.
        """
        own = {name: values[name] for name in cls.__slots__ if name in values}
        config = {name: value for name, value in values.items() if name not in own}
        return cls(config=GRPOConfig(**config), **own)

    @classmethod
    def from_json(cls, text: str) -> "JobRequest":
        """Inverse of `to_json`."""
        return cls.from_dict(json.loads(text))


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
