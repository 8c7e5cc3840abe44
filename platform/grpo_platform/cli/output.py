"""What all commands share: the server that they talk to, and how they speak themselves.

Tables for people, JSON for programs, one sentence for errors.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from grpo_platform.client import ApiError, GRPOClient, NotFiniteError, UnknownFieldError
from grpo_platform.core.errors import PlatformError
from grpo_platform.core.messages import as_commands

__all__ = [
    "JsonFlag",
    "ModelReference",
    "Token",
    "Url",
    "answer",
    "assigned",
    "connect",
    "console",
    "ends",
    "errors_as_sentences",
    "fail",
    "observed",
    "progress_bar",
    "seeds_typed",
    "show_json",
    "table",
    "when",
]

ModelReference = Annotated[
    str, typer.Argument(help="name, name@alias or name/version.", show_default=False)
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_DEFAULT_PORT: Final = "8000"
_PIPE_WIDTH: Final = 1000
"""Of what another program reads: nothing is cut or broken there."""

_ID_COLUMNS: Final = frozenset({"experiment", "job", "sweep"})
_ID_WIDTH: Final = 32

# what a server or a user wrote is shown as it is: brackets are no style, colons no picture
console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)

_NO_TOKEN: Final = (
    "The server asks for its token, and this is not it, or none was given: give it with --token, "
    "or in the variable GRPO_API_TOKEN."
)


def show_json(value: object) -> None:
    """Print a value as indented JSON."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None
) -> None:
    """Print rows under their columns; an id stays whole, so that it can be copied."""
    shown = Table(title=title, title_justify="left")
    for column in columns:
        is_id = column in _ID_COLUMNS
        shown.add_column(
            column, overflow="fold", no_wrap=is_id, min_width=_ID_WIDTH if is_id else None
        )
    for row in rows:
        shown.add_row(*("" if cell is None else _text(cell) for cell in row))
    console.print(shown)


def progress_bar(*, quiet: bool) -> Progress:
    """A bar for one task, whose description is a status and whose field `shown` is any text."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[shown]}"), TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=console, disable=quiet)


def ends(low: float | None, high: float | None) -> str:
    """An interval as `380.0 to 440.0`; empty where there is none."""
    return "" if low is None or high is None else f"{low:,.1f} to {high:,.1f}"


def when(timestamp: str | None) -> str:
    """An instant of the API in local time, to the second."""
    if timestamp is None:
        return ""
    return datetime.fromisoformat(timestamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def answer(reply: Mapping[str, Any], as_json: bool) -> None:
    """Print the API's answer to a call that does something: its sentence, or all of it."""
    if as_json:
        show_json(reply)
    else:
        console.print(as_commands(reply["message"]), highlight=False, soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Say what went wrong, and end with exit code 1."""
    said = Text.assemble(("Error:", "red"), f" {as_commands(message)}")
    Console(stderr=True, soft_wrap=True).print(said)
    raise typer.Exit(1)


def assigned(texts: Sequence[str] | None, given: Mapping[str, object]) -> dict[str, Any]:
    """Fields of POST /train by `name=value` options; a value is JSON, else text.

    Args:
        texts: the options.
        given: fields that have an option of their own; None is one that was left out.
    """
    fields = {name: value for name, value in given.items() if value is not None}
    for text in texts or ():
        name, separator, value = text.partition("=")
        if not separator:
            fail(f"--set takes name=value, not {text!r}.")
        if name in fields:
            fail(f"{name} is given twice; give it once.")
        try:
            fields[name] = json.loads(value)
        except json.JSONDecodeError:
            fields[name] = value
    return fields


def observed(texts: Sequence[str]) -> Any:  # noqa: ANN401 - any JSON value
    """An observation by arguments: numbers, or one text of JSON.

    Raises:
        typer.BadParameter: they are neither.
    """
    try:
        return [float(text) for text in texts]
    except ValueError:
        pass
    try:
        (text,) = texts
        return json.loads(text)
    except ValueError:
        raise typer.BadParameter(
            "Give the observation's numbers, or one text of JSON such as '{\"goal\": [0.5, 1.0]}'."
        ) from None


def seeds_typed(text: str | None) -> int | list[int] | None:
    """How many seeds, or which, by what was typed: `10` or `3,14,15`."""
    if text is None:
        return None
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            "Say how many seeds, such as 10, or which, such as 3,14,15.", param_hint="--seeds"
        ) from None
    return found if "," in text else found[0]


@contextmanager
def errors_as_sentences(*further: type[Exception]) -> Iterator[None]:
    """End a command that is refused with what to do, not with a traceback.

    Args:
        *further: errors whose message is such a sentence, beside the client's and the platform's.
    """
    shown: tuple[type[Exception], ...] = (
        ConnectionError, TimeoutError, NotFiniteError, UnknownFieldError, PlatformError, *further,
    )  # fmt: skip
    try:
        yield
    except ApiError as error:
        fail(_NO_TOKEN if error.status == 401 else str(error))
    except shown as error:
        fail(str(error))


def _text(cell: object) -> str:
    if isinstance(cell, list):
        return ", ".join(map(_text, cell))
    return f"{cell:,.2f}" if isinstance(cell, float) else str(cell)


def _printable(token: str | None) -> str | None:
    if token is not None and not token.isprintable():
        raise typer.BadParameter("a token has no line breaks and no other control characters.")
    return token


Url = Annotated[
    str | None,
    typer.Option(
        envvar="GRPO_URL", help="The server; by default this machine's, at GRPO_PORT or 8000."
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="GRPO_API_TOKEN",
        help="Its token.",
        show_envvar=True,
        show_default=False,
        callback=_printable,
    ),
]


def connect(context: typer.Context) -> GRPOClient:
    """The client that the options before the command ask for."""
    url, token = context.obj
    port = os.environ.get("GRPO_PORT") or _DEFAULT_PORT
    client = GRPOClient(url or f"http://localhost:{port}", token=token)
    context.call_on_close(client.close)
    return client
