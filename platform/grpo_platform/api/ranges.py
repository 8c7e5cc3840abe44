"""Files of which a part may be asked for (RFC 9110, section 14), as browsers seek in films."""

import hashlib
import re
from typing import Final

from fastapi import Request
from starlette.responses import Response

from grpo_platform.api.errors import problem_response

__all__ = ["ranged"]

_ONE_RANGE: Final = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE)


def ranged(request: Request, content: bytes, media_type: str) -> Response:
    """A file, or the one range of it that the request asks for.

    Several ranges at once, and what is no range, get the whole, as the RFC allows. A range that
    was asked for because of another file (`If-Range`) gets the whole, too.

    Args:
        request: may have `Range`.
        content: of the file.
        media_type: of the file.
    """
    size = len(content)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Accept-Ranges": "bytes", "ETag": tag}
    found = _ONE_RANGE.fullmatch(request.headers.get("range", ""))
    if found is None or request.headers.get("if-range", tag) != tag:
        return Response(content, media_type=media_type, headers=headers)
    first, last = (int(text) if text else None for text in found.groups())
    if first is None:  # the last so many bytes
        is_range, start, stop = last is not None, max(0, size - (last or 0)), size
    else:
        is_range, start = last is None or first <= last, first
        stop = size if last is None else min(size, last + 1)
    if not is_range:
        return Response(content, media_type=media_type, headers=headers)
    if start >= stop:
        return problem_response(
            416,
            f"The file has {size} bytes: ask for a range from 0 to {size - 1}.",
            headers=headers | {"Content-Range": f"bytes */{size}"},
        )
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Response(content[start:stop], 206, media_type=media_type, headers=headers)
