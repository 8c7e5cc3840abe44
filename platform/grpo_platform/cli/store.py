"""`grpo-platform store …`: the database behind everything, without a server."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from grpo_platform.cli.output import JsonFlag, console, errors_as_sentences, fail, show_json, table

__all__ = ["app"]

app = typer.Typer(
    help="The store of MLFLOW_TRACKING_URI, or mlflow.db here: back up, restore, sign, check.",
    no_args_is_help=True,
)


@app.command()
def check(as_json: JsonFlag = False) -> None:
    """Show which schema the store's database has. Exit code 1 unless a server can start on it."""
    from grpo_platform.tracking.schema import SchemaState, read_schema

    with errors_as_sentences():
        schema = read_schema(_uri())
    if as_json:
        show_json(dataclasses.asdict(schema))
    else:
        found = dataclasses.asdict(schema)
        table(tuple(found), [tuple(found.values())])
    if schema.state is SchemaState.OLDER:
        if not as_json:
            console.print("Stop the server, then: grpo-platform store upgrade")
        raise typer.Exit(1)


@app.command()
def upgrade(
    backed_up: Annotated[
        bool, typer.Option("--backed-up", help="There is a backup; PostgreSQL needs one.")
    ] = False,
) -> None:
    """Bring a store of an older MLflow to the installed one. A sqlite file is copied first."""
    from grpo_platform.tracking.schema import SchemaState, read_schema, upgrade_schema

    with errors_as_sentences():
        uri = _uri()
        before = read_schema(uri)
        if before.state is not SchemaState.OLDER:
            console.print(f"Nothing to do: the store's schema is {before.state}.")
            return
        if not uri.startswith("sqlite:") and not backed_up:
            fail("Back the database up first (pg_dump), then say --backed-up.")
        backup = upgrade_schema(uri)
    console.print(f"Upgraded from {before.found} to {before.expected}.")
    if backup is not None:
        console.print(f"The database as it was: {backup}", soft_wrap=True)


@app.command()
def backup(target: Annotated[Path, typer.Argument(help="Folder that will be created.")]) -> None:
    """Copy a sqlite store whole, database and artifacts, also while a server uses it."""
    from grpo_platform.tracking.backup import back_up_store

    with errors_as_sentences():
        made = back_up_store(_uri(), target)
    console.print(f"{len(made.files)} files are in {target}, each with its SHA-256.")
    for path in made.missing:
        console.print(f"The files of a model were missing already: {path}", soft_wrap=True)


@app.command()
def restore(source: Annotated[Path, typer.Argument(help="Folder of a backup.")]) -> None:
    """Put a backup in the store's place; what is there now is kept under another name."""
    from grpo_platform.tracking.backup import restore_store

    with errors_as_sentences():
        restored = restore_store(_uri(), source)
    console.print(f"The store is as it was at {restored.manifest.made_at:%Y-%m-%d %H:%M:%S} UTC.")
    for path in restored.kept:
        console.print(f"What was there before is kept: {path}", soft_wrap=True)


@app.command()
def adopt() -> None:
    """Go on with the artifact root as it is now, after files in it were lost for good."""
    from grpo_platform.core.settings import Settings
    from grpo_platform.tracking.addresses import existing_store_uri
    from grpo_platform.tracking.locations import adopt_artifacts

    with errors_as_sentences():
        folder = adopt_artifacts(existing_store_uri(Settings()))
    console.print(f"Artifacts go to {folder} from now on.", soft_wrap=True)


@app.command()
def sign(
    ids: Annotated[list[str] | None, typer.Argument(help="Jobs and sweeps to vouch for.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Vouch for all that are shown.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show jobs and sweeps that were not queued with this GRPO_API_TOKEN, or vouch for them."""
    from grpo_platform.core.settings import Settings
    from grpo_platform.services.direct import open_store
    from grpo_platform.sweeps.store import SweepStore

    with errors_as_sentences():
        settings = Settings()
        if settings.api_token is None:
            fail("Set GRPO_API_TOKEN to the server's token: without one there are no signatures.")
        jobs, _ = open_store(settings)
        sweeps = SweepStore(jobs)
        found = sweeps.unsigned()
        rows = [(s.sweep_id, "sweep", s.status, s.request.env_name, "") for s in found]
        rows += [
            (job.job_id, "job", job.status, job.request.config.env_name, job.model_name)
            for job in jobs.unsigned()
        ]
        if not ids and not everything:
            columns = ("job_id", "kind", "status", "env_name", "model_name")
            if as_json:
                show_json([dict(zip(columns, row, strict=True)) for row in rows])
            else:
                table(columns, rows)
            return
        chosen = [row[0] for row in rows] if everything else ids or []
        of_sweeps = {sweep.sweep_id for sweep in found}
        for run_id in chosen:
            (sweeps if run_id in of_sweeps else jobs).sign(run_id)
            if not as_json:
                console.print(f"{run_id} is trained by servers with this token.", soft_wrap=True)
        if as_json:
            show_json({"signed": chosen})


def _uri() -> str:
    from grpo_platform.core.settings import Settings
    from grpo_platform.tracking.addresses import named_store_uri

    return named_store_uri(Settings())
