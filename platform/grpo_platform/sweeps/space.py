"""The search space of a sweep: which hyperparameters vary, and over what."""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grpo.config import GRPOConfig, resolve_config
from grpo.errors import ConfigError, IncompatibleError, OutOfRangeError, UnknownNameError
from grpo.fields import fields_of

__all__ = [
    "SEARCHABLE",
    "Choices",
    "FloatRange",
    "IntRange",
    "Spec",
    "check_space",
    "grid_point",
    "grid_size",
    "parse_space",
]

_FIELDS: Final = fields_of(GRPOConfig)
SEARCHABLE: Final = frozenset(_FIELDS) - {"env_name", "env_kwargs", "seed", "device"}
"""Fields that may vary. A model's name belongs to one environment, and a seed is not tuned."""

_MAX_CHOICES: Final = 100
_MAX_CORNERS: Final = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class FloatRange:
    """Real numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False
    """Draw evenly on a logarithmic scale."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IntRange:
    """Whole numbers from `low` to `high`, both included, `step` apart."""

    low: int
    high: int
    step: int = 1
    log: bool = False
    """Draw evenly on a logarithmic scale; only with a step of 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """One of some JSON values, which have no order."""

    choices: tuple[Any, ...]


Spec = FloatRange | IntRange | Choices
_TYPES: Final[Mapping[str, type[Spec]]] = {
    "float": FloatRange, "int": IntRange, "categorical": Choices,
}  # fmt: skip


def parse_space(values: object) -> dict[str, Spec]:
    """The search space that a JSON or YAML mapping describes.

    Args:
        values: by field, `{"type": "float", "low": …, "high": …, "log": …}`,
            `{"type": "int", "low": …, "high": …, "step": …, "log": …}` or
            `{"type": "categorical", "choices": […]}`.

    Raises:
        UnknownNameError: a field or a type that does not exist.
        OutOfRangeError: a range that is impossible, or outside the field's own.
    """
    if not isinstance(values, Mapping) or not values:
        raise OutOfRangeError("search_space must name at least one field.", field="search_space")
    return {_field(name): _spec(str(name), given) for name, given in values.items()}


def check_space(space: Mapping[str, Spec], config: Mapping[str, Any]) -> None:
    """Refuse a space whose corners cannot be trained together with the fixed fields.

    Where it has more than 256 corners, those that differ from the first one in one field, and
    the opposite one, stand for all.

    Args:
        space: what varies.
        config: fields of `GRPOConfig` that stay fixed; what is left out has the preset's value.

    Raises:
        IncompatibleError: a field that is both fixed and searched.
        ConfigError: a corner that cannot be trained.
    """
    for name in space:
        if name in config:
            raise IncompatibleError(
                f"{name} is both fixed and searched; leave it out of one.",
                field=f"search_space.{name}",
            )
    for corner in _corners(space):
        try:
            resolve_config(**{**config, **corner})
        except ConfigError as error:
            shown = json.dumps(corner, sort_keys=True, default=str)[:500]
            raise IncompatibleError(
                f"The search space contains {shown}, which cannot be trained: {error}",
                field="search_space",
            ) from error


def _corners(space: Mapping[str, Spec]) -> Iterator[dict[str, Any]]:
    ends = {name: _ends(spec) for name, spec in space.items()}
    if math.prod(len(values) for values in ends.values()) <= _MAX_CORNERS:
        for values in itertools.product(*ends.values()):
            yield dict(zip(ends, values, strict=True))
        return
    first = {name: values[0] for name, values in ends.items()}
    yield first
    yield {name: values[-1] for name, values in ends.items()}
    for name, values in ends.items():
        yield from (first | {name: value} for value in values[1:])


def _ends(spec: Spec) -> tuple[Any, ...]:
    match spec:
        case Choices():
            return spec.choices
        case IntRange():
            return spec.low, spec.low + (spec.high - spec.low) // spec.step * spec.step
        case FloatRange():
            return spec.low, spec.high


def _field(name: object) -> str:
    if name in ("seed", "seeds"):
        raise IncompatibleError(
            f"{name} is not searched: the best seed is luck. Give the sweep seeds, and every "
            "trial is trained with each of them.",
            field=f"search_space.{name}",
        )
    if name not in SEARCHABLE:
        raise UnknownNameError("search_space", name, SEARCHABLE)
    return str(name)


def _spec(name: str, given: object) -> Spec:
    field = f"search_space.{name}"
    kind = given.get("type") if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or not isinstance(kind, str) or kind not in _TYPES:
        raise UnknownNameError(f"{field}.type", kind, _TYPES)
    own = {key: value for key, value in given.items() if key != "type"}
    known = {spec.name: spec for spec in dataclasses.fields(_TYPES[kind])}
    for key in own:
        if key not in known:
            raise UnknownNameError(field, key, known)
    for key, spec in known.items():
        if key not in own and spec.default is dataclasses.MISSING:
            raise OutOfRangeError(f"{field} needs {key}.", field=f"{field}.{key}")
    if kind == "categorical":
        return _choices(field, name, own["choices"])
    return _range(field, name, kind, own)


def _choices(field: str, name: str, values: object) -> Choices:
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= _MAX_CHOICES:
        raise OutOfRangeError(
            f"{field}.choices must be a list of 1 to {_MAX_CHOICES} values.", field=field
        )
    if len({json.dumps(value, default=str) for value in values}) < len(values):
        raise OutOfRangeError(f"{field}.choices must differ from each other.", field=field)
    for value in values:
        try:
            # what depends on other fields is judged at the corners
            config = GRPOConfig(**{"eval_freq": 1, name: value})
        except IncompatibleError:
            continue
        except (ConfigError, TypeError) as error:
            raise OutOfRangeError(f"{field}.choices: {error}", field=field) from error
        if config.to_dict()[name] != value:  # a job would store another one than was chosen
            raise OutOfRangeError(f"{field}.choices: {value!r} is no {name}.", field=field)
    return Choices(choices=tuple(values))


def _range(field: str, name: str, kind: str, own: Mapping[str, Any]) -> Spec:
    bound = _FIELDS[name].bound
    if bound is None or _FIELDS[name].type.__name__ != kind:
        raise OutOfRangeError(f"{field} cannot be a range of type {kind}.", field=f"{field}.type")
    for key, value in own.items():
        _check_number(f"{field}.{key}", key, kind, value)
    spec = FloatRange(**own) if kind == "float" else IntRange(**own)
    if not (bound.holds(spec.low) and bound.holds(spec.high)):
        raise OutOfRangeError(f"{field} must be {bound}.", field=field)
    if spec.low > spec.high:
        raise OutOfRangeError(f"{field}.low must be at most {field}.high.", field=f"{field}.low")
    if spec.log and spec.low <= 0:
        raise OutOfRangeError(f"{field}.low must be above 0 with log.", field=f"{field}.low")
    if isinstance(spec, IntRange) and (spec.step < 1 or (spec.log and spec.step != 1)):
        raise OutOfRangeError(
            f"{field}.step must be at least 1, and 1 with log.", field=f"{field}.step"
        )
    return spec


def _check_number(field: str, key: str, kind: str, value: object) -> None:
    if key == "log":
        if not isinstance(value, bool):
            raise OutOfRangeError(f"{field} must be true or false.", field=field)
        return
    right = isinstance(value, int if kind == "int" else (int, float))
    if not right or isinstance(value, bool) or not math.isfinite(float(str(value))):
        raise OutOfRangeError(f"{field} must be a finite number of type {kind}.", field=field)


def grid_size(space: Mapping[str, Spec]) -> int:
    """Number of points.

    Raises:
        IncompatibleError: a field has no countable values.
    """
    return math.prod(len(_values(name, spec)) for name, spec in space.items())


def grid_point(space: Mapping[str, Spec], number: int) -> dict[str, Any]:
    """The point with a number, from 0; the last field changes fastest.

    Raises:
        IncompatibleError: a field has no countable values.
    """
    point: dict[str, Any] = {}
    for name in reversed(list(space)):
        values = _values(name, space[name])
        number, place = divmod(number, len(values))
        point[name] = values[place]
    return {name: point[name] for name in space}


def _values(name: str, spec: Spec) -> Sequence[Any]:
    match spec:
        case Choices():
            return spec.choices
        case IntRange():
            return range(spec.low, spec.high + 1, spec.step)
        case FloatRange():
            raise IncompatibleError(
                f"The sampler grid needs values that can be counted; give {name} as categorical "
                "choices.",
                field=f"search_space.{name}",
            )
