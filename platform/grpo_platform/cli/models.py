"""`grpo-platform models …`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from grpo_platform.cli import completion
from grpo_platform.cli.output import (
    JsonFlag,
    ModelReference,
    answer,
    connect,
    console,
    ends,
    errors_as_sentences,
    fail,
    group,
    number,
    show_json,
    table,
    when,
)
from grpo_platform.client import ApiError, GRPOClient
from grpo_platform.client.replies import Decision, ModelVersion

__all__ = ["app", "decided"]

app = group("Models: list, show, promote, roll back, download, delete.")

Name = Annotated[
    str,
    typer.Argument(
        help="Name of the model.", show_default=False, autocompletion=completion.model_names
    ),
]

Note = Annotated[str, typer.Option(help="Why; it is kept with the decision.", show_default=False)]


@app.command("list")
def list_models(context: typer.Context, as_json: JsonFlag = False) -> None:
    """All models, by name."""
    with errors_as_sentences():
        models = list(connect(context).iter_models())
    if as_json:
        show_json(models)
        return
    rows = [
        (m["name"], m["env_name"], m["champion"], m["latest_version"],
         number(m["eval_return_mean"]), m["status"])
        for m in models
    ]  # fmt: skip
    table(("model", "environment", "champion", "latest", "eval", "status"), rows)


@app.command()
def show(context: typer.Context, name: Name, as_json: JsonFlag = False) -> None:
    """A model's versions, and what was decided about them."""
    with errors_as_sentences():
        model = connect(context).model(name)
    if as_json:
        show_json(model)
        return
    columns = ("version", "aliases", "return", "95 % interval", "scenarios", "seed", "job", "made")
    table(columns, [_version(version) for version in model["versions"]], title=name)
    decisions = [
        (d["number"], d["action"], d["version"], d["verdict"], d["reason"], when(d["decided_at"]))
        for d in model["decisions"]
    ]
    table(("", "decision", "version", "verdict", "reason", "when"), decisions)


@app.command()
def served(context: typer.Context, as_json: JsonFlag = False) -> None:
    """What the server was asked since it started: how much, and how fast it answered."""
    with errors_as_sentences():
        models = connect(context).served()
    if as_json:
        show_json(models)
        return
    columns = ("model", "version", "requests", "per second", "p50 ms", "p95 ms", "p99 ms", "latest")
    rows = [
        (one["name"], one["version"], one["requests"], one["requests_per_second"],
         one["latency_p50_ms"], one["latency_p95_ms"], one["latency_p99_ms"], when(one["latest"]))
        for one in models
    ]  # fmt: skip
    table(columns, rows)


@app.command()
def promote(
    context: typer.Context,
    name: Name,
    version: Annotated[int, typer.Argument(min=1, help="Version to promote.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Whatever the comparison says.")] = False,
    note: Note = "",
    as_json: JsonFlag = False,
) -> None:
    """Compare a version with the champion, and promote it if it is better."""
    with errors_as_sentences():
        _decision(connect(context).promote(name, version, force=force, note=note), as_json)


@app.command()
def rollback(
    context: typer.Context, name: Name, note: Note = "", as_json: JsonFlag = False
) -> None:
    """Give the name back to the champion before the present one."""
    with errors_as_sentences():
        _decision(connect(context).rollback(name, note=note), as_json)


@app.command()
def download(
    model: ModelReference,
    target: Annotated[
        Path | None, typer.Argument(help="New folder; the model's name by default.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Copy a version's files from the store, as an MLflow model that works anywhere."""
    from grpo_platform.core.settings import Settings
    from grpo_platform.services.direct import download_version

    with errors_as_sentences():
        name = model.partition("/")[0].partition("@")[0]
        folder = target or Path(name)
        if folder.exists():
            fail(f"{folder} exists already; name a folder that does not.")
        version = download_version(Settings(), model, folder)
    if as_json:
        show_json({"model": version.name, "version": version.version, "path": str(folder)})
    else:
        console.print(
            f"{version.name} version {version.version} is in {folder}. "
            f"mlflow.pyfunc.load_model({str(folder)!r}) loads it.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


class Format(StrEnum):
    """What a model can be exported as."""

    ONNX = "onnx"


@app.command()
def export(
    model: ModelReference,
    target: Annotated[
        Path | None, typer.Argument(help="New file; NAME-VERSION.onnx by default.")
    ] = None,
    kind: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.ONNX,
    as_json: JsonFlag = False,
) -> None:
    """Write a version as one file that onnxruntime answers from as this platform does.

    Normaliser and masks are inside; it is compared with the policy on 1,000 observations first.
    """
    from grpo.errors import GRPOError  # imports torch, which no other command waits for
    from grpo_platform.core.settings import Settings
    from grpo_platform.services.direct import export_version

    with errors_as_sentences(GRPOError):
        if target is not None and target.exists():
            fail(f"{target} exists already; name a file that does not.")
        version, content = export_version(Settings(), model)
        file = target or Path(f"{version.name}-{version.version}.{kind}")
        try:
            with file.open("xb") as written:
                written.write(content)
        except OSError as error:
            fail(f"{file} cannot be written: {error.strerror}.")
    if as_json:
        show_json({"model": version.name, "version": version.version, "path": str(file)})
    else:
        console.print(
            f"{version.name} version {version.version} is in {file}, and answers as it does here.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


@app.command()
def delete(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Delete a model from memory, registry and disk."""
    if not yes:
        typer.confirm(f"Delete model {name} with all its versions?", abort=True)
    with errors_as_sentences():
        answer(connect(context).delete_model(name), as_json)


def _version(version: ModelVersion) -> tuple[object, ...]:
    evaluation, suite = version["evaluation"], version["scenarios"]
    interval = "" if evaluation is None else ends(evaluation["ci_low"], evaluation["ci_high"])
    if evaluation is not None and evaluation["interval_of"] == "iqm":
        interval += " (IQM)"
    return (
        version["version"], ", ".join(version["aliases"]),
        None if evaluation is None else number(evaluation["mean"]), interval,
        None if suite is None else "passed" if suite["passed"] else "failed",
        version["seed"], version["job_id"], when(version["created_at"]),
    )  # fmt: skip


def _decision(decision: Decision, as_json: bool) -> None:
    if as_json:
        show_json(decision)
    else:
        said = f": {decision['reason']}{_staying(decision)}"
        console.print(Text.assemble((decision["verdict"], "bold"), said), soft_wrap=True)


def decided(client: GRPOClient, name: str, version: int, actor: str) -> str:
    """Whether a new version serves the bare name, or who does, and why.

    Args:
        client: asks the server.
        name: of the model.
        version: that was made.
        actor: who decided about it: `job <id>` or `sweep <id>`.

    Returns:
        Sentences; empty where nothing was decided, or the model is gone.
    """
    try:
        model = client.model(name)
    except ApiError:
        return ""
    about = [d for d in model["decisions"] if (d["actor"], d["version"]) == (actor, version)]
    if about and about[-1]["verdict"] == "kept":
        return f"It was not promoted. {about[-1]['reason']}{_staying(about[-1])}"
    return "It serves under its name." if model["champion"] == version else ""


def _staying(decision: Decision) -> str:
    if decision["verdict"] != "kept" or decision["champion_after"] is None:
        return ""
    return f" Version {decision['champion_after']} stays champion."
