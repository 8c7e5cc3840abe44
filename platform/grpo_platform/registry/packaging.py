"""Write a policy as an MLflow model with two flavors, without pickle and without inference.

The `pytorch` flavor is a `torch.export` archive of the greedy policy; `python_function` names
our loader, which travels as code beside the weights.
"""

import copy
import errno
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import mlflow.pytorch
import numpy as np
import torch
import torch.fx.config
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec
from torch import nn

from grpo.policies import BasePolicy, MlpPolicy, PolicySpec, make_policy
from grpo.spaces import DiscreteActions
from grpo_platform.core.errors import UnsafeModelError
from grpo_platform.registry.graph import policy_graph
from grpo_platform.registry.integrity import PolicyFiles, installed_loader, why_no_policy
from grpo_platform.registry.loader import FORMAT, GRAPH_FORMAT, read_policy
from grpo_platform.registry.names import (
    CODE_DIR,
    LOADER_MODULE,
    POLICY_DIR,
    SPEC_FILE,
    WEIGHTS_FILE,
)

__all__ = ["policy_from_files", "save_policy", "warm_up"]

_ARCHIVE_BYTES: Final = 4 << 20
"""More than a model's files take beside its weights."""

_exporting = threading.Lock()  # torch.export works on one model at a time
_EXAMPLE_BATCH = 2  # a batch of one would be frozen into the exported graph


def save_policy(
    policy: BasePolicy,
    path: Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    model_id: str | None = None,
    run_id: str | None = None,
) -> None:
    """Write `policy` as an MLflow model to the folder `path`, which must not exist.

    Args:
        policy: on the CPU.
        path: where to.
        metadata: JSON values that the model's file repeats, such as its card.
        model_id: logged model that it will be the files of.
        run_id: run that trained it.

    Raises:
        OSError: the files cannot be written.
        UnsafeModelError: the installed loader is not a released one.
        UnsupportedPolicyError: the policy's code cannot be traced.
    """
    loader = installed_loader()
    spec, tensors = _policy_files(policy)
    model = Model(
        run_id=run_id,
        model_id=model_id,
        signature=_signature(policy),
        metadata=dict(metadata or {}),
    )
    _save_pytorch_flavor(policy, path, model)
    folder = path / POLICY_DIR
    folder.mkdir()
    (folder / SPEC_FILE).write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
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


def policy_from_files(files: PolicyFiles) -> BasePolicy:
    """The policy, to be trained on.

    Raises:
        UnsafeModelError: the files hold no policy.
        IncompatibleError: its class was handed in as an object, so that it can be served but not
            rebuilt; or is a plug-in's that is not installed here.
    """
    try:
        read_policy(files.spec, files.weights)  # first: it builds nothing larger than the weights
        spec = PolicySpec.from_dict(json.loads(files.spec))
    except Exception as error:
        raise UnsafeModelError(f"A model is not loaded: {why_no_policy(error)}") from error
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
        raise UnsafeModelError(f"A model is not loaded: {why_no_policy(error)}") from error
    return policy


def _policy_files(policy: BasePolicy) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Contents of the two files that the loader reads."""
    if isinstance(policy, MlpPolicy):
        return {"format": FORMAT} | policy.spec.to_dict(), policy.state_dict()
    with _exporting, _without_source_paths():
        graph, tensors = policy_graph(policy.export())
    state = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    return {"format": GRAPH_FORMAT} | policy.spec.to_dict() | {"graph": graph}, state | tensors


def warm_up() -> None:
    """Write a tiny model and throw it away: the first export of a process takes seconds.

    For processes that others are forked from, which inherit what this imports and compiles.
    """
    spec = PolicySpec(observation_shape=(2,), action=DiscreteActions(2), net_arch=(2,))
    with TemporaryDirectory() as folder:
        save_policy(MlpPolicy(spec), Path(folder) / "model")


def _apart(policy: BasePolicy) -> BasePolicy:
    """A copy whose tensors are its own: an archive cannot hold views of one."""
    apart = copy.deepcopy(policy)
    for module in apart.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach().clone()))
    return apart


def _save_pytorch_flavor(policy: BasePolicy, path: Path, model: Model) -> None:
    _require_room(path.parent, policy)
    example = np.zeros((_EXAMPLE_BATCH, *policy.spec.observation_shape), np.float32)
    with _exporting, _without_source_paths(), _files_written():
        mlflow.pytorch.save_model(
            _apart(policy).export().eval(),
            str(path),
            mlflow_model=model,
            signature=model.signature,
            input_example=example,
            serialization_format="pt2",
            pip_requirements=[f"{name}=={_release(name)}" for name in ("mlflow", "torch", "numpy")],
        )


def _require_room(folder: Path, policy: BasePolicy) -> None:
    """Refuse a disk that is full: torch's writer of archives may end the process over one."""
    needed = _ARCHIVE_BYTES + sum(t.nbytes for t in policy.state_dict().values())
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


@contextmanager
def _files_written() -> Iterator[None]:
    """Say as any other writer does that a file cannot be written, as on a full disk."""
    try:
        yield
    except RuntimeError as error:
        if "inline_container" not in str(error):  # torch's writer of archives
            raise
        said = f"torch could not write the model's archive: {str(error).splitlines()[0]}"
        raise OSError(errno.EIO, said) from error


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


def _signature(policy: BasePolicy) -> ModelSignature:
    float32 = np.dtype(np.float32)
    with torch.inference_mode():
        reply = policy.export()(torch.zeros((_EXAMPLE_BATCH, *policy.spec.observation_shape)))
    return ModelSignature(
        inputs=Schema([TensorSpec(float32, (-1, *policy.spec.observation_shape))]),
        outputs=Schema(
            [
                TensorSpec(tensor.numpy().dtype, (-1, *tensor.shape[1:]), name)
                for name, tensor in reply.items()
            ]
        ),
        params=ParamSchema([ParamSpec("deterministic", "boolean", default=True)]),
    )
