"""What a suite may say, and where one says something else: `scenarios[2].assert[0]`.

docs/scenarios.md is the reference. What depends on the environment is checked elsewhere
(`grpo.scenarios.check_suite`), where its code may run.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Final, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from grpo.errors import did_you_mean
from grpo.scenarios.assertions import MOST_EPISODES, Assertion
from grpo.scenarios.suite import DEFAULT_EPISODES, Scenario, Start, Suite, snapshot_from_json
from grpo_platform.core.errors import InvalidRequestError

__all__ = ["MOST_CHARACTERS", "SCENARIO_NAME", "parse_suite"]

MOST_CHARACTERS: Final = 1 << 20
"""Of a suite's text."""

_MOST_SHOWN: Final = 3
_MOST_NUMBERS: Final = 4_096
_MOST_DELAY: Final = 100
_LARGEST_SEED: Final = 2**32 - 1
SCENARIO_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"


def _number(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(cast(float, value)):
        raise ValueError("It must be a finite number")
    return cast(float, value)


def _numbers(value: object) -> object:
    if not isinstance(value, list):
        return _number(value)
    if not 1 <= len(value) <= _MOST_NUMBERS:
        raise ValueError(f"A list must hold 1 to {_MOST_NUMBERS} numbers")
    return [_number(each) for each in value]


def _deviation(value: object) -> float:
    if (found := _number(value)) < 0.0:
        raise ValueError("A standard deviation must not be negative")
    return found


def _noise(value: object) -> object:
    if not isinstance(value, dict):
        return _deviation(value)
    return {_text(name): _deviation(each) for name, each in value.items()}


def _text(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 200:
        raise ValueError("A name must be a text of at most 200 characters")
    return value


def _assertion(value: object) -> Assertion:
    if not isinstance(value, str) or len(value) > 500:
        raise ValueError("An assertion is a text, such as 'return >= 450 in 95% of 100 episodes'")
    return Assertion.parse(value)


def _snapshot(value: dict[str, Any]) -> dict[str, Any]:
    snapshot_from_json(value)
    return value


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


def _json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("It must hold JSON values: texts, finite numbers, lists") from None
    return value


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True
    )


_Seed = Annotated[int, Field(ge=0, le=_LARGEST_SEED)]
_Numbers = Annotated[Any, PlainValidator(_numbers)]
_Described = Annotated[str, Field(max_length=2_000)]


class _Start(_Part):
    seed: _Seed | None = None
    state: Annotated[dict[str, _Numbers], Field(min_length=1, max_length=64)] | None = None
    snapshot: Annotated[dict[str, Any], Field(min_length=1), AfterValidator(_snapshot)] | None = (
        None
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> "_Start":
        if len(self.model_fields_set) != 1 or all(value is None for _, value in self):
            raise ValueError("Give one of seed, state and snapshot")
        return self


class _Perturb(_Part):
    observation_noise: Annotated[Any, PlainValidator(_noise)] = 0.0
    action_delay: Annotated[int, Field(ge=0, le=_MOST_DELAY)] = 0
    env_kwargs: Annotated[dict[str, Any], AfterValidator(_json)] = Field(default_factory=dict)
    physics: Annotated[dict[str, _Numbers], Field(max_length=64)] = Field(default_factory=dict)


class _Scenario(_Part):
    name: Annotated[str, Field(pattern=SCENARIO_NAME)]
    description: _Described = ""
    episodes: Annotated[int, Field(ge=1, le=MOST_EPISODES)] | None = None
    seed: _Seed = 0
    max_steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    start: Annotated[list[_Start], Field(max_length=100), BeforeValidator(_listed)] = Field(
        default_factory=list
    )
    perturb: _Perturb = Field(default_factory=_Perturb)
    assertions: Annotated[
        list[Annotated[Any, PlainValidator(_assertion)]],
        Field(alias="assert", min_length=1, max_length=20),
    ]


class _Suite(_Part):
    description: _Described = ""
    scenarios: Annotated[list[_Scenario], Field(min_length=1, max_length=50)]


def parse_suite(values: object) -> Suite:
    """The suite that JSON or YAML values are.

    Raises:
        InvalidRequestError: they are none; the message names the places, and the field is the
            first of them.
    """
    try:
        if len(json.dumps(values)) > MOST_CHARACTERS:
            raise InvalidRequestError(
                f"A suite may have at most {MOST_CHARACTERS} characters.", field="suite"
            )
    except (RecursionError, TypeError, ValueError) as error:
        raise InvalidRequestError(
            "A suite holds texts, numbers, lists and mappings by text only; put other values, "
            "such as dates, in quotes.",
            field="suite",
        ) from error
    try:
        found = _Suite.model_validate(values)
    except ValidationError as error:
        raise _explained(error.errors(include_url=False, include_input=False)) from None
    _check_names(found)
    return Suite(
        scenarios=tuple(_scenario(i, each) for i, each in enumerate(found.scenarios)),
        description=found.description,
    )


def _check_names(suite: _Suite) -> None:
    counts = Counter(scenario.name for scenario in suite.scenarios)
    for i, scenario in enumerate(suite.scenarios):
        if counts[scenario.name] > 1:
            place = f"scenarios[{i}].name"
            raise InvalidRequestError(
                f"{place}: two scenarios are called {scenario.name!r}; give each a name of its "
                "own.",
                field=place,
            )


def _scenario(number: int, given: _Scenario) -> Scenario:
    starts = tuple(Start(**start.model_dump(exclude_unset=True)) for start in given.start)
    perturb = given.perturb
    return Scenario(
        name=given.name,
        description=given.description,
        assertions=tuple(given.assertions),
        episodes=_episodes(number, given),
        seed=given.seed,
        starts=starts,
        max_steps=given.max_steps,
        observation_noise=perturb.observation_noise,
        action_delay=perturb.action_delay,
        env_kwargs=perturb.env_kwargs,
        physics=perturb.physics,
    )


def _episodes(number: int, given: _Scenario) -> int:
    """How many episodes are played: as many as the scenario or one of its assertions says."""
    said = given.episodes
    for i, assertion in enumerate(given.assertions):
        if assertion.episodes is None:
            continue
        if said is not None and said != assertion.episodes:
            place = f"scenarios[{number}].assert[{i}]"
            raise InvalidRequestError(
                f"{place}: it is about {assertion.episodes} episodes, and the scenario plays "
                f"{said}; say one number, or 'of episodes'.",
                field=place,
            )
        said = assertion.episodes
    return said or len(given.start) or DEFAULT_EPISODES


def _explained(findings: list[ErrorDetails]) -> InvalidRequestError:
    """One error that names the first places at fault."""
    told = [(_place(finding["loc"]), _finding(finding)) for finding in findings]
    shown = [f"{place}: {said}" if place else said for place, said in told[:_MOST_SHOWN]]
    more = f" And {len(told) - _MOST_SHOWN} more." if len(told) > _MOST_SHOWN else ""
    message = " ".join(each if each.endswith("?") else f"{each}." for each in shown)
    return InvalidRequestError(f"{message}{more}", field=told[0][0] or "suite")


def _place(location: tuple[int | str, ...]) -> str:
    """Such as `scenarios[2].assert[0]`."""
    place = ""
    for part in location:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    return place[:200]


def _finding(finding: ErrorDetails) -> str:
    kind, message = finding["type"], str(finding["msg"])
    if kind == "extra_forbidden":
        known = _fields_at(finding["loc"][:-1])
        near = did_you_mean(finding["loc"][-1], known).strip()
        return f"there is no such key. {near or 'There are: ' + ', '.join(known)}"
    if kind == "missing":
        return "this is required"
    if kind in ("model_type", "dict_type"):
        return "it must be a mapping"
    if finding["loc"] and finding["loc"][-1] == "name" and kind == "string_pattern_mismatch":
        return (
            "a name starts with a letter or digit and has at most 64 letters, digits, spaces, "
            "dots, underscores or hyphens"
        )
    said = message.removeprefix("Value error, ").rstrip(".")[:500]
    return said[:1].lower() + said[1:]


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the mapping at a place may have."""
    models: Mapping[str, type[_Part]] = {
        "scenarios": _Scenario,
        "start": _Start,
        "perturb": _Perturb,
    }
    names = [part for part in location if isinstance(part, str)]
    model = models.get(names[-1], _Suite) if names else _Suite
    return [field.alias or name for name, field in model.model_fields.items()]
