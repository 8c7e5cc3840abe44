"""The figures of a sweep: parallel coordinates of its trials, importance of its fields."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from grpo_platform.sweeps.records import Trial
from grpo_platform.sweeps.sampling import importances
from grpo_platform.sweeps.space import Choices, Spec

__all__ = ["draw_importance", "draw_parallel_coordinates"]

_LOW, _HIGH = 0.03, 0.97


def draw_parallel_coordinates(
    space: Mapping[str, Spec], trials: Sequence[Trial], metric: str, path: Path
) -> None:
    """Draw a line for each completed trial over one axis for each field, as PNG.

    Args:
        space: what varies.
        trials: at least one completed trial.
        metric: that the lines' colours show.
        path: of the file.
    """
    done = sorted((t for t in trials if t.value is not None), key=lambda t: t.value or 0.0)
    values = [t.value or 0.0 for t in done]
    width = max(8.0, 2.0 * (len(space) + 1))
    figure = Figure(figsize=(width, 5.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    norm = Normalize(min(values), max(values) if max(values) > min(values) else min(values) + 1)
    colours = colormaps["viridis"]
    for trial, value in zip(done, values, strict=True):
        heights = [_height(spec, trial.params[name]) for name, spec in space.items()]
        axes.plot(range(len(space)), heights, marker="o", color=colours(norm(value)), alpha=0.8)
    for x, spec in enumerate(space.values()):
        axes.axvline(x, color="0.6", linewidth=0.8)
        for height, text in _ticks(spec):
            axes.annotate(
                text, (x, height), xytext=(6, 0), textcoords="offset points", fontsize=8,
                va="center", bbox={"fc": "white", "ec": "none", "alpha": 0.7},
            )  # fmt: skip
    axes.set_xticks(range(len(space)), list(space))
    axes.set_xlim(-0.2, len(space) - 0.6)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_frame_on(False)
    axes.set_title(f"{len(done)} completed trials")
    figure.colorbar(ScalarMappable(norm, colours), ax=axes, label=metric)
    figure.savefig(path, format="png")


def draw_importance(
    space: Mapping[str, Spec], trials: Sequence[Trial], *, maximize: bool, path: Path
) -> bool:
    """Draw which fields tell the best trials from the others (PED-ANOVA, arXiv 2304.10255).

    Returns:
        Whether there was enough to draw: fields that differ, and trials that do.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about few trials: then the figure says so itself
        shares = importances(space, trials, maximize=maximize)
    if not shares:
        return False
    names = sorted(shares, key=lambda name: shares[name])
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(names)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    bars = axes.barh(names, [shares[name] for name in names], color="#1f77b4")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("share of the importance (PED-ANOVA, best tenth of the trials)")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, format="png")
    return True


def _height(spec: Spec, value: Any) -> float:  # noqa: ANN401
    if isinstance(spec, Choices):
        place, last = spec.choices.index(value), len(spec.choices) - 1
        return _LOW + (_HIGH - _LOW) * (place / last if last else 0.5)
    low, high, at = float(spec.low), float(spec.high), float(value)
    if spec.log:
        low, high, at = (float(np.log(x)) for x in (low, high, at))
    return _LOW + (_HIGH - _LOW) * ((at - low) / (high - low) if high > low else 0.5)


def _ticks(spec: Spec) -> list[tuple[float, str]]:
    if isinstance(spec, Choices):
        return [(_height(spec, v), v if isinstance(v, str) else json.dumps(v))
                for v in spec.choices]  # fmt: skip
    if spec.log:
        middle = float(np.sqrt(float(spec.low) * float(spec.high)))
    else:
        middle = (spec.low + spec.high) / 2
    return [(_height(spec, value), f"{value:.3g}") for value in (spec.low, middle, spec.high)]
