"""Write a policy as an MLflow model with two flavors, without pickle and without inference.

The `pytorch` flavor is a `torch.export` archive of the greedy policy; `python_function` names
our loader, which travels as code beside the weights.
"""

import io
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow.pytorch
import numpy as np
import torch
import torch.fx.config
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec
from torch import nn

from grpo.policy import Policy, PolicySpec
from grpo.spaces import BoxActions, DiscreteActions
from grpo_platform.errors import UnsafeModelError
from grpo_platform.registry.loader import FORMAT, GRPOPredictor
from grpo_platform.registry.names import (
    CODE_DIR,
    LOADER_MODULE,
    POLICY_DIR,
    SPEC_FILE,
    WEIGHTS_FILE,
)
from grpo_platform.registry.released import PolicyFiles, installed_loader, why_no_policy

__all__ = ["GreedyPolicy", "policy_from_files", "save_policy", "warm_up"]

_exporting = threading.Lock()  # torch.export works on one model at a time
_EXAMPLE_BATCH = 2  # a batch of one would be frozen into the exported graph


class GreedyPolicy(nn.Module):
    """The most probable actions of a policy; this is what is exported."""

    low: torch.Tensor
    high: torch.Tensor
    centre: torch.Tensor
    half_range: torch.Tensor

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        action = policy.spec.action
        self.start = action.start if isinstance(action, DiscreteActions) else 0
        self.action_shape = action.shape if isinstance(action, BoxActions) else ()
        self.integer = isinstance(action, BoxActions) and action.integer
        if isinstance(action, BoxActions):
            low, high = torch.tensor(action.low), torch.tensor(action.high)
            bounded = torch.isfinite(low) & torch.isfinite(high)
            bottom = torch.where(bounded, low, torch.tensor(-1.0))
            top = torch.where(bounded, high, torch.tensor(1.0))
            self.register_buffer("low", low)
            self.register_buffer("high", high)
            self.register_buffer("centre", (bottom + top) / 2.0)
            self.register_buffer("half_range", (top - bottom) / 2.0)

    def forward(self, observations: torch.Tensor) -> dict[str, torch.Tensor]:
        """As the loader's `predict`, with `deterministic` true.

        Args:
            observations: shape (N, *observation shape), float32.
        """
        outputs, value = self.policy(observations)
        if isinstance(self.policy.spec.action, DiscreteActions):
            return {
                "action": outputs.argmax(dim=-1) + self.start,
                "action_probs": torch.softmax(outputs, dim=-1),
                "value": value,
            }
        mean = self.centre + self.half_range * outputs
        std = (self.half_range * torch.exp(self.policy.log_std)).expand_as(mean)
        action = torch.clamp(mean, self.low, self.high)
        if self.integer:
            action = torch.round(action)
        shape = (-1, *self.action_shape)
        return {
            "action": action.reshape(shape),
            "mean": mean.reshape(shape),
            "std": std.reshape(shape),
            "value": value,
        }


def save_policy(
    policy: Policy,
    path: Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    model_id: str | None = None,
    run_id: str | None = None,
) -> None:
    """Write `policy` as an MLflow model to the folder `path`, which must not exist.

    Args:
        policy: on any device; it is written for the CPU.
        path: where to.
        metadata: JSON values that the model's file repeats, such as its card.
        model_id: logged model that it will be the files of.
        run_id: run that trained it.

    Raises:
        UnsafeModelError: the installed loader is not a released one.
    """
    loader = installed_loader()
    policy = _cpu_copy(policy)
    model = Model(
        run_id=run_id,
        model_id=model_id,
        signature=_signature(policy.spec),
        metadata=dict(metadata or {}),
    )
    _save_pytorch_flavor(policy, path, model)
    folder = path / POLICY_DIR
    folder.mkdir()
    spec = {"format": FORMAT} | policy.spec.to_dict()
    (folder / SPEC_FILE).write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
    buffer = io.BytesIO()
    torch.save(policy.state_dict(), buffer)
    (folder / WEIGHTS_FILE).write_bytes(buffer.getvalue())
    (path / CODE_DIR).mkdir()
    (path / CODE_DIR / f"{LOADER_MODULE}.py").write_bytes(loader)
    pyfunc.add_to_model(
        model,
        loader_module=LOADER_MODULE,
        data=POLICY_DIR,
        code=CODE_DIR,
        conda_env="conda.yaml",
        python_env="python_env.yaml",
    )
    model.save(str(path / "MLmodel"))


def policy_from_files(files: PolicyFiles) -> Policy:
    """The policy, to be trained on or evaluated.

    Raises:
        UnsafeModelError: the files hold no policy.
    """
    try:
        # first: it builds nothing larger than the weights are
        GRPOPredictor.from_bytes(files.spec, files.weights)
        policy = Policy(PolicySpec.from_dict(json.loads(files.spec)))
        state = torch.load(io.BytesIO(files.weights), map_location="cpu", weights_only=True)
        policy.load_state_dict(state)
    except Exception as error:
        raise UnsafeModelError(f"A model is not loaded: {why_no_policy(error)}") from error
    return policy


def warm_up() -> None:
    """Write a tiny model and throw it away: the first export of a process takes seconds.

    For processes that others are forked from, which inherit what this imports and compiles.
    """
    spec = PolicySpec(observation_shape=(2,), action=DiscreteActions(2), net_arch=(2,))
    with TemporaryDirectory() as folder:
        save_policy(Policy(spec), Path(folder) / "model")


def _cpu_copy(policy: Policy) -> Policy:
    copy = Policy(policy.spec)
    copy.load_state_dict({name: value.cpu() for name, value in policy.state_dict().items()})
    for module in copy.modules():  # tensors of their own: an archive cannot hold views of one
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach().clone()))
    return copy


def _save_pytorch_flavor(policy: Policy, path: Path, model: Model) -> None:
    example = np.zeros((_EXAMPLE_BATCH, *policy.spec.observation_shape), np.float32)
    with _exporting, _without_source_paths():
        mlflow.pytorch.save_model(
            GreedyPolicy(policy),
            str(path),
            mlflow_model=model,
            signature=model.signature,
            input_example=example,
            serialization_format="pt2",
            pip_requirements=[f"{name}=={_release(name)}" for name in ("mlflow", "torch", "numpy")],
        )


@contextmanager
def _without_source_paths() -> Iterator[None]:
    """Keep the files and lines that an operation comes from out of the exported graph."""
    before = torch.fx.config.do_not_emit_stack_traces
    torch.fx.config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        torch.fx.config.do_not_emit_stack_traces = before


def _release(distribution: str) -> str:
    """Installed version without its local part: no index has "2.13.0+cpu"."""
    return version(distribution).split("+")[0]


def _signature(spec: PolicySpec) -> ModelSignature:
    float32 = np.dtype(np.float32)
    if isinstance(spec.action, DiscreteActions):
        outputs = [
            TensorSpec(np.dtype(np.int64), (-1,), "action"),
            TensorSpec(float32, (-1, spec.action.n), "action_probs"),
        ]
    else:
        shape = (-1, *spec.action.shape)
        outputs = [TensorSpec(float32, shape, name) for name in ("action", "mean", "std")]
    return ModelSignature(
        inputs=Schema([TensorSpec(float32, (-1, *spec.observation_shape))]),
        outputs=Schema([*outputs, TensorSpec(float32, (-1,), "value")]),
        params=ParamSchema([ParamSpec("deterministic", "boolean", default=True)]),
    )
