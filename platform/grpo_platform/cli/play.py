"""`grpo-platform open` and `grpo-platform play`."""

import os
import re
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import typer

from grpo_platform.cli.output import connect, console, errors_as_sentences, fail, table
from grpo_platform.client import GRPOClient

__all__ = ["open_pages", "play"]

_JOB_ID: Final = re.compile(r"[0-9a-f]{32}")


def open_pages(context: typer.Context) -> None:
    """Print the control room's address, and open it where there is a display."""
    with errors_as_sentences():
        client = connect(context)
        client.about()
    _show(f"{client.base_url}/app")


def play(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="A model, as name, name/version or name@alias; or a job's id.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Write a film there, .webp or .gif, instead of opening the page."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the episode.")] = 0,
    steps: Annotated[int, typer.Option(min=1, max=300, help="Of the film, at most.")] = 200,
) -> None:
    """Play a policy: on the page, or into a file where there is no display."""
    with errors_as_sentences():
        client = connect(context)
        if out is None and _has_display():
            client.about()
            kind = "job" if _JOB_ID.fullmatch(name) else "model"
            _show(f"{client.base_url}/app/play?{urlencode({kind: name, 'seed': seed})}")
            return
        path = out or Path(f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.webp")
        if path.suffix not in (".webp", ".gif"):
            fail(f"{path}: a film is written as .webp or .gif.")
        _film(client, name, path, seed, steps)


def _film(client: GRPOClient, name: str, path: Path, seed: int, steps: int) -> None:
    job_id = name if _JOB_ID.fullmatch(name) else None
    session = client.play(None if job_id else name, job_id=job_id, seed=seed)
    try:
        try:
            kind = "gif" if path.suffix == ".gif" else "webp"
            content = client.play_film(session["session_id"], steps=steps, format=kind)  # type: ignore[arg-type]
            path.write_bytes(content)
            console.print(f"{path}: {len(content)} bytes.", highlight=False, soft_wrap=True)
        except OSError as error:
            fail(f"{path} cannot be written: {error.strerror or error}.")
        _state(client.steer(session["session_id"], "pause")["frame"], session["features"])
    finally:
        client.end_play(session["session_id"])


def _state(frame: dict[str, Any], features: list[str]) -> None:
    """What the film ends with, as a table."""
    observed = frame["observation"] or []
    names = features or [f"observation[{i}]" for i in range(len(observed))]
    rows = [
        ("step", frame["step"]),
        ("return", frame["return"]),
        ("action", frame["action"]),
        ("value", frame["value"]),
        *zip(names, observed, strict=False),
    ]
    table(("", "at the end"), rows)


def _show(address: str) -> None:
    console.print(address, highlight=False, soft_wrap=True)
    if _has_display():
        webbrowser.open(address)


def _has_display() -> bool:
    has_window = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and (sys.platform != "linux" or has_window)
