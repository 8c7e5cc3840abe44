"""The learning-curve figure: rewards, episode returns and evaluations over timesteps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from grpo_platform.core.names import Metric
from grpo_platform.tracking.reporter import HistoryPoint

__all__ = ["CURVE_KEYS", "draw_learning_curve"]

CURVE_KEYS: Final = (
    Metric.REWARD,
    Metric.EPISODE_RETURN,
    Metric.EVAL_MEAN,
    Metric.EVAL_CI_LOW,
    Metric.EVAL_CI_HIGH,
)
"""Histories that the figure is drawn from."""

_BLUE, _ORANGE, _GREEN = "#1f77b4", "#ff7f0e", "#2ca02c"

History = Sequence[HistoryPoint]


def draw_learning_curve(histories: Mapping[str, History], title: str, path: Path) -> None:
    """Draw the figure as PNG, 800 by 560 pixels.

    Args:
        histories: points by key; keys without points may be absent.
        title: of the figure.
        path: of the file.
    """
    figure = Figure(figsize=(8, 5.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.suptitle(title)
    _draw_returns(above, histories)
    _draw_rewards(below, histories)
    figure.savefig(path, format="png")


def _draw_returns(axes: Axes, histories: Mapping[str, History]) -> None:
    episodes = histories.get(Metric.EPISODE_RETURN, ())
    if episodes:
        label = "training episodes (sampled, mean of the last 100)"
        axes.plot(*_curve(episodes), color=_BLUE, linewidth=1.5, label=label)
    evaluated = histories.get(Metric.EVAL_MEAN, ())
    if evaluated:
        steps, values = _curve(evaluated)
        low = [p.value for p in histories.get(Metric.EVAL_CI_LOW, ())]
        high = [p.value for p in histories.get(Metric.EVAL_CI_HIGH, ())]
        errors = None
        if len(low) == len(high) == len(values):
            errors = [
                [max(0.0, v - x) for v, x in zip(values, low, strict=True)],
                [max(0.0, x - v) for v, x in zip(values, high, strict=True)],
            ]
        label = "evaluation (greedy): mean with 95 % interval"
        axes.errorbar(steps, values, yerr=errors, color=_GREEN, marker="o", capsize=4, label=label)
    axes.set_ylabel("episode return,\nenvironment's own reward")
    _finish(axes)


def _draw_rewards(axes: Axes, histories: Mapping[str, History]) -> None:
    rewards = histories.get(Metric.REWARD, ())
    if rewards:
        steps, values = _curve(rewards)
        axes.plot(steps, values, color=_ORANGE, alpha=0.3, linewidth=0.8)
        smooth = _smoothed(values, max(1, len(values) // 40))
        axes.plot(steps, smooth, color=_ORANGE, linewidth=1.5, label="reward per step, smoothed")
    axes.set_ylabel("reward trained on")
    axes.set_xlabel("environment timesteps")
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")


def _curve(history: History) -> tuple[list[int], list[float]]:
    return [point.step for point in history], [point.value for point in history]


def _smoothed(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` values at each place."""
    total, smooth = 0.0, []
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        smooth.append(total / min(i + 1, window))
    return smooth
