"""A torch policy as JSON: the graph of ATen operations that the model loader interprets.

`torch.export` traces what `ServedPolicy` does; what is written names only operations that torch
tags as core, which have no side effects. So a network of any kind is served by the one loader,
without its code and without unpickling.
"""

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
from torch.fx import Graph, Node
from torch.fx.passes.dialect.common.cse_pass import CSEPass

from grpo.errors import UnsupportedPolicyError
from grpo.policies import ServedPolicy
from grpo_platform.registry.loader import PYTHON_OPERATIONS, operation

__all__ = ["EXAMPLE_BATCH", "exporting", "policy_graph"]

EXAMPLE_BATCH = 2
"""Observations that a policy is traced with: a batch of one would be frozen into its graph."""

_CHECKS = ("_assert_scalar", "_assert_tensor_metadata", "_assert_async")
_PYTHON = {getattr(operator, name): name for name in PYTHON_OPERATIONS}
_lock = threading.Lock()


@contextmanager
def exporting() -> Iterator[None]:
    """`torch.export`, on one model at a time, without the files and lines that code comes from.

    Gradients are off: what only a training does is not traced.
    """
    with _lock, torch.no_grad():
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
            once = CSEPass()(program.graph_module)  # value and action share what they look at
            assert once is not None  # as it is for every graph
        return _write(program, once.graph_module.graph, noise)
    except UnsupportedPolicyError:
        raise
    except Exception as error:
        raise UnsupportedPolicyError(
            f"This policy cannot be packaged: torch.export could not trace it for a batch of any "
            f"size ({type(error).__name__}: {str(error).strip().splitlines()[0][:300]}). Its "
            "forward must use torch operations alone, whose results decide no Python branch."
        ) from error


def _write(
    program: ExportedProgram, graph: Graph, noise: int
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
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
    for node in graph.nodes:
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
    written = {
        "inputs": inputs,
        "noise": noise,
        "nodes": nodes,
        "outputs": dict(zip(keys, outputs, strict=True)),
    }
    return written, tensors


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
