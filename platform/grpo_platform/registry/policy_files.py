"""A policy as the two files that the model loader reads, and back; nothing is pickled.

`spec.json` says what the policy is, and a torch policy's has its graph (graph.py); `weights.pt`
holds plain tensors.
"""

import io
import json
from typing import Any

import torch

from grpo.actions import BoxActions, DiscreteActions
from grpo.evaluation import Evaluation, evaluate
from grpo.policies import BasePolicy, PolicySpec, make_policy
from grpo.policies.mlp import MLP_PARTS
from grpo_platform.core.errors import UnsafeModelError
from grpo_platform.registry.graph import exporting, policy_graph
from grpo_platform.registry.integrity import PolicyFiles
from grpo_platform.registry.loader import (
    FORMAT,
    GRAPH_FORMAT,
    GraphPredictor,
    GRPOPredictor,
    read_policy,
)

__all__ = [
    "Predictor",
    "evaluate_files",
    "policy_from_files",
    "policy_to_files",
    "predictor_from_files",
]

Predictor = GRPOPredictor | GraphPredictor


def policy_to_files(policy: BasePolicy) -> PolicyFiles:
    """What the loader reads of a policy.

    Raises:
        UnsupportedPolicyError: the policy's code cannot be traced, or does what is no plain
            arithmetic on tensors.
    """
    if _is_plain(policy.spec):
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
        if not _is_plain(spec):
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


def _is_plain(spec: PolicySpec) -> bool:
    """Whether the loader's own arithmetic knows this policy, so that it needs no graph."""
    actions = isinstance(spec.action, DiscreteActions | BoxActions)
    is_mlp = spec.policy == "MlpPolicy" and set(spec.policy_kwargs) <= MLP_PARTS
    return is_mlp and actions and spec.observation is None


def _why_not(error: Exception) -> str:
    """What is wrong with files that our loader refused, without what torch advises there."""
    cause = error.__cause__ or error
    if isinstance(cause, ValueError):
        return str(error)
    return (
        f"its files hold no policy ({type(cause).__name__}): the weights are damaged, or more than "
        "plain tensors, which is never unpickled."
    )
