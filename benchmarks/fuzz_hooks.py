"""What Schemathesis cannot know: how many numbers an observation has, what can be searched."""

from itertools import cycle, islice
from math import isfinite
from typing import Any
from zlib import crc32

import schemathesis

OBSERVATION_SIZE = 4
MOST_DIMENSIONS = 50
SPACE = {"gamma": {"type": "float", "low": 0.9, "high": 0.99}}


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:  # noqa: ANN401
    """Every other observation of finite numbers gets CartPole's length, every other space is one.

    What the schema refuses is left as it is.
    """
    if not isinstance(body, dict):
        return body
    fitted = dict(body)
    if _is_vector(body.get("observation")):
        fitted["observation"] = _fit(body["observation"])
    rows = body.get("observations")
    if isinstance(rows, list) and all(map(_is_vector, rows)):
        fitted["observations"] = [_fit(row) for row in rows]
    space = body.get("search_space")
    if isinstance(space, dict) and 0 < len(space) <= MOST_DIMENSIONS and _chosen(space):
        fitted["search_space"] = SPACE
    return fitted


def _is_vector(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(item) in (int, float) and isfinite(item) for item in value)
    )


def _fit(numbers: list[float]) -> list[float]:
    return list(islice(cycle(numbers), OBSERVATION_SIZE)) if _chosen(numbers) else numbers


def _chosen(value: object) -> bool:
    # by its content, since Hypothesis must see the same case when it tries it again
    return crc32(repr(value).encode()) % 2 == 0
