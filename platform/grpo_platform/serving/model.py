"""A model in memory: checks observations and predicts."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo_platform.core.errors import InvalidObservationError
from grpo_platform.registry.integrity import PolicyFiles
from grpo_platform.registry.loader import Single
from grpo_platform.registry.policy_files import predictor_from_files
from grpo_platform.registry.records import ModelVersionRef

__all__ = ["LoadedModel"]


class LoadedModel:
    """One version, loaded by this installation's own loader; immutable.

    Args:
        ref: which version.
        files: its verified files.

    Raises:
        UnsafeModelError: they hold no policy.
    """

    __slots__ = ("_predictor", "_size", "name", "observation_shape", "ref", "version")

    def __init__(self, ref: ModelVersionRef, files: PolicyFiles) -> None:
        self._predictor = predictor_from_files(files, ref.label)
        self.ref = ref
        self.name = ref.name
        self.version = ref.version
        self.observation_shape = self._predictor.observation_shape
        self._size = math.prod(self.observation_shape)

    @property
    def discrete(self) -> bool:
        """Whether actions are integers."""
        discrete: bool = self._predictor.discrete
        return discrete

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one action; empty for integers."""
        return self._predictor.action_shape

    def predict_one(self, observation: list[float], deterministic: bool = True) -> Single:
        """Action for one observation, flattened in C order.

        Raises:
            InvalidObservationError: it has the wrong length, or holds NaN or infinity.
        """
        if len(observation) != self._size:
            raise self._wrong(f"{len(observation)} numbers", "observation")
        # the sum is finite unless a number is not, or the numbers are absurdly large
        if not math.isfinite(sum(observation)) and not all(map(math.isfinite, observation)):
            raise self._wrong("NaN or infinity", "observation")
        return self._predictor.predict_one(observation, deterministic)

    def predict_batch(
        self,
        observations: npt.NDArray[Any] | Sequence[Sequence[float]],
        deterministic: bool = True,
    ) -> dict[str, npt.NDArray[Any]]:
        """Actions for N observations, each flattened in C order or in its own shape.

        Returns:
            `action` (N, …), `value` (N,), and `action_probs` (N, n), or `mean` and `std` (N, …).

        Raises:
            InvalidObservationError: one has the wrong length, or holds NaN or infinity.
        """
        if not isinstance(observations, np.ndarray):
            wrong = next((o for o in observations if len(o) != self._size), None)
            if wrong is not None:
                raise self._wrong(f"{len(wrong)} numbers", "observations")
            n = len(observations)
            numbers = chain.from_iterable(observations)
            observations = np.fromiter(numbers, np.float64, n * self._size).reshape(n, self._size)
        if observations.shape[1:] not in ((self._size,), self.observation_shape):
            raise self._wrong(f"shape {observations.shape[1:]}", "observations")
        if not np.isfinite(observations).all():
            raise self._wrong("NaN or infinity", "observations")
        batch = observations.reshape(len(observations), *self.observation_shape)
        return self._predictor.predict_batch(batch, deterministic)

    def _wrong(self, what: str, field: str) -> InvalidObservationError:
        shape = "×".join(map(str, self.observation_shape))
        return InvalidObservationError(
            f"{self.name} takes observations of {self._size} finite numbers (shape {shape}), "
            f"not {what}.",
            field=field,
        )
