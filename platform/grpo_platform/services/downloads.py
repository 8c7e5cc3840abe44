"""A model's version as one file, to be taken elsewhere."""

import shutil
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from grpo_platform.registry.models import Registry
from grpo_platform.registry.onnx_export import to_onnx
from grpo_platform.registry.policy_files import policy_from_files
from grpo_platform.registry.records import ModelVersionRef

__all__ = ["Download", "DownloadFormat", "download", "onnx_of"]

_PT2: Final = "data/model.pt2"


class DownloadFormat(StrEnum):
    """What a version can be taken away as."""

    MLFLOW = "mlflow"
    """The MLflow model whole, as a ZIP archive."""

    PT2 = "pt2"
    """The graph that `torch.export.load` reads."""

    ONNX = "onnx"
    """The model that onnxruntime answers from."""


class Download(NamedTuple):
    """One file."""

    name: str
    media_type: str
    content: bytes


def download(registry: Registry, reference: str, kind: DownloadFormat) -> Download:
    """A version as one file; its files are verified first.

    Args:
        registry: has the version.
        reference: `name`, `name@alias` or `name/version`.
        kind: of file.

    Raises:
        UnknownModelError: no such version of ours.
        UnsafeModelError: its files are not what was registered.
        InvalidRequestError: the extra `onnx` is not installed.
        grpo.GRPOError: the policy cannot be rebuilt here, or not be exported.
        StoreError: the store cannot be used.
    """
    if kind is DownloadFormat.ONNX:
        version, content = onnx_of(registry, reference)
        return Download(f"{_stem(version)}.onnx", "application/octet-stream", content)
    with TemporaryDirectory() as folder:
        target = Path(folder) / "model"
        version = registry.download(reference, target)
        if kind is DownloadFormat.PT2:
            content = (target / _PT2).read_bytes()
            return Download(f"{_stem(version)}.pt2", "application/octet-stream", content)
        archive = shutil.make_archive(str(Path(folder) / "archive"), "zip", target)
        return Download(f"{_stem(version)}.zip", "application/zip", Path(archive).read_bytes())


def onnx_of(registry: Registry, reference: str) -> tuple[ModelVersionRef, bytes]:
    """A version as an ONNX model, checked against its policy; raises as `download`."""
    version = registry.resolve(reference)
    return version, to_onnx(policy_from_files(registry.read(version), version.label))


def _stem(version: ModelVersionRef) -> str:
    return f"{version.name}-{version.version}"
