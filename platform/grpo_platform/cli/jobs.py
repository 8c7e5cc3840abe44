"""`grpo-platform jobs …`, and how a job is watched and reported by every command."""

import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from grpo_platform.cli import completion, output
from grpo_platform.cli.output import (
    JsonFlag,
    answer,
    conclude,
    connect,
    console,
    errors_as_sentences,
    fail,
    group,
    number,
    page_of,
    percent,
    show_json,
    table,
    when,
)
from grpo_platform.client import GRPOClient, Job, StatusWord
from grpo_platform.client.progress import line_of_job

__all__ = ["JobId", "app", "report", "watch_job"]

app = group("Training jobs: list, show, watch, stop, resume, logs, config, film, delete.")

_FOLLOW_SECONDS: Final = 1.0
_MOST_LINES: Final = 10_000
_ENDED: Final = ("completed", "failed", "stopped")

JobId = Annotated[
    str,
    typer.Argument(
        help="Id of the job, the beginning of it, or latest.",
        show_default=False,
        autocompletion=completion.job_ids,
    ),
]


@app.command("list")
def list_jobs(
    context: typer.Context,
    status: Annotated[StatusWord | None, typer.Option(help="Only jobs with this status.")] = None,
    env: Annotated[
        str | None,
        typer.Option(help="Only jobs in this environment.", autocompletion=completion.env_names),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Only jobs for this model.", autocompletion=completion.model_names),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show at most.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Jobs, newest first: train is the return of training episodes, eval of the evaluation."""
    with errors_as_sentences():
        found = connect(context).iter_jobs(status=status, env_name=env, model_name=model)
        jobs = list(itertools.islice(found, limit))
    if as_json:
        show_json(jobs)
        return
    columns = ("id", "status", "environment", "model", "train", "eval", "started")
    table(columns, [_row(job) for job in jobs])


@app.command()
def show(context: typer.Context, job_id: JobId, as_json: JsonFlag = False) -> None:
    """One job, with its latest metrics."""
    with errors_as_sentences():
        client = connect(context)
        job = client.job(job_id)
    if as_json:
        show_json(job)
        return
    told: dict[str, object] = dict(job)
    told |= {"verdict": job["verdict"] and job["verdict"]["sentence"]}
    told |= {"hints": " ".join(job["hints"].values()) or None}
    del told["decision"]  # which promotion_reason tells
    rows = [(key, value) for key, value in told.items() if key != "metrics" and value is not None]
    table(("field", "value"), [*rows, *sorted(job["metrics"].items())])
    console.print(page_of(client, "jobs", job["job_id"]), highlight=False, soft_wrap=True)


@app.command()
def watch(context: typer.Context, job_id: JobId, as_json: JsonFlag = False) -> None:
    """Show a job's progress until it has ended. Exit code 1 unless it was completed."""
    with errors_as_sentences():
        job = watch_job(connect(context), job_id, quiet=as_json)
    conclude(job, report, as_json=as_json)


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
    tail: Annotated[
        int, typer.Option(min=1, max=_MOST_LINES, help="How many to show at most.")
    ] = 200,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show further lines until the job has ended.")
    ] = False,
) -> None:
    """The last lines of a job's log."""
    with errors_as_sentences():
        client = connect(context)
        if not follow:
            _say(client.logs(job_id, tail))
            return
        job_id = client.job(job_id)["job_id"]
        try:
            _follow(client, job_id, tail)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _follow(client: GRPOClient, job_id: str, tail: int) -> None:
    """Print a log as it grows, up to the end of its job."""
    known: list[str] = []
    while True:
        ended = client.job(job_id)["status"] in _ENDED  # before the log is read for the last time
        lines = client.logs(job_id, _MOST_LINES)
        _say(_new_in(lines, known)[-tail if not known else 0 :])
        known = lines
        if ended:
            return
        time.sleep(_FOLLOW_SECONDS)


def _new_in(lines: list[str], known: list[str]) -> list[str]:
    """The lines after those that are known; a log that is long loses its first ones."""
    for begin in range(len(known)):
        if lines[:1] == known[begin : begin + 1] and lines[: len(known) - begin] == known[begin:]:
            return lines[len(known) - begin :]
    return lines


def _say(lines: list[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


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


def watch_job(client: GRPOClient, job_id: str, *, quiet: bool) -> Job:
    """Show how a job is doing until it has ended, and return it; see `output.watch`."""
    job_id = client.job(job_id)["job_id"]

    def wait(on_progress: Callable[[Job], object]) -> Job:
        return client.wait(job_id, on_progress=on_progress)

    return output.watch(client, "job", job_id, wait, line_of_job, quiet=quiet)


def report(job: Job) -> None:
    """Print what a job came to."""
    if job["status"] == "completed":
        mean = job["metrics"].get("eval/mean_reward")
        played = "" if mean is None else f" It returns {mean:,.1f} on average."
        played += f" {job['verdict']['sentence']}" if job["verdict"] else ""
        played += f" Its {job['stopped_by']} ended it." if job["stopped_by"] else ""
        made = f"{job['model_name']} version {job['model_version']} is registered."
        verdict = "It serves under its name."
        if not job["promoted"]:
            verdict = f"It was not promoted. {job['promotion_reason'] or ''}"
        console.print(f"{made}{played} {verdict}", soft_wrap=True)
    else:
        console.print(f"Job {job['job_id']} {job['status']}. {job['error_message'] or ''}")
    for hint in job["hints"].values():
        console.print(f"Hint: {hint}", soft_wrap=True)


def _row(job: Job) -> tuple[object, ...]:
    metrics = job["metrics"]
    return (
        job["job_id"], percent(job["status"], job["progress"]), job["env_name"], job["model_name"],
        number(metrics.get("rollout/ep_rew_mean")), number(metrics.get("eval/mean_reward")),
        when(job["start_time"]),
    )  # fmt: skip
