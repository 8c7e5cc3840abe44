"""A comparison for people: one HTML file that opens offline, and Markdown for a pull request."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from grpo_platform.comparisons.records import Comparison, Estimate, Side
from grpo_platform.comparisons.wording import figure

__all__ = ["files_of", "html_report", "markdown_report", "pairs_csv", "returns_csv"]

_TEMPLATE: Final = "report.html.jinja"


def files_of(comparison: Comparison) -> dict[str, bytes]:
    """What the run of a comparison holds, by name."""
    from grpo_platform.comparisons.figures import draw_picture

    return {
        "comparison.png": draw_picture(comparison),
        "report.html": html_report(comparison).encode(),
        "report.md": markdown_report(comparison).encode(),
        "pairs.csv": pairs_csv(comparison).encode(),
        "returns.csv": returns_csv(comparison).encode(),
    }


def html_report(comparison: Comparison) -> str:
    """One file with everything in it: no script, and nothing that is loaded."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from grpo_platform.comparisons.figures import TITLES, colour_of, drawings

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "interval": _interval}
    return environment.get_template(_TEMPLATE).render(
        comparison=comparison,
        titles=TITLES,
        drawings=drawings(comparison),
        colours=[colour_of(place) for place in range(len(comparison.sides))],
        settings=_settings(comparison.sides),
    )


def markdown_report(comparison: Comparison) -> str:
    """Sentences, warnings and tables; what a pull request shows."""
    parts = [f"## {' against '.join(_plain(side.label) for side in comparison.sides)}"]
    parts += [f"- {_plain(pair.sentence)}" for pair in comparison.pairs]
    if comparison.correction:
        parts.append(comparison.correction)
    if comparison.warnings:
        parts.append("\n".join(f"> **Note** {_plain(said)}\n>" for said in comparison.warnings))
    head = ("", "returns", "mean (95 % interval)", "IQM (95 % interval)", "budget", "until then")
    rows = [
        (side.label, f"{len(side.returns)} {side.unit}s", _interval(side.mean),
         _interval(side.iqm), f"{side.total_timesteps:,}",
         "" if side.area is None else figure(side.area))
        for side in comparison.sides
    ]  # fmt: skip
    parts.append(_table(head, rows))
    if differing := _settings(comparison.sides):
        parts.append(_table(("", *(side.label for side in comparison.sides)), differing))
    parts.append(
        f"Comparison `{comparison.comparison_id}`, {comparison.created_at:%Y-%m-%d %H:%M} UTC. "
        '"Until then" is the mean height of the learning curve up to the smallest budget.'
    )
    return "\n\n".join(parts) + "\n"


def pairs_csv(comparison: Comparison) -> str:
    """A row for each pair."""
    figures = ("mean", "iqm", "probability")
    head = ["first", "second", "paired", "first_units", "second_units", "confidence"]
    head += [f"{name}{end}" for name in figures for end in ("", "_low", "_high")]
    head += ["p_value", "adjusted_p_value", "verdict"]
    rows = []
    for pair in comparison.pairs:
        row: list[object] = [
            comparison.sides[pair.first].label, comparison.sides[pair.second].label,
            pair.paired, *pair.units, pair.confidence,
        ]  # fmt: skip
        for found in (pair.mean, pair.iqm, pair.probability):
            row += ["", "", ""] if found is None else [found.estimate, found.low, found.high]
        rows.append([*row, pair.p_value, pair.adjusted_p_value, pair.verdict])
    return _csv(head, rows)


def returns_csv(comparison: Comparison) -> str:
    """A row for each unit of each side."""
    rows = [
        (side.label, side.unit, seed, value)
        for side in comparison.sides
        for seed, value in zip(side.seeds, side.returns, strict=True)
    ]
    return _csv(["side", "unit", "seed", "return"], rows)


def _settings(sides: tuple[Side, ...]) -> list[tuple[str, ...]]:
    """Settings that are not the same for all sides: name, and each side's value."""
    found = {
        "environment": [side.env_name for side in sides],
        "env_kwargs": [str(dict(side.env_kwargs)) for side in sides],
        "reward": [side.reward_function_type for side in sides],
        "timesteps": [f"{side.total_timesteps:,}" for side in sides],
    }
    return [(name, *values) for name, values in found.items() if len(set(values)) > 1]


def _interval(found: Estimate | None) -> str:
    if found is None:
        return ""
    return f"{figure(found.estimate)} ({figure(found.low)} to {figure(found.high)})"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [[_plain(cell) for cell in row] for row in (head, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|---" * len(cells[0]) + "|", *lines[1:]])


def _plain(text: str) -> str:
    """Text that Markdown takes for nothing but text."""
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def _csv(head: list[str], rows: Iterable[Iterable[object]]) -> str:
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return target.getvalue()
