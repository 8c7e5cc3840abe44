"""Ways to put a Gymnasium environment into a state that it, or its twin, was in before."""

import abc
import collections
import copy
import enum
import functools
import importlib
import json
import types
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from grpo.envs.families import layers_of
from grpo.envs.vec_env import Branching, Snapshot
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
Arrays = list[npt.NDArray[Any]]

_CONSTANT = (
    gym.Space,
    gym.Env,  # what a wrapper wraps: a layer of its own
    EnvSpec,
    np.dtype,
    enum.Enum,
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    functools.partial,
)
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_JSON = (type(None), bool, int, float, str)


class Owner(Protocol):
    """What a brancher asks of the `SyncVecEnv` that it works for."""

    envs: list[Environment]
    """The instances, by member."""

    def reset_one(self, member: int, seed: int) -> None:
        """Start an episode."""

    def step_one(self, member: int, action: npt.NDArray[Any]) -> tuple[float, bool, bool]:
        """Take a step, and count it."""

    def observation_of(self, member: int) -> npt.NDArray[Any]:
        """What the member observed last."""


class Brancher(abc.ABC):
    """Takes and restores the states of `SyncVecEnv`, and is told of each reset and step.

    Attributes:
        branching: see `grpo.envs.vec_env.Branching`.
        how: what it does, in words.
        storable: whether a snapshot outlives the process.
    """

    branching: ClassVar[Branching] = "exact"
    how: ClassVar[str]
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

    how = "its attributes are copied"

    def snapshot(self, owner: Owner, member: int) -> dict[str, Any]:
        """See `Brancher.snapshot`.

        Raises:
            IncompatibleError: an attribute is neither plain data nor known to be constant.
        """
        return _capture(owner.envs[member])

    def restore(self, owner: Owner, member: int, snapshot: Snapshot) -> None:
        """See `Brancher.restore`."""
        _reinstate(owner.envs[member], snapshot)


class MujocoState(Brancher):
    """For MuJoCo: the full integration state, beside the attributes on Python's side.

    The integration state is all that the simulation depends on; what MuJoCo derived from it in
    its last step is kept as well, since environments read that before they step (a body's old
    position, for its speed), and it lags the state by one step.
    """

    how = "the simulation's whole state is copied"
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
        attributes = _capture(env, ignore=self._ENGINE)
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
        _reinstate(env, snapshot, ignore=self._ENGINE)


class DeepCopy(Brancher):
    """For environments whose deep copy goes on as they do. Such a copy cannot be stored."""

    how = "instances are copied, in memory only"
    storable = False

    def snapshot(self, owner: Owner, member: int) -> dict[str, Any]:
        """See `Brancher.snapshot`."""
        return {"env": copy.deepcopy(owner.envs[member])}

    def restore(self, owner: Owner, member: int, snapshot: Snapshot) -> None:
        """See `Brancher.restore`."""
        owner.envs[member] = copy.deepcopy(snapshot["env"])


class Replay(Brancher):
    """For environments that only repeat themselves: the episode's seed and actions so far."""

    how = "episodes are played again, whose steps count"
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

    how = "every group starts at a seeded reset"
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


# --- state in Python attributes: one JSON text, and the arrays that it refers to ------------


def _capture(env: gym.Env[Any, Any], ignore: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Copy all attributes that are data.

    Args:
        env: with its wrappers.
        ignore: names of attributes that someone else takes care of.

    Returns:
        `attributes`, a JSON text, and the arrays `array_0`, `array_1`, ... that it refers to.

    Raises:
        IncompatibleError: an attribute may hold state, but is neither plain data nor a constant.
    """
    arrays: Arrays = []
    layers = [
        {name: _encode(name, value, arrays) for name, value in _attributes(layer, ignore)}
        for layer in layers_of(env)
    ]
    return {
        "attributes": json.dumps(layers),
        **{f"array_{i}": array for i, array in enumerate(arrays)},
    }


def _reinstate(
    env: gym.Env[Any, Any], state: Mapping[str, Any], ignore: frozenset[str] = frozenset()
) -> None:
    """Give an environment the attributes that `_capture` took, of it or of its twin.

    Args:
        env: with the same wrappers.
        state: what `_capture` returned.
        ignore: as in `_capture`.
    """
    for layer, saved in zip(layers_of(env), json.loads(state["attributes"]), strict=True):
        attributes = vars(layer)
        for name, value in list(_attributes(layer, ignore)):
            if name not in saved:
                del attributes[name]
            elif isinstance(value, np.random.Generator) and _is_generator(saved[name]):
                # Set, not replaced: the environment may have handed it on.
                value.bit_generator.state = _decode(saved.pop(name)["generator"], state)
        attributes.update({name: _decode(code, state) for name, code in saved.items()})


def _attributes(layer: gym.Env[Any, Any], ignore: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for name, value in vars(layer).items():
        if name not in ignore and not isinstance(value, _CONSTANT):
            yield name, value


def _encode(name: str, value: object, arrays: Arrays) -> object:
    kind = type(value)
    if kind in _JSON:
        return value
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        arrays.append(np.array(value))
        return {"array" if isinstance(value, np.ndarray) else "scalar": f"array_{len(arrays) - 1}"}
    if isinstance(value, np.random.Generator):
        return {"generator": _encode(name, dict(value.bit_generator.state), arrays)}
    if isinstance(value, list | tuple) and kind in (list, tuple):
        return {kind.__name__: [_encode(name, item, arrays) for item in value]}
    if isinstance(value, collections.deque) and kind is collections.deque:  # a stack of frames
        items = [_encode(name, item, arrays) for item in value]
        return {"deque": [items, value.maxlen]}
    if isinstance(value, dict) and kind is dict:
        return {"dict": [[_encode(name, part, arrays) for part in pair] for pair in value.items()]}
    raise IncompatibleError(
        f"The attribute {name!r} is a {kind.__name__}, which may hold state that cannot be stored."
    )


def _decode(code: Any, state: Mapping[str, Any]) -> Any:  # noqa: ANN401
    if not isinstance(code, dict):
        return code
    ((kind, content),) = code.items()
    if kind == "array":
        return state[content].copy()
    if kind == "scalar":
        return state[content][()]
    if kind == "generator":
        return _generator(_decode(content, state))
    if kind == "dict":
        return {_decode(k, state): _decode(v, state) for k, v in content}
    if kind == "deque":
        items, longest = content
        return collections.deque((_decode(item, state) for item in items), longest)
    parts = [_decode(part, state) for part in content]
    return tuple(parts) if kind == "tuple" else parts


def _is_generator(code: object) -> bool:
    return isinstance(code, dict) and "generator" in code


def _generator(bits: Mapping[str, Any]) -> np.random.Generator:
    kind = bits["bit_generator"]
    if kind not in _BIT_GENERATORS:  # a snapshot may be anybody's
        raise ValueError(f"{kind!r} is no generator of random bits")
    generator = np.random.Generator(getattr(np.random, kind)())
    generator.bit_generator.state = bits
    return generator
