"""`grpo-platform jobs …`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from grpo_platform.cli.output import (
    JsonFlag,
    answer,
    connect,
    console,
    errors_as_sentences,
    fail,
    show_json,
    table,
    when,
)
from grpo_platform.client import Job, StatusWord

__all__ = ["app"]

app = typer.Typer(
    help="Training jobs: list, show, stop, resume, logs, config, film, delete.",
    no_args_is_help=True,
)

JobId = Annotated[str, typer.Argument(help="Id of the job.", show_default=False)]


@app.command("list")
def list_jobs(
    context: typer.Context,
    status: Annotated[StatusWord | None, typer.Option(help="Only jobs with this status.")] = None,
    env: Annotated[str | None, typer.Option(help="Only jobs in this environment.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs for this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show at most.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Jobs, newest first."""
    with errors_as_sentences():
        found = connect(context).iter_jobs(status=status, env_name=env, model_name=model)
        jobs = [job for job, _ in zip(found, range(limit), strict=False)]
    if as_json:
        show_json(jobs)
        return
    table(
        ("job", "status", "progress", "environment", "model", "return", "started"),
        [_row(job) for job in jobs],
    )


@app.command()
def show(context: typer.Context, job_id: JobId, as_json: JsonFlag = False) -> None:
    """One job, with its latest metrics."""
    with errors_as_sentences():
        job = connect(context).job(job_id)
    if as_json:
        show_json(job)
        return
    told = dict(job) | {"verdict": job["verdict"] and job["verdict"]["sentence"]}
    told |= {"hints": " ".join(job["hints"].values()) or None}
    del told["decision"]  # which promotion_reason tells
    rows = [(key, value) for key, value in told.items() if key != "metrics" and value is not None]
    table(("field", "value"), [*rows, *sorted(job["metrics"].items())])


@app.command()
def stop(context: typer.Context, job_id: JobId, as_json: JsonFlag = False) -> None:
    """Stop a job; its checkpoint is kept."""
    with errors_as_sentences():
        answer(connect(context).stop(job_id), as_json)


@app.command()
def resume(context: typer.Context, job_id: JobId, as_json: JsonFlag = False) -> None:
    """Take a stopped or failed job up again, from its checkpoint."""
    with errors_as_sentences():
        answer(connect(context).resume(job_id), as_json)


@app.command()
def logs(
    context: typer.Context,
    job_id: JobId,
    tail: Annotated[int, typer.Option(min=1, max=10_000, help="How many to show at most.")] = 200,
) -> None:
    """The last lines of a job's log."""
    with errors_as_sentences():
        sys.stdout.writelines(f"{line}\n" for line in connect(context).logs(job_id, tail))


@app.command()
def config(context: typer.Context, job_id: JobId, as_json: JsonFlag = False) -> None:
    """What a job trains with, and what of it differs from its environment's preset."""
    with errors_as_sentences():
        found = connect(context).config(job_id)
    if as_json:
        show_json(found)
        return
    preset = found["preset"]
    rows = [
        (name, json.dumps(value), json.dumps(preset[name]) if name in preset else "")
        for name, value in sorted(found["config"].items())
    ]
    table(("field", "value", "preset"), rows)


@app.command()
def film(
    context: typer.Context,
    job_id: JobId,
    out: Annotated[
        Path | None, typer.Option(help="New file; JOB_ID.mp4 by default.", show_default=False)
    ] = None,
    failure: Annotated[
        int | None, typer.Option(min=1, help="One of its worst episodes, instead of the greedy.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Save the film of a completed job's greedy episodes, or of one of its worst."""
    file = out or Path(f"{job_id}{'' if failure is None else f'-{failure}'}.mp4")
    with errors_as_sentences():
        if file.exists():
            fail(f"{file} exists already; name a file that does not.")
        content = connect(context).film(job_id, failure)
        try:
            file.write_bytes(content)
        except OSError as error:
            fail(f"{file} cannot be written: {error.strerror}.")
    if as_json:
        show_json({"job_id": job_id, "path": str(file), "bytes": len(content)})
    else:
        console.print(f"The film is in {file}.", highlight=False, soft_wrap=True)


@app.command()
def delete(context: typer.Context, job_id: JobId, as_json: JsonFlag = False) -> None:
    """Delete a finished job with its run, checkpoints and logs; its model stays."""
    with errors_as_sentences():
        answer(connect(context).delete_job(job_id), as_json)


def _row(job: Job) -> tuple[object, ...]:
    metrics = job["metrics"]
    mean = metrics.get("eval/mean_reward", metrics.get("rollout/ep_rew_mean"))
    progress = f"{job['progress']:.0%}"
    return (
        job["job_id"], job["status"], progress, job["env_name"], job["model_name"], mean,
        when(job["start_time"]),
    )  # fmt: skip
