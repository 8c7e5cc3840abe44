"""What differs between a run and its reproduction, where both come from, and the verdict."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from grpo_platform.core.names import (
    BASELINE_METRICS,
    CLOCK_METRICS,
    SYSTEM_METRICS_PREFIX,
    Metric,
    Tag,
)

__all__ = [
    "EXIT_CODES",
    "Comparison",
    "Difference",
    "Findings",
    "Reproduction",
    "Verdict",
    "compare",
    "differences",
]

Histories = Mapping[str, Sequence[tuple[int, float]]]
"""(step, value) of every point of each metric, in order."""


class Verdict(StrEnum):
    """How alike a run and its reproduction are."""

    IDENTICAL = "identical"
    """Bit for bit: all metric histories, those of the clock aside, and the weights."""
    EQUIVALENT = "equivalent"
    """The 95 % intervals of the two evaluations overlap."""
    DIFFERENT = "different"
    """They do not, or one run was not evaluated."""


EXIT_CODES: Final[Mapping[Verdict, int]] = {
    Verdict.IDENTICAL: 0,
    Verdict.EQUIVALENT: 3,
    Verdict.DIFFERENT: 4,
}
"""Of `grpo-platform reproduce`; 1 means that nothing was compared, 2 a wrong call."""


class Difference(NamedTuple):
    """Something that was not the same when the run was trained again."""

    what: str
    then: str
    now: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What is compared of one run."""

    histories: Histories
    weights_sha256: str | None
    """None where the model was deleted."""

    metrics: Mapping[str, float]
    """Latest values, the evaluation's among them."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the evaluation; None where there was none."""
        low, high = (self.metrics.get(key) for key in (Metric.EVAL_CI_LOW, Metric.EVAL_CI_HIGH))
        return None if low is None or high is None else (low, high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two runs side by side."""

    verdict: Verdict
    metrics: tuple[str, ...]
    """Keys whose histories were compared."""

    metrics_differing: tuple[str, ...]
    weights: tuple[str | None, str | None]
    """SHA-256 then and now."""

    intervals: tuple[tuple[float, float] | None, tuple[float, float] | None]
    """Of the evaluation, then and now."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        then, now = self.intervals
        return {
            "verdict": self.verdict.value,
            "metrics_compared": len(self.metrics),
            "metrics_differing": list(self.metrics_differing),
            "weights_sha256": {"then": self.weights[0], "now": self.weights[1]},
            "evaluation_interval": {"then": then, "now": now},
        }


def compare(then: Findings, now: Findings) -> Comparison:
    """Compare a run with its reproduction."""
    known = then.histories.keys() | (now.histories.keys() - BASELINE_METRICS)
    keys = sorted(key for key in known if _counts(key))
    differing = tuple(
        key for key in keys if _bits(then.histories.get(key)) != _bits(now.histories.get(key))
    )
    weights = (then.weights_sha256, now.weights_sha256)
    intervals = (then.interval, now.interval)
    if keys and not differing and weights[0] is not None and weights[0] == weights[1]:
        verdict = Verdict.IDENTICAL
    else:
        verdict = Verdict.EQUIVALENT if _overlap(*intervals) else Verdict.DIFFERENT
    return Comparison(
        verdict=verdict,
        metrics=tuple(keys),
        metrics_differing=differing,
        weights=weights,
        intervals=intervals,
    )


def _counts(key: str) -> bool:
    return key not in CLOCK_METRICS and not key.startswith(SYSTEM_METRICS_PREFIX)


def _bits(points: Sequence[tuple[int, float]] | None) -> list[tuple[int, str]] | None:
    # as text, since NaN is not equal to itself
    return None if points is None else [(step, value.hex()) for step, value in points]


def _overlap(a: tuple[float, float] | None, b: tuple[float, float] | None) -> bool:
    return a is not None and b is not None and a[0] <= b[1] and b[0] <= a[1]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """A run, its reproduction, what differed, and what came out."""

    original: str
    run_id: str
    """The run that trained it again."""

    differences: tuple[Difference, ...]
    comparison: Comparison

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "original": self.original,
            "reproduction": self.run_id,
            **self.comparison.to_dict(),
            "differences": [difference._asdict() for difference in self.differences],
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """What was compared, and how it was then and now; differences of origin first."""
        c = self.comparison
        equal = len(c.metrics) - len(c.metrics_differing)
        return [
            *self.differences,
            ("metric histories", f"{len(c.metrics)}", f"{equal} equal"),
            ("weights SHA-256", _short(c.weights[0]), _short(c.weights[1])),
            ("evaluation, 95 % interval", _interval(c.intervals[0]), _interval(c.intervals[1])),
        ]

    def to_markdown(self) -> str:
        """The table with the verdict above it."""
        lines = [
            f"**{self.comparison.verdict.value}**: run {self.run_id} reproduces {self.original}.",
            "",
            "| what | then | now |",
            "|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in self.rows()),
        ]
        return "\n".join(lines) + "\n"


def _short(digest: str | None) -> str:
    return "not known" if digest is None else digest[:16]


def _interval(ends: tuple[float, float] | None) -> str:
    return "none" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"
