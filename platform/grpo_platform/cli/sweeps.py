"""`grpo-platform sweep …`."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from grpo_platform.cli import completion, output
from grpo_platform.cli.models import decided
from grpo_platform.cli.output import (
    JsonFlag,
    answer,
    assigned,
    conclude,
    connect,
    console,
    ends,
    errors_as_sentences,
    group,
    number,
    percent,
    queued,
    seeds_typed,
    show_json,
    table,
    when,
)
from grpo_platform.client import GRPOClient
from grpo_platform.client.fields import Pruner, Sampler
from grpo_platform.client.progress import line_of_sweep
from grpo_platform.client.replies import Sweep, Trial
from grpo_platform.sweeps.files import read_space

__all__ = ["app"]

app = group("Sweeps: start, list, show, watch, stop, resume.")

SweepId = Annotated[
    str,
    typer.Argument(
        help="Id of the sweep, the beginning of it, or latest.",
        show_default=False,
        autocompletion=completion.sweep_ids,
    ),
]


@app.command()
def start(
    context: typer.Context,
    space: Annotated[
        Path, typer.Argument(help="Search space, a JSON or YAML file.", show_default=False)
    ],
    trials: Annotated[int, typer.Option(min=1, max=1000, help="How many jobs to try.")] = 20,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model that receives the versions.", autocompletion=completion.model_names
        ),
    ] = None,
    concurrent: Annotated[int, typer.Option(min=1, help="How many trials may run at once.")] = 1,
    sampler: Annotated[Sampler, typer.Option(help="How values are chosen.")] = "tpe",
    pruner: Annotated[Pruner, typer.Option(help="Which trials are given up early.")] = "median",
    seed: Annotated[int | None, typer.Option(min=0, help="Drawn at random when left out.")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Train every trial with several: how many, or which, as 3,14,15.",
            show_default=False,
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            help="A fixed field of POST /train, as name=value; repeatable.",
            autocompletion=completion.settings,
        ),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until it has ended.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Search hyperparameters and show the progress. Exit code 1 unless it was completed."""
    fields: dict[str, Any] = {
        "max_concurrent_trials": concurrent, "sampler": sampler, "pruner": pruner,
        "config": assigned(setting, {}),
    }  # fmt: skip
    fields |= {} if model is None else {"model_name": model}
    fields |= {} if seed is None else {"seed": seed}
    fields |= {} if seeds is None else {"seeds": seeds_typed(seeds)}
    with errors_as_sentences():
        client = connect(context)
        accepted = client.start_sweep(read_space(space), trials, **fields)
        if not wait:
            show_json(accepted) if as_json else queued(client, "sweep", accepted["sweep_id"])
            return
        _watch(client, accepted["sweep_id"], as_json=as_json)


@app.command("list")
def list_sweeps(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many to show at most.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Sweeps, newest first: best is the best trial's value of the sweep's metric."""
    with errors_as_sentences():
        sweeps = list(itertools.islice(connect(context).iter_sweeps(), limit))
    if as_json:
        show_json(sweeps)
        return
    columns = ("id", "status", "environment", "model", "trials", "best", "started")
    rows = [
        (s["sweep_id"], percent(s["status"], s["progress"]), s["env_name"], s["model_name"],
         f"{s['started_trials']}/{s['n_trials']}", number(s["best_value"]),
         when(s["start_time"]))
        for s in sweeps
    ]  # fmt: skip
    table(columns, rows)


@app.command()
def show(context: typer.Context, sweep_id: SweepId, as_json: JsonFlag = False) -> None:
    """A sweep with its trials."""
    with errors_as_sentences():
        client = connect(context)
        sweep = client.sweep(sweep_id)
        show_json(sweep) if as_json else _report(client, sweep)


@app.command()
def watch(context: typer.Context, sweep_id: SweepId, as_json: JsonFlag = False) -> None:
    """Show a sweep's progress until it has ended. Exit code 1 unless it was completed."""
    with errors_as_sentences():
        _watch(connect(context), sweep_id, as_json=as_json)


@app.command()
def stop(context: typer.Context, sweep_id: SweepId, as_json: JsonFlag = False) -> None:
    """Stop a sweep and its running trials; it can be resumed."""
    with errors_as_sentences():
        answer(connect(context).stop_sweep(sweep_id), as_json)


@app.command()
def resume(context: typer.Context, sweep_id: SweepId, as_json: JsonFlag = False) -> None:
    """Take a stopped or failed sweep up again."""
    with errors_as_sentences():
        answer(connect(context).resume_sweep(sweep_id), as_json)


def _watch(client: GRPOClient, sweep_id: str, *, as_json: bool) -> None:
    sweep_id = client.sweep(sweep_id)["sweep_id"]

    def wait(on_progress: Callable[[Sweep], object]) -> Sweep:
        return client.wait_for_sweep(sweep_id, on_progress=on_progress)

    sweep = output.watch(client, "sweep", sweep_id, wait, line_of_sweep, quiet=as_json)
    conclude(sweep, lambda ended: _report(client, ended), as_json=as_json)


def _report(client: GRPOClient, sweep: Sweep) -> None:
    fields = sorted({name for trial in sweep["trials"] for name in trial["params"]})
    several = sweep["n_seeds"] > 1
    rows = [
        (t["number"], t["state"], t["value"], *([ends(t["ci_low"], t["ci_high"])] * several),
         *(_shown(t["params"].get(f)) for f in fields), t["model_version"], t["job_id"])
        for t in sweep["trials"]
    ]  # fmt: skip
    interval = ["95 %"] * several
    table(("trial", "state", sweep["metric"], *interval, *fields, "version", "job"), rows)
    best = sweep["best"]
    console.print(f"Sweep {sweep['sweep_id']} {sweep['status']}. {sweep['error_message'] or ''}")
    if best is not None:
        name, version = sweep["model_name"], best["model_version"]
        actor = f"sweep {sweep['sweep_id']}"
        of = f"{name} version {version}, {sweep['metric']} {_value(best)}"
        said = "" if version is None else decided(client, name, version, actor)
        console.print(f"Best: trial {best['number']}, {of}. {said}", soft_wrap=True)
        if best["verdict"] is not None:
            console.print(best["verdict"]["sentence"], soft_wrap=True)
    if best is not None and several:
        rows = [
            (str(s["seed"]), s["state"], s["value"], s["model_version"], s["job_id"])
            for s in best["seeds"]
        ]
        title = f"The seeds of trial {best['number']}"
        table(("seed", "state", sweep["metric"], "version", "job"), rows, title)


def _value(trial: Trial) -> str:
    """The value of a trial, with its interval where it has several seeds."""
    interval = ends(trial["ci_low"], trial["ci_high"])
    return f"{number(trial['value'])}{interval and f' ({interval})'}"


def _shown(value: object) -> str:
    # a learning rate with two decimals would be 0.00
    return f"{value:.4g}" if isinstance(value, float) else str(value)
