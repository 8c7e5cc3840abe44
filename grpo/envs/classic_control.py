"""Classic control, all members in one array: bit-equal to Gymnasium's own, many times faster.

Every subclass repeats the arithmetic of its environment operation by operation, in the same
order and precision, so that the results are equal to the last bit; `grpo.envs.factory` proves it
against the Gymnasium that is installed before it uses one.
"""

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding

from grpo.envs.spec import EnvironmentSpec
from grpo.envs.vec_env import (
    Branching,
    FloatArray,
    IntArray,
    Snapshot,
    StepResult,
    VecEnv,
)

__all__ = ["ClassicControlVecEnv", "Float64Array"]

Float64Array = npt.NDArray[np.float64]

_ONE = np.array(1.0)  # constants are arrays since ufuncs take those fastest


class ClassicControlVecEnv(VecEnv):
    """Members whose whole state is a few numbers each.

    The state is one array of shape (rows, num_members): the environment's variables, and in the
    last row the steps of the episode so far. The random generator is no part of it: these
    environments draw from it only in a reset, and every reset here is seeded.
    """

    family: ClassVar[str]
    rows: ClassVar[int]
    kwargs: ClassVar[frozenset[str]] = frozenset()
    """Keyword arguments, beside the time limit, that the subclass knows."""

    order: ClassVar[tuple[int, ...] | None] = None
    """Which of Gymnasium's variables each row holds; None where they are in the same order."""

    branching: Branching = "exact"
    branching_reason = "The state of a member is a column of one array, and is copied."
    storable_snapshots = True

    def __init__(self, spec: EnvironmentSpec, num_members: int) -> None:
        self.spec = spec
        self.num_members = num_members
        self.steps_taken = 0
        self._state = np.zeros((self.rows, num_members))
        self._everyone = np.arange(num_members).tobytes()
        limit = spec.max_episode_steps
        self._limit = np.array(math.inf if limit is None else float(limit))

    def reset(self, members: IntArray, seeds: Sequence[int] | IntArray) -> FloatArray:
        """See `VecEnv.reset`."""
        for member, seed in zip(members, seeds, strict=True):
            generator, _ = seeding.np_random(int(seed))
            self._state[:-1, member] = self._initial(generator)
            self._state[-1, member] = 0.0
        return self._observe(self._state[:, members])

    def step(self, members: IntArray, actions: npt.NDArray[Any]) -> StepResult:
        """See `VecEnv.step`."""
        everyone = members.tobytes() == self._everyone
        block = self._state if everyone else self._state.take(members, axis=1)
        observations, rewards, terminated = self._advance(block, actions)
        elapsed = block[-1]
        elapsed += _ONE
        if not everyone:
            self._state[:, members] = block
        self.steps_taken += len(members)
        return StepResult(observations, rewards, terminated, elapsed >= self._limit)

    def snapshot(self, member: int) -> Snapshot:
        """See `VecEnv.snapshot`."""
        return {"state": self._state[:, member].copy()}

    def restore(self, members: IntArray, snapshot: Snapshot) -> FloatArray:
        """See `VecEnv.restore`."""
        self._state[:, members] = snapshot["state"][:, None]
        return self._observe(self._state[:, members])

    def snapshot_of(self, variables: Sequence[float], elapsed_steps: int) -> Snapshot:
        """The state that an instance of Gymnasium's own environment is in, as these take it.

        Args:
            variables: its `state`, shape (rows - 1,).
            elapsed_steps: of the episode.
        """
        column = np.asarray(variables, np.float64)[list(self.order or range(self.rows - 1))]
        return {"state": np.append(column, float(elapsed_steps))}

    def close(self) -> None:
        """See `VecEnv.close`."""

    @abc.abstractmethod
    def _initial(self, generator: np.random.Generator) -> Float64Array:
        """State after a reset, shape (rows - 1,)."""

    @abc.abstractmethod
    def _observe(self, block: Float64Array) -> FloatArray:
        """Observations, shape (n, *observation_shape), of states of shape (rows, n)."""

    @abc.abstractmethod
    def _advance(
        self, block: Float64Array, actions: npt.NDArray[Any]
    ) -> tuple[FloatArray, Float64Array, npt.NDArray[np.bool_]]:
        """Step states of shape (rows, n) in place, all but the last row.

        Returns:
            Observations, rewards (n,) and terminated (n,).
        """
