"""Histories of metrics, thinned to what a plot can show."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

__all__ = ["HistoryPoint", "thin"]

_T = TypeVar("_T")


class HistoryPoint(NamedTuple):
    """One logged value of a metric."""

    step: int
    """Environment timesteps."""

    value: float
    timestamp_ms: int
    """Unix time when it was measured."""


def thin(items: Sequence[_T], most: int) -> list[_T]:
    """At most `most` of the items, evenly spaced, the first and the last always among them.

    Args:
        items: in order.
        most: at least 2, unless there are fewer items.
    """
    count = len(items)
    if count <= most:
        return list(items)
    if most < 2:
        return list(items[-most:]) if most else []
    return [items[round(i * (count - 1) / (most - 1))] for i in range(most)]
