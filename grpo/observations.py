"""What a policy observes, as plain records that travel as JSON.

An observation may be a tree (Dict, Tuple) of leaves. Between an environment and its policy it is
one row of numbers, leaf after leaf, as the environment gives them; `grpo.encoding` makes of a row
what the policy's networks read.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "ADDED",
    "MASK",
    "NEXT_STATE",
    "STATE",
    "ObservationError",
    "ObservationLeaf",
    "ObservationSpec",
    "Path",
    "path_from_json",
    "path_name",
]

Path = tuple[str | int, ...]
"""Keys of Dicts and indices of Tuples that lead to a leaf; empty where the leaf is all there is."""


class ObservationError(ValueError):
    """An observation that its space does not hold.

    Attributes:
        leaf: name of the part that is wrong; empty for the whole.
    """

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.leaf = path_name(path)


MASK: Final = "action_mask"
"""Name of the tensor, or of the member of a request, that says which actions may be taken."""

STATE: Final = "policy_state"
"""Name of the tensor of what a policy remembers before an observation: 0 where none was before."""

NEXT_STATE: Final = "next_policy_state"
"""Name of the tensor of what it remembers after it, which it tells beside its action."""

ADDED: Final[Mapping[str, type[np.generic]]] = {STATE: np.float32, MASK: np.uint8}
"""Types of the tensors that follow an observation's own, in the order of a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObservationLeaf:
    """One array of numbers in an observation."""

    path: Path = ()
    """Where it is."""

    shape: tuple[int, ...] = ()
    """Shape of the array."""

    categories: tuple[int, ...] = ()
    """Per component, how many values there are, read as one-hot vectors; empty for numbers."""

    start: tuple[int, ...] = ()
    """Per component, the first of its values; empty for numbers."""

    low: tuple[float, ...] = ()
    """Lower bounds of small whole numbers, which are scaled to [0, 1]; empty for others."""

    high: tuple[float, ...] = ()
    """Upper bounds likewise: one for each component, or one for all."""

    dtype: str = "float64"
    """Numpy's name of the type that the environment declares."""

    @property
    def name(self) -> str:
        """Name of the leaf's tensor, such as `goal.0`; `observation` where it is all there is."""
        name = path_name(self.path) or "observation"
        return f"observation.{name}" if name in (MASK, STATE) else name  # which are ours

    @property
    def size(self) -> int:
        """Numbers in the array."""
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        """Whether it is an image: bytes with height, width and channels, in either order."""
        return len(self.shape) == 3 and self.dtype == "uint8" and bool(self.low)

    @property
    def tensor_dtype(self) -> np.dtype[Any]:
        """Type of its tensors where models are served: float32, uint8, or int64 for the rest."""
        own = np.dtype(self.dtype)
        if self.categories or (own.kind in "biu" and self.low and own != np.uint8):
            return np.dtype(np.int64)
        return own if own == np.uint8 else np.dtype(np.float32)

    @property
    def encoded_size(self) -> int:
        """Numbers that the networks read of it."""
        return sum(self.categories) if self.categories else self.size

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `from_dict`; what is empty is left out."""
        lists = ("categories", "start", "low", "high")
        named = {name: list(getattr(self, name)) for name in lists if getattr(self, name)}
        return {
            "path": list(self.path), "shape": list(self.shape), "dtype": self.dtype, **named
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ObservationLeaf":
        """Inverse of `to_dict`."""
        return cls(
            path=path_from_json(values["path"]),
            shape=tuple(map(int, values["shape"])),
            dtype=str(values["dtype"]),
            categories=tuple(map(int, values.get("categories", ()))),
            start=tuple(map(int, values.get("start", ()))),
            low=tuple(map(float, values.get("low", ()))),
            high=tuple(map(float, values.get("high", ()))),
        )


@dataclass(frozen=True, slots=True)
class ObservationSpec:
    """What a policy observes: one array, or a tree of them."""

    leaves: tuple[ObservationLeaf, ...]
    """In the order of a row."""

    n_mask: int = 0
    """Numbers at the end of a row that say which actions there are: 1 for each that may be taken,
    choice after choice; 0 where all always may."""

    n_state: int = 0
    """Numbers before those that say what the policy remembers of the episode, from -1 to 1: 0 at
    its start; none where it has no memory."""

    @property
    def is_tree(self) -> bool:
        """Whether observations are Dicts or Tuples."""
        return bool(self.leaves[0].path)

    @property
    def is_plain(self) -> bool:
        """Whether a row is all numbers that are standardised, so that the shape says everything."""
        leaf = self.leaves[0]
        return not (self.is_tree or leaf.categories or leaf.low or self.n_mask or self.n_state)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation between environment and policy: most are one row."""
        return self.leaves[0].shape if self.is_array else (self.size,)

    @property
    def is_array(self) -> bool:
        """Whether the observation's one array is all there is."""
        return not (self.is_tree or self.n_mask or self.n_state)

    @property
    def observed(self) -> int:
        """Numbers in a row that are observed."""
        return sum(leaf.size for leaf in self.leaves)

    @property
    def size(self) -> int:
        """Numbers in a row."""
        return self.observed + self.n_state + self.n_mask

    def columns(self) -> Iterator[tuple[ObservationLeaf, slice]]:
        """Each leaf, and where its numbers are in a row."""
        first = 0
        for leaf in self.leaves:
            yield leaf, slice(first, first + leaf.size)
            first += leaf.size

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors where a model takes several; empty where it takes one."""
        if self.is_array:
            return ()
        return (*(leaf.name for leaf in self.leaves), *self.added)

    @property
    def added(self) -> dict[str, int]:
        """What stands in a row after what is observed: its name, and how many numbers it has."""
        counts = {STATE: self.n_state, MASK: self.n_mask}
        return {name: n for name, n in counts.items() if n}

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """Shape of what the networks read of one observation."""
        if self.is_tree or self.leaves[0].categories:
            return (sum(leaf.encoded_size for leaf in self.leaves),)
        return self.leaves[0].shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type that rows are kept in: the environment's floats or bytes, else float64."""
        own = np.dtype(self.leaves[0].dtype)
        keeps = not self.is_tree and (own.kind == "f" or self.leaves[0].is_image)
        keeps = keeps and (not self.n_state or own.kind == "f")
        return own if keeps else np.dtype(np.float64)

    def row(
        self,
        observation: object,
        mask: object = None,
        *,
        strict: bool = False,
    ) -> npt.NDArray[Any]:
        """One observation, as the environment or a client gives it, in `shape`.

        Args:
            observation: an array, or dicts and sequences of arrays.
            mask: which actions may be taken, where rows tell it; None for all.
            strict: refuse what the space does not name, too.

        Raises:
            ObservationError: another structure or shape, or no such category.
        """
        if strict:
            _refuse_others(observation, [leaf.path for leaf in self.leaves])
        if self.is_array:
            return _checked(self.leaves[0], observation, strict=strict)
        parts = [
            _checked(leaf, _at(observation, leaf), strict=strict).ravel() for leaf in self.leaves
        ]
        parts.append(np.zeros(self.n_state))
        if self.n_mask:
            parts.append(self.mask_row(mask))
        return np.concatenate(parts).astype(self.dtype)

    def mask_row(self, mask: object) -> npt.NDArray[np.float64]:
        """Which actions may be taken, as the end of a row, shape (n_mask,).

        Args:
            mask: an array of zeros and ones, or one for each choice; None for all.

        Raises:
            ObservationError: it has another length, or other numbers.
        """
        if mask is None:
            return np.ones(self.n_mask)
        try:
            parts: Sequence[object] = (mask,)
            if isinstance(mask, list | tuple) and any(np.asarray(part).ndim for part in mask):
                parts = mask
            flat = np.concatenate([np.ravel(np.asarray(part)) for part in parts])
            if flat.dtype.kind not in "biuf":
                raise TypeError("no numbers")
        except (OverflowError, TypeError, ValueError) as error:
            raise ObservationError(f"{MASK} must hold zeros and ones only", (MASK,)) from error
        flat = flat.astype(np.float64)
        if len(flat) != self.n_mask or not np.isin(flat, (0.0, 1.0)).all():
            said = f"{MASK} must hold {self.n_mask} zeros and ones, not {len(flat)} numbers"
            raise ObservationError(said, (MASK,))
        return flat

    def state_rows(self, states: object, n: int) -> npt.NDArray[np.float64]:
        """What a policy remembers in each of n episodes, shape (n, n_state).

        Args:
            states: what it gave back; None at the start of an episode.
            n: how many.

        Raises:
            ObservationError: that is not what it gave.
        """
        if states is None:
            return np.zeros((n, self.n_state))
        given = np.asarray(states)
        fits = given.dtype.kind in "iuf" and given.shape == (n, self.n_state)
        if not (fits and (np.abs(given) <= 1.0).all()):
            said = f"{STATE} must hold {self.n_state} numbers from -1 to 1 for each observation"
            raise ObservationError(f"{said}, as the last answer gave them", (STATE,))
        return given.astype(np.float64)

    def masks(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which actions may be taken in each of N rows, shape (N, n_mask)."""
        allowed: npt.NDArray[np.bool_] = rows[:, self.size - self.n_mask :] > 0
        return allowed

    def unmasked(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Rows without what is not observed, in the shape of the space."""
        if not (self.n_mask or self.n_state):
            return rows
        own = rows[:, : self.observed]
        return own if self.is_tree else own.reshape(-1, *self.leaves[0].shape)

    def states(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What the policy remembers in each of N rows, shape (N, n_state): a view."""
        return rows[:, self.observed : self.observed + self.n_state]

    def with_states(
        self, rows: npt.NDArray[Any], states: npt.NDArray[np.floating[Any]]
    ) -> npt.NDArray[Any]:
        """Rows, shape (N, size), of N of an environment and of what the policy remembers.

        Args:
            rows: shape (N, *shape of the environment's observations).
            states: shape (N, n_state).
        """
        flat = rows.reshape(len(rows), -1)
        return np.concatenate([flat[:, : self.observed], states, flat[:, self.observed :]], axis=1)

    def rows(
        self,
        observations: object,
        masks: Iterable[object] | None = None,
    ) -> tuple[npt.NDArray[Any], bool]:
        """One observation or a batch of them, as rows: (N, *shape), and whether it was one.

        Args:
            observations: as `row`, or with a first dimension more in every leaf.
            masks: as `row`, or one for each observation.

        Raises:
            ObservationError: as `row`.
        """
        first = self.leaves[0]
        shape = np.asarray(_at(observations, first)).shape
        if shape == first.shape or shape[1:] != first.shape:
            return self.row(observations, masks)[None], True
        if self.is_array:
            return _checked(first, observations, batch=True), False
        parts = [_checked(leaf, _at(observations, leaf), batch=True) for leaf in self.leaves]
        for leaf, part in zip(self.leaves, parts, strict=True):
            if len(part) != shape[0]:
                said = f"{leaf.name} holds {len(part)} observations, not {shape[0]}"
                raise ObservationError(said, leaf.path)
        parts.append(np.zeros((shape[0], self.n_state)))
        if self.n_mask:
            given = [None] * shape[0] if masks is None else list(masks)
            if len(given) != shape[0]:
                said = f"{MASK} holds {len(given)} masks, not {shape[0]}"
                raise ObservationError(said, (MASK,))
            parts.append(np.array([self.mask_row(mask) for mask in given]))
        flat = [part.reshape(shape[0], -1) for part in parts]
        return np.concatenate(flat, axis=1, dtype=np.float64), False

    def check(self, rows: npt.NDArray[Any]) -> None:
        """Refuse rows, shape (N, size), with numbers that are no category, or out of bounds.

        Raises:
            ObservationError: there is one.
        """
        for leaf, own in self.columns():
            if leaf.categories or leaf.low:
                _checked(
                    leaf, rows[:, own].reshape(len(rows), *leaf.shape), batch=True, strict=True
                )

    def from_tensors(self, tensors: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Rows, shape (N, size), of one array for each leaf, by name: (N, *its shape).

        Raises:
            ObservationError: other names, shapes or lengths, or no such category.
        """
        names = self.names or (self.leaves[0].name,)
        if {*tensors} | {*self.added} != {*names}:
            said = f"the tensors are {', '.join(names)}, not {', '.join(tensors)}"
            raise ObservationError(said)
        parts = [
            _checked(leaf, tensors[leaf.name], batch=True, strict=True) for leaf in self.leaves
        ]
        if self.n_state:
            parts.append(self.state_rows(tensors.get(STATE), len(parts[0])))
        if self.n_mask:
            given = tensors.get(MASK, [None] * len(parts[0]))
            masks = np.array([self.mask_row(mask) for mask in given])
            parts.append(masks.reshape(-1, self.n_mask))
        if len({len(part) for part in parts}) > 1:
            raise ObservationError("the tensors hold different numbers of observations")
        return np.concatenate([p.reshape(len(p), math.prod(p.shape[1:])) for p in parts], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `from_dict`."""
        counts = {"n_mask": self.n_mask, "n_state": self.n_state}
        added = {name: n for name, n in counts.items() if n}
        return {"leaves": [leaf.to_dict() for leaf in self.leaves], **added}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ObservationSpec":
        """Inverse of `to_dict`."""
        leaves = tuple(map(ObservationLeaf.from_dict, values["leaves"]))
        return cls(leaves, int(values.get("n_mask", 0)), int(values.get("n_state", 0)))


def _checked(
    leaf: ObservationLeaf,
    value: object,
    *,
    batch: bool = False,
    strict: bool = False,
) -> npt.NDArray[Any]:
    """A leaf's value as an array, or N of them, if they are that.

    What is `strict` also keeps to the bounds of small whole numbers.
    """
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):  # nested unevenly
        array = np.array(None)
    shape = array.shape[1:] if batch else array.shape
    what = f"{leaf.name} of an observation" if leaf.path else "an observation"
    if array.dtype.kind not in "biuf":
        raise ObservationError(f"{what} must hold numbers only, nested evenly", leaf.path)
    if shape != leaf.shape:
        said = f"{what} has shape {shape}, not {leaf.shape} as its space says"
        raise ObservationError(said, leaf.path)
    if leaf.is_image and array.dtype != np.uint8:
        with np.errstate(invalid="ignore"):
            pixels = array.astype(np.uint8)
        if not np.array_equal(pixels, array):
            raise ObservationError(f"{what} must hold whole numbers from 0 to 255", leaf.path)
        return pixels
    if strict and leaf.low:
        low, high = (
            np.broadcast_to(bound, leaf.size).reshape(leaf.shape) for bound in (leaf.low, leaf.high)
        )
        if not ((array >= low) & (array <= high)).all():
            said = f"{what} must lie within the bounds of its space"
            raise ObservationError(f"{said}, {min(leaf.low):g} to {max(leaf.high):g}", leaf.path)
    elif strict and array.dtype.kind == "b":
        raise ObservationError(f"{what} must hold numbers only, nested evenly", leaf.path)
    if leaf.categories:
        numbers, first = array.reshape(-1, leaf.size), np.array(leaf.start)
        last = first + leaf.categories - 1
        unknown = (numbers < first) | (numbers > last) | (numbers != np.floor(numbers))
        if unknown.any():
            row, i = np.argwhere(unknown)[0]
            raise ObservationError(
                f"{leaf.name} is {numbers[row, i]}, but its space has the whole numbers from "
                f"{first[i]} to {last[i]}",
                leaf.path,
            )
    return array


def _at(observation: object, leaf: ObservationLeaf) -> object:
    """What a tree has at a leaf's path."""
    found: Any = observation
    for depth, key in enumerate(leaf.path):
        try:
            found = found[key]
        except (KeyError, IndexError, TypeError):
            missing = leaf.path[: depth + 1]
            said = f"an observation has no {path_name(missing)}"
            raise ObservationError(said, missing) from None
    return found


def _refuse_others(observation: object, leaves: Sequence[Path], at: Path = ()) -> None:
    """Refuse a tree that has another structure than one with leaves at these paths.

    Args:
        observation: the tree, of dicts and lists.
        leaves: paths from here.
        at: where here is.
    """
    if not leaves[0]:
        return
    below: dict[str | int, list[Path]] = {}
    for first, *rest in leaves:
        below.setdefault(first, []).append(tuple(rest))
    here = path_name(at) or "an observation"
    if isinstance(leaves[0][0], int):
        if not isinstance(observation, list | tuple) or len(observation) != len(below):
            raise ObservationError(f"{here} must be a list of {len(below)} parts", at)
        parts: dict[Any, Any] = dict(enumerate(observation))
    else:
        if not isinstance(observation, Mapping) or observation.keys() != below.keys():
            keys = ", ".join(map(str, below))
            raise ObservationError(f"{here} must be an object with the keys {keys}", at)
        parts = dict(observation)
    for key, paths in below.items():
        _refuse_others(parts[key], paths, (*at, key))


def path_name(path: Path) -> str:
    """Such as `goal.0`."""
    return ".".join(map(str, path))


def path_from_json(values: Sequence[object]) -> Path:
    """A path from a JSON list."""
    return tuple(key if isinstance(key, int) else str(key) for key in values)
