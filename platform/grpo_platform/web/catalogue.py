"""The words of the pages, by language; server and browser read the same files."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["LANGUAGES", "choose_language", "known_sentences", "messages"]

LANGUAGES: Final = ("en", "ja")
"""Languages of the pages; the first is for whoever reads none of them."""

_FOLDER: Final = Path(__file__).parent / "locales"
_SERVER: Final = "server."  # keys of what the server says, to the letter
_RANGE: Final = re.compile(
    r"([A-Za-z]{1,8})(?:-[A-Za-z0-9-]{1,30})?(?:;q=([01](?:\.[0-9]{0,3})?))?"
)


@cache
def messages(language: str) -> Mapping[str, str]:
    """Text by key, with `{name}` where a value goes.

    Args:
        language: one of `LANGUAGES`.
    """
    found: dict[str, str] = json.loads((_FOLDER / f"{language}.json").read_text("utf-8"))
    return found


@cache
def known_sentences(language: str) -> Mapping[str, str]:
    """Whole sentences of the server's, in English, with what they are in a language."""
    if language == LANGUAGES[0]:
        return {}
    words = messages(language)
    return {
        text: words[key] for key, text in messages(LANGUAGES[0]).items() if key.startswith(_SERVER)
    }


def choose_language(chosen: str | None, accepted: str) -> str:
    """The language to answer in.

    Args:
        chosen: by the user, on a page; anything else than one of `LANGUAGES` is none.
        accepted: the browser's `Accept-Language`.
    """
    if chosen in LANGUAGES:
        return chosen
    best, weight = LANGUAGES[0], 0.0
    for part in accepted[:500].split(","):
        match = _RANGE.fullmatch(part.replace(" ", ""))
        if match is not None and (language := match[1].lower()) in LANGUAGES:
            wanted = float(match[2] or 1)
            if wanted > weight:
                best, weight = language, wanted
    return best
