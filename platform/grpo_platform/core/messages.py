"""How people are told: calls as commands, addresses without secrets, on every terminal."""

import io
import re
import sys
from typing import Final

__all__ = ["as_commands", "escape_unprintable", "without_credentials"]

_COMMANDS: Final = (
    (r"GET /training/jobs\b", "`grpo-platform jobs list`"),
    (r"POST /training/(\w+)/resume\b", r"`grpo-platform jobs resume \1`"),
    (r"GET /experiments\b", "`grpo-platform experiments list`"),
    (r"POST /experiments/(\w+)/resume\b", r"`grpo-platform experiments resume \1`"),
    (r"GET /comparisons\b", "`grpo-platform comparisons list`"),
    (r"GET /sweeps\b", "`grpo-platform sweep list`"),
    (r"POST /sweeps/(\w+)/resume\b", r"`grpo-platform sweep resume \1`"),
    (r"PUT /models/([\w.-]*\w)/scenarios\b", r"`grpo-platform scenarios put \1 FILE`"),
    (r"GET /models/([\w.-]*\w)", r"`grpo-platform models show \1`"),
    (r"GET /models\b", "`grpo-platform models list`"),
    (r"GET /environments\b", "`grpo-platform environments`"),
    (r"GET /serving\b", "`grpo-platform models served`"),
    (r"`python run_api\.py`, or give its address\b", "`grpo-platform serve`, or name it by --url"),
)

_USER_INFO: Final = re.compile(r"(?<=://)\S*@")
_PASSWORD: Final = re.compile(r"(?<=[?&])([^=&\s]*password=)[^&\s]*", re.IGNORECASE)


def as_commands(sentence: str, command: str) -> str:
    """The sentence, with the calls in it named as the commands that make them.

    Args:
        sentence: of the server.
        command: that was run; its help is what `GET /docs` is to who calls the API.
    """
    sentence = re.sub(r"GET /docs\b", f"`{command} --help`", sentence)
    for call, named in _COMMANDS:
        sentence = re.sub(call, named, sentence)
    return sentence


def escape_unprintable() -> None:
    """Make this process write what its terminal has no letters for as an escape, not fail on it.

    Names, logs and messages hold any letter, while a terminal may know ASCII alone.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def without_credentials(text: str) -> str:
    """The text, with user names and passwords taken out of the addresses in it.

    A password that was not quoted may hold any character, so all up to the last `@` goes.
    """
    return _PASSWORD.sub(r"\1…", _USER_INFO.sub("", text))
