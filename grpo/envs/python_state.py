"""State of an environment that is kept in Python attributes, as one JSON text and its arrays.

Captured are the attributes of every wrapper and of the environment inside. In the JSON text,
numpy values stand as references to arrays beside it, and containers carry their type.
"""

import enum
import functools
import json
import types
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from grpo.envs.families import layers_of
from grpo.errors import IncompatibleError

__all__ = ["capture", "reinstate"]

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
_JSON = (type(None), bool, int, float, str)

Arrays = list[npt.NDArray[Any]]


def capture(env: gym.Env[Any, Any], ignore: frozenset[str] = frozenset()) -> dict[str, Any]:
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


def reinstate(
    env: gym.Env[Any, Any], state: Mapping[str, Any], ignore: frozenset[str] = frozenset()
) -> None:
    """Give an environment the attributes that `capture` took, of it or of its twin.

    Args:
        env: with the same wrappers.
        state: what `capture` returned.
        ignore: as in `capture`.
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
    parts = [_decode(part, state) for part in content]
    return tuple(parts) if kind == "tuple" else parts


def _is_generator(code: object) -> bool:
    return isinstance(code, dict) and "generator" in code


def _generator(bits: Mapping[str, Any]) -> np.random.Generator:
    generator = np.random.Generator(getattr(np.random, bits["bit_generator"])())
    generator.bit_generator.state = bits
    return generator
