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
from gymnasium import spaces

from grpo.observations import Path, parts_of, path_from_json, path_name

__all__ = [
    "ActionSpec",
    "BoxActions",
    "DictActions",
    "DiscreteActions",
    "MultiDiscreteActions",
    "action_spec",
    "action_spec_from_dict",
    "choices",
    "environment_action",
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

    def random(self, rng: np.random.Generator, n: int) -> npt.NDArray[Any]:
        """Any n actions, shape (n, *shape), as the environment takes them."""
        return self.to_env(rng.integers(0, self.n, n))

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

    def random(self, rng: np.random.Generator, n: int) -> npt.NDArray[Any]:
        """Any n actions, shape (n, *shape), as the environment takes them."""
        drawn = rng.standard_normal((n, *self.shape))
        return np.clip(drawn, *(np.reshape(bound, self.shape) for bound in (self.low, self.high)))

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

    def random(self, rng: np.random.Generator, n: int) -> npt.NDArray[Any]:
        """Any n actions, shape (n, *shape), as the environment takes them."""
        return self.to_env(rng.integers(0, self.nvec, (n, len(self.nvec))))

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

    def random(self, rng: np.random.Generator, n: int) -> npt.NDArray[Any]:
        """Any n actions, shape (n, *shape), as the environment takes them."""
        each = zip(self.parts, self.sizes, strict=True)
        return np.concatenate([part.random(rng, n).reshape(n, k) for (_, part), k in each], axis=1)

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


def action_spec(space: spaces.Space[Any]) -> ActionSpec:
    """What a policy may do in a Gymnasium space.

    Raises:
        ValueError: it cannot act there; the message says what has, and what would help.
    """
    parts = list(_action_parts(space, ()))
    if not parts:
        raise ValueError("has no actions at all")
    path, only = parts[0]
    return DictActions(tuple(parts)) if path else only


def _action_parts(
    space: spaces.Space[Any], path: Path
) -> Iterator[tuple[Path, DiscreteActions | BoxActions | MultiDiscreteActions]]:
    what = f"{type(space).__name__} actions" + (f" at {path_name(path)}" if path else "")
    if space.shape and 0 in space.shape:
        raise ValueError(f"has empty {what} of shape {space.shape}")
    match space:
        case spaces.Dict() | spaces.Tuple():
            for key, part in parts_of(space, what):
                yield from _action_parts(part, (*path, key))
        case spaces.Discrete():
            yield path, DiscreteActions(n=int(space.n), start=int(space.start))
        case spaces.MultiDiscrete():
            counts, first = space.nvec.ravel().tolist(), space.start.ravel().tolist()
            shape = tuple(space.shape or ())
            yield path, MultiDiscreteActions(shape, tuple(counts), tuple(first))
        case spaces.MultiBinary():
            shape = tuple(space.shape or ())
            size = math.prod(shape)
            yield path, MultiDiscreteActions(shape, (2,) * size, (0,) * size)
        case spaces.Box() if np.issubdtype(space.dtype, np.number):
            low = np.where(space.bounded_below, space.low.astype(np.float64), -np.inf)
            high = np.where(space.bounded_above, space.high.astype(np.float64), np.inf)
            yield (
                path,
                BoxActions(
                    shape=tuple(space.shape),
                    low=tuple(low.ravel().tolist()),
                    high=tuple(high.ravel().tolist()),
                    integer=bool(np.issubdtype(space.dtype, np.integer)),
                ),
            )
        case _:
            raise ValueError(
                f"has {what} of {space.dtype}, but a policy chooses numbers in a Box, among "
                "Discrete, MultiDiscrete or MultiBinary actions, or in Dicts and Tuples of them"
            )


def action_spec_from_dict(values: Mapping[str, Any]) -> ActionSpec:
    """Inverse of `to_dict` of each class.

    Raises:
        ValueError: the mapping describes none.
    """
    match values.get("kind"):
        case "dict":
            found = [(path_from_json(p["path"]), action_spec_from_dict(p)) for p in values["parts"]]
            return DictActions(tuple(found))  # type: ignore[arg-type] # none of them is a dict
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


def environment_action(space: spaces.Space[Any], row: npt.NDArray[Any]) -> Any:  # noqa: ANN401
    """One action as a space has it: of its type, and nested as it is.

    Args:
        space: the environment's.
        row: numbers of one action, in the order of `ActionSpec`; any shape.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return _build(space, list(np.ravel(row)))
    array = np.asarray(row).reshape(space.shape or ()).astype(space.dtype)
    return array[()] if isinstance(space, spaces.Discrete) else array


def _build(space: spaces.Space[Any], numbers: list[Any]) -> Any:  # noqa: ANN401
    """As `environment_action`; takes its numbers off the front of the list."""
    if isinstance(space, spaces.Dict):
        return {key: _build(part, numbers) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_build(part, numbers) for part in space.spaces)
    taken = [numbers.pop(0) for _ in range(math.prod(space.shape or ()))]
    return environment_action(space, np.array(taken))


def _nest(values: Sequence[tuple[Path, Any]]) -> Any:  # noqa: ANN401
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
