"""The figure of an experiment: its seeds' learning curves, and what they are together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from grpo.statistics import Curves
from grpo_platform.core.names import Metric
from grpo_platform.tracking.histories import History

__all__ = ["draw_curves"]

_LABELS: Final = {
    Metric.EPISODE_RETURN: "return of training episodes, mean of the last 100",
    Metric.EVAL_MEAN: "mean return of an evaluation",
}
_BLUE, _GREY, _RED = "#1f77b4", "0.55", "#d62728"


def draw_curves(
    histories: Mapping[str, History],
    together: Curves,
    *,
    title: str,
    key: str,
    threshold: float | None,
    path: Path,
) -> None:
    """Draw a thin line a seed, the interquartile mean and its interval as a band; a PNG.

    Args:
        histories: of the seeds, by job; points in order of their steps.
        together: the same at common steps.
        title: of the figure.
        key: metric that the histories are of.
        threshold: return that counts as solved, drawn as a dashed line.
        path: of the file.
    """
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, history in enumerate(histories.values()):
        name = "single seeds" if number == 0 else None
        axes.plot(history.steps, history.values, color=_GREY, linewidth=0.7, alpha=0.7, label=name)
    axes.fill_between(
        together.steps, together.low, together.high, color=_BLUE, alpha=0.22, linewidth=0,
        label="95 % interval over seeds",
    )  # fmt: skip
    axes.plot(together.steps, together.iqm, color=_BLUE, linewidth=2.2, label=_counted(together))
    if threshold is not None:
        name = f"solved: {threshold:,.6g}"
        axes.axhline(threshold, color=_RED, linewidth=1, linestyle="--", label=name)
    axes.set_ylim(*_limits([h.values.tolist() for h in histories.values()], threshold))
    axes.set_title(title)
    axes.set_xlabel("environment timesteps of a seed")
    axes.set_ylabel(_LABELS.get(key, key))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    figure.savefig(path, format="png")


def _counted(together: Curves) -> str:
    """How many seeds the line is of, once all that are to come have begun."""
    most, last = int(together.count.max()), int(together.count[together.count.argmax() :].min())
    return f"interquartile mean of {most} seeds" + ("" if last == most else f", {last} at the end")


def _limits(values: Sequence[Sequence[float]], threshold: float | None) -> tuple[float, float]:
    """Where the seeds are: a band of few seeds may be many times as high, and is cut there."""
    shown = [value for curve in values for value in curve]
    shown += [] if threshold is None else [threshold]
    low, high = min(shown), max(shown)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin
