"""Load a policy from its two files and predict with it; this file travels with every model.

It knows neither the package it comes from nor MLflow: numpy and torch are all it needs, so a
model works in an environment that has only those and MLflow. Nothing is unpickled. The mathematics
is that of `grpo.policies.MlpPolicy`; tests hold the two equal.
"""

import io
import json
import math
import operator
from collections.abc import Callable, Mapping
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

__all__ = [
    "FORMAT",
    "GRAPH_FORMAT",
    "PYTHON_OPERATIONS",
    "GRPOPredictor",
    "GraphPredictor",
    "Single",
    "operation",
    "read_policy",
]

FORMAT = 1
"""Layout of `spec.json` and `weights.pt` of an `MlpPolicy`, which `GRPOPredictor` reads."""

GRAPH_FORMAT = 2
"""Layout of those of any other policy, which `GraphPredictor` reads."""

PYTHON_OPERATIONS = (
    "add", "eq", "floordiv", "ge", "getitem", "gt", "le", "lt", "mod", "mul", "ne", "neg", "sub",
)  # fmt: skip
"""Functions of Python's `operator` that a graph may call, on sizes and on lists of tensors."""

_PURE = frozenset({"erfinv", "lgamma", "special_ndtri", "sym_size"})  # beside those tagged core

_VARIANCE_FLOOR = 1e-8
_LARGEST = 1e6  # of a normalised observation: finite input, however absurd, gives finite output
_FUSED_WIDTH = 128  # up to this, one product with a block-diagonal matrix beats two products
_PRODUCT = 2**19  # multiplications of a matrix product that no library spreads over threads
_LEAST_CHUNK = 16

Array = npt.NDArray[Any]


class Single(NamedTuple):
    """What the policy says about one observation, as plain Python values."""

    action: Any
    """int, or floats in nested lists in the shape of one action."""

    action_probs: list[float] | None
    """Probability of each action; None for continuous actions."""

    value: float
    """Estimated return, in the units of the reward trained on."""

    state: list[float] | None = None
    """What the policy remembers now; None of one without memory."""


def _load_pyfunc(data_path: str) -> "GRPOPredictor | GraphPredictor":
    """What `mlflow.pyfunc.load_model` calls."""
    spec, weights = (Path(data_path, name).read_bytes() for name in ("spec.json", "weights.pt"))
    return read_policy(spec, weights)


def read_policy(spec: bytes, weights: bytes) -> "GRPOPredictor | GraphPredictor":
    """Read the contents of `spec.json` and `weights.pt`; only tensors are accepted.

    Raises:
        ValueError: they are damaged, or of no format that this loader reads.
    """
    try:
        state = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
        values = json.loads(spec)
        if values["format"] == GRAPH_FORMAT:
            return GraphPredictor(values, state)
        return GRPOPredictor(values, {name: tensor.numpy() for name, tensor in state.items()})
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"These files hold no policy: {error}") from error


class GRPOPredictor:
    """An immutable policy in numpy.

    Args:
        spec: contents of `spec.json`.
        weights: the policy's `state_dict`, as arrays.

    Raises:
        ValueError: they do not belong together, or are of another format.
    """

    def __init__(self, spec: Mapping[str, Any], weights: Mapping[str, Array]) -> None:
        if spec.get("format") != FORMAT:
            raise ValueError(f"This loader reads format {FORMAT}, not {spec.get('format')!r}.")
        if not all(np.isfinite(array).all() for array in weights.values()):
            raise ValueError("The weights are not finite.")
        self.observation_shape = tuple(int(n) for n in spec["observation_shape"])
        self.discrete = spec["action"]["kind"] == "discrete"
        self.action_shape = () if self.discrete else tuple(map(int, spec["action"]["shape"]))
        self._integer = bool(spec["action"].get("integer", False))
        self._size = math.prod(self.observation_shape)
        self._start = int(spec["action"].get("start", 0))
        self._mean = weights["observation_mean"].astype(np.float64)
        std = np.sqrt(weights["observation_var"].astype(np.float64) + _VARIANCE_FLOOR)
        self._scale = 1.0 / std
        # the same bounds before normalisation, for where it is folded into the weights
        self._lowest, self._highest = self._mean - _LARGEST * std, self._mean + _LARGEST * std
        self._unclipped = float(self._lowest.max()), float(self._highest.min())
        self._value_mean = float(weights["value_mean"])
        self._value_std = float(weights["value_std"])
        depth = len(spec["net_arch"])
        policy = [_affine(weights, f"policy_net.{i}") for i in range(depth + 1)]
        value = [_affine(weights, f"value_net.{i}") for i in range(depth + 1)]
        self._hidden = [np.stack(pair) for pair in zip(policy[:-1], value[:-1], strict=True)]
        self._heads = policy[-1], value[-1]
        self._check_shapes(spec)
        largest = max((w[0].size for w in self._hidden), default=1)
        self._chunk = max(_LEAST_CHUNK, _PRODUCT // largest)
        self._set_action_scale(spec["action"], weights)
        narrow = max(spec["net_arch"], default=_FUSED_WIDTH + 1) <= _FUSED_WIDTH
        self._fused = self._fuse(policy, value) if narrow else None
        self._rng = np.random.default_rng()

    def predict(
        self, model_input: object, params: Mapping[str, Any] | None = None
    ) -> dict[str, Array]:
        """What MLflow calls.

        Args:
            model_input: observations, shape (N, *observation shape).
            params: `deterministic` (default true): the most probable action, else a sample.

        Returns:
            `action` (N, …), `value` (N,), and `action_probs` (N, n), or `mean` and `std` (N, …).
        """
        deterministic = bool((params or {}).get("deterministic", True))
        return self.predict_batch(np.asarray(model_input), deterministic)

    def predict_batch(
        self,
        observations: Array,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Array]:
        """As `predict`; `rng` is the source of the samples. Another shape is a ValueError."""
        _check_shape(observations, self.observation_shape)
        flat = observations.reshape(len(observations), self._size)
        parts = [
            self._forward(flat[start : start + self._chunk])
            for start in range(0, max(len(flat), 1), self._chunk)
        ]
        outputs = np.concatenate([part[0] for part in parts], axis=1)
        values = np.concatenate([part[1] for part in parts])
        rng = rng or self._rng
        if self.discrete:
            return self._categorical(outputs, deterministic, rng) | {"value": values}
        return self._gaussian(outputs, deterministic, rng) | {"value": values}

    def predict_one(
        self,
        observation: list[float],
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> Single:
        """As `predict_batch`, for one flat observation, and several times as fast.

        Raises:
            ValueError: the observation has another length.
        """
        if len(observation) != self._size:
            raise ValueError(f"Expected {self._size} numbers, not {len(observation)}.")
        outputs = self._forward_one(observation)
        rng = rng or self._rng
        if outputs is None:
            batch = np.array(observation, np.float64).reshape(1, *self.observation_shape)
            return _single(self.predict_batch(batch, deterministic, rng))
        value = outputs.pop()
        if not self.discrete:
            return Single(self._one_gaussian(outputs, deterministic, rng), None, value)
        largest = max(outputs)
        exponentials = [math.exp(logit - largest) for logit in outputs]
        total = sum(exponentials)
        if deterministic:
            index = outputs.index(largest)
        else:
            index = _sample(exponentials, total, rng.random())
        return Single(index + self._start, [e / total for e in exponentials], value)

    def _forward_one(self, observation: list[float]) -> list[float] | None:
        """Head outputs and value; None where only the slower way gives them."""
        if self._fused is None:
            return None
        *layers, (weights, bias) = self._fused
        h = np.array(observation, np.float64)
        lowest, highest = self._unclipped
        if min(observation) < lowest or max(observation) > highest:
            h.clip(self._lowest, self._highest, h)
        for w, b in layers:
            h = h.dot(w)
            h += b
            np.tanh(h, h)
        outputs: list[float] = (h.dot(weights) + bias).tolist()
        return outputs

    def _one_gaussian(
        self, outputs: list[float], deterministic: bool, rng: np.random.Generator
    ) -> Any:  # noqa: ANN401 - nested lists as deep as an action's shape
        noise = repeat(0.0) if deterministic else rng.standard_normal(len(outputs)).tolist()
        action = [
            min(max(centre + half_range * output + std * e, low), high)
            for output, e, (centre, half_range, std, low, high) in zip(
                outputs, noise, self._components, strict=False
            )
        ]
        if self._integer:
            action = [float(round(component)) for component in action]
        if len(self.action_shape) == 1:
            return action
        return np.array(action).reshape(self.action_shape).tolist()

    def _forward(self, flat: Array) -> tuple[Array, Array]:
        """Head outputs, shape (outputs, N), and values, shape (N,)."""
        h = np.ones((1, self._size + 1, len(flat)), np.float32)
        with np.errstate(over="ignore"):
            z = (flat.T - self._mean[:, None]) * self._scale[:, None]
        h[0, :-1] = np.clip(z, -_LARGEST, _LARGEST)
        for weights in self._hidden:
            below, h = h, np.ones((2, weights.shape[1] + 1, len(flat)), np.float32)
            out = h[:, :-1]
            np.matmul(weights, below, out=out)
            np.tanh(out, out=out)
        policy, value = self._heads
        scaled = (value @ h[-1])[0]
        return policy @ h[0], (self._value_mean + self._value_std * scaled).astype(np.float32)

    def _categorical(
        self, outputs: Array, deterministic: bool, rng: np.random.Generator
    ) -> dict[str, Array]:
        exponentials = np.exp(outputs - outputs.max(axis=0))
        if deterministic:
            index = outputs.argmax(axis=0)
        else:
            cumulative = exponentials.cumsum(axis=0)
            threshold = rng.random(outputs.shape[1]) * cumulative[-1]
            index = (threshold >= cumulative[:-1]).sum(axis=0)
        probabilities = np.ascontiguousarray((exponentials / exponentials.sum(axis=0)).T)
        return {"action": index + self._start, "action_probs": probabilities}

    def _gaussian(
        self, outputs: Array, deterministic: bool, rng: np.random.Generator
    ) -> dict[str, Array]:
        mean = self._centre + self._half_range * outputs.T.astype(np.float64)
        noise = 0.0 if deterministic else self._std * rng.standard_normal(mean.shape)
        action = np.clip(mean + noise, self._low, self._high)
        if self._integer:
            action = np.rint(action)
        shape = (-1, *self.action_shape)
        told = {"action": action, "mean": mean, "std": np.broadcast_to(self._std, mean.shape)}
        return {k: np.ascontiguousarray(v, np.float32).reshape(shape) for k, v in told.items()}

    def _set_action_scale(self, action: Mapping[str, Any], weights: Mapping[str, Array]) -> None:
        if self.discrete:
            return
        self._low = np.array([-np.inf if x is None else x for x in action["low"]], np.float64)
        self._high = np.array([np.inf if x is None else x for x in action["high"]], np.float64)
        bounded = np.isfinite(self._low) & np.isfinite(self._high)
        low, high = np.where(bounded, self._low, -1.0), np.where(bounded, self._high, 1.0)
        self._centre, self._half_range = (low + high) / 2.0, (high - low) / 2.0
        self._std = self._half_range * np.exp(weights["log_std"].astype(np.float64))
        columns = (self._centre, self._half_range, self._std, self._low, self._high)
        self._components = list(zip(*(array.tolist() for array in columns), strict=True))

    def _fuse(self, policy: list[Array], value: list[Array]) -> list[tuple[Array, Array]]:
        """Both trunks as one chain of (weights, bias) in float64, normalisation folded in."""
        first = np.concatenate([policy[0], value[0]]).astype(np.float64)
        weights = first[:, :-1] * self._scale
        layers = [(weights.T.copy(), first[:, -1] - weights @ self._mean)]
        for p, v in zip(policy[1:], value[1:], strict=True):
            block = np.zeros((p.shape[1] + v.shape[1] - 2, len(p) + len(v)))
            block[: p.shape[1] - 1, : len(p)] = p[:, :-1].T
            block[p.shape[1] - 1 :, len(p) :] = v[:, :-1].T
            layers.append((block, np.concatenate([p[:, -1], v[:, -1]]).astype(np.float64)))
        weights, bias = layers.pop()
        weights[:, -1] *= self._value_std
        bias[-1] = self._value_mean + self._value_std * bias[-1]
        return [*layers, (weights, bias)]

    def _check_shapes(self, spec: Mapping[str, Any]) -> None:
        action = spec["action"]
        outputs = int(action["n"]) if self.discrete else math.prod(self.action_shape)
        widths = [self._size, *map(int, spec["net_arch"])]
        expected = [(2, n_out, n_in + 1) for n_in, n_out in pairwise(widths)]
        heads = [(outputs, widths[-1] + 1), (1, widths[-1] + 1)]
        fits = (
            [w.shape for w in self._hidden] == expected
            and [w.shape for w in self._heads] == heads
            and self._mean.shape == self._scale.shape == (self._size,)
        )
        if not fits:
            raise ValueError("The weights do not have the shapes that the specification names.")


class GraphPredictor:
    """A policy of any network: a graph of ATen operations, interpreted; immutable.

    Args:
        spec: contents of `spec.json`.
        tensors: contents of `weights.pt`.

    Raises:
        ValueError: they do not belong together, or call what no policy needs.
    """

    def __init__(self, spec: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        finite = (t for name, t in tensors.items() if name not in ("low", "high"))  # a Box's ends
        if not all(torch.isfinite(tensor).all() for tensor in finite):
            raise ValueError("The weights are not finite.")
        self.observation_shape = tuple(int(n) for n in spec["observation_shape"])
        self.discrete = spec["action"]["kind"] == "discrete"
        self.action_shape = () if self.discrete else tuple(map(int, spec["action"]["shape"]))
        self._size = math.prod(self.observation_shape)
        self._leaves, observation = {}, spec.get("observation", {"leaves": []})
        for leaf in observation["leaves"]:
            name = ".".join(map(str, leaf["path"])) or "observation"
            name = f"observation.{name}" if name in _ADDED else name
            self._leaves[name] = {"start": [0] * math.prod(leaf["shape"]), **leaf}
        if n := observation.get("n_state"):
            self._leaves["policy_state"] = {"shape": [n], "start": [0] * n}
        if n := observation.get("n_mask"):
            choices = spec["action"].get("nvec") or [n]
            self._leaves["action_mask"] = {"shape": [n], "choices": choices, "start": [1] * n}
        graph = spec["graph"]
        self._observations, self._uniform = graph["inputs"]
        self._noise = int(graph["noise"])
        self._outputs = graph["outputs"]
        self._tensors = dict(tensors)
        self._nodes = [(str(name), operation(to), *given) for name, to, *given in graph["nodes"]]
        self._rng = np.random.default_rng()
        firsts = chain.from_iterable(leaf["start"] for leaf in self._leaves.values())
        example = np.array([*firsts] or [0.0] * self._size, np.float32)
        reply = self.predict_batch(np.stack([example.reshape(self.observation_shape)] * 2))
        if not {"action", "value"} <= set(reply) or len(reply["action"]) != 2:
            raise ValueError("The graph gives no action and value for each observation.")

    def predict(
        self, model_input: object, params: Mapping[str, Any] | None = None
    ) -> dict[str, Array]:
        """As `GRPOPredictor.predict`; a tree of observations is a mapping of named arrays."""
        deterministic = bool((params or {}).get("deterministic", True))
        rows = self._rows(model_input) if isinstance(model_input, Mapping) else model_input
        return self.predict_batch(np.asarray(rows), deterministic)

    def predict_batch(
        self,
        observations: Array,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Array]:
        """As `GRPOPredictor.predict_batch`; beside action and value, what the policy tells."""
        _check_shape(observations, self.observation_shape)
        self._check(observations)
        uniform = (rng or self._rng).random((len(observations), self._noise), np.float32)
        with np.errstate(over="ignore"):  # infinity is clipped like what is nearly so
            inputs = np.ascontiguousarray(observations, np.float32)
        known: dict[str, Any] = {
            # float32 rounds up to 1, where an inverse distribution function is infinite
            self._uniform: torch.from_numpy(uniform).clamp(1e-7, 1.0 - 1e-7),
            self._observations: torch.from_numpy(inputs),
        }
        with torch.inference_mode():
            for name, function, args, kwargs in self._nodes:
                given = {key: self._value(value, known) for key, value in kwargs.items()}
                known[name] = function(*self._value(args, known), **given)
            reply = {key: self._value(out, known).numpy() for key, out in self._outputs.items()}
        sample = reply.pop("sample")
        return reply if deterministic else reply | {"action": sample}

    def predict_one(
        self,
        observation: list[float],
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> Single:
        """As `GRPOPredictor.predict_one`."""
        if len(observation) != self._size:
            raise ValueError(f"Expected {self._size} numbers, not {len(observation)}.")
        batch = np.array([observation], np.float64).reshape(1, *self.observation_shape)
        return _single(self.predict_batch(batch, deterministic, rng))

    def _rows(self, arrays: Mapping[str, Any]) -> Array:
        """Named arrays, each of shape (N, *its shape), side by side."""
        if set(arrays) != set(self._leaves):
            raise ValueError(f"Expected arrays named {[*self._leaves]}, not {[*arrays]}.")
        sizes = {name: math.prod(leaf["shape"]) for name, leaf in self._leaves.items()}
        parts = [np.asarray(arrays[name]).reshape(-1, size) for name, size in sizes.items()]
        return np.concatenate(parts, axis=1)

    def _check(self, rows: Array) -> None:
        """Refuse what is none of the categories, and masks that leave no action."""
        rest = rows.reshape(len(rows), self._size)
        for name, leaf in self._leaves.items():
            numbers, rest = np.split(rest, [math.prod(leaf["shape"])], axis=1)
            low, n = np.array(leaf["start"]), leaf.get("categories")
            if n and not ((numbers >= low) & (numbers < low + n) & (numbers % 1 == 0)).all():
                raise ValueError(f"{name} holds what is not in its space.")
            if name == "policy_state" and not (np.abs(numbers) <= 1.0).all():
                raise ValueError("policy_state holds what no answer gave.")
            for choice in np.split(numbers, np.cumsum(leaf.get("choices", [])), axis=1)[:-1]:
                if not (choice.any(axis=1).all() and ((choice == 0) | (choice == 1)).all()):
                    raise ValueError(f"{name} forbids every action, or holds not only 0 and 1.")

    def _value(self, argument: Any, known: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any type
        """An argument of an operation, as `registry/graph.py` wrote it."""
        if isinstance(argument, list):
            return [self._value(item, known) for item in argument]
        if not isinstance(argument, dict):
            return argument
        ((kind, name),) = argument.items()
        if kind == "node":
            return known[name]
        if kind == "tensor":
            return self._tensors[name]
        if kind == "torch":
            return _constant(name)
        if kind == "float":
            return float(name)
        if kind == "device":
            return torch.device("cpu")
        raise ValueError(f"The graph has an argument of kind {kind!r}.")


_ADDED = frozenset({"policy_state", "action_mask"})  # what follows the observation in a row
_TOLD = ("action", "action_probs", "value", "next_policy_state")  # as `Single` has them


def operation(target: str) -> Callable[..., Any]:
    """What a graph calls by a name: an ATen operation without side effects, or arithmetic.

    Raises:
        ValueError: anything else.
    """
    if target in PYTHON_OPERATIONS:
        function: Callable[..., Any] = getattr(operator, target)
        return function
    namespace, _, rest = target.partition(".")
    name, _, overload = rest.partition(".")
    packet = getattr(torch.ops.aten, name, None) if namespace == "aten" else None
    found = getattr(packet, overload, None) if overload else None
    if not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"a policy may not call {target!r}")
    core = torch.Tag.core in found.tags or name in _PURE
    if not core or found._schema.is_mutable:
        raise ValueError(f"a policy may not call {target!r}")
    return found


def _constant(name: str) -> torch.dtype | torch.layout | torch.memory_format:
    value = getattr(torch, name, None)
    if not isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        raise ValueError(f"The graph names {name!r} of torch.")
    return value


def _check_shape(observations: Array, shape: tuple[int, ...]) -> None:
    if observations.shape[1:] != shape:
        wanted, found = ", ".join(map(str, shape)), observations.shape
        raise ValueError(f"Expected observations of shape (N, {wanted}), not {found}.")


def _single(reply: Mapping[str, Array]) -> Single:
    """The first answer of a batch."""
    return Single._make(reply[k][0].tolist() if k in reply else None for k in _TOLD)


def _affine(weights: Mapping[str, Array], name: str) -> Array:
    """[weight | bias] of a layer, shape (n_out, n_in + 1), float32."""
    columns = [weights[f"{name}.weight"], weights[f"{name}.bias"][:, None]]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _sample(exponentials: list[float], total: float, uniform: float) -> int:
    threshold = uniform * total
    for index, exponential in enumerate(exponentials):
        threshold -= exponential
        if threshold < 0.0:
            return index
    return len(exponentials) - 1
