"""What a client asked a sweep to be: a frozen record that travels as JSON in a tag of the run."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, TypeAdapter

from grpo.errors import IncompatibleError, UnknownNameError
from grpo.fields import Bound, Items, check_fields
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.request import MODEL_NAME, JobRequest, Promote, resolve_request
from grpo_platform.experiments.request import MAX_SEED, MAX_SEEDS, check_seeds, read_stored
from grpo_platform.sweeps.space import Spec, grid_size, parse_space

__all__ = ["MAX_TRIALS", "METRICS", "Sampler", "SweepRequest"]

MAX_TRIALS = 1000
_MAX_JOBS: Final = 1000
Sampler = Literal["tpe", "random", "grid"]

METRICS = (
    "eval/mean_reward", "eval/iqm", "eval/ci_low", "eval/mean_ep_length",
    "rollout/ep_rew_mean", "rollout/ep_len_mean",
)  # fmt: skip
"""Metrics that a sweep can be about."""

_RESERVED = ("model_name", "promote")
_MAX_LENGTH = 7_900


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRequest:
    """One sweep, all values in force.

    Raises:
        UnknownNameError: an unknown name, or a search space that names an unknown field.
        OutOfRangeError: a value out of its range, or a search space with an impossible one.
        IncompatibleError: more trials than the sampler `grid` has points, or none to count.
        InvalidRequestError: a field of `config` that the sweep itself sets; fewer than two seeds,
            or one twice; too many jobs; too long a request.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    search_space: Mapping[str, Any]
    """By field of POST /train, what it varies over, as `parse_space` takes it; empty only where
    a stored request cannot be read."""

    n_trials: Annotated[int, Bound(1, MAX_TRIALS)] = 20
    """Trials, pruned and failed ones included; a job each, or with `seeds` as many as there are."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of POST /train that stay fixed."""

    metric: str = "eval/mean_reward"
    """What the trials are compared by, at their end; the mean over a trial's seeds."""

    direction: Literal["maximize", "minimize"] = "maximize"
    """Which values of the metric are better."""

    sampler: Sampler = "tpe"
    """`tpe` learns from the trials so far; `grid` takes every combination in turn."""

    pruner: Literal["median", "none"] = "median"
    """`median` stops trials that are worse than the median of the others at the same point."""

    max_concurrent_trials: Annotated[int, Bound(1, MAX_TRIALS)] = 1
    """Trials that wait or run at once; with 1, equal seeds give equal trials."""

    seed: Annotated[int, Bound(0, 2**32 - 1)] = 0
    """Seeds the sampler, and every trial where `config` has no seed and there are no `seeds`."""

    seeds: Annotated[tuple[int, ...] | None, Items(MAX_SEEDS, Bound(0, MAX_SEED))] = None
    """Every trial is trained with each of these, 2 to 100 different ones; None: with one seed."""

    model_name: Annotated[str | None, MODEL_NAME] = None
    """Registered model that receives every trial's version; `grpo_sweep_<sweep_id>` when left
    out."""

    promote: Promote = "if_better"
    """When the best trial's version becomes the one that serves under the model's name."""

    def __post_init__(self) -> None:
        """Validate what the schema of a client may not have seen."""
        check_fields(self)
        if self.search_space:
            parse_space(self.search_space)
        if self.metric not in METRICS:
            raise UnknownNameError("metric", self.metric, METRICS)
        if self.sampler == "grid" and self.n_trials > (points := grid_size(self.space)):
            raise IncompatibleError(
                f"The search space has {points} points, so n_trials must be at most {points} with "
                "the sampler grid.",
                field="n_trials",
            )
        for name in _RESERVED:
            if name in self.config:
                raise InvalidRequestError(
                    f"{name} belongs to the sweep, not to its config.", field=f"config.{name}"
                )
        self._check_seeds()
        if len(text := self.to_json()) > _MAX_LENGTH:
            raise InvalidRequestError(
                f"The sweep takes {len(text)} characters as JSON; at most {_MAX_LENGTH} can be "
                "stored. Shorten search_space or config.",
                field="search_space",
            )

    def _check_seeds(self) -> None:
        if self.seeds is None:
            return
        check_seeds(self.seeds)
        if "seed" in self.config:
            raise InvalidRequestError(
                "seeds says which seeds every trial is trained with, so leave seed out of config.",
                field="config.seed",
            )
        if (jobs := self.n_trials * len(self.seeds)) > _MAX_JOBS:
            raise InvalidRequestError(
                f"{self.n_trials} trials with {len(self.seeds)} seeds each are {jobs} jobs, and a "
                f"sweep has at most {_MAX_JOBS}; ask for fewer trials or seeds.",
                field="seeds",
            )

    @property
    def trial_seeds(self) -> tuple[int, ...]:
        """Seeds that every trial is trained with, a job each."""
        return self.seeds or (self.config.get("seed", self.seed),)

    @property
    def env_name(self) -> str:
        """Environment of all trials."""
        return str(self.config.get("env_name", "CartPole-v1"))

    @property
    def space(self) -> dict[str, Spec]:
        """What varies.

        Raises:
            OutOfRangeError: nothing does.
        """
        return parse_space(self.search_space)

    def model_name_for(self, sweep_id: str) -> str:
        """Registered model that receives every trial's version."""
        return self.model_name or f"grpo_sweep_{sweep_id}"

    def trial(
        self,
        params: Mapping[str, Any],
        model_name: str | None,
        ceiling: int,
        seed: int | None = None,
    ) -> JobRequest:
        """A job that tries these values; whether its version serves is decided at the end.

        Args:
            params: values of the searched fields.
            model_name: of the registered model that receives its version.
            ceiling: most timesteps of a job.
            seed: one of `trial_seeds`; the first of them when left out.

        Raises:
            grpo.ConfigError: the values cannot be trained.
            InvalidRequestError: over `ceiling` timesteps.
        """
        # nobody looks at the worst episodes of each of a hundred trials
        given = {"failure_gallery": 0, **self.config, **params}
        own = {
            "seed": self.trial_seeds[0] if seed is None else seed,
            "model_name": model_name,
            "promote": "never",
        }
        return resolve_request({**given, **own}, ceiling)

    def params(self) -> dict[str, str]:
        """What the MLflow UI shows as the parent's params."""
        plain = asdict(self)
        space, config = plain.pop("search_space"), plain.pop("config")
        named = {f"search_space.{name}": json.dumps(spec) for name, spec in space.items()}
        fixed = {f"config.{name}": _text(value) for name, value in config.items()}
        return {name: _text(value) for name, value in plain.items()} | named | fixed

    def to_json(self) -> str:
        """Compact JSON, for the request tag."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "SweepRequest":
        """Inverse of `to_json`.

        Raises:
            InvalidRequestError: it is nothing that `to_json` writes.
        """
        return read_stored(_STORED, text)


_STORED: Final = TypeAdapter(SweepRequest)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
