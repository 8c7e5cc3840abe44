"""Where two runs come from, side by side: code, packages, machine, environment, seed."""

import json
from collections.abc import Iterator, Mapping
from typing import Final

from grpo_platform.reproduction.verdict import Difference
from grpo_platform.tracking.names import Tag

__all__ = ["differences"]

_TAGS: Final[Mapping[str, str]] = {
    "commit": Tag.GIT_COMMIT,
    "uncommitted changes": Tag.GIT_DIRTY,
    "python": Tag.PYTHON,
    "platform": Tag.PLATFORM,
    "environment hash": Tag.ENVIRONMENT_HASH,
    "seed": Tag.SEED,
}

_UNKNOWN: Final = "unknown"


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[Difference, ...]:
    """What is not the same.

    Args:
        then: tags of the run.
        now: tags of its reproduction, or those that it would get.
    """
    return tuple(difference for difference in _rows(then, now) if difference.then != difference.now)


def _rows(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Difference]:
    for what, tag in _TAGS.items():
        yield Difference(what, then.get(tag, _UNKNOWN), now.get(tag, _UNKNOWN))
    before, after = _packages(then), _packages(now)
    for name in sorted(before.keys() | after.keys()):
        yield Difference(name, before.get(name, _UNKNOWN), after.get(name, _UNKNOWN))


def _packages(tags: Mapping[str, str]) -> dict[str, str]:
    try:
        found = json.loads(tags.get(Tag.PACKAGES, "{}"))
    except ValueError:  # someone edited the tag
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
