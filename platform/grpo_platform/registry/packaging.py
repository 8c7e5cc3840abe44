"""Write a policy as an MLflow model with two flavors, without pickle and without inference.

The `pytorch` flavor is a `torch.export` archive of the greedy policy; `python_function` names
our loader, which travels as code beside the weights.
"""

import copy
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import mlflow.pytorch
import numpy as np
import numpy.typing as npt
import torch
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from torch import nn

from grpo.actions import DiscreteActions
from grpo.observations import ADDED
from grpo.policies import BasePolicy, MlpPolicy, PolicySpec
from grpo_platform.registry.graph import EXAMPLE_BATCH, exporting
from grpo_platform.registry.integrity import installed_loader
from grpo_platform.registry.names import (
    CODE_DIR,
    LOADER_MODULE,
    POLICY_DIR,
    SPEC_FILE,
    WEIGHTS_FILE,
)
from grpo_platform.registry.policy_files import policy_to_files

__all__ = ["restate", "save_policy", "warm_up"]

_ARCHIVE_BYTES: Final = 4 << 20
"""More than a model's files take beside its weights."""


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
    files = policy_to_files(policy)
    model = Model(run_id=run_id, model_id=model_id, metadata=dict(metadata or {}))
    _save_pytorch_flavor(policy, path, model)
    if policy.spec.observation is not None:
        _name_inputs(policy, path, model)
    folder = path / POLICY_DIR
    folder.mkdir()
    (folder / SPEC_FILE).write_bytes(files.spec)
    (folder / WEIGHTS_FILE).write_bytes(files.weights)
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


def restate(path: Path, metadata: Mapping[str, Any], model_id: str) -> None:
    """Give a copy of a model's files the metadata and the id of the logged model that it becomes.

    Args:
        path: folder that `save_policy` wrote, or a copy of one.
        metadata: JSON values, in place of those that the model's file repeats.
        model_id: logged model that it will be the files of.

    Raises:
        OSError: the file cannot be written.
    """
    model = Model.load(str(path))
    model.metadata = dict(metadata)
    model.model_id = model_id
    model.save(str(path / "MLmodel"))


def warm_up() -> None:
    """Write a model and throw it away: the first export of a process takes seconds.

    One of the usual size, since torch remembers what it found out by shape.

    For processes that others are forked from, which inherit what this imports and compiles.
    """
    spec = PolicySpec(observation_shape=(4,), action=DiscreteActions(2))
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
    with exporting(), _files_written():
        mlflow.pytorch.save_model(
            _apart(policy).export().eval(),
            str(path),
            mlflow_model=model,
            signature=_signature(policy, [_rows(policy.spec)]),
            input_example=_example(policy.spec),
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


@cache
def _release(distribution: str) -> str:
    """Installed version without its local part: no index has "2.13.0+cpu"."""
    return version(distribution).split("+")[0]


def _signature(policy: BasePolicy, inputs: list[ColSpec | TensorSpec]) -> ModelSignature:
    with torch.inference_mode():
        reply = policy.export()(torch.from_numpy(_example(policy.spec)))
    return ModelSignature(
        inputs=Schema(inputs),
        outputs=Schema(
            [
                TensorSpec(tensor.numpy().dtype, (-1, *tensor.shape[1:]), name)
                for name, tensor in reply.items()
            ]
        ),
        params=ParamSchema([ParamSpec("deterministic", "boolean", default=True)]),
    )


def _rows(spec: PolicySpec) -> TensorSpec:
    """What the exported module takes, and a model of numbers alone."""
    return TensorSpec(np.dtype(np.float32), (-1, *spec.observation_shape))


def _name_inputs(policy: BasePolicy, path: Path, model: Model) -> None:
    """Say what pyfunc takes where that is more than the exported module's rows of numbers.

    That is one array for each part of a tree, each of its type. MLflow's example is of rows.
    """
    reads = policy.spec.reads
    inputs: list[ColSpec | TensorSpec] = [
        TensorSpec(leaf.tensor_dtype, (-1, *leaf.shape), leaf.name if reads.names else None)
        for leaf in reads.leaves
    ]
    inputs += [TensorSpec(np.dtype(ADDED[name]), (-1, n), name) for name, n in reads.added.items()]
    model.signature = _signature(policy, inputs)
    model.saved_input_example_info = None  # type: ignore[assignment] # as in a new one
    for example in path.glob("*input_example.json"):
        example.unlink()


def _example(spec: PolicySpec) -> npt.NDArray[np.float32]:
    """Observations to trace with, shape (EXAMPLE_BATCH, *shape)."""
    return np.zeros((EXAMPLE_BATCH, *spec.observation_shape), np.float32)
