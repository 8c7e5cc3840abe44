"""Ways to put a Gymnasium environment into a state that it, or its twin, was in before."""

import abc
import copy
import importlib
from typing import Any, ClassVar, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from grpo.envs.members import Branching, Snapshot
from grpo.envs.python_state import capture, reinstate
from grpo.errors import EnvironmentFaultError, IncompatibleError

__all__ = [
    "AttributeState",
    "Brancher",
    "DeepCopy",
    "MujocoState",
    "NoBranching",
    "Owner",
    "Replay",
]

Environment = gym.Env[Any, Any]


class Owner(Protocol):
    """What a brancher asks of the `GymMembers` that it works for."""

    envs: list[Environment]
    """The instances, by member."""

    def reset_one(self, member: int, seed: int) -> None:
        """Start an episode."""

    def step_one(self, member: int, action: npt.NDArray[Any]) -> tuple[float, bool, bool]:
        """Take a step, and count it."""

    def observation_of(self, member: int) -> npt.NDArray[Any]:
        """What the member observed last."""


class Brancher(abc.ABC):
    """Takes and restores the states of `GymMembers`, and is told of each reset and step.

    Attributes:
        branching: see `grpo.envs.members.Branching`.
        storable: whether a snapshot outlives the process.
    """

    branching: ClassVar[Branching] = "exact"
    storable: ClassVar[bool] = True

    def on_reset(self, member: int, seed: int) -> None:
        """A member was reset with this seed."""
        del member, seed

    def on_step(self, member: int, action: npt.NDArray[Any]) -> None:
        """A member was stepped with this action, as the environment takes it."""
        del member, action

    @abc.abstractmethod
    def snapshot(self, owner: Owner, member: int) -> dict[str, Any]:
        """State of a member's environment, beside its observation."""

    @abc.abstractmethod
    def restore(self, owner: Owner, member: int, snapshot: Snapshot) -> None:
        """Put a member's environment into a state."""

    def cost(self, snapshot: Snapshot) -> int:
        """Steps, at most, that a restore takes."""
        del snapshot
        return 0


class AttributeState(Brancher):
    """For environments that are Python objects: all attributes of all wrappers.

    Time-limit counters and random generators are attributes too. Refused, by an error at the
    first snapshot, where an attribute may hold state that cannot be stored.
    """

    def snapshot(self, owner: Owner, member: int) -> dict[str, Any]:
        """See `Brancher.snapshot`.

        Raises:
            IncompatibleError: an attribute is neither plain data nor known to be constant.
        """
        return capture(owner.envs[member])

    def restore(self, owner: Owner, member: int, snapshot: Snapshot) -> None:
        """See `Brancher.restore`."""
        reinstate(owner.envs[member], snapshot)


class MujocoState(Brancher):
    """For MuJoCo: the full integration state, beside the attributes on Python's side.

    The integration state is all that the simulation depends on; what MuJoCo derived from it in
    its last step is kept as well, since environments read that before they step (a body's old
    position, for its speed), and it lags the state by one step.
    """

    _DERIVED = (
        *("xpos", "xquat", "xmat", "xipos", "ximat", "geom_xpos", "geom_xmat", "site_xpos"),
        *("site_xmat", "subtree_com", "cinert", "cvel", "cacc", "cfrc_int", "cfrc_ext", "qacc"),
        *("qfrc_actuator", "qfrc_constraint", "actuator_force", "sensordata"),
    )
    _ENGINE = frozenset({"model", "data", "mujoco_renderer"})

    def snapshot(self, owner: Owner, member: int) -> dict[str, Any]:
        """See `Brancher.snapshot`."""
        env = owner.envs[member]
        mujoco, model, data, kind = _mujoco(env)
        state = np.empty(mujoco.mj_stateSize(model, kind))
        mujoco.mj_getState(model, data, state, kind)
        derived = [getattr(data, name).ravel() for name in self._DERIVED]
        attributes = capture(env, ignore=self._ENGINE)
        return {**attributes, "mujoco": state, "mujoco_derived": np.concatenate(derived)}

    def restore(self, owner: Owner, member: int, snapshot: Snapshot) -> None:
        """See `Brancher.restore`."""
        env = owner.envs[member]
        mujoco, model, data, kind = _mujoco(env)
        mujoco.mj_setState(model, data, snapshot["mujoco"], kind)
        start = 0
        for name in self._DERIVED:
            field = getattr(data, name)
            field[...] = snapshot["mujoco_derived"][start : start + field.size].reshape(field.shape)
            start += field.size
        reinstate(env, snapshot, ignore=self._ENGINE)


class DeepCopy(Brancher):
    """For environments whose deep copy goes on as they do. Such a copy cannot be stored."""

    storable = False

    def snapshot(self, owner: Owner, member: int) -> dict[str, Any]:
        """See `Brancher.snapshot`."""
        return {"env": copy.deepcopy(owner.envs[member])}

    def restore(self, owner: Owner, member: int, snapshot: Snapshot) -> None:
        """See `Brancher.restore`."""
        owner.envs[member] = copy.deepcopy(snapshot["env"])


class Replay(Brancher):
    """For environments that only repeat themselves: the episode's seed and actions so far."""

    branching = "replay"

    def __init__(self) -> None:
        self._seeds: dict[int, int] = {}
        self._actions: dict[int, list[npt.NDArray[Any]]] = {}

    def on_reset(self, member: int, seed: int) -> None:
        """See `Brancher.on_reset`."""
        self._seeds[member] = seed
        self._actions[member] = []

    def on_step(self, member: int, action: npt.NDArray[Any]) -> None:
        """See `Brancher.on_step`."""
        self._actions[member].append(np.array(action))

    def snapshot(self, owner: Owner, member: int) -> dict[str, Any]:
        """See `Brancher.snapshot`."""
        return {"seed": self._seeds[member], "actions": np.array(self._actions[member])}

    def restore(self, owner: Owner, member: int, snapshot: Snapshot) -> None:
        """See `Brancher.restore`.

        A member that is in that state already is replayed like the others, so that the count of
        steps does not depend on whether the run was interrupted in between.

        Raises:
            EnvironmentFaultError: the episode did not repeat itself.
        """
        owner.reset_one(member, snapshot["seed"])
        for action in snapshot["actions"]:
            owner.step_one(member, action)
        if not np.array_equal(
            owner.observation_of(member), snapshot["observation"], equal_nan=True
        ):
            env = owner.envs[member]
            name = "The environment" if env.spec is None else env.spec.id
            raise EnvironmentFaultError(
                f"{name} did not repeat an episode with the same seed and actions; use "
                f"start_states='reset'."
            )

    def cost(self, snapshot: Snapshot) -> int:
        """See `Brancher.cost`."""
        return len(snapshot["actions"])


class NoBranching(Brancher):
    """For environments whose states nothing restores exactly: each group starts at a reset."""

    branching = "none"

    def snapshot(self, owner: Owner, member: int) -> dict[str, Any]:
        """Refuse.

        Raises:
            IncompatibleError: always.
        """
        raise _refusal(owner.envs[member])

    def restore(self, owner: Owner, member: int, snapshot: Snapshot) -> None:
        """Refuse.

        Raises:
            IncompatibleError: always.
        """
        raise _refusal(owner.envs[member])


def _mujoco(env: Environment) -> tuple[Any, Any, Any, int]:
    mujoco = importlib.import_module("mujoco")
    core: Any = env.unwrapped
    return mujoco, core.model, core.data, int(mujoco.mjtState.mjSTATE_INTEGRATION)


def _refusal(env: Environment) -> IncompatibleError:
    name = "this environment" if env.spec is None else env.spec.id
    return IncompatibleError(
        f"No way to put {name} into a visited state is exact; use start_states='reset'.",
        field="start_states",
    )
