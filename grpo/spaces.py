"""Action spaces that a policy can represent, as plain records that travel as JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ActionSpec", "BoxActions", "DiscreteActions", "action_spec_from_dict"]


@dataclass(frozen=True, slots=True)
class DiscreteActions:
    """Actions `start`, …, `start + n − 1`."""

    n: int
    """Number of actions."""

    start: int = 0
    """The environment's name of the first one."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `action_spec_from_dict`."""
        return {"kind": "discrete", "n": self.n, "start": self.start}


@dataclass(frozen=True, slots=True)
class BoxActions:
    """Numbers, vectors or arrays within bounds; an infinite bound is none."""

    shape: tuple[int, ...]
    """Shape of one action."""

    low: tuple[float, ...]
    """Lower bounds, flattened in C order, `size` values."""

    high: tuple[float, ...]
    """Upper bounds, flattened in C order, `size` values."""

    integer: bool = False
    """Whether the environment takes whole numbers: actions are rounded to the nearest."""

    @property
    def size(self) -> int:
        """Number of components of one action."""
        return math.prod(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `action_spec_from_dict`; infinite bounds become null."""
        values: dict[str, Any] = {
            "kind": "box",
            "shape": list(self.shape),
            "low": [x if math.isfinite(x) else None for x in self.low],
            "high": [x if math.isfinite(x) else None for x in self.high],
        }
        # left out where false: models and hashes from before stay as they are
        return values | {"integer": True} if self.integer else values


ActionSpec = DiscreteActions | BoxActions


def action_spec_from_dict(values: Mapping[str, Any]) -> ActionSpec:
    """Inverse of `to_dict` of either class.

    Raises:
        ValueError: the mapping describes neither.
    """
    if values.get("kind") == "discrete":
        return DiscreteActions(n=int(values["n"]), start=int(values["start"]))
    if values.get("kind") == "box":
        return BoxActions(
            shape=tuple(int(n) for n in values["shape"]),
            low=tuple(-math.inf if x is None else float(x) for x in values["low"]),
            high=tuple(math.inf if x is None else float(x) for x in values["high"]),
            integer=bool(values.get("integer", False)),
        )
    raise ValueError(f"Not an action space: kind is {values.get('kind')!r}.")
