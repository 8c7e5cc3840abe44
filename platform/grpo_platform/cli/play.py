"""`grpo-platform open` and `grpo-platform play`."""

import os
import re
import sys
import time
import webbrowser
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

import typer

from grpo_platform.cli import completion
from grpo_platform.cli.output import (
    connect,
    console,
    errors_as_sentences,
    fail,
    page_of,
    table,
)
from grpo_platform.client import ApiError, GRPOClient
from grpo_platform.client.replies import Session

__all__ = ["open_pages", "play"]

_POLICY_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.5
_MOST_ROWS: Final = 25


_PAGES: Final = {"job": "jobs", "experiment": "experiments", "model": "models"}


def open_pages(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            help="Of a page: id of a job or experiment, or its beginning; name of a model.",
            show_default=False,
            autocompletion=completion.references,
        ),
    ] = None,
) -> None:
    """Print the address of the control room, or of a page of it; open it where there is a display.

    Every page that shows something has that in its address, so that it can be sent to others.
    """
    with errors_as_sentences():
        client = connect(context)
        client.about()
        if name is None:
            _show(f"{client.base_url}/app")
            return
        ((kind, found),) = client.resolve(name).items()
        if kind not in _PAGES:
            fail(f"A {kind} has no page of its own; `grpo-platform sweep show {found}` shows it.")
        if kind == "model":
            found = client.model(re.split("[/@]", found)[0])["name"]
    _show(page_of(client, _PAGES[kind], found))


def play(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="A model, as name, name/version or name@alias; or a job's id, or its beginning.",
            show_default=False,
            autocompletion=completion.references,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Write a film there, .webp or .gif, instead of opening the page."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the episode.")] = 0,
    steps: Annotated[int, typer.Option(min=1, max=300, help="Of the film, at most.")] = 200,
) -> None:
    """Play a policy: on the page, or, where there is no display, into a file or as text."""
    with errors_as_sentences():
        client = connect(context)
        ((kind, name),) = client.resolve(name).items()
        if kind not in ("job", "model"):
            fail(f"A model or a job is played, and {name} is of a {kind}: name one of its jobs.")
        if out is None and _has_display():
            client.about()
            _show(f"{client.base_url}/app/play?{urlencode({kind: name, 'seed': seed})}")
            return
        path = out or Path(f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.webp")
        if path.suffix not in (".webp", ".gif"):
            fail(f"{path}: a film is written as .webp or .gif.")
        job_id = name if kind == "job" else None
        session = client.play(None if job_id else name, job_id=job_id, seed=seed)
        try:
            _await_policy(client, session)
            try:
                _film(client, session, path, steps)
            except ApiError as error:
                if out is not None or error.status != 400:
                    raise
                console.print(str(error), highlight=False, soft_wrap=True)
                _tell(client, session, steps)
        finally:
            client.end_play(session["session_id"])


def _await_policy(client: GRPOClient, session: Session) -> None:
    """Wait until a job that trains has made a checkpoint for whoever plays it."""
    ends = time.monotonic() + _POLICY_SECONDS
    while client.steer(session["session_id"], "pause")["frame"]["checkpoint"] is None:
        if time.monotonic() > ends:
            fail(
                f"The job has made no checkpoint in {_POLICY_SECONDS:g} s: is it running? See "
                f"`grpo-platform jobs show {session['job_id']}`."
            )
        time.sleep(_LOOK_SECONDS)


def _film(client: GRPOClient, session: Session, path: Path, steps: int) -> None:
    """Write a film, and show the state that it ends with."""
    kind: Literal["webp", "gif"] = "gif" if path.suffix == ".gif" else "webp"
    content = client.play_film(session["session_id"], steps=steps, format=kind)
    try:
        path.write_bytes(content)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror or error}.")
    console.print(f"{path}: {len(content)} bytes.", highlight=False, soft_wrap=True)
    frame = client.steer(session["session_id"], "pause")["frame"]
    if not frame["over"] and frame["step"] < steps:
        console.print(f"It has {frame['step']} of {steps} steps: drawing them took its time.")
    observed = frame["observation"] or []
    rows = [
        *((name, frame[name]) for name in ("step", "return", "action", "value")),
        *zip(_names(session, observed), observed, strict=False),
    ]
    table(("", "at the end"), rows)


def _tell(client: GRPOClient, session: Session, steps: int) -> None:
    """Show an episode that cannot be drawn: a row a step, at most `_MOST_ROWS` of them."""
    frame = client.steer(session["session_id"], "pause")["frame"]
    frames = [frame]
    while not frame["over"] and len(frames) <= steps:
        frame = client.steer(session["session_id"], "step")["frame"]
        frames.append(frame)
    every = -(-len(frames) // _MOST_ROWS)
    shown = [*frames[:-1:every], frames[-1]]
    names = ("step", "action", "return", "value")
    rows = [(*(each[name] for name in names), *(each["observation"] or ())) for each in shown]
    table((*names, *_names(session, frame["observation"] or [])), rows)


def _names(session: Session, observed: list[float]) -> list[str]:
    return session["features"] or [f"observation[{i}]" for i in range(len(observed))]


def _show(address: str) -> None:
    console.print(address, highlight=False, soft_wrap=True)
    if _has_display():
        webbrowser.open(address)


def _has_display() -> bool:
    has_window = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and (sys.platform != "linux" or has_window)
