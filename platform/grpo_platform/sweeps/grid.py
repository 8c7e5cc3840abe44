"""The grid of a search space: every combination of its values, each with a number."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from grpo.errors import IncompatibleError
from grpo_platform.sweeps.space import Choices, FloatRange, IntRange, Spec

__all__ = ["grid_point", "grid_size"]


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
