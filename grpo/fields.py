"""One table of what a configuration's fields are, read from the dataclass that declares them.

A field is declared once, `learning_rate: Annotated[float, Bound(0.0, 1.0)] = 3e-4`, with a
docstring below. Ranges, HTTP schema, command-line options, MLproject parameters, search-space types
and documentation follow from what `fields_of` says.
"""

import ast
import dataclasses
import inspect
import itertools
import math
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, NoneType, UnionType
from typing import Any, NamedTuple

from grpo.errors import OutOfRangeError, UnknownNameError

__all__ = ["Bound", "Field", "OneOf", "check_fields", "fields_of"]


class Bound(NamedTuple):
    """Inclusive range of a numeric field; `exclusive_low` excludes the lower end."""

    low: float
    high: float
    exclusive_low: bool = False


class OneOf(NamedTuple):
    """The names that a field takes."""

    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One field of a configuration."""

    name: str
    """Its name."""

    type: Any
    """Its type without annotations and without None: `int`, `float`, `bool`, `str`, or another."""

    optional: bool
    """Whether it takes None."""

    bound: Bound | None
    """Range of a numeric field."""

    names: tuple[str, ...] | None
    """Names that it takes, where they are a fixed set."""

    default: Any
    """What it is when left out; `dataclasses.MISSING` where it must be given."""

    description: str
    """The docstring below it, in one line."""


@cache
def fields_of(cls: type[Any]) -> Mapping[str, Field]:
    """The fields of a dataclass, by name, in the order of their declaration."""
    hints = typing.get_type_hints(cls, include_extras=True)
    descriptions = _docstrings(cls)
    found = {}
    for spec in dataclasses.fields(cls):
        hint, extras = hints[spec.name], list[Any]()
        if typing.get_origin(hint) is typing.Annotated:
            hint, *extras = typing.get_args(hint)
        plain, optional = _without_none(hint)
        found[spec.name] = Field(
            name=spec.name,
            type=plain,
            optional=optional,
            bound=next((extra for extra in extras if isinstance(extra, Bound)), None),
            names=next((extra.names for extra in extras if isinstance(extra, OneOf)), None),
            default=_default(spec),
            description=descriptions.get(spec.name, ""),
        )
    return MappingProxyType(found)


def check_fields(config: Any) -> None:  # noqa: ANN401 - any dataclass
    """Hold each value of a dataclass against what its field says.

    Raises:
        OutOfRangeError: a value of the wrong type, or outside its range.
        UnknownNameError: a name that is none of those allowed.
    """
    kind: Any = type(config)
    for field in fields_of(kind).values():
        value = getattr(config, field.name)
        if value is None and field.optional:
            continue
        _check_type(field, value)
        if field.bound is not None:
            _check_bound(field.name, field.bound, value)
        if field.names is not None and value not in field.names:
            raise UnknownNameError(field.name, value, field.names)


def _check_type(field: Field, value: object) -> None:
    if field.type not in (int, float, str, bool):
        return
    expected = (int, float) if field.type is float else (field.type,)
    if not isinstance(value, expected) or (isinstance(value, bool) and field.type is not bool):
        raise OutOfRangeError(
            f"{field.name} must be of type {field.type.__name__}, not {type(value).__name__}.",
            field=field.name,
        )


def _check_bound(name: str, bound: Bound, value: float) -> None:
    too_low = value <= bound.low if bound.exclusive_low else value < bound.low
    if not math.isfinite(value) or too_low or value > bound.high:
        low = f"above {bound.low:g}" if bound.exclusive_low else f"at least {bound.low:g}"
        raise OutOfRangeError(
            f"{name} must be {low} and at most {bound.high:g}, not {value!r}.", field=name
        )


def _without_none(hint: Any) -> tuple[Any, bool]:  # noqa: ANN401
    if typing.get_origin(hint) in (UnionType, typing.Union):
        others = [part for part in typing.get_args(hint) if part is not NoneType]
        if len(others) == 1 and len(typing.get_args(hint)) == 2:
            return others[0], True
    return hint, False


def _default(spec: "dataclasses.Field[Any]") -> Any:  # noqa: ANN401
    if spec.default_factory is not dataclasses.MISSING:
        return spec.default_factory()
    return spec.default


def _docstrings(cls: type[Any]) -> dict[str, str]:
    """The literal below each field, which Python itself throws away."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    found = {}
    for statement, below in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[statement.target.id] = " ".join(str(below.value.value).split())
    return found
