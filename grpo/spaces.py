"""Gymnasium's spaces as the records that policies know, and actions as a space has them."""

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from grpo.actions import ActionSpec, BoxActions, DictActions, DiscreteActions, MultiDiscreteActions
from grpo.observations import ObservationLeaf, ObservationSpec, Path, path_name

__all__ = ["action_spec", "environment_actions", "observation_spec"]

_MOST_CATEGORIES: Final = 1 << 24
"""Whole numbers up to this are told apart as float32, in which models are asked."""

_BYTE: Final = 255.0
"""Largest range of whole numbers that are scaled by their bounds; wider ones are standardised."""


def observation_spec(space: spaces.Space[Any]) -> ObservationSpec:
    """What a policy observes of a Gymnasium space.

    Raises:
        ValueError: it cannot be read; the message says what has, and what would help.
    """
    spec = ObservationSpec(tuple(_observation_leaves(space, ())))
    names = [leaf.name for leaf in spec.leaves]
    if not names:
        raise ValueError("has no observations at all")
    if len({*names}) != len(names):
        raise ValueError(f"has two parts that are both called {min(names, key=names.count)!r}")
    return spec


def _observation_leaves(space: spaces.Space[Any], path: Path) -> Iterator[ObservationLeaf]:
    what = f"{type(space).__name__} observations" + (f" at {path_name(path)}" if path else "")
    match space:
        case spaces.Dict() | spaces.Tuple():
            for key, part in _parts_of(space, what):
                yield from _observation_leaves(part, (*path, key))
            return
        case spaces.Discrete():
            counts, first = [int(space.n)], [int(space.start)]
        case spaces.MultiDiscrete():
            counts, first = space.nvec.ravel().tolist(), space.start.ravel().tolist()
        case spaces.MultiBinary():
            counts, first = [], []
        case spaces.Box() if np.issubdtype(space.dtype, np.number) or space.dtype == np.bool_:
            counts, first = [], []
        case _:
            raise ValueError(
                f"has {what}, which no policy here reads; wrap the environment so that it observes "
                "numbers, categories, or Dicts and Tuples of them"
            )
    shape = tuple(space.shape or ())
    if 0 in shape:
        raise ValueError(f"has empty {what} of shape {shape}")
    largest = max((abs(s) + n for s, n in zip(first, counts, strict=True)), default=0)
    if largest > _MOST_CATEGORIES:
        raise ValueError(f"has {what} with categories beyond {_MOST_CATEGORIES:,}")
    low, high = _small_bounds(space)
    yield ObservationLeaf(
        path=path,
        shape=shape,
        categories=tuple(counts),
        start=tuple(first),
        low=low,
        high=high,
        dtype=np.dtype(space.dtype).name,
    )


def _small_bounds(space: spaces.Space[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Bounds of whole numbers whose range is a byte's at most; one where all are alike."""
    if isinstance(space, spaces.MultiBinary):
        return (0.0,), (1.0,)
    if not isinstance(space, spaces.Box) or np.issubdtype(space.dtype, np.floating):
        return (), ()
    low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
    if not np.all((high - low <= _BYTE) & (high > low)):
        return (), ()
    bounds = [(bound[0],) if np.all(bound == bound[0]) else tuple(bound) for bound in (low, high)]
    return tuple(map(float, bounds[0])), tuple(map(float, bounds[1]))


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
            for key, part in _parts_of(space, what):
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


def environment_actions(space: spaces.Space[Any], rows: npt.NDArray[Any]) -> list[Any]:
    """Actions as a space has them: of its type, and nested as it is.

    Args:
        space: the environment's.
        rows: numbers of N actions, shape (N, *`ActionSpec.shape`).
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return [_build(space, row.tolist()) for row in rows]
    taken = rows.astype(space.dtype, copy=False)
    if isinstance(space, spaces.Discrete):
        return list(taken)
    return [taken[i, ...] for i in range(len(taken))]  # arrays, also of shape ()


def _build(space: spaces.Space[Any], numbers: list[Any]) -> Any:  # noqa: ANN401
    """As `environment_actions`, of one; takes its numbers off the front of the list."""
    if isinstance(space, spaces.Dict):
        return {key: _build(part, numbers) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_build(part, numbers) for part in space.spaces)
    shape = space.shape or ()
    taken = [numbers.pop(0) for _ in range(math.prod(shape))]
    return environment_actions(space, np.array(taken).reshape(1, *shape))[0]


def _parts_of(
    space: spaces.Dict | spaces.Tuple[Any], what: str
) -> list[tuple[str | int, spaces.Space[Any]]]:
    """The spaces in a space, by key or index; `what` it is begins an error's sentence.

    Raises:
        ValueError: a key is no text.
    """
    if isinstance(space, spaces.Tuple):
        return list(enumerate(space.spaces))
    other = next((key for key in space.spaces if not isinstance(key, str)), None)
    if other is not None:
        raise ValueError(f"has {what} with the key {other!r}, but keys must be text")
    return list(space.spaces.items())
