"""The command line: serve, train, watch, work, evaluate, predict."""

import itertools
import os
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.text import Text

from grpo_platform import __version__
from grpo_platform.cli import (
    comparisons,
    completion,
    doctor,
    episodes,
    experiments,
    jobs,
    models,
    play,
    scenarios,
    store,
    sweeps,
)
from grpo_platform.cli.output import (
    JsonFlag,
    ModelReference,
    Token,
    Url,
    assigned,
    conclude,
    connect,
    console,
    errors_as_sentences,
    fail,
    group,
    number,
    observed,
    queued,
    seeds_typed,
    show_json,
    table,
)
from grpo_platform.client import GRPOClient, TrainFields
from grpo_platform.client.fields import Register
from grpo_platform.core.messages import escape_unprintable

__all__ = ["app", "main", "scenarios"]

app = group("Train, track and serve GRPO policies.", name="grpo-platform")
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.add_typer(episodes.app, name="episodes")
app.add_typer(scenarios.app, name="scenarios")
app.add_typer(sweeps.app, name="sweep")
app.add_typer(experiments.app, name="experiments")
app.add_typer(store.app, name="store")
app.add_typer(comparisons.app, name="comparisons")
app.command()(comparisons.compare)
app.command()(play.play)
app.command("open")(play.open_pages)
app.command()(doctor.doctor)


def main() -> None:
    """Run the command line."""
    escape_unprintable()
    app()


def _show_version(asked: bool) -> None:
    if asked:
        console.print(f"grpo-platform {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def connection(
    context: typer.Context,
    url: Url = None,
    token: Token = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show it, and exit."),
    ] = False,
) -> None:
    """Train, track and serve GRPO policies."""
    context.obj = (url, token)


_TRAIN_EXAMPLES: Final = (
    "`grpo-platform train balance --timesteps 20000`; "
    "`grpo-platform train lander --env LunarLander-v3 --seeds 5 -s learning_rate=1e-3`."
)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (GRPO_HOST).")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the API (GRPO_PORT).")
    ] = None,
    ui_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the MLflow UI (GRPO_MLFLOW_UI_PORT)."),
    ] = None,
    env_module: Annotated[
        list[str] | None,
        typer.Option(help="Module that registers environments; repeatable (GRPO_ENV_MODULES)."),
    ] = None,
) -> None:
    """Start the API and the MLflow UI, until Ctrl-C. Other settings come from GRPO_* variables."""
    from grpo_platform import server

    modules = ",".join(env_module) if env_module else None
    given = {"HOST": host, "PORT": port, "MLFLOW_UI_PORT": ui_port, "ENV_MODULES": modules}
    for name, value in given.items():
        if value is not None:
            os.environ[f"GRPO_{name}"] = str(value)
    server.main()


@app.command(
    epilog=f"For example: {_TRAIN_EXAMPLES}\n\n"
    f"Fields for --set: {', '.join(sorted(TrainFields.__annotations__))}."
)
def train(
    context: typer.Context,
    model_name: Annotated[
        str | None,
        typer.Argument(
            help="Model that receives the version.", autocompletion=completion.model_names
        ),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(
            help="Gymnasium id.", show_default="CartPole-v1", autocompletion=completion.env_names
        ),
    ] = None,
    timesteps: Annotated[
        int | None, typer.Option(min=1, help="Budget, in environment steps.")
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(help="Reward that is trained on.", autocompletion=completion.reward_names),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Drawn at random when left out.")] = None,
    num_cpus: Annotated[
        float | None, typer.Option(help="CPUs that a Ray cluster reserves.")
    ] = None,
    num_gpus: Annotated[
        float | None, typer.Option(help="GPUs that a Ray cluster reserves.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            help="Any field of POST /train, as name=value; repeatable.",
            autocompletion=completion.settings,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Train an experiment: how many seeds, counted from --seed, or which: 3,14,15.",
            show_default=False,
        ),
    ] = None,
    register: Annotated[
        Register | None,
        typer.Option(help="Of an experiment: which seed's version the model gets."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until it has ended.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Train a policy and show its progress. Exit code 1 unless it was completed."""
    named = {
        "model_name": model_name, "env_name": env, "total_timesteps": timesteps,
        "reward_function_type": reward, "seed": seed, "num_cpus": num_cpus, "num_gpus": num_gpus,
        "seeds": seeds_typed(seeds), "register": register,
    }  # fmt: skip
    fields = assigned(setting, named)
    with errors_as_sentences():
        client = connect(context)
        if (wanted := fields.pop("seeds", None)) is not None:
            _experiment(client, wanted, fields, wait=wait, as_json=as_json)
            return
        if "register" in fields:
            raise typer.BadParameter(
                "It is about seeds: give --seeds too.", param_hint="--register"
            )
        accepted = client.start_training(**fields)
        if not wait:
            show_json(accepted) if as_json else queued(client, "job", accepted["job_id"])
            return
        job = jobs.watch_job(client, accepted["job_id"], quiet=as_json)
    conclude(job, jobs.report, as_json=as_json)


@app.command()
def worker(
    job: Annotated[
        str,
        typer.Option(
            help="Id of a queued job, the beginning of it, or latest.",
            show_default=False,
            autocompletion=completion.job_ids,
        ),
    ],
) -> None:
    """Train one queued job here, in the foreground, without a server.

    Ctrl-C stops it. Exit code 1 unless it was completed.
    """
    from grpo.errors import GRPOError  # imports torch, which no other command waits for
    from grpo_platform.core.settings import Settings
    from grpo_platform.services.direct import run_queued

    with errors_as_sentences(GRPOError):
        code = run_queued(job, Settings())
    raise typer.Exit(code)


@app.command()
@app.command("envs", hidden=True)
def environments(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(help="Only ids that contain this.", autocompletion=completion.env_names),
    ] = "",
    refused: Annotated[
        bool, typer.Option("--refused", help="Show those that cannot be trained, and why.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many to show at most.")] = 100,
    as_json: JsonFlag = False,
) -> None:
    """Environments that the server can train in; `envs` is the same."""
    with errors_as_sentences():
        listed = connect(context).iter_environments(name, trainable=not refused)
        found = list(itertools.islice(listed, limit))
    if as_json:
        show_json(found)
        return
    if refused:
        table(("environment", "reason"), [(each["env_name"], each["reason"]) for each in found])
        return
    rows = [
        (
            e["env_name"],
            _space(e["observation_space"] or e["reason"] or ""),
            _space(e["action_space"] or ""),
            e["policy"],
        )
        for e in found
    ]
    table(("environment", "observation", "action", "policy"), rows)


def _space(text: str) -> str:
    """A space as a row has room for it: a Box whose bounds are arrays by its shape."""
    return re.sub(r"Box\(\[.*?\], \[.*?\], (\([\d, ]+\)), (\w+)\)", r"Box\1 \2", text, flags=re.S)


@app.command()
def rewards(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Rewards that can be trained on, with `train --reward`."""
    with errors_as_sentences():
        found = connect(context).rewards()
    if as_json:
        show_json(found)
        return
    rows = [(each["name"], each["environments"], each["description"]) for each in found]
    table(("reward", "environments", "what it is"), rows)


# a negative number is no option
@app.command(context_settings={"ignore_unknown_options": True})
def predict(
    context: typer.Context,
    model: ModelReference,
    observation: Annotated[
        list[str],
        typer.Argument(
            help="The numbers of the observation; or all of it as JSON, nested as its space is.",
            show_default=False,
        ),
    ],
    sample: Annotated[
        bool, typer.Option("--sample", help="Sample an action instead of taking the likeliest.")
    ] = False,
    mask: Annotated[
        str | None,
        typer.Option(help="Which actions may be taken, as JSON: a list of ones and zeros."),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(help="Of a model with memory: the state of the answer before."),
    ] = None,
    episode_id: Annotated[
        str | None,
        typer.Option(help="Instead: a name under which the server remembers the episode."),
    ] = None,
    episode_start: Annotated[
        bool, typer.Option("--episode-start", help="The episode begins with this observation.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Ask a model for the action in one observation."""
    with errors_as_sentences():
        found, allowed = observed(observation), None if mask is None else observed([mask])
        answer = connect(context).predict(
            model,
            found,
            deterministic=not sample,
            action_mask=allowed,
            state=state,
            episode_id=episode_id,
            episode_start=episode_start,
        )
    if as_json:
        show_json(answer)
    else:
        table(tuple(answer), [tuple(answer.values())])


@app.command()
def evaluate(
    model: ModelReference,
    episodes: Annotated[
        int, typer.Option(min=1, max=10_000, help="How many episodes to play.")
    ] = 100,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Seeds the episodes; by default, a job's own episodes are played."
        ),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Sample an action instead of taking the likeliest.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Play a model's version here, on the environment's own reward, and show how well it does."""
    from grpo.errors import GRPOError  # imports torch, which no other command waits for
    from grpo.evaluation import EVALUATION_SEED
    from grpo_platform.core.settings import Settings
    from grpo_platform.services.direct import evaluate_version

    with errors_as_sentences(GRPOError):
        version, found = evaluate_version(
            Settings(), model, episodes=episodes, deterministic=not sample,
            seed=EVALUATION_SEED if seed is None else seed,
        )  # fmt: skip
    result = {
        "model": version.name, "version": version.version, "episodes": episodes,
        "mean": found.mean, "std": found.std, "iqm": found.iqm, "ci_low": found.ci_low,
        "ci_high": found.ci_high,
    }  # fmt: skip
    if as_json:
        show_json(result)
    else:
        table(tuple(result), [tuple(result.values())])


@app.command()
def failures(
    context: typer.Context,
    job_id: jobs.JobId,
    to_scenario: Annotated[
        int | None,
        typer.Option(min=1, help="Test the model on the failure of this number from now on."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """The worst episodes of a job's evaluation, and where the policy's value estimate collapsed."""
    if to_scenario is not None:
        with errors_as_sentences():
            made = connect(context).failure_to_scenario(job_id, to_scenario)
        said = f"{made['model_name']} has the scenario {made['scenario']!r}; its versions must "
        show_json(made) if as_json else console.print(f"{said}pass it.", soft_wrap=True)
        return
    with errors_as_sentences():
        found = connect(context).failures(job_id)
    if as_json:
        show_json(found)
        return
    columns = ("number", "return", "length", "ended", "seed", "cluster", "collapse", "snapshot")
    rows = [
        (e["number"], number(e["return"]), e["length"], e["ended"], str(e["seed"]), e["cluster"],
         e["collapse"]["step"], e["snapshot"])
        for e in found["failures"]
    ]  # fmt: skip
    table(columns, rows)
    for note in found["notes"]:
        console.print(note, soft_wrap=True)
    if found["page"] is not None:
        console.print(f"To look at: {found['page']} among the artifacts of run {job_id}.")


@app.command()
def reproduce(
    run_id: Annotated[
        str,
        typer.Argument(
            help="Id of a completed job, the beginning of it, or latest; with --environment-only, "
            "a model's version, too.",
            show_default=False,
            autocompletion=completion.job_ids,
        ),
    ],
    seed: Annotated[int | None, typer.Option(min=0, help="Train with another seed.")] = None,
    environment_only: Annotated[
        bool,
        typer.Option(
            "--environment-only",
            help="Train nothing: compare the environment with the one that it was trained in.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a job again here, in a new run, and compare: identical, equivalent or different.

    Exit code 0 for identical, 3 for equivalent, 4 for different, 1 when nothing was compared. It
    reads and writes the store directly, without a server. The new version goes to a model of its
    own and is not promoted.
    """
    from grpo_platform.core.settings import Settings
    from grpo_platform.reproduction.verdict import EXIT_CODES
    from grpo_platform.services.direct import reproduce_job

    if environment_only:
        if seed is not None:
            fail("--seed is of a training, and --environment-only trains nothing: leave one out.")
        _compare_environment(run_id, as_json)
    with errors_as_sentences():
        announce = (lambda expected: None) if as_json else _announce
        result = reproduce_job(Settings(), run_id, seed, announce=announce)
    if as_json:
        show_json(result.to_dict())
    else:
        table(("what", "then", "now"), result.rows())
        verdict = result.comparison.verdict.value
        said = f": run {result.run_id} reproduces {result.original}."
        console.print(Text.assemble((verdict, "bold"), said))
    raise typer.Exit(EXIT_CODES[result.comparison.verdict])


def _compare_environment(reference: str, as_json: bool) -> NoReturn:
    from grpo.errors import GRPOError
    from grpo_platform.core.settings import Settings
    from grpo_platform.reproduction.verdict import EXIT_CODES
    from grpo_platform.services.direct import compare_environment_of

    with errors_as_sentences(GRPOError):
        found = compare_environment_of(Settings(), reference)
    if as_json:
        show_json(found.to_dict())
    else:
        table(("what", "then", "now"), found.rows())
        for note in found.notes:
            console.print(note, soft_wrap=True)
        said = f": {found.version} in {found.env_name}, as it was made and now; run {found.run_id}."
        console.print(Text.assemble((found.verdict.value, "bold"), said), soft_wrap=True)
    raise typer.Exit(EXIT_CODES[found.verdict])


def _announce(expected: Sequence[tuple[str, str, str]]) -> None:
    if not expected:
        console.print("Code, packages, machine and environment are those of the run.")
        return
    table(("differs from the run", "then", "now"), expected)


def _experiment(
    client: GRPOClient, seeds: int | list[int], fields: dict[str, Any], *, wait: bool, as_json: bool
) -> None:
    accepted = client.start_experiment(seeds, **fields)
    experiment_id = accepted["experiment_id"]
    if not wait:
        show_json(accepted) if as_json else queued(client, "experiment", experiment_id)
        return
    found = experiments.watch(client, experiment_id, quiet=as_json)
    conclude(found, experiments.report, as_json=as_json)
