"""Action spaces that a policy can represent, as plain records that travel as JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ActionSpec", "BoxActions", "DiscreteActions", "action_spec_from_dict"]


@dataclass(frozen=True, slots=True)
class DiscreteActions:
    """Actions `start`, …, `start + n − 1`."""

    n: int
    """Number of actions."""

    start: int = 0
    """The environment's name of the first one."""

    def to_env(self, actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Indices from 0, shape (N,), as the environment names them."""
        return actions + self.start if self.start else actions

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

    @property
    def scale(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Centre and half range per component, shape (size,); 0 and 1 without two finite bounds."""
        centre, half_range, _, _ = _bounds(self)
        return centre, half_range

    def to_env(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """`centre + half_range · a`, clipped to the bounds: (N, size) → (N, *shape).

        Where the environment takes whole numbers, the nearest ones.
        """
        centre, half_range, low, high = _bounds(self)
        scaled = np.clip(centre + half_range * actions, low, high)
        if self.integer:
            np.rint(scaled, out=scaled)
        shaped: npt.NDArray[np.float64] = scaled.reshape(-1, *self.shape)
        return shaped

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


@lru_cache
def _bounds(action: BoxActions) -> tuple[npt.NDArray[np.float64], ...]:
    """Centre, half range, low and high, each of shape (size,)."""
    low, high = np.array(action.low, np.float64), np.array(action.high, np.float64)
    bounded = np.isfinite(low) & np.isfinite(high)
    bottom, top = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    return (bottom + top) / 2.0, (top - bottom) / 2.0, low, high
