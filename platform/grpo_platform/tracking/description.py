"""The description of a run that the MLflow UI shows: result, curve and next commands."""

from collections.abc import Sequence
from typing import Final

from grpo_platform.core.names import Metric
from grpo_platform.tracking.provenance import code_version, reproduce_command
from grpo_platform.tracking.records import JobRecord

__all__ = ["CURVE_FILE", "VIDEO_FILE", "describe"]

CURVE_FILE: Final = "learning_curve.png"
VIDEO_FILE: Final = "episodes.mp4"

_MOST: Final = 7_900
"""Characters that MLflow keeps of a tag's value, less some."""


def describe(record: JobRecord, *, files: Sequence[str]) -> str:
    """Markdown for the run of a completed job.

    Args:
        record: the job, its evaluation among its metrics.
        files: which of `CURVE_FILE` and `VIDEO_FILE` the run has.
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
    parts.append(_next_commands(record))
    return "\n\n".join(parts)[:_MOST]


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
