"""The figures of a comparison: as one picture for MLflow, as drawings for the report.

Drawings have no background, and take the colour of the text around them, so that one file is read
on light and on dark.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from grpo_platform.comparisons.records import Comparison, Side

__all__ = ["TITLES", "colour_of", "draw_picture", "drawings"]

TITLES: Final = {
    "differences": "What they differ by",
    "returns": "Returns",
    "profile": "Performance profile",
    "efficiency": "Sample efficiency",
}

# Okabe and Ito's colours, a lighter blue among them: told apart by everybody, on light and dark
_COLOURS: Final = ("#3182ce", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6bb1",
                   "#999999")  # fmt: skip
_INK: Final = "#123457"  # replaced by the colour of the text around a drawing
_LONGEST: Final = 28


def draw_picture(comparison: Comparison) -> bytes:
    """All figures in one PNG, on white."""
    figure = Figure(figsize=(11, 8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, draw) in zip(figure.subplots(2, 2).flat, _PARTS.items(), strict=True):
        axes.set_title(TITLES[name])
        draw(axes, comparison)
    _legend(figure, comparison)
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def drawings(comparison: Comparison) -> dict[str, str]:
    """Each figure as an SVG element, by its name in `TITLES`."""
    return {name: _drawn(draw, comparison) for name, draw in _PARTS.items()}


def _drawn(draw: Callable[[Axes, Comparison], None], comparison: Comparison) -> str:
    height = 2.9 if draw is not _differences else max(2.0, 1.3 + 0.5 * len(comparison.pairs))
    figure = Figure(figsize=(4.6, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    draw(axes, comparison)
    _ink(axes)
    target = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(target, format="svg", transparent=True, metadata=nothing)
    text = target.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S).replace(
        _INK, "currentColor"
    )


def _ink(axes: Axes) -> None:
    """Everything that is black in the colour that stands for the text's own."""
    axes.tick_params(colors=_INK, labelcolor=_INK)
    for spine in axes.spines.values():
        spine.set_edgecolor(_INK)
    legend = axes.get_legend()
    texts = [axes.xaxis.label, axes.yaxis.label, axes.xaxis.offsetText, axes.yaxis.offsetText]
    for text in [*texts, *axes.texts, *(legend.get_texts() if legend else ())]:
        text.set_color(_INK)


def colour_of(place: int) -> str:
    """Of a side, by its place."""
    return _COLOURS[place % len(_COLOURS)]


def _differences(axes: Axes, comparison: Comparison) -> None:
    """Each pair's difference of means, and of interquartile means, with their intervals."""
    labels = [side.label for side in comparison.sides]
    rows = range(len(comparison.pairs))
    for row, pair in zip(rows, comparison.pairs, strict=True):
        for shift, found, colour, marker in (
            (-0.13, pair.mean, _COLOURS[0], "o"), (0.13, pair.iqm, _COLOURS[1], "s")
        ):  # fmt: skip
            if found is not None:
                reach = [[found.estimate - found.low], [found.high - found.estimate]]
                axes.errorbar(
                    found.estimate, row + shift, xerr=reach, color=colour, marker=marker, capsize=3
                )
    axes.axvline(0.0, color=_COLOURS[7], linewidth=1.0, linestyle="--")
    names = [f"{_short(labels[p.first])}\n− {_short(labels[p.second])}" for p in comparison.pairs]
    axes.set_yticks(rows, names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for colour, marker, label in ((_COLOURS[0], "o", "mean"), (_COLOURS[1], "s", "IQM")):
        axes.plot([], [], color=colour, marker=marker, label=label)
    axes.legend(loc="best", fontsize=8, framealpha=0.0)
    axes.set_xlabel("difference of returns")
    _grid(axes)


def _returns(axes: Axes, comparison: Comparison) -> None:
    """Every return, and each side's mean with its interval."""
    for place, side in enumerate(comparison.sides):
        spread = [place + 0.25 * ((7 * i) % 11 - 5) / 5 for i in range(len(side.returns))]
        axes.plot(side.returns, spread, ".", color=colour_of(place), alpha=0.45, markersize=5)
        reach = [[side.mean.estimate - side.mean.low], [side.mean.high - side.mean.estimate]]
        axes.errorbar(
            side.mean.estimate, place, xerr=reach, color=colour_of(place), marker="D", capsize=4
        )
    sides = comparison.sides
    axes.set_yticks(range(len(sides)), [_short(side.label) for side in sides])
    axes.set_ylim(len(sides) - 0.5, -0.5)
    axes.set_xlabel(_what(sides, comparison.normalized))
    _grid(axes)


def _profile(axes: Axes, comparison: Comparison) -> None:
    for place, side in enumerate(comparison.sides):
        found, colour = side.profile, colour_of(place)
        axes.step(found.thresholds, found.shares, where="post", color=colour)
        axes.fill_between(
            found.thresholds, found.low, found.high, step="post", color=colour, alpha=0.18,
            linewidth=0,
        )  # fmt: skip
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("threshold")
    axes.set_ylabel("share that returns more")
    _grid(axes)


def _efficiency(axes: Axes, comparison: Comparison) -> None:
    """Returns over timesteps; a band where there are three runs or more."""
    drawn = [(place, side.curve) for place, side in enumerate(comparison.sides) if side.curve]
    for place, curve in drawn:
        axes.plot(curve.steps, curve.iqm, color=colour_of(place))
        axes.fill_between(
            curve.steps, curve.low, curve.high, where=[n > 2 for n in curve.count],
            color=colour_of(place), alpha=0.18, linewidth=0,
        )  # fmt: skip
    heights = [height for _, curve in drawn for height in curve.iqm]
    if heights:  # a band of three runs may be many times as high as all that they returned
        room = 0.2 * (max(heights) - min(heights) or 1.0)
        axes.set_ylim(min(heights) - room, max(heights) + room)
    else:
        axes.text(0.5, 0.5, "no histories", ha="center", transform=axes.transAxes)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("environment timesteps")
    axes.set_ylabel(f"IQM of {comparison.curve_metric}", fontsize=8)
    _grid(axes)


_PARTS: Final[dict[str, Callable[[Axes, Comparison], None]]] = {
    "differences": _differences,
    "returns": _returns,
    "profile": _profile,
    "efficiency": _efficiency,
}


def _legend(figure: Figure, comparison: Comparison) -> None:
    axes = figure.axes[1]
    handles = [
        axes.plot([], [], color=colour_of(place), label=_short(side.label))[0]
        for place, side in enumerate(comparison.sides)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)


def _what(sides: Sequence[Side], normalized: bool) -> str:
    units = {side.unit for side in sides}
    of = "seeds" if units == {"seed"} else "episodes" if units == {"episode"} else "values"
    return f"{'normalised ' if normalized else ''}returns of {of}"


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"


def _grid(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
