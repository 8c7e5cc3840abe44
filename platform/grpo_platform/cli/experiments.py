"""`grpo-platform experiments …`, and how `grpo-platform train --seeds` shows its experiment."""

import itertools
from collections.abc import Callable
from typing import Annotated

import typer

from grpo_platform.cli import completion, output
from grpo_platform.cli.output import (
    JsonFlag,
    answer,
    conclude,
    connect,
    console,
    ends,
    errors_as_sentences,
    group,
    number,
    percent,
    show_json,
    table,
    when,
)
from grpo_platform.client import GRPOClient, StatusWord
from grpo_platform.client.progress import line_of_experiment
from grpo_platform.client.replies import Experiment, ExperimentResults, SeedsEstimate

__all__ = ["app", "report", "watch"]

app = group(
    "Experiments: list, show, watch, stop, resume, retry, delete; `train --seeds` starts one."
)

ExperimentId = Annotated[
    str,
    typer.Argument(
        help="Id of the experiment, the beginning of it, or latest.",
        show_default=False,
        autocompletion=completion.experiment_ids,
    ),
]


@app.command("list")
def list_experiments(
    context: typer.Context,
    status: Annotated[StatusWord | None, typer.Option(help="Only those with this status.")] = None,
    env: Annotated[str | None, typer.Option(help="Only those in this environment.")] = None,
    model: Annotated[str | None, typer.Option(help="Only those for this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show at most.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Experiments, newest first."""
    with errors_as_sentences():
        every = connect(context).iter_experiments(status=status, env_name=env, model_name=model)
        found = list(itertools.islice(every, limit))
    if as_json:
        show_json(found)
        return
    columns = ("id", "status", "environment", "model", "seeds", "IQM", "95 %")
    rows = [
        (e["experiment_id"], percent(e["status"], e["progress"]), e["env_name"], e["model_name"],
         f"{e['counts'].get('completed', 0)}/{e['n_seeds']}", number(e["iqm"]),
         ends(e["ci_low"], e["ci_high"]), when(e["start_time"]))
        for e in found
    ]  # fmt: skip
    table((*columns, "started"), rows)


@app.command()
def show(
    context: typer.Context,
    experiment_id: ExperimentId,
    threshold: Annotated[
        float | None,
        typer.Option(help="Return that counts as solved; by default the environment's own."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """An experiment with its seeds, and what they came to together."""
    with errors_as_sentences():
        found = connect(context).experiment(experiment_id, threshold=threshold)
    show_json(found) if as_json else report(found)


@app.command()
def stop(context: typer.Context, experiment_id: ExperimentId, as_json: JsonFlag = False) -> None:
    """Stop an experiment with its waiting and running seeds; it can be resumed."""
    with errors_as_sentences():
        answer(connect(context).stop_experiment(experiment_id), as_json)


@app.command()
def resume(context: typer.Context, experiment_id: ExperimentId, as_json: JsonFlag = False) -> None:
    """Take a stopped experiment up again, with its stopped and failed seeds."""
    with errors_as_sentences():
        answer(connect(context).resume_experiment(experiment_id), as_json)


@app.command()
def retry(context: typer.Context, experiment_id: ExperimentId, as_json: JsonFlag = False) -> None:
    """Train the failed seeds of an experiment again."""
    with errors_as_sentences():
        answer(connect(context).retry_experiment(experiment_id), as_json)


@app.command()
def delete(context: typer.Context, experiment_id: ExperimentId, as_json: JsonFlag = False) -> None:
    """Delete a finished experiment with its seeds' jobs; the models stay."""
    with errors_as_sentences():
        answer(connect(context).delete_experiment(experiment_id), as_json)


@app.command("watch")
def watch_experiment(
    context: typer.Context, experiment_id: ExperimentId, as_json: JsonFlag = False
) -> None:
    """Show an experiment's progress until it has ended. Exit code 1 unless it was completed."""
    with errors_as_sentences():
        found = watch(connect(context), experiment_id, quiet=as_json)
    conclude(found, report, as_json=as_json)


def watch(client: GRPOClient, experiment_id: str, *, quiet: bool) -> Experiment:
    """Show how an experiment is doing until it has ended, and return it; see `output.watch`."""
    experiment_id = client.experiment(experiment_id)["experiment_id"]

    def wait(on_progress: Callable[[Experiment], object]) -> Experiment:
        return client.wait_for_experiment(experiment_id, on_progress=on_progress)

    return output.watch(client, "experiment", experiment_id, wait, line_of_experiment, quiet=quiet)


def report(found: Experiment) -> None:
    """Print an experiment: its seeds, what they came to together, and which version serves."""
    columns = ("seed", "state", "return", "area", "steps to threshold", "version", "job")
    rows = [
        (str(s["seed"]), s["state"], s["evaluation"], s["area_under_curve"],
         s["steps_to_threshold"], s["model_version"], s["job_id"])
        for s in found["seeds"]
    ]  # fmt: skip
    table(columns, rows)
    lines = [
        f"Experiment {found['experiment_id']} {found['status']}. {found['error_message'] or ''}"
    ]
    lines += _results(found["results"])
    if found["selection"] is not None:
        lines.append(found["selection"]["reason"])
    for line in lines:
        console.print(line.strip(), soft_wrap=True, highlight=False)


def _results(results: ExperimentResults) -> list[str]:
    lines = []
    if results["iqm"] is not None:
        lines.append(
            f"Return over {results['completed']} seeds: IQM {_shown(results['iqm'])}, "
            f"mean {_shown(results['mean'])}; area under the curve "
            f"{_shown(results['area_under_curve'])}."
        )
    if results["verdict"] is not None:
        lines.append(results["verdict"]["sentence"])
    if results["threshold"] is not None and results["completed"]:
        median = results["steps_to_threshold"]
        steps = "" if median is None else f", in {median:,.0f} steps (median)"
        lines.append(
            f"{results['reached']} of {results['completed']} seeds reached "
            f"{results['threshold']:,.1f}{steps}."
        )
    return lines


def _shown(interval: SeedsEstimate | None) -> str:
    if interval is None:
        return "unknown"
    return f"{interval['estimate']:,.1f} ({ends(interval['low'], interval['high'])})"
