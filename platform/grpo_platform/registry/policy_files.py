"""A policy as the two files that the model loader reads, and back; nothing is pickled.

`spec.json` says what the policy is, `weights.pt` holds plain tensors. A torch policy's `spec.json`
also has its graph of ATen operations: `torch.export` traces what `ServedPolicy` does, and what is
written names only operations that torch tags as core, which have no side effects. So a network of
any kind is served by the one loader, without its code.
"""

import io
import json
import math
import operator
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.fx.config
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind
from torch.fx import Node

from grpo.errors import UnsupportedPolicyError
from grpo.evaluation import Evaluation, evaluate
from grpo.policies import BasePolicy, MlpPolicy, PolicySpec, ServedPolicy, make_policy
from grpo_platform.core.errors import UnsafeModelError
from grpo_platform.registry.integrity import PolicyFiles
from grpo_platform.registry.loader import (
    FORMAT,
    GRAPH_FORMAT,
    PYTHON_OPERATIONS,
    GraphPredictor,
    GRPOPredictor,
    operation,
    read_policy,
)

__all__ = [
    "EXAMPLE_BATCH",
    "Predictor",
    "evaluate_files",
    "exporting",
    "policy_from_files",
    "policy_graph",
    "policy_to_files",
    "predictor_from_files",
]

Predictor = GRPOPredictor | GraphPredictor

EXAMPLE_BATCH = 2
"""Observations that a policy is traced with: a batch of one would be frozen into its graph."""

_CHECKS = ("_assert_scalar", "_assert_tensor_metadata", "_assert_async")
_PYTHON = {getattr(operator, name): name for name in PYTHON_OPERATIONS}
_lock = threading.Lock()


def policy_to_files(policy: BasePolicy) -> PolicyFiles:
    """What the loader reads of a policy.

    Raises:
        UnsupportedPolicyError: the policy's code cannot be traced, or does what is no plain
            arithmetic on tensors.
    """
    if isinstance(policy, MlpPolicy):
        spec, tensors = {"format": FORMAT} | policy.spec.to_dict(), policy.state_dict()
    else:
        with exporting():
            graph, constants = policy_graph(policy.export())
        spec = {"format": GRAPH_FORMAT} | policy.spec.to_dict() | {"graph": graph}
        tensors = {f"policy.{name}": value for name, value in policy.state_dict().items()}
        tensors |= constants
    weights = io.BytesIO()
    torch.save(tensors, weights)
    return PolicyFiles((json.dumps(spec, indent=2) + "\n").encode(), weights.getvalue())


def predictor_from_files(files: PolicyFiles, name: str) -> Predictor:
    """What serves the policy: arithmetic that the loader knows, none of the policy's own code.

    Args:
        files: that were verified.
        name: the version, for messages.

    Raises:
        UnsafeModelError: the files hold no policy.
    """
    try:
        return read_policy(files.spec, files.weights)
    except ValueError as error:
        raise UnsafeModelError(f"{name} is not loaded: {_why_not(error)}") from error


def policy_from_files(files: PolicyFiles, name: str) -> BasePolicy:
    """The policy itself, to be trained on or played; its class is imported where it is a plug-in's.

    Args:
        files: that were verified.
        name: the version, for messages.

    Raises:
        UnsafeModelError: the files hold no policy.
        IncompatibleError: its class was handed in as an object, so that it can be served but not
            rebuilt; or is a plug-in's that is not installed here.
    """
    predictor_from_files(files, name)  # first: it builds nothing larger than the weights
    try:
        spec = PolicySpec.from_dict(json.loads(files.spec))
    except Exception as error:
        raise UnsafeModelError(f"{name} is not loaded: {_why_not(error)}") from error
    policy = make_policy(spec)
    try:
        state = torch.load(io.BytesIO(files.weights), map_location="cpu", weights_only=True)
        if not isinstance(policy, MlpPolicy):
            names = set(policy.state_dict())
            state = {
                name.removeprefix("policy."): value
                for name, value in state.items()
                if name.removeprefix("policy.") in names
            }
        policy.load_state_dict(state)
    except Exception as error:
        raise UnsafeModelError(f"{name} is not loaded: {_why_not(error)}") from error
    return policy


def evaluate_files(
    files: PolicyFiles,
    name: str,
    env_name: str,
    /,
    **game: Any,  # noqa: ANN401 - grpo.evaluate's
) -> Evaluation:
    """As `grpo.evaluate`, of a policy in its files; raises what `policy_from_files` does as well.

    Args:
        files: that were verified.
        name: the version, for messages.
        env_name: Gymnasium id.
        **game: keyword arguments of `grpo.evaluate`.
    """
    return evaluate(policy_from_files(files, name), env_name, **game)


def _why_not(error: Exception) -> str:
    """What is wrong with files that our loader refused, without what torch advises there."""
    cause = error.__cause__ or error
    if isinstance(cause, ValueError):
        return str(error)
    return (
        f"its files hold no policy ({type(cause).__name__}): the weights are damaged, or more than "
        "plain tensors, which is never unpickled."
    )


@contextmanager
def exporting() -> Iterator[None]:
    """`torch.export`, on one model at a time, without the files and lines that code comes from."""
    with _lock:
        before = torch.fx.config.do_not_emit_stack_traces
        torch.fx.config.do_not_emit_stack_traces = True
        try:
            yield
        finally:
            torch.fx.config.do_not_emit_stack_traces = before


def policy_graph(served: ServedPolicy) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The graph of a policy, as JSON values, and its tensors by name."""
    shape, noise = served.policy.spec.observation_shape, served.distribution.n_noise
    example = torch.zeros((EXAMPLE_BATCH, *shape)), torch.full((EXAMPLE_BATCH, noise), 0.5)
    batch = Dim("batch", min=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, of its tree of inputs
            program = export(served.eval(), example, dynamic_shapes=({0: batch}, {0: batch}))
            program = program.run_decompositions()
        return _write(program, noise)
    except UnsupportedPolicyError:
        raise
    except Exception as error:
        raise UnsupportedPolicyError(
            f"This policy cannot be packaged: torch.export could not trace it for a batch of any "
            f"size ({type(error).__name__}: {str(error).strip().splitlines()[0][:300]}). Its "
            "forward must use torch operations alone, whose results decide no Python branch."
        ) from error


def _write(program: ExportedProgram, noise: int) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    tensors: dict[str, torch.Tensor] = {}
    names: dict[str, dict[str, str]] = {}
    inputs: list[str] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            inputs.append(spec.arg.name)
            continue
        source = program.constants if spec.kind is InputKind.CONSTANT_TENSOR else (
            program.state_dict
        )  # fmt: skip
        target = str(spec.target)
        tensor = source[target] if target in source else program.constants[target]
        tensors[target] = tensor.detach().clone(memory_format=torch.contiguous_format)
        names[spec.arg.name] = {"tensor": target}
    nodes, outputs = [], list[Any]()
    for node in program.graph.nodes:
        if node.op == "output":
            outputs = [_argument(value, names) for value in node.args[0]]
        elif node.op == "call_function" and not _is_check(node):
            nodes.append(
                [
                    node.name,
                    _target(node),
                    _argument(list(node.args), names),
                    {key: _argument(value, names) for key, value in node.kwargs.items()},
                ]
            )
    keys = program.call_spec.out_spec.context if program.call_spec.out_spec else []
    graph = {
        "inputs": inputs,
        "noise": noise,
        "nodes": nodes,
        "outputs": dict(zip(keys, outputs, strict=True)),
    }
    return graph, tensors


def _is_check(node: Node) -> bool:
    return any(name in str(node.target) for name in _CHECKS)


def _target(node: Node) -> str:
    if node.target in _PYTHON:
        return _PYTHON[node.target]
    name = str(node.target)
    try:
        operation(name)
    except ValueError as error:
        raise UnsupportedPolicyError(f"This policy cannot be packaged: {error}.") from error
    return name


def _argument(value: Any, names: dict[str, dict[str, str]]) -> Any:  # noqa: ANN401
    match value:
        case Node():
            return names.get(value.name, {"node": value.name})
        case list() | tuple():
            return [_argument(item, names) for item in value]
        case torch.dtype() | torch.layout() | torch.memory_format():
            return {"torch": str(value).removeprefix("torch.")}
        case torch.device():
            return {"device": "cpu"}
        case float() if not math.isfinite(value):
            return {"float": str(value)}
        case bool() | int() | float() | str() | None:
            return value
    raise UnsupportedPolicyError(
        f"This policy cannot be packaged: an operation takes a {type(value).__name__}."
    )
