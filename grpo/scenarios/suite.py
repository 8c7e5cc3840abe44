"""Suites of scenarios, as plain records that travel as JSON; and snapshots in JSON."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from grpo.envs import Snapshot
from grpo.errors import IncompatibleError
from grpo.scenarios.assertions import Assertion

__all__ = [
    "DEFAULT_EPISODES",
    "Scenario",
    "Start",
    "Suite",
    "snapshot_from_json",
    "snapshot_to_json",
]

DEFAULT_EPISODES: Final = 100
"""Of a scenario without start states that does not say how many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Where an episode begins: one of the three."""

    seed: int | None = None
    """At a reset with this seed."""

    state: Mapping[str, float | list[float]] | None = None
    """In a state by its variables' names; those that are not named are as a seeded reset left
    them. MuJoCo's are the arrays `qpos` and `qvel`."""

    snapshot: Mapping[str, Any] | None = None
    """In a visited state, as `snapshot_to_json` writes it."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `Suite.from_dict`."""
        named = {"seed": self.seed, "state": self.state, "snapshot": self.snapshot}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """Episodes under stated conditions, and what must hold in them."""

    name: str
    """Unique in the suite."""

    assertions: tuple[Assertion, ...]
    """All of them must hold."""

    description: str = ""
    """For people."""

    episodes: int = DEFAULT_EPISODES
    """How many are played."""

    seed: int = 0
    """Gives resets their seeds and the noise; equal seeds give equal episodes."""

    starts: tuple[Start, ...] = ()
    """Episode i begins in start i modulo their number; none is a reset, each with another seed."""

    max_steps: int | None = None
    """Steps after which an episode is cut, beside the environment's own limit."""

    observation_noise: float | Mapping[str, float] = 0.0
    """Standard deviation of what is added to what the policy sees; or one a feature."""

    action_delay: int = 0
    """Steps after which an action arrives. Until the first one does, that one is held."""

    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment, over those that the policy was trained with."""

    physics: Mapping[str, float | list[float]] = field(default_factory=dict)
    """Attributes of the environment, such as `gravity`, with other values than its own."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `Suite.from_dict`."""
        perturb = {
            "observation_noise": self.observation_noise,
            "action_delay": self.action_delay,
            "env_kwargs": dict(self.env_kwargs),
            "physics": dict(self.physics),
        }
        values = {
            "name": self.name,
            "description": self.description,
            "episodes": self.episodes,
            "seed": self.seed,
            "max_steps": self.max_steps,
            "start": [start.to_dict() for start in self.starts],
            "perturb": {name: value for name, value in perturb.items() if value},
            "assert": [assertion.text for assertion in self.assertions],
        }
        kept = ("name", "episodes", "seed", "assert")
        return {name: value for name, value in values.items() if value or name in kept}


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """What a policy must pass."""

    scenarios: tuple[Scenario, ...]
    """Each with a name of its own."""

    description: str = ""
    """For people."""

    @property
    def digest(self) -> str:
        """SHA-256 of what is tested: equal suites have equal ones, however they were written."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as a suite is written: what is left out has its default."""
        described = {"description": self.description} if self.description else {}
        return {**described, "scenarios": [each.to_dict() for each in self.scenarios]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Suite":
        """Inverse of `to_dict`, for what it gave; who takes a suite from others checks it first."""
        return cls(
            scenarios=tuple(_scenario(each) for each in values["scenarios"]),
            description=values.get("description", ""),
        )


def _scenario(values: Mapping[str, Any]) -> Scenario:
    own = dict(values)
    assertions = tuple(map(Assertion.parse, own.pop("assert")))
    starts = tuple(Start(**start) for start in own.pop("start", ()))
    return Scenario(assertions=assertions, starts=starts, **own.pop("perturb", {}), **own)


def snapshot_to_json(snapshot: Snapshot) -> dict[str, Any]:
    """A visited state, as `VecEnv.snapshot` gives it, in JSON values, exactly.

    Raises:
        IncompatibleError: it cannot outlive its process.
    """
    found: dict[str, Any] = {}
    for name, value in snapshot.items():
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
            array = np.asarray(value)
            numbers = [
                each if math.isfinite(each) else repr(each) for each in array.ravel().tolist()
            ]
            found[name] = {"dtype": array.dtype.name, "shape": [*array.shape], "data": numbers}
        elif value is None or isinstance(value, bool | int | float | str):
            found[name] = value
        else:
            raise IncompatibleError(
                f"This environment's states cannot be stored: {name} is a {type(value).__name__}.",
                field="snapshot",
            )
    return found


def snapshot_from_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `snapshot_to_json`; a plain list of numbers is an array of float64.

    Raises:
        ValueError: it is none.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found[name] = _array(name, value)
        elif isinstance(value, list):
            found[name] = _array(name, {"dtype": "float64", "shape": [len(value)], "data": value})
        else:
            found[name] = value
    return found


def _array(name: str, value: Mapping[str, Any]) -> npt.NDArray[Any]:
    try:
        dtype = np.dtype(str(value["dtype"]))
        if dtype.kind not in "biuf":
            raise TypeError("no type of numbers")
        shape = tuple(int(n) for n in value["shape"])
        numbers = [float(n) if isinstance(n, str) else n for n in value["data"]]
        return np.array(numbers, dtype).reshape(shape)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array with dtype, shape and data") from error
