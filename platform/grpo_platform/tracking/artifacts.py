"""What people look at in a completed job's run: curve, video, description."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from grpo.evaluation import evaluation_seeds
from grpo.policies import BasePolicy
from grpo_platform.core.errors import PlatformError
from grpo_platform.core.names import Metric, Tag
from grpo_platform.tracking.provenance import code_version, reproduce_command
from grpo_platform.tracking.records import JobRecord
from grpo_platform.tracking.reporter import HistoryPoint
from grpo_platform.tracking.runs import RunStore
from grpo_platform.tracking.video import record_episodes

__all__ = [
    "CURVE_FILE",
    "CURVE_KEYS",
    "PAGE_FILE",
    "VIDEO_FILE",
    "describe",
    "draw_learning_curve",
    "illustrate",
]

CURVE_KEYS: Final = (
    Metric.REWARD,
    Metric.EPISODE_RETURN,
    Metric.EVAL_MEAN,
    Metric.EVAL_CI_LOW,
    Metric.EVAL_CI_HIGH,
)
"""Histories that the figure is drawn from."""

_BLUE, _ORANGE, _GREEN = "#1f77b4", "#ff7f0e", "#2ca02c"

CURVE_FILE: Final = "learning_curve.png"
VIDEO_FILE: Final = "episodes.mp4"
PAGE_FILE: Final = "failures/index.html"
"""The worst episodes, to look at."""

_LONGEST_DESCRIPTION: Final = 7_900
"""Characters that MLflow keeps of a tag's value, less some."""

_VIDEO_EPISODES: Final = 3
_CURVE_POINTS: Final = 1_000

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


def describe(record: JobRecord, *, files: Sequence[str]) -> str:
    """Markdown for the run of a completed job: result, curve and next commands.

    Args:
        record: the job, its evaluation among its metrics.
        files: which of `CURVE_FILE`, `VIDEO_FILE` and `PAGE_FILE` the run has.
    """
    config = record.request.config
    parts = [
        _result(record),
        f"Trained for {record.current_timesteps:,} timesteps on the reward "
        f"`{config.reward_function_type}`, seed {config.seed}.",
    ]
    if record.promotion_reason is not None:
        champion = "is" if record.promoted else "is not"
        parts.append(
            f"Version {record.model_version} of `{record.model_name}` {champion} promoted. "
            f"{record.promotion_reason}"
        )
    if CURVE_FILE in files:
        parts.append(f"![Learning curve]({_artifact(record, CURVE_FILE)})")
    if VIDEO_FILE in files:
        parts.append(f"Greedy episodes: [{VIDEO_FILE}]({_artifact(record, VIDEO_FILE)})")
    if PAGE_FILE in files:
        parts.append(f"The worst episodes: [{PAGE_FILE}]({_artifact(record, PAGE_FILE)})")
    parts.append(_next_commands(record))
    return "\n\n".join(parts)[:_LONGEST_DESCRIPTION]


def _result(record: JobRecord) -> str:
    config, found = record.request.config, record.metrics
    if Metric.EVAL_MEAN not in found:
        return f"**{config.env_name}**, not evaluated."
    figures = [f"**{config.env_name}: mean return {found[Metric.EVAL_MEAN]:,.1f}**"]
    if found.keys() >= {Metric.EVAL_CI_LOW, Metric.EVAL_CI_HIGH}:
        figures.append(
            f"(95 % interval {found[Metric.EVAL_CI_LOW]:,.1f} to {found[Metric.EVAL_CI_HIGH]:,.1f})"
        )
    figures.append(
        f"over {config.n_eval_episodes} greedy episodes on the environment's own reward."
    )
    if record.verdict is not None:
        figures.append(record.verdict.sentence)
    return " ".join(figures)


def _next_commands(record: JobRecord) -> str:
    model = f"models:/{record.model_name}"
    model += f"/{record.model_version}" if record.model_version else "@champion"
    code = code_version()
    checkout = [] if code is None else [f"git checkout {code.commit}"]
    if code is not None and code.dirty:
        checkout.append("# the checkout that trained it had further changes")
    lines = [
        "```bash",
        "# use the model, in any environment with mlflow, torch and numpy",
        f"python -c \"import mlflow; print(mlflow.pyfunc.load_model('{model}'))\"",
        "# serve it by itself",
        f"mlflow models serve -m {model} --env-manager local --port 5001",
        "# train the same again",
        *checkout,
        reproduce_command(record.request),
        "# train the same again and compare, in any checkout of the project",
        f"grpo-platform reproduce {record.job_id}",
        "```",
    ]
    return "\n".join(lines)


def _artifact(record: JobRecord, path: str) -> str:
    """Where the MLflow UI serves an artifact, relative to its own address."""
    return f"get-artifact?path={path}&run_uuid={record.job_id}"


_log = logging.getLogger(__name__)


def illustrate(
    runs: RunStore, job_id: str, policy: BasePolicy, folder: Path, video_frames: int
) -> list[str]:
    """Give a completed job's run its figure, its video and its description.

    A part that cannot be made is left out; the description names those that are there.

    Args:
        runs: the store.
        job_id: the job, its evaluation and version recorded.
        policy: what it trained.
        folder: local directory for the files on their way.
        video_frames: most frames of the video; 0 makes none.

    Returns:
        Artifact paths of figure and video, as far as they could be made.

    Raises:
        StoreError: the store refused, or is away.
    """
    record = runs.get(job_id)
    files = [_add_curve(runs, record, folder)]
    try:
        if video_frames:
            files.append(_add_video(runs, record, policy, folder, video_frames))
    except PlatformError as error:
        _log.warning("The run has no video: %s", error)
    runs.set_tags(job_id, {Tag.NOTE: describe(record, files=files)})
    return files


def _add_curve(runs: RunStore, record: JobRecord, folder: Path) -> str:
    histories = {key: runs.history(record.job_id, key, _CURVE_POINTS) for key in CURVE_KEYS}
    config = record.request.config
    path = folder / CURVE_FILE
    draw_learning_curve(histories, f"{config.env_name}, seed {config.seed}", path)
    return runs.upload(record.job_id, path)


def _add_video(
    runs: RunStore, record: JobRecord, policy: BasePolicy, folder: Path, most_frames: int
) -> str:
    """Film the first episodes of the evaluation."""
    config = record.request.config
    path = folder / VIDEO_FILE
    seeds = [int(seed) for seed in evaluation_seeds(_VIDEO_EPISODES)]
    record_episodes(policy, config.env_name, config.env_kwargs, seeds, path, most_frames)
    return runs.upload(record.job_id, path)
