"""What an environment looks like to a policy, and the check that it can be trained at all."""

import functools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from grpo.envs.catalogue import (
    HOW_TO_ADD,
    import_environment,
    load_plug_ins,
    registered_names,
)
from grpo.envs.families import deviations_of, family_of, time_limit_of
from grpo.errors import (
    EnvironmentFaultError,
    IncompatibleError,
    OutOfRangeError,
    UnknownNameError,
    UnsupportedEnvironmentError,
    in_words,
)
from grpo.registry import Objects, handed_in
from grpo.spaces import ActionSpec, BoxActions, DiscreteActions

__all__ = ["EnvironmentSpec", "Source", "check_environment", "fault"]

_log = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.floating[Any]]

Source = EnvSpec | Callable[..., gym.Env[Any, Any]]
"""What makes instances of an environment: a registration, or a function."""

_RESERVED_KWARGS = {
    "id": "name the environment with env_name",
    "disable_env_checker": "it is always off while training",
    "render_mode": "training does not render",
    "vectorization_mode": "members are stepped together anyway",
    "xml_file": "a file on the server cannot be chosen; register an environment of your own for it",
}


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class EnvironmentSpec:
    """An environment that can be trained, as `check_environment` found it."""

    env_name: str
    """Gymnasium id."""

    env_kwargs: Mapping[str, Any]
    """Keyword arguments of `gymnasium.make`."""

    family: str
    """How it is stepped and branched, one of `grpo.envs.families.FAMILIES`."""

    deviations: tuple[str, ...] = ()
    """What sets it apart from its family as Gymnasium makes it, in words: wrappers, changed
    attributes. Only where there is nothing may anything but the environment itself step it."""

    observation_shape: tuple[int, ...]
    """Shape of one observation."""

    observation_low: FloatArray
    """Lower bounds, shape `observation_shape`; -inf where there is none."""

    observation_high: FloatArray
    """Upper bounds, shape `observation_shape`; inf where there is none."""

    action: ActionSpec
    """The actions."""

    source: "Source" = field(repr=False)
    """What makes instances: its registration, or what was handed in."""

    max_episode_steps: int | None
    """Steps after which Gymnasium's TimeLimit truncates an episode; None without a limit."""

    reward_threshold: float | None
    """Return at which Gymnasium calls the task solved; None where it does not say."""

    @property
    def observes_cartpole(self) -> bool:
        """Whether observations are CartPole's own: x, its speed, the angle θ, its speed."""
        return self.family == "cartpole"

    def make(self) -> gym.Env[Any, Any]:
        """One instance, without Gymnasium's passive checker (ours has looked already).

        Raises:
            IncompatibleError, UnsupportedEnvironmentError: as `check_environment`.
        """
        return _make(self.env_name, self.source, self.env_kwargs)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; null where a bound is infinite. Hashed: a new field is a new environment."""
        return {
            "env_name": self.env_name,
            "env_kwargs": dict(self.env_kwargs),
            "family": self.family,
            "observation": {
                "shape": list(self.observation_shape),
                "low": _finite_or_none(self.observation_low),
                "high": _finite_or_none(self.observation_high),
            },
            "action": self.action.to_dict(),
            "max_episode_steps": self.max_episode_steps,
            "reward_threshold": self.reward_threshold,
        }


def check_environment(
    env_name: str, env_kwargs: Mapping[str, Any] | None = None, objects: Objects | None = None
) -> EnvironmentSpec:
    """Make the environment once, look at its spaces and its first observation, close it again.

    The answer is kept, so asking again costs nothing.

    Args:
        env_name: Gymnasium id, or the name of what was handed in.
        env_kwargs: keyword arguments of what makes it.
        objects: an `EnvSpec` or a function that makes an environment, where one was handed in.

    Raises:
        UnknownNameError: no such environment is registered.
        IncompatibleError: `env_kwargs` that the environment does not take, or that are not ours
            to give.
        UnsupportedEnvironmentError: its spaces cannot be represented, it cannot be made on this
            machine, or its first observation is not what its space says.
    """
    kwargs = dict(env_kwargs or {})
    source = _lookup(env_name, objects or {})
    _check_kwargs(kwargs)
    try:
        key = json.dumps(kwargs, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise IncompatibleError(
            f"env_kwargs must hold JSON values: {in_words(error)}.", field="env_kwargs"
        ) from error
    return _check(_Identity(env_name, source), key)


class _Identity:
    """A source as cache key: by identity, so that registering a name anew is noticed."""

    def __init__(self, env_name: str, source: Source) -> None:
        self.env_name = env_name
        self.source = source

    def __hash__(self) -> int:
        return id(self.source)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.source is self.source


def _lookup(env_name: str, objects: Objects) -> Source:
    if handed_in(env_name):
        source = objects.get(env_name)
        if source is None:
            raise IncompatibleError(
                f"The environment {env_name[1:-1]} was handed in as an object: pass it again, or "
                "name a registered one.",
                field="env_name",
            )
        return cast(Source, source)
    # By the registry itself: `gymnasium.spec` would import what stands before a colon, and
    # `gymnasium.make(str)` warns about names that have a newer version.
    load_plug_ins()
    registered = gym.registry.get(env_name)
    if registered is None:
        raise UnknownNameError(
            "env_name", env_name, registered_names(), known=gym.registry, advice=HOW_TO_ADD
        )
    return registered


def _check_kwargs(kwargs: Mapping[str, Any]) -> None:
    for name, reason in _RESERVED_KWARGS.items():
        if name in kwargs:
            raise IncompatibleError(
                f"env_kwargs must not contain {name!r}: {reason}.", field="env_kwargs"
            )
    limit = kwargs.get("max_episode_steps", 1)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise OutOfRangeError(
            f"max_episode_steps in env_kwargs must be a positive integer, not {limit!r}.",
            field="env_kwargs",
        )


@functools.lru_cache(maxsize=256)
def _check(identity: _Identity, kwargs_json: str) -> EnvironmentSpec:
    kwargs = json.loads(kwargs_json)
    name, source = identity.env_name, identity.source
    env = _make(name, source, kwargs)
    try:
        spec = _describe(name, source, kwargs, env)
        _check_first_observation(spec, env)
    finally:
        _close(env, name)
    return spec


def _make(name: str, source: Source, kwargs: Mapping[str, Any]) -> gym.Env[Any, Any]:
    try:
        if isinstance(source, EnvSpec):
            import_environment(source)
            return gym.make(source, disable_env_checker=True, **kwargs)
        env = source(**kwargs)
    except TypeError as error:
        if not kwargs:
            raise _unsupported(name, f"cannot be made here: {in_words(error)}") from error
        raise IncompatibleError(
            f"{name} does not take these env_kwargs: {in_words(error)}.",
            field="env_kwargs",
        ) from error
    except (Exception, SystemExit) as error:
        # Anything may come out of a foreign constructor: missing libraries, assertions, files.
        raise _unsupported(name, f"cannot be made here: {in_words(error)}") from error
    if not isinstance(env, gym.Env):
        raise _unsupported(name, f"is a {type(env).__name__}, not a gymnasium.Env")
    return env


def _describe(
    name: str, source: Source, kwargs: Mapping[str, Any], env: gym.Env[Any, Any]
) -> EnvironmentSpec:
    observation = _check_observation_space(name, env.observation_space)
    return EnvironmentSpec(
        env_name=name,
        source=source,
        env_kwargs=kwargs,
        family=family_of(env),
        deviations=deviations_of(env, kwargs),
        observation_shape=tuple(observation.shape),
        observation_low=_as_float(observation.low),
        observation_high=_as_float(observation.high),
        action=_check_action_space(name, env.action_space),
        max_episode_steps=time_limit_of(env),
        reward_threshold=env.spec.reward_threshold if env.spec else None,
    )


def _check_observation_space(env_name: str, space: spaces.Space[Any]) -> spaces.Box:
    if not isinstance(space, spaces.Box):
        raise _unsupported(
            env_name,
            f"has {type(space).__name__} observations, but the policy reads vectors of real "
            f"numbers; wrap it (for example in gymnasium's FlattenObservation) and register that",
        )
    if len(space.shape) >= 3 and space.dtype == np.uint8:
        raise _unsupported(
            env_name,
            f"has images of shape {space.shape} as observations, but the policy has no "
            f"convolution; register a version of it that observes features instead",
        )
    if 0 in space.shape:
        raise _unsupported(env_name, f"has empty observations of shape {space.shape}")
    return space


def _check_action_space(env_name: str, space: spaces.Space[Any]) -> ActionSpec:
    if isinstance(space, spaces.Discrete):
        return DiscreteActions(n=int(space.n), start=int(space.start))
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.number):
        raise _unsupported(
            env_name,
            f"has {type(space).__name__} actions of {space.dtype}, but the policy gives Discrete "
            f"ones or a Box of numbers",
        )
    if 0 in space.shape:
        raise _unsupported(env_name, f"has empty actions of shape {space.shape}")
    low = np.where(space.bounded_below, space.low.astype(np.float64), -np.inf)
    high = np.where(space.bounded_above, space.high.astype(np.float64), np.inf)
    return BoxActions(
        shape=tuple(space.shape),
        low=tuple(low.ravel().tolist()),
        high=tuple(high.ravel().tolist()),
        integer=bool(np.issubdtype(space.dtype, np.integer)),
    )


def _check_first_observation(spec: EnvironmentSpec, env: gym.Env[Any, Any]) -> None:
    try:
        observation, _ = env.reset(seed=0)
        values = np.asarray(observation, dtype=np.float64)
    except (Exception, SystemExit) as error:
        raise _unsupported(
            spec.env_name, f"failed in its first reset: {in_words(error)}"
        ) from error
    if values.shape != spec.observation_shape or not np.isfinite(values).all():
        raise _unsupported(
            spec.env_name,
            f"gave a first observation of shape {values.shape}"
            f"{'' if np.isfinite(values).all() else ' that is not finite'}, but its space says "
            f"{spec.observation_shape}",
        )


def _unsupported(env_name: str, what: str) -> UnsupportedEnvironmentError:
    return UnsupportedEnvironmentError(f"{env_name} {what}.", field="env_name")


def _finite_or_none(values: FloatArray) -> object:
    boxed = values.astype(object)
    boxed[~np.isfinite(values)] = None
    return boxed.tolist()


def _as_float(values: npt.NDArray[Any]) -> FloatArray:
    return values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)


def _close(env: gym.Env[Any, Any], env_name: str) -> None:
    try:
        env.close()
    except Exception as error:  # noqa: BLE001 - foreign, and all is known that was asked
        _log.warning("%s", fault(env_name, "close", error))


def fault(env_name: str, where: str, error: Exception) -> EnvironmentFaultError:
    """The error for an exception that came out of an environment's method."""
    return EnvironmentFaultError(f"{env_name} raised {in_words(error, where)}.")
