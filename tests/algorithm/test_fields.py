"""Fields of a dataclass: what is read from its declaration, and what its values must be."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Annotated, Any, Literal

import pytest

from grpo.errors import OutOfRangeError, UnknownNameError
from grpo.fields import Bound, Examples, Items, Pattern, check_fields, fields_of


@dataclass(kw_only=True)
class Base:
    first: int
    """Comes
    first."""


@dataclass(kw_only=True)
class Sample(Base):
    rate: Annotated[float, Bound(0.0, 1.0, exclusive_low=True), Examples((0.5,))] = 0.1
    """A rate."""

    limit: Annotated[int | None, Bound(1, 9)] = None
    mode: Literal["a", "b"] = "a"
    widths: Annotated[tuple[int, ...], Items(2, Bound(1, 8))] = (4,)
    name: Annotated[str | None, Pattern("[a-z]+", "be lower case")] = None
    on: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


def test_what_a_declaration_says():
    found = fields_of(Sample)
    assert list(found) == ["first", "rate", "limit", "mode", "widths", "name", "on", "extra"]
    assert found["first"].description == "Comes first."
    assert found["first"].default is MISSING
    assert found["rate"].bound == Bound(0.0, 1.0, exclusive_low=True)
    assert found["rate"].examples == (0.5,)
    assert (found["limit"].type, found["limit"].optional) == (int, True)
    assert (found["mode"].type, found["mode"].names) == (str, ("a", "b"))
    assert found["widths"].items == Items(2, Bound(1, 8))
    assert found["extra"].default == {}


def test_a_class_without_source_has_no_descriptions():
    space: dict[str, Any] = {"dataclass": dataclass, "__name__": "nowhere"}
    exec("@dataclass\nclass Typed:\n    n: int = 1\n    'A number.'", space)
    assert fields_of(space["Typed"])["n"].description == ""


def test_values_that_fit_pass():
    check_fields(Sample(first=1, rate=1, limit=9, mode="b", widths=(1, 8), name="x", on=True))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"first": "1"}, "first must be of type int, not str."),
        ({"first": True}, "first must be of type int, not bool."),
        ({"rate": 0.0}, "rate must be above 0 and at most 1, not 0.0."),
        ({"rate": math.nan}, "rate must be above 0 and at most 1, not nan."),
        ({"limit": 10}, "limit must be at least 1 and at most 9, not 10."),
        ({"mode": None}, "mode must be of type str, not NoneType."),
        ({"widths": (1, 2, 3)}, "widths must be at most 2 whole numbers, each at least 1 and at "
                                "most 8, not [1, 2, 3]."),
        ({"widths": (1.0,)}, "each at least 1 and at most 8, not [1.0]."),
        ({"widths": (True,)}, "not [True]."),
        ({"name": "X"}, "name must be lower case, not 'X'."),
        ({"name": "x\n"}, "name must be lower case, not 'x\\n'."),
        ({"on": 1}, "on must be of type bool, not int."),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_named(values, message):
    with pytest.raises(OutOfRangeError) as caught:
        check_fields(Sample(**{"first": 1} | values))
    assert message in str(caught.value)
    assert caught.value.field == next(iter(values))


def test_a_name_that_is_none_of_those_is_answered_with_them():
    with pytest.raises(UnknownNameError, match="Use one of: a, b"):
        check_fields(Sample(first=1, mode="c"))
