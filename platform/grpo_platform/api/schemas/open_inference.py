"""Open Inference Protocol v2: its own field names, which are not ours to choose."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from grpo_platform.api.schemas.common import Reply, example

__all__ = [
    "InferInput",
    "InferOutput",
    "InferReply",
    "InferRequest",
    "Live",
    "ModelMetadata",
    "ModelReady",
    "Ready",
    "RequestedOutput",
    "ServerMetadata",
    "TensorMetadata",
]

_Parameters = dict[str, JsonValue]
_Dimension = Annotated[int, Field(ge=0, le=10_000_000)]


class _Request(BaseModel):
    """Clients may send fields of extensions that this server does not know."""

    model_config = ConfigDict(extra="ignore", strict=True, use_attribute_docstrings=True)


class InferInput(_Request):
    """One tensor."""

    name: str = Field(max_length=200)
    shape: Annotated[list[_Dimension], Field(max_length=16)]
    datatype: Literal["FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8"]
    data: list[JsonValue] | None = None
    """Numbers in row-major order, flat or nested; none where they follow as bytes."""

    parameters: _Parameters | None = None
    """`binary_data_size`: length of the bytes that follow the JSON part."""


class RequestedOutput(_Request):
    """One output that the client wants."""

    name: str = Field(max_length=200)
    parameters: _Parameters | None = None
    """`binary_data`: return it as bytes after the JSON part."""


class InferRequest(_Request):
    """Tensors in, as the model's metadata names them. `deterministic` is true by default."""

    model_config = example(
        inputs=[
            {
                "name": "observation",
                "shape": [1, 4],
                "datatype": "FP32",
                "data": [0.1, 0.0, 0.05, 0.0],
            }
        ]
    )

    id: str | None = Field(default=None, max_length=200)
    parameters: _Parameters | None = None
    inputs: Annotated[list[InferInput], Field(min_length=1, max_length=1000)]
    """`observation`; of a Dict or Tuple, one tensor for each of its parts, named by its path, such
    as `goal.0`."""

    outputs: list[RequestedOutput] | None = None
    """Which outputs to return; all when left out."""


class InferOutput(Reply):
    """One tensor."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float] | None = None
    """Numbers in row-major order, flat; none where they follow as bytes."""

    parameters: _Parameters | None = None


class InferReply(Reply):
    """Tensors out."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferOutput]


class TensorMetadata(Reply):
    """What a tensor looks like; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Reply):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(Reply):
    """What this server is."""

    name: str
    version: str
    extensions: list[str]


class Live(Reply):
    """Whether the server answers."""

    live: bool


class Ready(Reply):
    """Whether the server is ready."""

    ready: bool


class ModelReady(Reply):
    """Whether the model is ready."""

    name: str
    ready: bool
