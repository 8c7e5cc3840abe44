"""What differs between a run and its reproduction, and the verdict; knows no store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from grpo_platform.tracking.names import CLOCK_METRICS, SYSTEM_METRICS_PREFIX, Metric

__all__ = ["EXIT_CODES", "Comparison", "Difference", "Findings", "Verdict", "compare"]

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
    keys = sorted(key for key in then.histories.keys() | now.histories.keys() if _counts(key))
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
