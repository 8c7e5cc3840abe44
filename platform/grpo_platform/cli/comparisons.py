"""`grpo-platform compare`, and `grpo-platform comparisons …` about what it kept."""

import itertools
from pathlib import Path
from typing import Annotated

import typer

from grpo_platform.cli import completion
from grpo_platform.cli.output import (
    JsonFlag,
    answer,
    connect,
    console,
    errors_as_sentences,
    fail,
    group,
    show_json,
    when,
)
from grpo_platform.cli.output import table as show_table
from grpo_platform.client.comparisons import Comparison
from grpo_platform.client.fields import ComparisonFields

__all__ = ["app", "compare"]

app = group("Comparisons that were kept: list, show, delete; `compare` makes one.")

ComparisonId = Annotated[
    str,
    typer.Argument(
        help="Id of the comparison, the beginning of it, or latest.",
        show_default=False,
        autocompletion=completion.comparison_ids,
    ),
]


def compare(
    context: typer.Context,
    references: Annotated[
        list[str],
        typer.Argument(
            help="Two or more: ids of experiments, jobs or sweeps, or their beginnings; name, "
            "name@alias or name/version of models. A kind can be said, as in model:my_model/3.",
            show_default=False,
            autocompletion=completion.references,
        ),
    ],
    html: Annotated[
        Path | None, typer.Option(help="Also write the report there, a file that opens offline.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write it there as Markdown, for a pull request.")
    ] = None,
    episodes: Annotated[
        int, typer.Option(min=20, max=2_000, help="Episodes that each version plays.")
    ] = 100,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seeds the episodes; drawn when left out.")
    ] = None,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Put different environments on one scale.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare experiments, jobs, versions and sweeps' bests, and keep the result in MLflow."""
    if len(references) < 2:
        fail("Two or more sides are compared: name another one.")
    fields: ComparisonFields = {"episodes": episodes, "normalize": normalize, "seed": seed}
    with errors_as_sentences():
        client = connect(context)
        found = client.compare(*references, **fields)
        for path, kind in ((html, "html"), (markdown, "markdown")):
            if path is not None:
                text = client.comparison_report(found["comparison_id"], kind)  # type: ignore[arg-type]
                _write(path, text)
    show_json(found) if as_json else _report(found)


@app.command("list")
def list_comparisons(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many to show at most.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Comparisons, newest first."""
    with errors_as_sentences():
        found = list(itertools.islice(connect(context).iter_comparisons(), limit))
    if as_json:
        show_json(found)
        return
    rows = [
        (c["comparison_id"], " against ".join(c["labels"]), c["sentence"].partition(":")[0],
         when(c["created_at"]))
        for c in found
    ]  # fmt: skip
    show_table(("id", "sides", "the first pair", "made"), rows)


@app.command()
def show(context: typer.Context, comparison_id: ComparisonId, as_json: JsonFlag = False) -> None:
    """A comparison with its intervals, and what is to be known before it is believed."""
    with errors_as_sentences():
        found = connect(context).comparison(comparison_id)
    show_json(found) if as_json else _report(found)


@app.command()
def delete(context: typer.Context, comparison_id: ComparisonId, as_json: JsonFlag = False) -> None:
    """Delete a comparison with its figure, tables and report; what it compared stays."""
    with errors_as_sentences():
        answer(connect(context).delete_comparison(comparison_id), as_json)


def _report(found: Comparison) -> None:
    for pair in found["pairs"]:
        console.print(pair["sentence"], soft_wrap=True)
    if found["correction"]:
        console.print(found["correction"], soft_wrap=True)
    for said in found["warnings"]:
        console.print(f"Note: {said}", soft_wrap=True)
    columns = ("side", "returns", "mean", "low", "high", "IQM", "low", "high")
    rows = [
        (side["label"], f"{len(side['returns'])} {side['unit']}s", *side["mean"].values(),
         *side["iqm"].values())
        for side in found["sides"]
    ]  # fmt: skip
    show_table(columns, rows)
    console.print(f"Comparison {found['comparison_id']}.")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror or error}.")
