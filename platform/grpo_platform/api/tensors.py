"""Tensors of the Open Inference Protocol, as JSON or as the bytes of its binary extension."""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic_core import to_json
from starlette.responses import Response

from grpo_platform.api.schemas.open_inference import InferInput, InferRequest
from grpo_platform.core.errors import InvalidObservationError, InvalidRequestError

__all__ = ["HEADER_LENGTH", "INPUT", "datatype_of", "read_input", "write_reply"]

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""Header that says how many bytes of a body are JSON; tensors follow."""

INPUT: Final = "observation"

_DTYPES: Final[Mapping[str, str]] = {
    "FP32": "<f4", "FP64": "<f8", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1",
}  # fmt: skip
_DATATYPES: Final = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


def datatype_of(dtype: npt.DTypeLike) -> str:
    """The protocol's name of a numpy type."""
    return _DATATYPES[np.dtype(dtype)]


def read_input(request: InferRequest, binary: bytes) -> npt.NDArray[Any]:
    """The observations that a request asks about.

    Args:
        request: the JSON part.
        binary: what follows it.

    Returns:
        Shape as the request says, the first dimension being the batch.

    Raises:
        InvalidRequestError: another input than `observation`.
        InvalidObservationError: the numbers do not fill the shape.
    """
    (tensor,) = request.inputs
    if tensor.name != INPUT:
        raise InvalidRequestError(
            f"The one input is {INPUT!r}, not {tensor.name[:100]!r}.", field="inputs.0.name"
        )
    size = math.prod(tensor.shape)
    numbers = _numbers(tensor, binary)
    if not tensor.shape or numbers.size != size:
        raise InvalidObservationError(
            f"The shape {tensor.shape} needs {size} numbers, not {numbers.size}; its first "
            "dimension is the batch.",
            field="inputs.0.shape",
        )
    return numbers.reshape(tensor.shape)


def write_reply(
    request: InferRequest, model_name: str, version: int, outputs: Mapping[str, npt.NDArray[Any]]
) -> Response:
    """The reply with the outputs that the request wants, each as JSON or as bytes.

    Raises:
        InvalidRequestError: an output that the model does not give.
    """
    wanted = {output.name: output.parameters or {} for output in request.outputs or ()}
    unknown = set(wanted) - set(outputs)
    if unknown:
        raise InvalidRequestError(
            f"No output {min(unknown)[:100]!r}; there are: {', '.join(outputs)}.", field="outputs"
        )
    all_binary = bool((request.parameters or {}).get("binary_data_output"))
    described: list[dict[str, Any]] = []
    chunks: list[bytes] = []
    for name in wanted or outputs:
        array = np.ascontiguousarray(outputs[name])
        tensor: dict[str, Any] = {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatype_of(array.dtype),
        }
        if wanted.get(name, {}).get("binary_data", all_binary):
            chunks.append(array.tobytes())
            tensor["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            tensor["data"] = array.ravel().tolist()
        described.append(tensor)
    reply = {"model_name": model_name, "model_version": str(version), "outputs": described}
    if request.id is not None:
        reply["id"] = request.id
    head = to_json(reply, inf_nan_mode="null")
    if not chunks:
        return Response(head, media_type="application/json")
    return Response(
        head + b"".join(chunks),
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(head))},
    )


def _numbers(tensor: InferInput, binary: bytes) -> npt.NDArray[Any]:
    dtype = np.dtype(_DTYPES[tensor.datatype])
    if tensor.data is None:
        size = (tensor.parameters or {}).get("binary_data_size")
        if size != len(binary) or len(binary) % dtype.itemsize:
            raise InvalidObservationError(
                "binary_data_size must be the number of bytes that follow the JSON part, a "
                f"multiple of {dtype.itemsize}.",
                field="inputs.0.parameters",
            )
        return np.frombuffer(binary, dtype)
    try:
        numbers = np.array(tensor.data)
    except (ValueError, OverflowError):  # nested unevenly
        numbers = np.array(None)
    if tensor.data and numbers.dtype.kind not in "iuf":
        raise InvalidObservationError(
            "data must hold numbers only, flat or nested evenly.", field="inputs.0.data"
        )
    return numbers.astype(np.float64)
