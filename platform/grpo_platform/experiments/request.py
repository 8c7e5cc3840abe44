"""What a client asked an experiment to be: a frozen record that travels as JSON in a tag."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from grpo import GRPOConfig
from grpo.errors import ConfigError
from grpo.fields import Bound, Items, check_fields, fields_of
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.request import JOB_FIELDS, MODEL_NAME, JobRequest, Promote

__all__ = [
    "MAX_SEED",
    "MAX_SEEDS",
    "ExperimentRequest",
    "Register",
    "check_seeds",
    "read_stored",
    "seeds_from",
]

MAX_SEEDS: Final = 100
"""Seeds of one experiment."""

MAX_SEED: Final = 2**32 - 1
"""The largest seed of a job."""

_Stored = TypeVar("_Stored")
Register = Literal["each", "best", "median"]

_OWN: Final = ("seed", "model_name", "promote")
_MAX_LENGTH: Final = 7_900
_DEFAULTS: Final = GRPOConfig()


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentRequest:
    """One experiment, all values in force.

    Raises:
        InvalidRequestError: fewer than two seeds, too many, or one twice; a field of `config` that
            the experiment itself sets; too long a request.
        grpo.ConfigError: the configuration cannot be trained.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    seeds: Annotated[tuple[int, ...], Items(MAX_SEEDS, Bound(0, MAX_SEED))]
    """Of the jobs, 2 to 100 different ones, in the order that they were given in."""

    config: Mapping[str, Any]
    """Fields of POST /train, all values in force, but for those that the experiment itself sets:
    `seed`, `model_name` and `promote`."""

    register: Register = "best"
    """Which versions the model gets: only that of the `best` seed or of the `median` one, by the
    mean return of their evaluations, evaluated again on fresh episodes; or one of `each` seed, of
    which none is promoted."""

    model_name: Annotated[str | None, MODEL_NAME] = None
    """Registered model that receives them; `grpo_experiment_<experiment_id>` when left out."""

    promote: Promote = "if_better"
    """When the experiment's version becomes the one that serves under the model's name."""

    def __post_init__(self) -> None:
        """Validate what the schema of a client may not have seen."""
        check_seeds(self.seeds)
        try:
            check_fields(self)
        except ConfigError as error:
            raise InvalidRequestError(str(error), field=error.field) from error
        for name in _OWN:
            if name in self.config:
                raise InvalidRequestError(
                    f"{name} belongs to the experiment, not to its config.", field=f"config.{name}"
                )
        self.job(self.seeds[0], "0" * 32)
        if len(text := self.to_json()) > _MAX_LENGTH:
            raise InvalidRequestError(
                f"The experiment takes {len(text)} characters as JSON; at most {_MAX_LENGTH} can "
                "be stored. Shorten env_kwargs, or give fewer seeds.",
                field="env_kwargs",
            )

    @classmethod
    def of(
        cls, job: JobRequest, seeds: Sequence[int], register: Register = "best"
    ) -> "ExperimentRequest":
        """The experiment that trains what a job does, with these seeds."""
        config = {name: value for name, value in job.to_dict().items() if name not in _OWN}
        return cls(
            seeds=tuple(seeds),
            config=config,
            register=register,
            model_name=job.model_name,
            promote=job.promote,
        )

    @property
    def env_name(self) -> str:
        """Environment of all its jobs."""
        return str(self.config.get("env_name", _DEFAULTS.env_name))

    @property
    def total_timesteps(self) -> int:
        """Budget of each job, in environment timesteps."""
        return int(self.config.get("total_timesteps", _DEFAULTS.total_timesteps))

    def model_name_for(self, experiment_id: str) -> str:
        """Registered model that receives the version that is chosen, or every seed's."""
        return self.model_name or f"grpo_experiment_{experiment_id}"

    def seeds_model_name_for(self, experiment_id: str) -> str:
        """Registered model that receives every seed's version.

        One of its own where a version is chosen among them: so none that a job said is registered
        has to be deleted, and the model that serves never has one that was not chosen.
        """
        if self.register == "each":
            return self.model_name_for(experiment_id)
        return f"grpo_seeds_{experiment_id}"

    def job(self, seed: int, experiment_id: str) -> JobRequest:
        """The job that trains a seed; whether its version serves is decided at the end.

        Raises:
            grpo.ConfigError: it cannot be trained.
            InvalidRequestError: a field that does not exist, or a value out of its range.
        """
        if unknown := self.config.keys() - _FIELDS:
            name = min(unknown)
            raise InvalidRequestError(f"There is no field {name}.", field=f"config.{name}")
        own = {"model_name": self.seeds_model_name_for(experiment_id), "promote": "never"}
        return JobRequest.from_dict({**self.config, "seed": seed, **own})

    def params(self) -> dict[str, str]:
        """What the MLflow UI shows as the parent's params."""
        plain = asdict(self)
        fixed = {f"config.{name}": _text(value) for name, value in plain.pop("config").items()}
        return {name: _text(value) for name, value in plain.items()} | fixed

    def to_json(self) -> str:
        """Compact JSON, for the request tag."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ExperimentRequest":
        """Inverse of `to_json`; the same record for the same text, of those read last.

        Raises:
            InvalidRequestError: it is nothing that `to_json` writes.
        """
        return _parsed(text)


def seeds_from(given: int | Sequence[int], first: int) -> tuple[int, ...]:
    """The seeds that a client means.

    Args:
        given: how many, or which.
        first: where counting starts; after the largest seed it goes on with 0.

    Raises:
        InvalidRequestError: fewer than two, or too many.
    """
    if isinstance(given, int):
        _check_count(given)
        return tuple((first + number) % (MAX_SEED + 1) for number in range(given))
    return tuple(given)


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that cannot be told from each other.

    Raises:
        InvalidRequestError: fewer than two, too many, or one twice.
    """
    _check_count(len(seeds))
    twice = sorted(seed for seed, count in Counter(seeds).items() if count > 1)
    if twice:
        raise InvalidRequestError(
            f"seeds has {', '.join(map(str, twice[:5]))} more than once; equal seeds train equal "
            "policies, so give each one once.",
            field="seeds",
        )


def _check_count(count: int) -> None:
    if not 2 <= count <= MAX_SEEDS:
        raise InvalidRequestError(
            f"seeds must be 2 to {MAX_SEEDS}, and {count} {'is' if count == 1 else 'are'} asked "
            "for; leave it out to train one seed as a job.",
            field="seeds",
        )


_STORED: Final = TypeAdapter(ExperimentRequest)


@lru_cache(maxsize=1024)  # lists read the same experiments again and again
def _parsed(text: str) -> ExperimentRequest:
    try:
        return read_stored(_STORED, text)
    except (ConfigError, TypeError) as error:
        raise InvalidRequestError(str(error)) from error


def read_stored(adapter: TypeAdapter[_Stored], text: str) -> _Stored:
    """A record that was stored as JSON.

    Raises:
        InvalidRequestError: it is none; names the first field at fault.
    """
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "request"
        said = first["msg"].removeprefix("Value error, ")
        raise InvalidRequestError(f"{where}: {said}", field=where) from error


_FIELDS: Final = frozenset({*fields_of(GRPOConfig), *JOB_FIELDS})


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
