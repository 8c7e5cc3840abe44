"""`grpo-platform scenarios …`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from grpo_platform.cli import completion
from grpo_platform.cli.output import (
    JsonFlag,
    ModelReference,
    answer,
    connect,
    console,
    errors_as_sentences,
    group,
    show_json,
    table,
    when,
)
from grpo_platform.client.replies import FailedAssertion, SuiteResult

__all__ = ["app"]

app = group("Scenarios: check, put, show, run, replay what a model's versions must pass.")

Name = Annotated[
    str,
    typer.Argument(
        help="Name of the model.", show_default=False, autocompletion=completion.model_names
    ),
]
File = Annotated[Path, typer.Argument(help="The suite, a YAML or JSON file.", show_default=False)]


@app.command()
def check(
    file: File,
    env: Annotated[
        str | None, typer.Option(help="Try it in this environment, a Gymnasium id.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Try it in the environment of this model of the store.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a suite here, without a server. Exit code 1, and the place, where it is none."""
    from grpo.errors import GRPOError  # imports torch, which no other command waits for
    from grpo_platform.scenarios.files import read_suite_text
    from grpo_platform.services.scenarios import check_text

    with errors_as_sentences(GRPOError):
        suite = check_text(read_suite_text(file), env, model=model)
    if as_json:
        show_json({"digest": suite.digest, "suite": suite.to_dict()})
        return
    _suite(suite.to_dict())
    console.print(f"{file} is a suite of {len(suite.scenarios)} scenarios.", soft_wrap=True)


@app.command()
def put(context: typer.Context, name: Name, file: File, as_json: JsonFlag = False) -> None:
    """Give a model a suite, in the place of the one before."""
    from grpo_platform.scenarios.files import read_suite_text

    with errors_as_sentences():
        kept = connect(context).put_scenarios(name, read_suite_text(file))
    if as_json:
        show_json(kept)
    else:
        said = f"Versions of {name} must pass {kept['scenarios']} scenarios to be promoted."
        console.print(said, soft_wrap=True)


@app.command()
def show(context: typer.Context, name: Name, as_json: JsonFlag = False) -> None:
    """A model's suite, as it was written."""
    with errors_as_sentences():
        kept = connect(context).scenarios(name)
    if as_json:
        show_json(kept)
    else:
        console.print(f"# put {when(kept['put_at'])}, SHA-256 {kept['digest']}", highlight=False)
        console.print(kept["source"].rstrip("\n"), highlight=False, soft_wrap=True)


@app.command()
def delete(context: typer.Context, name: Name, as_json: JsonFlag = False) -> None:
    """Take a model's suite away; what versions came to stays."""
    with errors_as_sentences():
        answer(connect(context).delete_scenarios(name), as_json)


@app.command()
def run(context: typer.Context, model: ModelReference, as_json: JsonFlag = False) -> None:
    """Put a version through its model's suite. Exit code 1 where it fails."""
    name, _, alias = model.partition("@")
    name, _, version = name.partition("/")
    if version and not version.isdigit():
        raise typer.BadParameter(f"{version!r} is no version.")
    with errors_as_sentences():
        result = connect(context).run_scenarios(
            name, version=int(version) if version else None, alias=alias or None
        )
    _result(result, as_json)
    if not result["passed"]:
        raise typer.Exit(1)


@app.command()
def results(
    context: typer.Context,
    name: Name,
    version: Annotated[int, typer.Argument(min=1, help="The version.", show_default=False)],
    as_json: JsonFlag = False,
) -> None:
    """What a version came to in its model's suites."""
    with errors_as_sentences():
        found = connect(context).scenario_results(name, version)
    if as_json:
        show_json(found)
        return
    rows = [
        (each["number"], "passed" if each["passed"] else "failed", each["reason"],
         each["digest"][:12], when(each["run_at"]))
        for each in found["results"]
    ]  # fmt: skip
    table(("", "result", "reason", "suite", "when"), rows)
    if found["latest"] is not None:
        _result(found["latest"], False)


@app.command()
def replay(
    model: ModelReference,
    scenario: Annotated[str | None, typer.Option(help="Only of this scenario.")] = None,
    episode: Annotated[int | None, typer.Option(min=0, help="Only this episode of it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Play what failed in a version's latest result again, here, and compare every bit.

    It reads the store directly, without a server. Exit code 1 where an episode differs.
    """
    from grpo.errors import GRPOError  # imports torch, which no other command waits for
    from grpo_platform.core.settings import Settings
    from grpo_platform.services.scenarios import replay_episodes

    with errors_as_sentences(GRPOError):
        found = replay_episodes(Settings(), model, scenario, episode)
    rows = [
        (each.then.scenario, each.assertion, each.then.episode, each.then.step,
         None if each.now is None else each.now.step, each.then.value,
         None if each.now is None else each.now.value,
         "equal to the last bit" if each.is_same else "different")
        for each in found
    ]  # fmt: skip
    columns = ("scenario", "assertion", "episode", "step then", "now", "value then", "now ", "")
    if as_json:
        names = (*columns[:4], "step now", "value then", "value now", "verdict")
        show_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        table(columns, rows)
    if not all(each.is_same for each in found):
        raise typer.Exit(1)


def _suite(suite: dict[str, Any]) -> None:
    rows = [
        (each["name"], each["episodes"], len(each.get("start", [])) or "resets",
         ", ".join(each.get("perturb", {})), "; ".join(each["assert"]))
        for each in suite["scenarios"]
    ]  # fmt: skip
    table(("scenario", "episodes", "starts", "perturbed", "must hold"), rows)


def _result(result: SuiteResult, as_json: bool) -> None:
    if as_json:
        show_json(result)
        return
    rows = [
        (scenario["name"], assertion["text"], "passed" if assertion["passed"] else "failed",
         _figures(assertion["figures"]), _failures(assertion["failures"]))
        for scenario in result["scenarios"]
        for assertion in scenario["assertions"]
    ]  # fmt: skip
    table(("scenario", "must hold", "result", "figures", "failed first in"), rows)
    word = "passed" if result["passed"] else "failed"
    said = f": version {result['version']}. {result['reason']}"
    console.print(Text.assemble((word, "bold"), said), soft_wrap=True)


def _figures(figures: dict[str, float]) -> str:
    if "share" in figures:
        return (
            f"{figures['held']:.0f} of {figures['episodes']:.0f}, "
            f"{100 * figures['low']:.1f} to {100 * figures['high']:.1f} %"
        )
    if "mean" in figures:
        return f"mean {figures['mean']:.2f}"
    return f"median {figures['median_us']:.1f} us, p99 {figures['p99_us']:.1f} us"


def _failures(failures: list[FailedAssertion]) -> str:
    return "; ".join(f"episode {each['episode']}, step {each['step']}" for each in failures)
