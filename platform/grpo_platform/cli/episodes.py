"""`grpo-platform episodes …`: what a model does, step by step, for other tools."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from grpo_platform.cli.output import (
    JsonFlag,
    ModelReference,
    console,
    errors_as_sentences,
    fail,
    group,
    show_json,
)

__all__ = ["app"]

app = group("Episodes of a model, written to files.")


class Format(StrEnum):
    """What episodes can be written as."""

    PARQUET = "parquet"
    MINARI = "minari"


@app.callback()
def episodes_group() -> None:
    """Episodes of a model, written to files."""


@app.command()
def export(
    model: ModelReference,
    output: Annotated[
        Path | None,
        typer.Option(help="New folder; NAME-VERSION-episodes by default.", show_default=False),
    ] = None,
    episodes: Annotated[
        int, typer.Option(min=1, max=100_000, help="How many episodes to play.")
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
    kind: Annotated[
        Format, typer.Option("--format", help="minari needs the extra of that name.")
    ] = Format.PARQUET,
    as_json: JsonFlag = False,
) -> None:
    """Play a model's version here, and write every step: observation, action, reward, value.

    It reads the store directly, without a server.
    """
    from grpo.errors import GRPOError  # imports torch, which no other command waits for
    from grpo.evaluation import EVALUATION_SEED
    from grpo_platform.core.settings import Settings
    from grpo_platform.services.direct import export_episodes
    from grpo_platform.services.trajectories import TrajectoryFormat

    target = output or Path(f"{model.replace('/', '-').replace('@', '-')}-episodes")
    if target.exists():
        fail(f"{target} exists already; name a folder that does not.")
    with errors_as_sentences(GRPOError):
        try:
            written = export_episodes(
                Settings(), model, target, episodes=episodes, deterministic=not sample,
                seed=EVALUATION_SEED if seed is None else seed, kind=TrajectoryFormat(kind.value),
            )  # fmt: skip
        except OSError as error:
            fail(f"{target} cannot be written: {error.strerror}.")
    about = written.metadata
    if as_json:
        show_json(about | {"path": str(target)})
        return
    reader = (
        f"pandas.read_parquet({str(target / 'steps')!r}) reads the steps"
        if kind is Format.PARQUET
        else f"MINARI_DATASETS_PATH={target} and minari.load_dataset({about['dataset_id']!r}) "
        "load it"
    )
    console.print(
        f"{about['episodes']:,} episodes of {written.version.label}, {about['steps']:,} steps, "
        f"mean return {about['mean_return']:,.1f}, are in {target}; {reader}.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
