"""A reproduction's result, as JSON, as Markdown and as rows of a table."""

from dataclasses import dataclass
from typing import Any

from grpo_platform.reproduction.verdict import Comparison, Difference

__all__ = ["Reproduction"]


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
