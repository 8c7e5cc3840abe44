"""What is kept of an experiment beside its runs: a report in Markdown, and its figures as CSV."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from grpo.statistics import Curves, Interval
from grpo_platform.experiments.aggregate import Results, SeedResult
from grpo_platform.experiments.records import ExperimentRecord, Selection
from grpo_platform.tracking.provenance import code_version, reproduce_command

__all__ = [
    "CURVES_FILE",
    "CURVES_TABLE",
    "REPORT_FILE",
    "SEEDS_TABLE",
    "describe",
    "write_curves",
    "write_report",
    "write_seeds",
]

CURVES_FILE: Final = "learning_curves.png"
REPORT_FILE: Final = "report.md"
SEEDS_TABLE: Final = "seeds.csv"
CURVES_TABLE: Final = "learning_curves.csv"

_COLUMNS: Final = (
    "seed", "state", "evaluation", "area_under_curve", "steps_to_threshold", "timesteps",
    "model_version", "job_id",
)  # fmt: skip
_LONGEST_DESCRIPTION: Final = 7_900


def write_seeds(results: Results, path: Path) -> None:
    """Write a row a seed; what is not known is empty."""
    _write(path, _COLUMNS, ([getattr(s, name) for name in _COLUMNS] for s in results.seeds))


def write_curves(together: Curves, path: Path) -> None:
    """Write the learning curve at common steps, with how many seeds reach each."""
    _write(path, ("step", "iqm", "ci_low", "ci_high", "seeds"), zip(*together, strict=True))


def _write(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(["" if cell is None else cell for cell in row] for row in rows)


def write_report(
    experiment: ExperimentRecord, results: Results, selection: Selection | None, path: Path
) -> None:
    """Write the report: result, selection, seeds, configuration, how to do it again."""
    request = experiment.request
    config = {n: v for n, v in request.config.items() if v is not None}
    fields = "\n".join(f"| `{name}` | `{json.dumps(value)}` |" for name, value in config.items())
    parts = [
        f"# Experiment: {request.env_name}, {len(request.seeds)} seeds",
        _result(experiment, results),
        f"![Learning curves]({CURVES_FILE})",
        "## Which version serves",
        _selection(experiment, selection),
        "## Seeds",
        _seeds(results),
        f"`area` is the mean height of the seed's `{results.curve_key}` over the whole budget. The "
        f"same is in `{SEEDS_TABLE}`, and the curve at common steps in `{CURVES_TABLE}`.",
        "## Configuration",
        f"| field | value |\n|---|---|\n{fields}",
        "## Do it again",
        _again(experiment),
    ]
    path.write_text("\n\n".join(parts) + "\n", "utf-8")


def describe(experiment: ExperimentRecord, results: Results, selection: Selection | None) -> str:
    """Description of the parent run that the MLflow UI shows, Markdown."""
    figure = f"get-artifact?path={CURVES_FILE}&run_uuid={experiment.experiment_id}"
    parts = [
        _result(experiment, results),
        _selection(experiment, selection),
        f"![Learning curves]({figure})",
        _seeds(results),
        f"[{REPORT_FILE}](get-artifact?path={REPORT_FILE}&run_uuid={experiment.experiment_id}) "
        "has the configuration and how to do it again.",
    ]
    return "\n\n".join(parts)[:_LONGEST_DESCRIPTION]


def _result(experiment: ExperimentRecord, results: Results) -> str:
    request = experiment.request
    if results.iqm is None or results.mean is None:
        return f"**{request.env_name}**: none of {len(request.seeds)} seeds was completed."
    lines = [
        f"**{request.env_name}: return {results.iqm.estimate:,.1f}** (interquartile mean over "
        f"{results.completed} seeds, 95 % interval {_ends(results.iqm)}); mean "
        f"{_shown(results.mean)}."
    ]
    if results.verdict is not None:
        lines.append(results.verdict)
    missing = len(request.seeds) - results.completed
    if missing:
        lines.append(f"**{missing} of {len(request.seeds)} seeds are not counted**: see below.")
    if results.bootstrap is not None:
        low, high = results.bootstrap
        lines.append(f"Stratified bootstrap of the interquartile mean: {low:,.1f} to {high:,.1f}.")
    if results.area_under_curve is not None:
        lines.append(f"Area under the curve: {_shown(results.area_under_curve)}.")
    if results.threshold is not None:
        median = results.steps_to_threshold
        steps = "" if median is None else f", in {median:,.0f} timesteps (median)"
        lines.append(
            f"{results.reached} of {results.completed} seeds reached {results.threshold:,.6g}"
            f"{steps}."
        )
    return " ".join(lines)


def _selection(experiment: ExperimentRecord, selection: Selection | None) -> str:
    if selection is not None:
        return selection.reason
    if experiment.request.register == "each":
        return (
            f"Every seed's version is registered as `{experiment.model_name}`. None was chosen by "
            "its result, so none was promoted."
        )
    return "No version was chosen: that is done once all seeds are completed."


def _seeds(results: Results) -> str:
    reached = "steps to threshold"
    rows = [
        f"| seed | state | return | area | {reached} | version | job |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    rows += [_row(seed) for seed in results.seeds]
    return "\n".join(rows)


def _row(seed: SeedResult) -> str:
    steps = "" if seed.steps_to_threshold is None else f"{seed.steps_to_threshold:,}"
    cells = (
        seed.seed, seed.state, _number(seed.evaluation), _number(seed.area_under_curve), steps,
        "" if seed.model_version is None else seed.model_version, f"`{seed.job_id}`",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _again(experiment: ExperimentRecord) -> str:
    request = experiment.request
    code = code_version()
    checkout = [] if code is None else [f"git checkout {code.commit}"]
    if code is not None and code.dirty:
        checkout.append("# the checkout that trained it had further changes")
    first = request.seeds[0]
    one = reproduce_command(request.job(first, experiment.experiment_id))
    seeds = ",".join(map(str, request.seeds))
    lines = [
        "```bash",
        *checkout,
        "# all seeds, in an experiment of its own",
        one.replace(f"-P seed={first}", f"-P seeds={seeds}"),
        "# one of them, compared with what it was",
        *[f"grpo-platform reproduce {job}" for job in list(experiment.seed_jobs.values())[:1]],
        "```",
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def _shown(interval: Interval) -> str:
    return f"{interval.estimate:,.1f} ({_ends(interval)})"


def _ends(interval: Interval) -> str:
    return f"{interval.low:,.1f} to {interval.high:,.1f}"
