"""What an environment looks like to a policy, and the check that it can be trained at all."""

import functools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from grpo.actions import ActionSpec, DiscreteActions, MultiDiscreteActions, choices
from grpo.envs.catalogue import (
    how_to_install,
    how_to_register,
    import_environment,
    load_plug_ins,
    registered_names,
    require_module,
)
from grpo.envs.families import deviations_of, family_of, time_limit_of
from grpo.envs.wrapping import check_wrappers, wrap
from grpo.errors import (
    EnvironmentFaultError,
    IncompatibleError,
    OutOfRangeError,
    UnknownNameError,
    UnsupportedEnvironmentError,
    in_words,
)
from grpo.observations import MASK, ObservationSpec
from grpo.registry import Objects, handed_in
from grpo.spaces import action_spec, observation_spec

__all__ = ["EnvironmentSpec", "Source", "check_environment", "fault"]

_log = logging.getLogger(__name__)

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
    """Keyword arguments of `gymnasium.make`; and `wrappers`, as `grpo.envs.wrapping` takes them."""

    family: str
    """How it is stepped and branched, one of `grpo.envs.families.FAMILIES`."""

    deviations: tuple[str, ...] = ()
    """What sets it apart from its family as Gymnasium makes it, in words: wrappers, changed
    attributes. Only where there is nothing may anything but the environment itself step it."""

    observation: ObservationSpec
    """What is observed."""

    observation_space: spaces.Space[Any]
    """The environment's own."""

    action: ActionSpec
    """The actions."""

    action_space: spaces.Space[Any]
    """The environment's own."""

    masks: Literal["none", "info", "method"] = "none"
    """Where the environment says which actions may be taken: nowhere, in `info["action_mask"]`
    (Gymnasium's convention), or by its method `action_masks()` (sb3-contrib's)."""

    source: "Source" = field(repr=False)
    """What makes instances: its registration, or what was handed in."""

    max_episode_steps: int | None
    """Steps after which Gymnasium's TimeLimit truncates an episode; None without a limit."""

    reward_threshold: float | None
    """Return at which Gymnasium calls the task solved; None where it does not say."""

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation; a Dict's or Tuple's is one row."""
        return self.observation.shape

    @property
    def observes_cartpole(self) -> bool:
        """Whether observations are CartPole's own: x, its speed, the angle θ, its speed."""
        return self.family == "cartpole"

    def make(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """One instance, without Gymnasium's passive checker (ours has looked already).

        Args:
            render_mode: as `gymnasium.make` takes it.

        Raises:
            IncompatibleError, UnsupportedEnvironmentError: as `check_environment`.
        """
        drawn = {} if render_mode is None else {"render_mode": render_mode}
        return _make(self.env_name, self.source, {**self.env_kwargs, **drawn})

    def row(
        self,
        env: gym.Env[Any, Any],
        observation: object,
        info: Mapping[str, Any],
        *,
        ended: bool = False,
    ) -> npt.NDArray[Any]:
        """What a policy is told of an instance's reset or step, in `observation_shape`.

        Args:
            env: the instance, after it.
            observation: what it returned.
            info: likewise.
            ended: the episode is over, so that no action is taken.

        Raises:
            ValueError: the observation is not of the space, or no action may be taken.
        """
        if self.masks == "none" or ended:
            return self.observation.row(observation)
        row = self.observation.row(observation, _mask_of(env, info, self.masks))
        for allowed in np.split(row[-self.observation.n_mask :], np.cumsum(choices(self.action))):
            if allowed.size and not allowed.any():
                raise ValueError("action_mask forbids every action of a choice")
        return row

    def to_dict(self) -> dict[str, Any]:
        """JSON values; null where a bound is infinite. Hashed: a new field is a new environment."""
        return {
            "env_name": self.env_name,
            "env_kwargs": dict(self.env_kwargs),
            "family": self.family,
            "observation": _observation_to_dict(self.observation, self.observation_space),
            "action": self.action.to_dict(),
            **({} if self.masks == "none" else {"masks": self.masks}),
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
    module, colon, name = env_name.rpartition(":")
    if colon:
        require_module(module)
    registered = gym.registry.get(name)
    if registered is None:
        raise UnknownNameError(
            "env_name", name, registered_names(), known=gym.registry, advice=how_to_register(name)
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
    check_wrappers(kwargs.get("wrappers", ()))


@functools.lru_cache(maxsize=256)
def _check(identity: _Identity, kwargs_json: str) -> EnvironmentSpec:
    kwargs = json.loads(kwargs_json)
    name, source = identity.env_name, identity.source
    env = _make(name, source, kwargs)
    try:
        spec = _describe(name, source, kwargs, env)
        observation, info = _first_reset(name, env)
        spec = _with_masks(spec, env, info)
        _check_first_observation(spec, env, observation, info)
    finally:
        _close(env, name)
    return spec


def _make(name: str, source: Source, kwargs: Mapping[str, Any]) -> gym.Env[Any, Any]:
    own = {key: value for key, value in kwargs.items() if key != "wrappers"}
    return wrap(_make_bare(name, source, own), kwargs.get("wrappers", ()))


def _make_bare(name: str, source: Source, kwargs: Mapping[str, Any]) -> gym.Env[Any, Any]:
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
        said = how_to_install(error) or f"cannot be made here: {in_words(error)}"
        raise _unsupported(name, said) from error
    if not isinstance(env, gym.Env):
        raise _unsupported(name, f"is a {type(env).__name__}, not a gymnasium.Env")
    return env


def _describe(
    name: str, source: Source, kwargs: Mapping[str, Any], env: gym.Env[Any, Any]
) -> EnvironmentSpec:
    try:
        observation, action = observation_spec(env.observation_space), action_spec(env.action_space)
    except ValueError as error:
        raise _unsupported(name, str(error)) from error
    return EnvironmentSpec(
        env_name=name,
        source=source,
        env_kwargs=kwargs,
        family=family_of(env),
        deviations=deviations_of(env, kwargs),
        observation=observation,
        observation_space=env.observation_space,
        action=action,
        action_space=env.action_space,
        max_episode_steps=time_limit_of(env),
        reward_threshold=env.spec.reward_threshold if env.spec else None,
    )


def _with_masks(
    spec: EnvironmentSpec, env: gym.Env[Any, Any], info: Mapping[str, Any]
) -> EnvironmentSpec:
    """The specification with masks, if the environment gives some that a policy can follow."""
    if not isinstance(spec.action, DiscreteActions | MultiDiscreteActions):
        return spec
    masks: Literal["info", "method"] = "info"
    if MASK not in info:
        if not env.has_wrapper_attr("action_masks"):
            return spec
        masks = "method"
    n = sum(choices(spec.action))
    return replace(spec, masks=masks, observation=replace(spec.observation, n_mask=n))


def _mask_of(env: gym.Env[Any, Any], info: Mapping[str, Any], masks: str) -> Any:  # noqa: ANN401
    if masks == "method":
        return env.get_wrapper_attr("action_masks")()
    if MASK not in info:
        raise ValueError("info has no action_mask, though the first reset's had one")
    return info[MASK]


def _first_reset(env_name: str, env: gym.Env[Any, Any]) -> tuple[Any, dict[str, Any]]:
    try:
        observation, info = env.reset(seed=0)
    except (Exception, SystemExit) as error:
        raise _unsupported(env_name, f"failed in its first reset: {in_words(error)}") from error
    return observation, info


def _check_first_observation(
    spec: EnvironmentSpec, env: gym.Env[Any, Any], observation: object, info: Mapping[str, Any]
) -> None:
    try:
        row = spec.row(env, observation, info).astype(np.float64)
    except (TypeError, ValueError) as error:
        said = f"gave a first observation that its space does not hold: {in_words(error)}"
        raise _unsupported(spec.env_name, said) from error
    if not np.isfinite(row).all():
        raise _unsupported(spec.env_name, "gave a first observation that is not finite")


def _unsupported(env_name: str, what: str) -> UnsupportedEnvironmentError:
    return UnsupportedEnvironmentError(f"{env_name} {what}.", field="env_name")


def _observation_to_dict(spec: ObservationSpec, space: spaces.Space[Any]) -> dict[str, Any]:
    if not isinstance(space, spaces.Box) or len(spec.shape) > 2:
        return spec.to_dict()
    # as it was when there were no others: hashes from before stay as they are
    low, high = _finite_or_none(space.low), _finite_or_none(space.high)
    return {"shape": list(spec.shape), "low": low, "high": high}


def _finite_or_none(values: npt.NDArray[Any]) -> object:
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    boxed = values.astype(object)
    boxed[~np.isfinite(values)] = None
    return boxed.tolist()


def _close(env: gym.Env[Any, Any], env_name: str) -> None:
    try:
        env.close()
    except Exception as error:  # noqa: BLE001 - foreign, and all is known that was asked
        _log.warning("%s", fault(env_name, "close", error))


def fault(env_name: str, where: str, error: Exception) -> EnvironmentFaultError:
    """The error for an exception that came out of an environment's method."""
    return EnvironmentFaultError(f"{env_name} raised {in_words(error, where)}.")
