"""What all commands share: the server that they talk to, and how they speak themselves.

Tables for people, JSON for programs, one sentence for errors.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from grpo_platform.cli import completion
from grpo_platform.client import ApiError, GRPOClient, NotFiniteError, UnknownFieldError
from grpo_platform.client.progress import Line, progress_bar
from grpo_platform.core.errors import PlatformError
from grpo_platform.core.messages import as_commands

__all__ = [
    "Commands",
    "JsonFlag",
    "ModelReference",
    "Token",
    "Url",
    "answer",
    "assigned",
    "conclude",
    "connect",
    "console",
    "ends",
    "errors_as_sentences",
    "fail",
    "group",
    "number",
    "observed",
    "page_of",
    "percent",
    "queued",
    "seeds_typed",
    "show_json",
    "table",
    "watch",
    "when",
]

_Followed = TypeVar("_Followed", bound=Mapping[str, Any])

Noun = Literal["job", "experiment", "sweep"]

_COMMANDS: Final[Mapping[Noun, str]] = {
    "job": "jobs", "experiment": "experiments", "sweep": "sweep",
}  # fmt: skip

ModelReference = Annotated[
    str,
    typer.Argument(
        help="name, name@alias or name/version.",
        show_default=False,
        autocompletion=completion.model_names,
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_PIPE_WIDTH: Final = 1000
"""Of what another program reads: nothing is cut or broken there."""

_IDS: Final = ("id", "job")
_ID: Final = re.compile(r"[0-9a-f]{32}")
_NUMBER: Final = re.compile(r"|-?[0-9][0-9,]*(\.[0-9]+)?(e[+-][0-9]+)?")
_ID_WIDTH: Final = 8
"""Of an id in a terminal: what begins so is taken for all of it."""

_WHOLE_WIDTH: Final = 12
"""Up to which a cell is never broken over lines."""

_LEAST_WIDTH: Final = 7
"""Of a column whose cells may be broken."""

_GAP: Final = 2
_AGO: Final = ((60, "s"), (60, "m"), (24, "h"), (30, "d"))
"""How many of a unit make one of the next."""

# what a server or a user wrote is shown as it is: brackets are no style, colons no picture
console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)

_NO_TOKEN: Final = (
    "The server asks for its token, and this is not it, or none was given: give it with --token, "
    "or in the variable GRPO_API_TOKEN."
)


_running: ContextVar[str] = ContextVar("running", default="grpo-platform")
"""The command that runs now, as it is typed."""


class Commands(TyperGroup):
    """A group of commands, which remembers the one that runs: messages name it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - typer's own
        """The command that the words name, and the rest of them."""
        name, command, rest = super().resolve_command(ctx, args)
        _running.set(f"{ctx.command_path} {name}")
        return name, command, rest


def group(about: str, name: str | None = None) -> typer.Typer:
    """An empty group of commands, that shows its help where none of them is named."""
    return typer.Typer(
        name=name, cls=Commands, help=about, no_args_is_help=True, pretty_exceptions_enable=False
    )


def show_json(value: object) -> None:
    """Print a value as indented JSON."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None
) -> None:
    """Print rows under their columns, or, where that is too wide, one below the other.

    In a terminal an id is its beginning, which every command takes, and no rows at all are said in
    words; other programs get whole ids, and the head alone.
    """
    cells = [["" if cell is None else _text(cell) for cell in row] for row in rows]
    widths = [
        max(map(len, (column, *(row[i] for row in cells)))) for i, column in enumerate(columns)
    ]
    least = [
        width if width <= _WHOLE_WIDTH else max(_LEAST_WIDTH, *map(len, column.split()))
        for column, width in zip(columns, widths, strict=True)
    ]
    room = console.width - _GAP * (len(columns) - 1)
    if sum(least) > room:
        _records(columns, cells, title)
        return
    shown = Table(
        title=title, title_justify="left", box=None, padding=(0, _GAP, 0, 0), pad_edge=False
    )
    for i, (column, width) in enumerate(zip(columns, _fitted(widths, least, room), strict=True)):
        numeric = column not in _IDS and all(_NUMBER.fullmatch(row[i]) for row in cells)
        justify: Literal["left", "right"] = "right" if numeric and rows else "left"
        shown.add_column(column, overflow="fold", width=width, justify=justify, header_style="bold")
    for row in cells:
        shown.add_row(*row)
    console.print(shown)
    if not rows and console.width < _PIPE_WIDTH:
        console.print("There is none.", style="dim")


def _fitted(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of columns that fit the room: each as wide as its cells, as far as that can be."""
    found = list(least)
    for _ in range(min(room, sum(widths)) - sum(least)):
        unfinished = (i for i, width in enumerate(widths) if found[i] < width)
        found[min(unfinished, key=found.__getitem__)] += 1
    return found


def _records(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None) -> None:
    """Print each row as lines of a column and its value: nothing of it is lost."""
    width = max(map(len, columns))
    if title:
        console.print(title, highlight=False)
    for row in rows:
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        grid.add_column(style="bold", min_width=min(width, console.width // 2), overflow="fold")
        grid.add_column(overflow="fold")
        for column, cell in zip(columns, row, strict=True):
            grid.add_row(column, cell)
        console.print(grid)
        console.print()


def queued(client: GRPOClient, noun: Noun, run_id: str) -> None:
    """Say that it waits for its turn, and where it is shown."""
    said = _named(client, noun, run_id, " is queued")
    console.print(said, highlight=False, soft_wrap=True)


def watch(
    client: GRPOClient,
    noun: Noun,
    run_id: str,
    wait: Callable[[Callable[[_Followed], object]], _Followed],
    line: Callable[[_Followed], Line],
    *,
    quiet: bool,
) -> _Followed:
    """Show how something is doing until it has ended; returns it then.

    Args:
        client: of the server.
        noun: what it is.
        run_id: its whole id.
        wait: waits for its end, and hands each status on.
        line: of a progress bar, for a status.
        quiet: show nothing.

    Raises:
        typer.Exit: Ctrl-C was pressed; it goes on.
    """
    if not quiet:
        console.print(_named(client, noun, run_id), highlight=False, soft_wrap=True)
    with progress_bar(console, quiet=quiet) as bar:
        try:
            return wait(lambda found: bar.show(line(found)))
        except KeyboardInterrupt:
            again = f"grpo-platform {_COMMANDS[noun]} watch {run_id[:_ID_WIDTH]}"
            console.print(f"{noun.capitalize()} {run_id} goes on; `{again}`.")
            raise typer.Exit(130) from None


def conclude(found: _Followed, report: Callable[[_Followed], object], *, as_json: bool) -> None:
    """Print what something came to.

    Raises:
        typer.Exit: with code 1, unless it was completed.
    """
    show_json(found) if as_json else report(found)
    if found["status"] != "completed":
        raise typer.Exit(1)


def _named(client: GRPOClient, noun: Noun, run_id: str, state: str = "") -> str:
    page = "" if noun == "sweep" else f": {page_of(client, f'{noun}s', run_id)}"
    return f"{noun.capitalize()} {run_id}{state}{page}"


def ends(low: float | None, high: float | None) -> str:
    """An interval as `380.0 to 440.0`; empty where there is none."""
    return "" if low is None or high is None else f"{low:,.1f} to {high:,.1f}"


def when(timestamp: str | None) -> str:
    """An instant of the API: how long ago in a terminal, else in local time, to the second."""
    if timestamp is None:
        return ""
    moment = datetime.fromisoformat(timestamp).astimezone()
    if console.width >= _PIPE_WIDTH:
        return moment.strftime("%Y-%m-%d %H:%M:%S")
    ago = (datetime.now(UTC) - moment).total_seconds()
    for most, unit in _AGO:
        if ago < most:
            return f"{max(0, ago):.0f}{unit} ago"
        ago /= most
    return moment.strftime("%Y-%m-%d")


def percent(status: str, progress: float) -> str:
    """A status, and how far that is while it is under way: `running 45%`."""
    return f"{status} {progress:.0%}" if status == "running" else status


def number(value: float | None) -> str | None:
    """A figure of any size in few letters."""
    return None if value is None else f"{value:,.1f}" if abs(value) < 1e7 else f"{value:.3g}"


def page_of(client: GRPOClient, kind: str, name: str) -> str:
    """Address of a page of the control room.

    Args:
        client: of the server.
        kind: `jobs`, `experiments` or `models`.
        name: id or name of what it shows.
    """
    return f"{client.base_url}/app/{kind}/{quote(name, safe='')}"


def answer(reply: Mapping[str, Any], as_json: bool) -> None:
    """Print the API's answer to a call that does something: its sentence, or all of it."""
    if as_json:
        show_json(reply)
    else:
        console.print(
            as_commands(reply["message"], _running.get()), highlight=False, soft_wrap=True
        )


def fail(message: str) -> NoReturn:
    """Say what went wrong, and end with exit code 1."""
    said = Text.assemble(("Error:", "red"), f" {as_commands(message, _running.get())}")
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
    if isinstance(cell, str) and console.width < _PIPE_WIDTH and _ID.fullmatch(cell):
        return cell[:_ID_WIDTH]
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
    client = GRPOClient(url, token=token)
    context.call_on_close(client.close)
    return client
