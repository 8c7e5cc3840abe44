"""What Schemathesis cannot know: how many numbers an observation has."""

from itertools import cycle, islice
from math import isfinite
from typing import Any
from zlib import crc32

import schemathesis

OBSERVATION_SIZE = 4


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:  # noqa: ANN401
    """Every other observation that holds finite numbers only gets CartPole's length."""
    if not isinstance(body, dict):
        return body
    fitted = dict(body)
    if _is_vector(body.get("observation")):
        fitted["observation"] = _fit(body["observation"])
    rows = body.get("observations")
    if isinstance(rows, list) and all(map(_is_vector, rows)):
        fitted["observations"] = [_fit(row) for row in rows]
    return fitted


def _is_vector(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(item) in (int, float) and isfinite(item) for item in value)
    )


def _fit(numbers: list[float]) -> list[float]:
    # by its content, since Hypothesis must see the same case when it tries it again
    if crc32(repr(numbers).encode()) % 2:
        return numbers
    return list(islice(cycle(numbers), OBSERVATION_SIZE))
