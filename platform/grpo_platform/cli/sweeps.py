"""`grpo-platform sweep …`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from grpo_platform.cli.models import decided
from grpo_platform.cli.output import (
    JsonFlag,
    answer,
    assigned,
    connect,
    console,
    ends,
    errors_as_sentences,
    progress_bar,
    seeds_typed,
    show_json,
    table,
    when,
)
from grpo_platform.client import GRPOClient
from grpo_platform.client.fields import Pruner, Sampler
from grpo_platform.sweeps.files import read_space

__all__ = ["app"]

app = typer.Typer(help="Sweeps: start, list, show, stop, resume.", no_args_is_help=True)

SweepId = Annotated[str, typer.Argument(help="Id of the sweep.", show_default=False)]


@app.command()
def start(
    context: typer.Context,
    space: Annotated[
        Path, typer.Argument(help="Search space, a JSON or YAML file.", show_default=False)
    ],
    trials: Annotated[int, typer.Option(min=1, max=1000, help="How many jobs to try.")] = 20,
    model: Annotated[str | None, typer.Option(help="Model that receives the versions.")] = None,
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
        typer.Option("--set", "-s", help="A fixed field of POST /train, as name=value."),
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
            show_json(accepted) if as_json else console.print(
                f"Sweep {accepted['sweep_id']} is queued."
            )
            return
        sweep = _watch(client, accepted["sweep_id"], quiet=as_json)
        show_json(sweep) if as_json else _report(client, sweep)
    if sweep["status"] != "completed":
        raise typer.Exit(1)


@app.command("list")
def list_sweeps(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many to show at most.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Sweeps, newest first."""
    with errors_as_sentences():
        found = connect(context).iter_sweeps()
        sweeps = [sweep for sweep, _ in zip(found, range(limit), strict=False)]
    if as_json:
        show_json(sweeps)
        return
    columns = ("sweep_id", "status", "env_name", "started_trials", "n_trials", "best_value")
    rows = [[*(s[column] for column in columns), when(s["start_time"])] for s in sweeps]
    table((*columns, "started"), rows)


@app.command()
def show(context: typer.Context, sweep_id: SweepId, as_json: JsonFlag = False) -> None:
    """A sweep with its trials."""
    with errors_as_sentences():
        client = connect(context)
        sweep = client.sweep(sweep_id)
        show_json(sweep) if as_json else _report(client, sweep)


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


def _watch(client: GRPOClient, sweep_id: str, *, quiet: bool) -> dict[str, Any]:
    with progress_bar(quiet=quiet) as progress:
        bar = progress.add_task("queued", total=1.0, shown="")

        def advance(sweep: dict[str, Any]) -> None:
            best = sweep["best"]
            shown = f"{sweep['started_trials']} of {sweep['n_trials']} trials"
            shown += "" if best is None else f", best {best['value']:,.1f}"
            progress.update(
                bar, completed=sweep["progress"], description=sweep["status"], shown=shown
            )

        try:
            return client.wait_for_sweep(sweep_id, on_progress=advance)
        except KeyboardInterrupt:
            console.print(f"Sweep {sweep_id} goes on; `grpo-platform sweep show {sweep_id}`.")
            raise typer.Exit(130) from None


def _report(client: GRPOClient, sweep: dict[str, Any]) -> None:
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
        made = f"Best: trial {best['number']}, {name} version {version}."
        console.print(f"{made} {decided(client, name, version, actor)}", soft_wrap=True)
        if best["verdict"] is not None:
            console.print(best["verdict"]["sentence"], soft_wrap=True)
    if best is not None and several:
        rows = [
            (str(s["seed"]), s["state"], s["value"], s["model_version"], s["job_id"])
            for s in best["seeds"]
        ]
        title = f"The seeds of trial {best['number']}"
        table(("seed", "state", sweep["metric"], "version", "job"), rows, title)


def _shown(value: object) -> str:
    # a learning rate with two decimals would be 0.00
    return f"{value:.4g}" if isinstance(value, float) else str(value)
