"""The one interface between training and environments: members stepped together and branched.

Classic control in one array, and instances of any Gymnasium environment, fit it; whoever trains or
evaluates asks `VecEnv` and never what kind of environment is behind it.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from grpo.envs.spec import EnvironmentSpec

__all__ = ["Branching", "Snapshot", "StepResult", "VecEnv"]

Branching = Literal["exact", "replay", "none"]
"""How a member is put into a visited state: its state is set (`exact`, costs no steps), its
episode is played again from the seed (`replay`, costs the steps so far), or not at all."""

Snapshot = Mapping[str, Any]
"""A visited state: numpy arrays and JSON scalars by name, so that it can be stored without
pickle, unless `VecEnv.storable_snapshots` is False."""

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.floating[Any]]


class StepResult(NamedTuple):
    """What one step of `n` members gave, in the order of the members asked for."""

    observations: FloatArray
    """Shape (n, *observation_shape), as the environment gives them."""

    rewards: npt.NDArray[np.float64]
    """Shape (n,): the environment's own rewards."""

    terminated: npt.NDArray[np.bool_]
    """Shape (n,): the episode ended in a state that has no future."""

    truncated: npt.NDArray[np.bool_]
    """Shape (n,): the episode was cut, by a time limit; may be true beside `terminated`, which
    then is what counts."""


class VecEnv(abc.ABC):
    """`num_members` environments of one kind, addressed by index.

    Nothing resets by itself: a member whose episode ended must be reset or restored before it is
    stepped again.

    Attributes:
        spec: the environment.
        num_members: how many there are.
        branching: how a visited state is reached again.
        branching_reason: a sentence that says why so.
        storable_snapshots: whether a snapshot outlives this process; without it a run that is
            resumed from a checkpoint starts with fresh resets and is not bit-identical.
        steps_taken: calls of one environment's `step` so far, replays included.
    """

    spec: EnvironmentSpec
    num_members: int
    branching: Branching
    branching_reason: str
    storable_snapshots: bool
    steps_taken: int

    @abc.abstractmethod
    def reset(self, members: IntArray, seeds: Sequence[int] | IntArray) -> FloatArray:
        """Start an episode of each member, with a seed each.

        Returns:
            Observations, shape (len(members), *observation_shape).

        Raises:
            EnvironmentFaultError: an environment raised.
        """

    @abc.abstractmethod
    def step(self, members: IntArray, actions: npt.NDArray[Any]) -> StepResult:
        """Step each of the members once.

        Args:
            members: distinct indices, shape (n,).
            actions: as the environment takes them, and `BasePolicy.act` gives them: shape (n,) or
                (n, *action_shape); they are cast to the space's type.

        Raises:
            EnvironmentFaultError: an environment raised, or gave what is no number or not finite.
        """

    @abc.abstractmethod
    def snapshot(self, member: int) -> Snapshot:
        """The state that a member is in; later steps do not change it.

        Raises:
            IncompatibleError: these environments cannot be branched.
        """

    @abc.abstractmethod
    def restore(self, members: IntArray, snapshot: Snapshot) -> FloatArray:
        """Put members into a state; they go on exactly as the one it was taken from.

        Returns:
            The state's observation for each, shape (len(members), *observation_shape).

        Raises:
            EnvironmentFaultError: an environment raised while it was replayed.
            IncompatibleError: these environments cannot be branched.
        """

    def restore_cost(self, snapshot: Snapshot) -> int:
        """Steps, at most, that `restore` takes for each member."""
        del snapshot
        return 0

    @abc.abstractmethod
    def close(self) -> None:
        """Let the environments go, whatever they raise. May be called twice."""
