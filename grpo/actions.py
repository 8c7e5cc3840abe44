"""What a policy may do, as plain records that travel as JSON.

An action may be a tree (Dict, Tuple) of leaves. Between a policy and its environment it is one row
of numbers, leaf after leaf.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo.observations import Path, path_from_json

__all__ = [
    "ActionSpec",
    "BoxActions",
    "DictActions",
    "DiscreteActions",
    "MultiDiscreteActions",
    "action_spec_from_dict",
    "choices",
]


@dataclass(frozen=True, slots=True)
class DiscreteActions:
    """Actions `start`, …, `start + n − 1`."""

    n: int
    """Number of actions."""

    start: int = 0
    """The environment's name of the first one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a number."""
        return ()

    def to_env(self, actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Indices from 0, shape (N,), as the environment names them."""
        return actions + self.start if self.start else actions

    def random(
        self, rng: np.random.Generator, n: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[Any]:
        """Any n actions, uniform, shape (n, *shape), as the environment takes them.

        Args:
            rng: draws them.
            n: how many.
            allowed: shape (n, sum of `choices`): which may be taken; None for all.
        """
        return self.to_env(_any_of(rng, n, (self.n,), allowed)[:, 0])

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
        centre, half_range = self.scale
        return self._within(centre + half_range * actions)

    def random(
        self, rng: np.random.Generator, n: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[Any]:
        """As `DiscreteActions.random`: uniform between two finite bounds, else a clipped normal."""
        del allowed  # says nothing of numbers
        centre, half_range = self.scale
        bounded = np.isfinite(self.low) & np.isfinite(self.high)
        reach = half_range + 0.5 * self.integer  # the first and the last whole number count whole
        drawn = reach * rng.uniform(-1.0, 1.0, (n, self.size))
        return self._within(centre + np.where(bounded, drawn, rng.standard_normal((n, self.size))))

    def _within(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Numbers, shape (N, size), within the bounds, whole where they must be: (N, *shape)."""
        _, _, low, high = _bounds(self)
        within = np.clip(numbers, low, high)
        if self.integer:
            np.rint(within, out=within)
        shaped: npt.NDArray[np.float64] = within.reshape(-1, *self.shape)
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


@dataclass(frozen=True, slots=True)
class MultiDiscreteActions:
    """Several choices at once, each among its own actions; a MultiBinary's have two."""

    shape: tuple[int, ...]
    """Shape of one action."""

    nvec: tuple[int, ...]
    """Per component, flattened in C order, the number of actions."""

    start: tuple[int, ...]
    """Per component, the environment's name of the first one."""

    def to_env(self, actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Indices from 0, shape (N, k), as the environment names them: (N, *shape)."""
        named: npt.NDArray[Any] = (actions + np.array(self.start)).reshape(-1, *self.shape)
        return named

    def random(
        self, rng: np.random.Generator, n: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[Any]:
        """As `DiscreteActions.random`."""
        return self.to_env(_any_of(rng, n, self.nvec, allowed))

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `action_spec_from_dict`."""
        return {
            "kind": "multi_discrete",
            "shape": list(self.shape),
            "nvec": list(self.nvec),
            "start": list(self.start),
        }


@dataclass(frozen=True, slots=True)
class DictActions:
    """A Dict or Tuple of actions, chosen independently of each other given the observation."""

    parts: tuple[tuple[Path, DiscreteActions | BoxActions | MultiDiscreteActions], ...]
    """Each leaf's path, and what may be done there; in the order of a row."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row."""
        return (sum(self.sizes),)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of each part in a row."""
        return tuple(math.prod(part.shape) for _, part in self.parts)

    @property
    def is_discrete(self) -> bool:
        """Whether a row is all whole numbers."""
        return not any(isinstance(part, BoxActions) for _, part in self.parts)

    def split(self, rows: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        """The numbers of each part, of rows of shape (N, k)."""
        first = 0
        for (_, part), size in zip(self.parts, self.sizes, strict=True):
            columns = rows[:, first : first + size]
            first += size
            yield columns[:, 0] if isinstance(part, DiscreteActions) else columns

    def to_env(self, actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(N, k) → (N, k), part by part."""
        each = zip(self.parts, self.split(actions), self.sizes, strict=True)
        named = [part.to_env(chosen).reshape(-1, size) for (_, part), chosen, size in each]
        return np.concatenate(named, axis=1)

    def random(
        self, rng: np.random.Generator, n: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[Any]:
        """As `DiscreteActions.random`."""
        drawn, first = [], 0
        for (_, part), size in zip(self.parts, self.sizes, strict=True):
            last = first + sum(choices(part))
            may = None if allowed is None else allowed[:, first:last]
            drawn.append(part.random(rng, n, may).reshape(n, size))
            first = last
        return np.concatenate(drawn, axis=1)

    def to_json(self, action: npt.NDArray[Any]) -> Any:  # noqa: ANN401
        """One action, shape (k,), as JSON: objects and lists, as the space is nested."""
        values = []
        for (path, part), numbers in zip(self.parts, self.split(action[None]), strict=True):
            whole = not isinstance(part, BoxActions) or part.integer
            shaped = numbers.reshape(part.shape)
            values.append((path, (shaped.astype(np.int64) if whole else shaped).tolist()))
        return _nest(values)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `action_spec_from_dict`."""
        parts = [{"path": list(path), **part.to_dict()} for path, part in self.parts]
        return {"kind": "dict", "shape": list(self.shape), "parts": parts}


ActionSpec = DiscreteActions | BoxActions | MultiDiscreteActions | DictActions
"""What a policy may do."""


def action_spec_from_dict(values: Mapping[str, Any]) -> ActionSpec:
    """Inverse of `to_dict` of each class.

    Raises:
        ValueError: the mapping describes none.
    """
    match values.get("kind"):
        case "dict":
            return DictActions(tuple(_part_from_dict(part) for part in values["parts"]))
        case "discrete":
            return DiscreteActions(n=int(values["n"]), start=int(values["start"]))
        case "multi_discrete":
            return MultiDiscreteActions(
                shape=tuple(map(int, values["shape"])),
                nvec=tuple(map(int, values["nvec"])),
                start=tuple(map(int, values["start"])),
            )
        case "box":
            return BoxActions(
                shape=tuple(int(n) for n in values["shape"]),
                low=tuple(-math.inf if x is None else float(x) for x in values["low"]),
                high=tuple(math.inf if x is None else float(x) for x in values["high"]),
                integer=bool(values.get("integer", False)),
            )
    raise ValueError(f"Not an action space: kind is {values.get('kind')!r}.")


def choices(action: ActionSpec) -> tuple[int, ...]:
    """How many actions each choice is among, in the order of a row; empty for a Box."""
    match action:
        case DiscreteActions():
            return (action.n,)
        case MultiDiscreteActions():
            return action.nvec
        case DictActions():
            return tuple(n for _, part in action.parts for n in choices(part))
    return ()


def _any_of(
    rng: np.random.Generator, n: int, nvec: Sequence[int], allowed: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.int64]:
    """For each choice one of its actions that are allowed, from 0: shape (n, len(nvec))."""
    if allowed is None:
        return rng.integers(0, nvec, (n, len(nvec)))
    drawn = (1.0 - rng.random(allowed.shape)) * allowed  # above 0 where allowed
    each = np.split(drawn, np.cumsum(nvec)[:-1], axis=1)
    return np.stack([of_one.argmax(axis=1) for of_one in each], axis=1)


def _part_from_dict(
    values: Mapping[str, Any],
) -> tuple[Path, DiscreteActions | BoxActions | MultiDiscreteActions]:
    part = action_spec_from_dict(values)
    if isinstance(part, DictActions):
        raise ValueError("Not an action space: a part of a dict is no dict, but has a longer path.")
    return path_from_json(values["path"]), part


def _nest(values: Sequence[tuple[Path, Any]]) -> object:
    """Objects and lists from leaves by path, in order."""
    if not values[0][0]:
        return values[0][1]
    below: dict[str | int, list[tuple[Path, Any]]] = {}
    for path, value in values:
        below.setdefault(path[0], []).append((path[1:], value))
    nested = {key: _nest(part) for key, part in below.items()}
    return list(nested.values()) if isinstance(values[0][0][0], int) else nested


@lru_cache
def _bounds(action: BoxActions) -> tuple[npt.NDArray[np.float64], ...]:
    """Centre, half range, low and high, each of shape (size,)."""
    low, high = np.array(action.low, np.float64), np.array(action.high, np.float64)
    bounded = np.isfinite(low) & np.isfinite(high)
    bottom, top = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    return (bottom + top) / 2.0, (top - bottom) / 2.0, low, high
