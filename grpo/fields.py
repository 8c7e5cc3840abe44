"""One table of what a configuration's fields are, read from the dataclass that declares them.

A field is declared once, `learning_rate: Annotated[float, Bound(0.0, 1.0)] = 3e-4`, with a
docstring below; names that it may have are a `Literal`, also beside numbers. Ranges, HTTP schema,
command-line options, MLproject parameters, search-space types and documentation follow from what
`fields_of` says.
"""

import ast
import dataclasses
import inspect
import math
import re
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, NamedTuple

from grpo.errors import OutOfRangeError, UnknownNameError

__all__ = ["Bound", "Examples", "Field", "Items", "Pattern", "check_fields", "fields_of"]


class Bound(NamedTuple):
    """Inclusive range of a numeric field; `exclusive_low` excludes the lower end."""

    low: float
    high: float
    exclusive_low: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is within; NaN and infinity never are."""
        above = value > self.low if self.exclusive_low else value >= self.low
        return math.isfinite(value) and above and value <= self.high

    def __str__(self) -> str:
        """`above 0 and at most 1`, what a value must be."""
        low = f"{'above' if self.exclusive_low else 'at least'} {self.low:g}"
        return f"{low} and at most {self.high:g}"


class Items(NamedTuple):
    """Sequence of at most `most` whole numbers, each within `bound`."""

    most: int
    bound: Bound


class Pattern(NamedTuple):
    """Regular expression that the whole text matches; `words` say it after "must"."""

    expression: str
    words: str


class Examples(NamedTuple):
    """Values that documentation shows."""

    values: tuple[Any, ...]


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

    items: Items | None
    """What it holds, where it is a sequence of whole numbers."""

    pattern: Pattern | None
    """What its text matches."""

    names: tuple[str, ...] | None
    """Names that it takes, where they are a fixed set; its type is `str` then, or what it takes
    beside them."""

    default: Any
    """What it is when left out; `dataclasses.MISSING` where it must be given."""

    examples: tuple[Any, ...]
    """Values that documentation shows."""

    description: str
    """The docstring below it, in one line; empty where Python has no source of the class."""


@cache
def fields_of(cls: type[Any]) -> Mapping[str, Field]:
    """The fields of a dataclass, by name, in the order of their declaration."""
    hints = typing.get_type_hints(cls, include_extras=True)
    descriptions = _docstrings(cls)
    return MappingProxyType({
        spec.name: _field(spec, hints[spec.name], descriptions.get(spec.name, ""))
        for spec in dataclasses.fields(cls)
    })  # fmt: skip


def _field(spec: "dataclasses.Field[Any]", hint: object, description: str) -> Field:
    extras: dict[type, Any] = {}
    if typing.get_origin(hint) is typing.Annotated:
        hint, *found = typing.get_args(hint)
        extras = {type(extra): extra for extra in found}
    kinds = [part for part in _alternatives(hint) if part is not NoneType]
    literal = next((part for part in kinds if typing.get_origin(part) is Literal), None)
    others = [part for part in kinds if part is not literal]
    plain = hint if len(others) > 1 else (*others, str)[0]
    return Field(
        name=spec.name,
        type=plain,
        optional=len(others) <= 1 and NoneType in _alternatives(hint),
        bound=extras.get(Bound),
        items=extras.get(Items),
        pattern=extras.get(Pattern),
        names=typing.get_args(literal) if literal is not None else None,
        default=_default(spec),
        examples=extras[Examples].values if Examples in extras else (),
        description=description,
    )


def check_fields(config: object) -> None:
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
        if field.names is not None and isinstance(value, str):
            if value not in field.names:
                raise UnknownNameError(field.name, value, field.names)
            continue
        _check_type(field, value)
        if (wanted := _broken(field, value)) is not None:
            shown = list(value) if field.items else value
            raise OutOfRangeError(
                f"{field.name} must {wanted}, not {repr(shown)[:200]}.", field=field.name
            )


def _check_type(field: Field, value: object) -> None:
    if field.type not in (int, float, str, bool):
        return
    expected = (int, float) if field.type is float else (field.type,)
    if not isinstance(value, expected) or (isinstance(value, bool) and field.type is not bool):
        raise OutOfRangeError(
            f"{field.name} must be of type {field.type.__name__}, not {type(value).__name__}.",
            field=field.name,
        )


def _broken(field: Field, value: Any) -> str | None:  # noqa: ANN401
    """What the value must be and is not, in words; None where it is."""
    if field.bound is not None and not field.bound.holds(value):
        return f"be {field.bound}"
    if field.pattern is not None and not re.fullmatch(field.pattern.expression, value):
        return field.pattern.words
    if field.items is not None:
        most, bound = field.items
        if len(value) > most or not all(_is_whole(item) and bound.holds(item) for item in value):
            return f"be at most {most} whole numbers, each {bound}"
    return None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _alternatives(hint: object) -> tuple[Any, ...]:
    """The parts of a union; others are one part."""
    is_union = typing.get_origin(hint) in (UnionType, typing.Union)
    return typing.get_args(hint) if is_union else (hint,)


def _default(spec: "dataclasses.Field[Any]") -> object:
    if spec.default_factory is not dataclasses.MISSING:
        return spec.default_factory()
    return spec.default


def _docstrings(cls: type[Any]) -> dict[str, str]:
    """The literal below each field, which Python itself throws away."""
    found = dict(chain.from_iterable(_docstrings(base).items() for base in cls.__bases__[::-1]))
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):  # built in, or its source is not there
        return found
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for statement, below in pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[statement.target.id] = " ".join(str(below.value.value).split())
    return found
