"""The description of a run that the MLflow UI shows: result, curve and next commands."""

from collections.abc import Sequence
from typing import Final

from grpo_platform.tracking.names import Metric
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
        f"**{config.env_name}**, {record.current_timesteps:,} timesteps, seed {config.seed}, "
        f"trained on the reward `{config.reward_function_type}`.",
        _result(record),
    ]
    if CURVE_FILE in files:
        parts.append(f"![Learning curve]({_artifact(record, CURVE_FILE)})")
    if VIDEO_FILE in files:
        parts.append(f"Greedy episodes: [{VIDEO_FILE}]({_artifact(record, VIDEO_FILE)})")
    parts.append(_next_commands(record))
    return "\n\n".join(parts)[:_MOST]


def _result(record: JobRecord) -> str:
    mean = record.metrics.get(Metric.EVAL_MEAN)
    if mean is None:
        return "It was not evaluated."
    rows = [("mean return", mean)]
    for name, key in (("IQM", Metric.EVAL_IQM), ("standard deviation", Metric.EVAL_STD)):
        if key in record.metrics:
            rows.append((name, record.metrics[key]))
    lines = ["| greedy evaluation, own reward | |", "|---|---|"]
    lines.append(f"| episodes | {record.request.config.n_eval_episodes} |")
    lines += [f"| {name} | {value:,.2f} |" for name, value in rows]
    low, high = (record.metrics.get(k) for k in (Metric.EVAL_CI_LOW, Metric.EVAL_CI_HIGH))
    if low is not None and high is not None:
        lines.append(f"| 95 % interval of the IQM | {low:,.2f} to {high:,.2f} |")
    return "\n".join(lines)


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
        "```",
    ]
    return "\n".join(lines)


def _artifact(record: JobRecord, path: str) -> str:
    """Where the MLflow UI serves an artifact, relative to its own address."""
    return f"get-artifact?path={path}&run_uuid={record.job_id}"
