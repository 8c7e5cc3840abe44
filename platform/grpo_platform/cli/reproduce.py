"""`grpo-platform reproduce`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from grpo_platform.cli.output import JsonFlag, console, errors_as_sentences, show_json, table

if TYPE_CHECKING:
    from grpo_platform.reproduction.verdict import Difference, Reproduction

__all__ = ["reproduce"]


def reproduce(
    run_id: Annotated[str, typer.Argument(help="A completed job.", show_default=False)],
    seed: Annotated[int | None, typer.Option(min=0, help="Train with another seed.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a job again here, in a new run, and compare: identical, equivalent or different.

    Exit code 0 for identical, 3 for equivalent, 4 for different, 1 when nothing was compared. It
    reads and writes the store directly, without a server. The new version goes to a model of its
    own and is not promoted.
    """
    from grpo_platform.reproduction.verdict import EXIT_CODES

    with errors_as_sentences():
        result = _reproduce(run_id, seed, quiet=as_json)
    if as_json:
        show_json(result.to_dict())
    else:
        table(("what", "then", "now"), result.rows())
        verdict = result.comparison.verdict.value
        said = f": run {result.run_id} reproduces {result.original}."
        console.print(Text.assemble((verdict, "bold"), said))
    raise typer.Exit(EXIT_CODES[result.comparison.verdict])


def _reproduce(run_id: str, seed: int | None, *, quiet: bool) -> "Reproduction":
    from grpo_platform.core.settings import Settings
    from grpo_platform.registry.models import Registry
    from grpo_platform.reproduction.reproducing import begin_run, plan_reproduction, run_plan
    from grpo_platform.tracking.addresses import existing_store_uri
    from grpo_platform.tracking.jobs import JobStore

    uri = existing_store_uri(Settings())
    store, registry = JobStore(uri), Registry(uri)
    plan = plan_reproduction(store, run_id, seed)
    if not quiet:
        _announce(plan.expected)
    return run_plan(store, registry, plan, begin_run(store, plan))


def _announce(expected: "tuple[Difference, ...]") -> None:
    if not expected:
        console.print("Code, packages, machine and environment are those of the run.")
        return
    table(("differs from the run", "then", "now"), expected)
