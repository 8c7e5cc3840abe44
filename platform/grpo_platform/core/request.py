"""What a client asked for: a frozen record that travels as JSON in a tag of the run."""

import json
import secrets
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from grpo import GRPOConfig
from grpo.config import resolve_config
from grpo.envs.catalogue import allowed_modules
from grpo.errors import ConfigError, IncompatibleError
from grpo.fields import Bound, Examples, Pattern, check_fields, fields_of
from grpo_platform.core.errors import InvalidRequestError

__all__ = [
    "JOB_FIELDS",
    "MODEL_NAME",
    "MODEL_REFERENCE",
    "JobRequest",
    "Promote",
    "resolve_request",
    "with_wrappers",
]

MODEL_NAME: Final = Pattern(
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
    "start with a letter or digit and have at most 128 letters, digits, dots, underscores or "
    "hyphens",
)
"""Name of a registered model."""

MODEL_REFERENCE: Final = Pattern(
    MODEL_NAME.expression[:-1] + r"(@[A-Za-z0-9_-]{1,64}|/[1-9][0-9]{0,8})?$",
    "be a model's name, name@alias or name/version",
)
"""A model's champion (`name`), or one of its versions (`name/3`, `name@alias`)."""

Promote = Literal["always", "if_better", "never"]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """One training job.

    Raises:
        InvalidRequestError: a value out of its range, with the field at fault.
        grpo.errors.IncompatibleError: values that do not go together.
    """

    config: GRPOConfig
    """Hyperparameters, all values in force."""

    model_name: Annotated[str | None, MODEL_NAME] = None
    """Registered model that receives the version; `grpo_model_<job_id>` when left out."""

    promote: Promote = "if_better"
    """When the new version becomes the champion, which serves under the model's name."""

    init_from: Annotated[str | None, MODEL_REFERENCE] = None
    """Model version (`name/version`, `name@alias` or `name`) whose weights training starts from."""

    max_seconds: Annotated[float | None, Bound(1, 1e8)] = None
    """Budget of time, in seconds trained over all attempts: when it is used, the job is completed
    with the policy so far. No limit when left out."""

    checkpoint_seconds: Annotated[float, Bound(0.1, 1e6)] = 30.0
    """Time between two checkpoints, in seconds."""

    max_attempts: Annotated[int, Bound(1, 100)] = 3
    """Workers that may be lost before the job fails."""

    max_metric_points: Annotated[int, Bound(10, 100_000)] = 1000
    """Most points that one metric's history holds, however long the run."""

    failure_gallery: Annotated[int, Bound(0, 20), Examples((0, 10))] = 5
    """Worst episodes of the evaluation that are kept with the run once the job is completed, each
    with its film, trace and the state where it went wrong; 0 for none."""

    num_cpus: Annotated[float, Bound(0.01, 1024), Examples((1.0, 4.0))] = 1.0
    """CPUs that a Ray cluster keeps for the job; training itself uses one."""

    num_gpus: Annotated[float | None, Bound(0, 64), Examples((None, 1.0, 0.5))] = None
    """GPUs that a Ray cluster keeps for the job, a share of one or a whole number; when left out,
    1 where `device` is `cuda`, else 0."""

    def __post_init__(self) -> None:
        """Validate what the schema of a client may not have seen."""
        try:
            check_fields(self)
        except ConfigError as error:
            raise InvalidRequestError(str(error), field=error.field) from error
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
        own = {name: getattr(self, name) for name in JOB_FIELDS}
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
        own, config = _split(values)
        return cls(config=GRPOConfig(**config), **own)

    @classmethod
    def from_json(cls, text: str) -> "JobRequest":
        """Inverse of `to_json`; the same record for the same text, of those read last."""
        return _parsed(text)


@lru_cache(maxsize=4096)  # lists read the same jobs again and again
def _parsed(text: str) -> JobRequest:
    return JobRequest.from_dict(json.loads(text))


JOB_FIELDS: Final = tuple(name for name in fields_of(JobRequest) if name != "config")
"""Fields of a request that are no hyperparameters, in their order."""

_SEED_BITS = 32


def resolve_request(given: dict[str, Any], ceiling: int) -> JobRequest:
    """All values in force: the environment's preset under the given ones, and a seed.

    Args:
        given: fields of `TrainRequest` that were set.
        ceiling: largest `total_timesteps` of one job.

    Raises:
        grpo.ConfigError: values that cannot be trained.
        InvalidRequestError: over the ceiling.
    """
    own, config = _split(with_wrappers(given))
    if "env_name" in config:
        config["env_name"] = _plain_id(config["env_name"])
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


def with_wrappers(given: dict[str, Any]) -> dict[str, Any]:
    """The fields with `wrappers` in `env_kwargs`, where everything about the environment stands."""
    fields = dict(given)
    wrappers = fields.pop("wrappers", None)
    if wrappers is None:
        return fields
    kwargs = fields.get("env_kwargs") or {}
    if "wrappers" in kwargs:
        raise InvalidRequestError("wrappers are given twice: once is enough.", field="wrappers")
    return fields | {"env_kwargs": {**kwargs, "wrappers": wrappers}}


def _plain_id(env_name: object) -> object:
    """`Id` for `module:Id` of an allowed module, which registers it: one environment, one name."""
    if not isinstance(env_name, str):
        return env_name
    module, _, name = env_name.rpartition(":")
    return name if module in allowed_modules() else env_name


def _split(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request's own fields, and those of its config."""
    own = {name: values[name] for name in JOB_FIELDS if name in values}
    return own, {name: value for name, value in values.items() if name not in own}
