"""Wrappers by name, with JSON arguments: part of an environment as its keyword arguments are.

They stand in `env_kwargs["wrappers"]`, so that whoever makes the environment again (evaluation,
video, promotion, `reproduce`) makes the same one. Left out of Gymnasium's own are those that write
files, draw, need a function, or change the reward: evaluation uses the environment's own.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import gymnasium as gym
from gymnasium import wrappers as gymnasium_wrappers

from grpo.errors import GRPOError, IncompatibleError, in_words
from grpo.registry import Registry

__all__ = ["WRAPPERS", "check_wrappers", "wrap"]

_NAMES: Final = (
    "AddWhiteNoise", "AtariPreprocessing", "ClipAction", "DelayObservation", "DiscretizeAction",
    "DiscretizeObservation", "DtypeObservation", "FilterObservation", "FlattenObservation",
    "FrameStackObservation", "GrayscaleObservation", "MaxAndSkipObservation",
    "NormalizeObservation", "ObstructView", "RepeatAction", "RescaleAction", "RescaleObservation",
    "ReshapeObservation", "ResizeObservation", "StickyAction", "TimeAwareObservation", "TimeLimit",
)  # fmt: skip

_MOST: Final = 16


def _wrapper(thing: object) -> type[gym.Wrapper[Any, Any, Any, Any]]:
    if not (isinstance(thing, type) and issubclass(thing, gym.Wrapper)):
        raise TypeError("it is not a class below gymnasium.Wrapper")
    return thing


WRAPPERS: Registry[type[gym.Wrapper[Any, Any, Any, Any]]] = Registry(
    "wrappers",
    "grpo.wrappers",
    MappingProxyType({name: getattr(gymnasium_wrappers, name) for name in _NAMES}),
    _wrapper,
)


def check_wrappers(given: object) -> list[tuple[str, dict[str, Any]]]:
    """Names and arguments, from JSON.

    Args:
        given: a list of names, or of `{"name": …, "kwargs": {…}}`, the first one innermost.

    Raises:
        IncompatibleError: it is not that.
        UnknownNameError: there is no such wrapper.
    """
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) > _MOST:
        raise _malformed(f"must be a list of at most {_MOST}")
    found = []
    for each in given:
        named = {"name": each} if isinstance(each, str) else each
        if not isinstance(named, Mapping) or not isinstance(named.get("name"), str):
            raise _malformed('holds names, or objects such as {"name": "ClipAction", "kwargs": {}}')
        kwargs = named.get("kwargs") or {}
        if not isinstance(kwargs, Mapping) or named.keys() - {"name", "kwargs"}:
            raise _malformed("knows `name` and `kwargs`, an object of arguments by name")
        WRAPPERS.check(named["name"])
        found.append((named["name"], dict(kwargs)))
    return found


def wrap(env: gym.Env[Any, Any], given: object) -> gym.Env[Any, Any]:
    """The environment in wrappers, in order; closed again where one of them raises.

    Args:
        env: the instance.
        given: as for `check_wrappers`.

    Raises:
        IncompatibleError: a wrapper refused the environment or its arguments; or see there.
        UnknownNameError: see there.
    """
    wrapped = env
    for name, kwargs in check_wrappers(given):
        try:
            wrapped = WRAPPERS.get(name)(wrapped, **kwargs)
        except GRPOError:
            raise
        except Exception as error:
            raise IncompatibleError(
                f"The wrapper {name} cannot be put around this environment with "
                f"{kwargs or 'no arguments'}: {in_words(error)}.",
                field="wrappers",
            ) from error
    return wrapped


def _malformed(what: str) -> IncompatibleError:
    return IncompatibleError(f"wrappers {what}.", field="wrappers")
