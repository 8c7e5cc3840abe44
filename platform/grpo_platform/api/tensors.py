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

__all__ = ["HEADER_LENGTH", "datatype_of", "read_inputs", "write_reply"]

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""Header that says how many bytes of a body are JSON; tensors follow."""

_DTYPES: Final[Mapping[str, str]] = {
    "FP32": "<f4", "FP64": "<f8", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1",
}  # fmt: skip
_DATATYPES: Final = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


def datatype_of(dtype: npt.DTypeLike) -> str:
    """The protocol's name of a numpy type."""
    return _DATATYPES[np.dtype(dtype)]


def read_inputs(request: InferRequest, binary: bytes) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a request, by name.

    Args:
        request: the JSON part.
        binary: what follows it: the bytes of one tensor after the other.

    Returns:
        Shapes as the request says, the first dimension being the batch.

    Raises:
        InvalidRequestError: two tensors of one name.
        InvalidObservationError: numbers do not fill their shape, or bytes are left.
    """
    tensors: dict[str, npt.NDArray[Any]] = {}
    rest = memoryview(binary)
    for i, tensor in enumerate(request.inputs):
        field = f"inputs.{i}"
        if tensor.name in tensors:
            raise InvalidRequestError(
                f"Two inputs are called {tensor.name[:100]!r}.", field=f"{field}.name"
            )
        numbers, rest = _numbers(tensor, rest, field, is_last=i == len(request.inputs) - 1)
        size = math.prod(tensor.shape)
        if not tensor.shape or numbers.size != size:
            raise InvalidObservationError(
                f"The shape {tensor.shape} needs {size} numbers, not {numbers.size}; its first "
                "dimension is the batch.",
                field=f"{field}.shape",
            )
        tensors[tensor.name] = numbers.reshape(tensor.shape)
    return tensors


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


def _numbers(
    tensor: InferInput, binary: memoryview, field: str, *, is_last: bool
) -> tuple[npt.NDArray[Any], memoryview]:
    """A tensor's numbers, flat, and the bytes that are left for the others."""
    dtype = np.dtype(_DTYPES[tensor.datatype])
    if tensor.data is None:
        size = (tensor.parameters or {}).get("binary_data_size")
        fits = type(size) is int and (size == len(binary) if is_last else 0 <= size <= len(binary))
        if not isinstance(size, int) or not fits or size % dtype.itemsize:
            raise InvalidObservationError(
                "binary_data_size must be the number of bytes of this tensor that follow the JSON "
                f"part, a multiple of {dtype.itemsize}; after the last one there are no more.",
                field=f"{field}.parameters",
            )
        return np.frombuffer(binary[:size], dtype), binary[size:]
    try:
        numbers = np.array(tensor.data)
    except (ValueError, OverflowError):  # nested unevenly
        numbers = np.array(None)
    if tensor.data and numbers.dtype.kind not in "iuf":
        raise InvalidObservationError(
            "data must hold numbers only, flat or nested evenly.", field=f"{field}.data"
        )
    return numbers.astype(np.float64).ravel(), binary
