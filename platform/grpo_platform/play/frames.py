"""What viewers get: a message is a JSON header and, behind it, an image where there is one.

On a stream and in a WebSocket alike: four bytes, big-endian, the length of the header; the header;
the image, as long as the header's `image_bytes` says.
"""

import io
import json
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["MOST_PIXELS", "animation", "as_json", "jpeg", "pack", "split"]

MOST_PIXELS: Final = 640
"""Of an image's longer side. Gymnasium draws smaller ones, which are sent as they are: to make one
smaller takes as long as to encode it."""

_MOST_BYTES: Final = 128 * 2**10
_QUALITY: Final = 85
"""Of a frame: JPEG takes a fifth of the time that WebP does, which is left to who trains, or asks
for actions."""

_FILM_QUALITY: Final = 75
_LENGTH: Final = struct.Struct(">I")
_MOST_HEADER: Final = 2**24


def jpeg(image: npt.NDArray[np.uint8]) -> tuple[bytes, int, int]:
    """An image of bounded size; returns width and height, too.

    Args:
        image: shape (height, width, 3).
    """
    picture = _small(image)
    for quality in (_QUALITY, 40, 10):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        if file.tell() <= _MOST_BYTES:
            break
    return file.getvalue(), *picture.size


def animation(
    images: Sequence[npt.NDArray[np.uint8]], milliseconds: int, kind: str = "WEBP"
) -> bytes:
    """Images one after the other, again and again, as a WebP or GIF file.

    Args:
        images: shape (height, width, 3) each, at least one.
        milliseconds: how long each is shown.
        kind: `WEBP` or `GIF`.
    """
    first, *rest = [_small(image) for image in images]
    file = io.BytesIO()
    first.save(
        file, kind, save_all=True, append_images=rest, duration=milliseconds, loop=0,
        **({"quality": _FILM_QUALITY, "method": 0} if kind == "WEBP" else {}),
    )  # fmt: skip
    return file.getvalue()


def _small(image: npt.NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.BOX)
    return picture


def pack(header: dict[str, Any], image: bytes = b"") -> bytes:
    """One message."""
    text = json.dumps(
        as_json({**header, "image_bytes": len(image)}), separators=(",", ":"), allow_nan=False
    ).encode()
    return _LENGTH.pack(len(text)) + text + image


def split(buffer: bytearray) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The whole messages at the start of a buffer, which they are taken out of.

    Returns:
        Each header, and the message as it came.

    Raises:
        ValueError: it is no message.
    """
    while len(buffer) >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(buffer)
        if length > _MOST_HEADER:
            raise ValueError("a header is too long")
        end = _LENGTH.size + length
        if len(buffer) < end:
            return
        header = json.loads(buffer[_LENGTH.size : end])
        end += header["image_bytes"]
        if len(buffer) < end:
            return
        message = bytes(buffer[:end])
        del buffer[:end]
        yield header, message


def as_json(value: Any) -> Any:  # noqa: ANN401 - JSON values
    """Arrays as lists, and what JSON has no number for as null."""
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return as_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
