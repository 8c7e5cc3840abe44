"""A model in memory: checks observations and predicts."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import accumulate, chain
from typing import Any, Final, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image

from grpo.actions import DictActions, DiscreteActions, MultiDiscreteActions, choices
from grpo.observations import ADDED, MASK, STATE, ObservationError, ObservationLeaf, Path
from grpo.policies import PolicySpec
from grpo_platform.core.errors import InvalidObservationError, InvalidRequestError
from grpo_platform.registry.integrity import PolicyFiles
from grpo_platform.registry.loader import Single
from grpo_platform.registry.policy_files import predictor_from_files
from grpo_platform.registry.records import ModelVersionRef

__all__ = ["LoadedModel", "Observations"]

_INPUT: Final = "observation"
_DATA_URL: Final = "data:image/png;base64,"
_NUMBERS: Final = frozenset({int, float})

Arrays = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]
Observations = Arrays | Sequence[Any]
"""What `LoadedModel.predict_batch` takes."""


class LoadedModel:
    """One version, loaded by this installation's own loader; immutable.

    Args:
        ref: which version.
        files: its verified files.

    Raises:
        UnsafeModelError: they hold no policy.
    """

    __slots__ = (
        "_action",
        "_adds",
        "_ends",
        "_images",
        "_is_bounded",
        "_is_composite",
        "_predictor",
        "_reads",
        "_size",
        "name",
        "observation_shape",
        "ref",
        "version",
    )  # fmt: skip

    def __init__(self, ref: ModelVersionRef, files: PolicyFiles) -> None:
        self._predictor = predictor_from_files(files, ref.label)
        spec = PolicySpec.from_dict(json.loads(files.spec))
        self._reads, self._action = spec.reads, spec.action
        self._is_bounded = any(leaf.categories or leaf.low for leaf in self._reads.leaves)
        self._images = [leaf for leaf in self._reads.leaves if leaf.is_image]
        self._is_composite = isinstance(self._action, MultiDiscreteActions | DictActions)
        self._ends = [*accumulate(choices(self._action))]
        self.ref = ref
        self.name = ref.name
        self.version = ref.version
        self.observation_shape = self._predictor.observation_shape
        self._size = self._reads.observed
        self._adds = bool(self._reads.added)

    @property
    def inputs(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """The tensors that it takes, by name: their type, and the shape of one observation's."""
        found = {leaf.name: (leaf.tensor_dtype, leaf.shape) for leaf in self._reads.leaves}
        added = self._reads.added.items()
        return found | {name: (np.dtype(ADDED[name]), (n,)) for name, n in added}

    @property
    def mark(self) -> str:
        """What tells it from another model that had its name and version before."""
        return self.ref.model_id[-8:]

    @property
    def has_memory(self) -> bool:
        """Whether its answers depend on the episode so far."""
        return self._reads.n_state > 0

    @property
    def example(self) -> npt.NDArray[Any]:
        """Numbers of some observation, in its shape."""
        firsts = [leaf.start or (0.0,) * leaf.size for leaf in self._reads.leaves]
        return np.array([*chain(*firsts)])

    @property
    def feature_names(self) -> list[str]:
        """Of each number of an observation: the leaf's path and its place there, in C order."""
        found = []
        for leaf in self._reads.leaves:
            prefix = "".join(f"{part}." for part in leaf.path)
            found += [f"{prefix}{i}" for i in range(leaf.size)]
        return found

    @property
    def choices(self) -> range | None:
        """The actions there are; None where an action is no single choice."""
        action = self._action
        if not isinstance(action, DiscreteActions):
            return None
        return range(action.start, action.start + action.n)

    def rows(self, observations: Observations) -> npt.NDArray[Any]:
        """Observations as `predict_batch` takes them, as checked rows, shape (N, size)."""
        return self._rows(observations)

    @property
    def discrete(self) -> bool:
        """Whether actions are integers."""
        return isinstance(self._action, DiscreteActions)

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one action; empty for integers."""
        return self._predictor.action_shape

    def predict_one(
        self,
        observation: object,
        deterministic: bool = True,
        action_mask: object = None,
        state: npt.NDArray[np.float32] | None = None,
    ) -> Single:
        """Action for one observation, as JSON: nested as its space is, or a flat list of numbers.

        Args:
            observation: what the environment shows.
            deterministic: the likeliest action, else a sample.
            action_mask: which actions may be taken; None for all.
            state: what a model with memory gave for the observation before, shape (n_state,); None
                at the start of an episode.

        Raises:
            InvalidObservationError: it does not fit, or holds NaN or infinity.
        """
        if not self._is_flat(observation):
            numbers: list[float] = self._row(observation, "observation").tolist()
        else:
            numbers = observation
            if self._is_bounded:
                self._check(np.array([numbers]), "observation")
        # the sum is finite unless a number is not, or the numbers are absurdly large
        try:
            finite = math.isfinite(sum(numbers)) or all(map(math.isfinite, numbers))
        except OverflowError:  # an integer that no float holds
            finite = False
        if not finite:
            raise self._wrong("NaN or infinity", "observation")
        if self._adds or action_mask is not None or state is not None:
            masks = None if action_mask is None else [action_mask]
            before = None if state is None else state[None]
            (added,) = self._added(1, masks, before, ("state", "action_mask"))
            numbers = [*numbers, *added]
        answer = self._predictor.predict_one(numbers, deterministic)
        if not self._is_composite:
            return answer
        told = None if answer.action_probs is None else np.array([answer.action_probs])
        (action,), probabilities = self.as_json(np.array([answer.action]), told)
        return answer._replace(action=action, action_probs=probabilities and probabilities[0])

    def predict_batch(
        self,
        observations: Observations,
        deterministic: bool = True,
        action_masks: Sequence[Any] | None = None,
        states: npt.NDArray[np.float32] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Actions for N observations.

        Args:
            observations: a list of what `predict_one` takes; or their rows, each flat in C order or
                in its own shape; or an array for each leaf, by its name.
            deterministic: the likeliest actions, else samples.
            action_masks: for each, which actions may be taken; None for all.
            states: as for `predict_one`, shape (N, n_state).

        Returns:
            `action` (N, …), `value` (N,), and `action_probs` (N, n), or `mean` and `std` (N, …);
            `next_policy_state` (N, n_state) of a model with memory.

        Raises:
            InvalidObservationError: one does not fit, or holds NaN or infinity.
        """
        rows, names = self._rows(observations), ("states", "action_masks.{}")
        if isinstance(observations, Mapping):
            action_masks = list(observations[MASK]) if MASK in observations else None
            states = observations.get(STATE)
            names = (f"inputs.{STATE}", f"inputs.{MASK}")
        if self._adds or action_masks is not None or states is not None:
            added = self._added(len(rows), action_masks, states, names)
            rows = np.concatenate([rows, added], axis=1)
        if not np.isfinite(rows).all():
            raise self._wrong("NaN or infinity", "observations")
        batch = rows.reshape(len(rows), *self.observation_shape)
        return self._predictor.predict_batch(batch, deterministic)

    def observations(self, tensors: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Tensors by name as `predict_batch` takes them; one of all numbers is `observation`.

        Raises:
            InvalidRequestError: there is no such input.
        """
        if set(tensors) == {_INPUT} and _INPUT not in self._reads.names[: len(self._reads.leaves)]:
            return tensors[_INPUT]
        if self._reads.names:
            return tensors
        name = next(name for name in tensors if name != _INPUT)
        raise InvalidRequestError(
            f"The one input is {_INPUT!r}, not {name[:100]!r}.",
            field=f"inputs.{list(tensors).index(name)}.name",
        )

    def as_json(
        self, actions: npt.NDArray[Any], probabilities: npt.NDArray[Any] | None
    ) -> tuple[Any, Any]:
        """Actions nested as their space is, and probabilities with a list for each choice.

        Args:
            actions: shape (N, …).
            probabilities: shape (N, n), those of several choices one after the other, or None.
        """
        if not self._is_composite:
            return actions, probabilities
        if isinstance(self._action, DictActions):
            nested = [self._action.to_json(action) for action in actions]
        else:
            nested = actions.tolist()
        if probabilities is None:
            return nested, None
        apart = zip(*np.split(probabilities, self._ends[:-1], axis=1), strict=True)
        return nested, [[choice.tolist() for choice in row] for row in apart]

    def _is_flat(self, observation: object) -> TypeGuard[list[float]]:
        return _all_numbers(observation) and len(observation) == self._size

    def _rows(self, observations: Observations) -> npt.NDArray[Any]:
        """Checked rows, shape (N, size)."""
        if isinstance(observations, Mapping):
            try:
                tensors = {k: part for k, part in observations.items() if k not in ADDED}
                return self._reads.from_tensors(tensors)[:, : self._size]
            except ObservationError as error:
                raise self._not_of_space(error, "inputs") from error
        if isinstance(observations, np.ndarray):
            shape, own = observations.shape[1:], self._reads.leaves[0].shape
            if shape != (self._size,) and (self._reads.is_tree or shape != own):
                raise self._wrong(f"shape {shape}", "observations")
            rows = observations.reshape(len(observations), self._size)
        elif all(map(self._is_flat, observations)):
            n = len(observations)
            numbers = chain.from_iterable(observations)
            try:
                rows = np.fromiter(numbers, np.float64, n * self._size).reshape(n, self._size)
            except OverflowError:
                raise self._wrong("NaN or infinity", "observations") from None
        else:
            found = [self._row(o, f"observations.{i}") for i, o in enumerate(observations)]
            return np.stack(found)
        if self._is_bounded:
            self._check(rows, "observations")
        return rows

    def _row(self, observation: object, field: str) -> npt.NDArray[Any]:
        """A row, shape (size,), of an observation as JSON has it."""
        try:
            if self._is_flat(observation):
                row = np.array(observation, np.float64)
                self._reads.check(row[None])
                return row
            if not self._reads.is_tree and _all_numbers(observation):
                raise self._wrong(f"{len(observation)} numbers", field)
            for leaf in self._images:
                observation = _decoded(observation, leaf, leaf.path)
            row = self._reads.row(observation, strict=True).ravel()
            return row[: self._size]
        except ObservationError as error:
            raise self._not_of_space(error, field) from error
        except OverflowError:  # an integer that no float holds
            raise self._wrong("NaN or infinity", field) from None

    def _added(
        self,
        n: int,
        masks: Sequence[object] | None,
        states: npt.NDArray[Any] | None,
        names: tuple[str, str],
    ) -> npt.NDArray[np.float64]:
        """The ends of n rows: what is remembered before them, and which actions may be taken.

        `names` are the fields of both, the second with `{}` for the number of an observation.
        """
        field, mask_field = names
        if states is not None and not self.has_memory:
            raise InvalidObservationError(
                f"{self.name} has no memory; leave {field} out.", field=field
            )
        try:
            remembered = self._reads.state_rows(states, n)
        except ObservationError as error:
            raise InvalidObservationError(f"{self.name}: {error}.", field=field) from error
        if masks is None and not self._reads.n_mask:
            return remembered
        given = [None] * n if masks is None else masks
        if len(given) != n:
            raise InvalidObservationError(
                f"There are {n} observations and {len(given)} masks.", field="action_masks"
            )
        allowed = [self._mask(mask, mask_field.format(i)) for i, mask in enumerate(given)]
        return np.concatenate([remembered, np.reshape(allowed, (n, self._reads.n_mask))], axis=1)

    def _mask(self, mask: object, field: str) -> npt.NDArray[np.float64]:
        """The end of a row, from JSON."""
        if not self._reads.n_mask:
            raise InvalidObservationError(
                f"{self.name} was trained without masks; leave action_mask out.", field=field
            )
        try:
            row = self._reads.mask_row(mask)
        except ObservationError as error:
            raise InvalidObservationError(f"{self.name}: {error}.", field=field) from error
        if not all(allowed.any() for allowed in np.split(row, self._ends[:-1])):
            raise InvalidObservationError(
                f"{self.name}: {MASK} forbids every action of a choice.", field=field
            )
        return row

    def _check(self, rows: npt.NDArray[Any], field: str) -> None:
        try:
            self._reads.check(rows)
        except ObservationError as error:
            raise self._not_of_space(error, field) from error

    def _not_of_space(self, error: ObservationError, field: str) -> InvalidObservationError:
        where = f"{field}.{error.leaf}" if error.leaf else field
        if self._reads.is_tree:
            return InvalidObservationError(f"{self.name}: {error}.", field=where)
        shape = "×".join(map(str, self._reads.leaves[0].shape)) or "one number"
        said = f"{self.name} takes observations of shape {shape}: {error}."
        return InvalidObservationError(said, field=where)

    def _wrong(self, what: str, field: str) -> InvalidObservationError:
        own = (self._size,) if self._reads.is_tree else self._reads.leaves[0].shape
        shape = "×".join(map(str, own)) or "one number"
        return InvalidObservationError(
            f"{self.name} takes observations of {self._size} finite numbers (shape {shape}), "
            f"not {what}.",
            field=field,
        )


def _all_numbers(observation: object) -> TypeGuard[list[float]]:
    return type(observation) is list and _NUMBERS.issuperset(map(type, observation))


def _decoded(observation: object, leaf: ObservationLeaf, below: Path) -> object:
    """An observation whose image at a path, if it is a text, is the array that it stands for.

    Raises:
        ObservationError: the text is no PNG of that size in base64.
    """
    if not below:
        return _pixels(observation, leaf) if isinstance(observation, str) else observation
    first, *rest = below
    if isinstance(observation, dict) and first in observation:
        return {**observation, first: _decoded(observation[first], leaf, tuple(rest))}
    if isinstance(observation, list) and isinstance(first, int) and first < len(observation):
        part = _decoded(observation[first], leaf, tuple(rest))
        return [*observation[:first], part, *observation[first + 1 :]]
    return observation


def _pixels(text: str, leaf: ObservationLeaf) -> npt.NDArray[np.uint8]:
    last = leaf.shape[0] > leaf.shape[2]
    height, width, channels = leaf.shape if last else (*leaf.shape[1:], leaf.shape[0])
    said = f"{leaf.name} is no PNG of {width} x {height} pixels in base64"
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(channels)
    if mode is None:
        raise ObservationError(f"{said}: with {channels} channels, send an array", leaf.path)
    try:
        content = base64.b64decode(text.removeprefix(_DATA_URL), validate=True)
        with Image.open(BytesIO(content), formats=("PNG",)) as image:
            if image.size != (width, height):  # before anything is unpacked
                raise ValueError(f"it has {image.width} x {image.height}")
            pixels = np.asarray(image.convert(mode)).reshape(height, width, channels)
    except Exception as error:  # a damaged one raises anything
        raise ObservationError(said, leaf.path) from error
    return pixels if last else np.ascontiguousarray(pixels.transpose(2, 0, 1))
