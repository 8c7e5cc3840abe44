"""`grpo-platform store …`: the database behind everything, without a server."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from grpo_platform.cli.output import (
    JsonFlag,
    console,
    errors_as_sentences,
    group,
    show_json,
    table,
)

__all__ = ["app"]

app = group("The store of MLFLOW_TRACKING_URI, or mlflow.db here: back up, restore, sign, check.")


@app.command()
def check(as_json: JsonFlag = False) -> None:
    """Show which schema the store's database has. Exit code 1 unless a server can start on it."""
    from grpo_platform.core.settings import Settings
    from grpo_platform.services import store

    with errors_as_sentences():
        schema = store.schema(Settings())
    found = dataclasses.asdict(schema)
    if as_json:
        show_json(found)
    else:
        table(tuple(found), [tuple(found.values())])
    if schema.is_older:
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
    from grpo_platform.core.settings import Settings
    from grpo_platform.services import store

    with errors_as_sentences():
        before, copy = store.upgrade(Settings(), backed_up=backed_up)
    if not before.is_older:
        console.print(f"Nothing to do: the store's schema is {before.state}.")
        return
    console.print(f"Upgraded from {before.found} to {before.expected}.")
    if copy is not None:
        console.print(f"The database as it was: {copy}", soft_wrap=True)


@app.command()
def backup(target: Annotated[Path, typer.Argument(help="Folder that will be created.")]) -> None:
    """Copy a sqlite store whole, database and artifacts, also while a server uses it."""
    from grpo_platform.core.settings import Settings
    from grpo_platform.services import store

    with errors_as_sentences():
        made = store.back_up(Settings(), target)
    console.print(f"{len(made.files)} files are in {target}, each with its SHA-256.")
    for path in made.missing:
        console.print(f"The files of a model were missing already: {path}", soft_wrap=True)


@app.command()
def restore(source: Annotated[Path, typer.Argument(help="Folder of a backup.")]) -> None:
    """Put a backup in the store's place; what is there now is kept under another name."""
    from grpo_platform.core.settings import Settings
    from grpo_platform.services import store

    with errors_as_sentences():
        restored = store.restore(Settings(), source)
    console.print(f"The store is as it was at {restored.manifest.made_at:%Y-%m-%d %H:%M:%S} UTC.")
    for path in restored.kept:
        console.print(f"What was there before is kept: {path}", soft_wrap=True)


@app.command()
def adopt() -> None:
    """Go on with the artifact root as it is now, after files in it were lost for good."""
    from grpo_platform.core.settings import Settings
    from grpo_platform.services import store

    with errors_as_sentences():
        folder = store.adopt_artifacts(Settings())
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
    from grpo_platform.services import store

    with errors_as_sentences():
        settings = Settings()
        chosen = ids or []
        if everything or not chosen:
            found = store.unsigned(settings)
            chosen = [row.job_id for row in found]
        if not ids and not everything:
            if as_json:
                show_json([row._asdict() for row in found])
            else:
                table(store.Unsigned._fields, found)
            return
        signed = []
        for run_id in store.sign(settings, chosen):
            signed.append(run_id)
            if not as_json:
                console.print(f"{run_id} is trained by servers with this token.", soft_wrap=True)
        if as_json:
            show_json({"signed": signed})
