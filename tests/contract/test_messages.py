"""On the command line no sentence names an HTTP call, and the commands that it names exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from grpo_platform.cli import app
from grpo_platform.core.messages import as_commands

PLATFORM = Path(__file__).resolve().parents[2] / "platform/grpo_platform"
CALL = re.compile(r"\b(GET|POST|PUT|DELETE) /\S*")
COMMAND = re.compile(r"`grpo-platform ([^`]*)`")


def said() -> Iterator[str]:
    """Every text in the sources but docstrings, with `x1` for what is filled in."""
    for path in sorted({*PLATFORM.rglob("*.py")} - {PLATFORM / "core/messages.py"}):
        tree = ast.parse(path.read_text())
        notes = {n.value for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        parts = {v for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(getattr(part, "value", "")) if isinstance(part, ast.Constant)
                              else "x1" for part in node.values)  # fmt: skip
            elif isinstance(node, ast.Constant) and node not in notes | parts:
                yield str(node.value)


# what --help and /docs say of a field names the call that has it
DESCRIBED = re.compile(
    r"Any field of|A fixed field of|Id that POST /train gave|GET /rewards lists them"
)
SHOWN = sorted({text for text in said() if CALL.search(text) and not DESCRIBED.match(text)})


def test_the_sentences_are_found() -> None:
    assert len(SHOWN) >= 6


@pytest.mark.parametrize("sentence", SHOWN)
def test_calls_become_commands_that_exist(sentence: str) -> None:
    told = as_commands(sentence, "grpo-platform jobs list")
    assert not CALL.search(told)
    commands = COMMAND.findall(told)
    assert commands
    for command in commands:
        words = command.split()[:2] if "--help" not in command else []
        assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0, command


def test_names_are_kept() -> None:
    told = as_commands("No champion. GET /models/my_model.v-2 lists its versions.", "")
    assert told == "No champion. `grpo-platform models show my_model.v-2` lists its versions."
