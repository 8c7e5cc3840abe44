"""A trial as the sampler, the pruner and the figures see it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Outcome", "Trial"]

Outcome = Literal["running", "completed", "pruned", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One trial as the sampler sees it."""

    params: Mapping[str, Any]
    outcome: Outcome
    value: float | None = None
    """Of the metric; None until completed."""

    intermediate: Mapping[int, float] = field(default_factory=dict)
    """Of the metric while it trained, by twentieths of the budget, 0 to 20."""
