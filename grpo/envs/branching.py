"""Ways to put a Gymnasium environment into a state that it, or its twin, was in before."""

import abc
from typing import Any, ClassVar

import gymnasium as gym
import numpy.typing as npt

from grpo.envs.members import Branching, Snapshot
from grpo.errors import IncompatibleError

__all__ = ["Brancher", "NoBranching"]


class Brancher(abc.ABC):
    """Takes and restores the states of `GymMembers`, and is told of each reset and step."""

    branching: ClassVar[Branching]
    storable: ClassVar[bool]

    def on_reset(self, member: int, seed: int) -> None:
        """A member was reset with this seed."""
        del member, seed

    def on_step(self, member: int, action: npt.NDArray[Any]) -> None:
        """A member was stepped with this action, as the environment takes it."""
        del member, action

    @abc.abstractmethod
    def snapshot(self, env: gym.Env[Any, Any], member: int) -> dict[str, Any]:
        """State of a member's environment, beside its observation."""

    @abc.abstractmethod
    def restore(self, env: gym.Env[Any, Any], member: int, snapshot: Snapshot) -> int:
        """Put a member's environment into a state.

        Returns:
            Steps that this took.
        """

    def cost(self, snapshot: Snapshot) -> int:
        """Steps, at most, that a restore takes."""
        del snapshot
        return 0


class NoBranching(Brancher):
    """For environments whose states nothing restores exactly: each group starts at a reset."""

    branching = "none"
    storable = True

    def snapshot(self, env: gym.Env[Any, Any], member: int) -> dict[str, Any]:
        """Refuse.

        Raises:
            IncompatibleError: always.
        """
        raise _refusal(env)

    def restore(self, env: gym.Env[Any, Any], member: int, snapshot: Snapshot) -> int:
        """Refuse.

        Raises:
            IncompatibleError: always.
        """
        raise _refusal(env)


def _refusal(env: gym.Env[Any, Any]) -> IncompatibleError:
    name = "this environment" if env.spec is None else env.spec.id
    return IncompatibleError(
        f"No way to put {name} into a visited state is exact; use start_states='reset'.",
        field="start_states",
    )
