"""Addresses as anybody may read them: without what opens the store."""

import re
from typing import Final

__all__ = ["without_credentials"]

_USER_INFO: Final = re.compile(r"(?<=://)\S*@")
_PASSWORD: Final = re.compile(r"(?<=[?&])([^=&\s]*password=)[^&\s]*", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """The text, with user names and passwords taken out of the addresses in it.

    A password that was not quoted may hold any character, so all up to the last `@` goes.
    """
    return _PASSWORD.sub(r"\1…", _USER_INFO.sub("", text))
