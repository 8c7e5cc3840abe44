"""Turns what a trainer reports into metric points; imports no MLflow."""

from typing import NamedTuple

__all__ = ["Point"]


class Point(NamedTuple):
    """One value of one metric, ready to be logged."""

    key: str
    value: float
    step: int
    """Environment timesteps of the run."""

    timestamp_ms: int
    """Unix time when it was measured."""
