"""Pages of a list, and the opaque tokens that lead from one to the next."""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from grpo_platform.core.errors import InvalidPageTokenError

__all__ = ["Cursor", "Page", "decode_token", "encode_token", "list_digest"]

_T = TypeVar("_T")
_MAX_TOKEN = 512
_MAX_RANK = 2**53


@dataclass(frozen=True, slots=True)
class Page(Generic[_T]):
    """Some items of a list."""

    items: list[_T]
    """In the list's order."""

    next_page_token: str | None
    """Leads to the following items; None at the end of the list."""


class Cursor(NamedTuple):
    """The last item of a page: the next page starts after it, whatever was added meanwhile."""

    rank: int
    """Its place in the list's order: when it started, in milliseconds, or how many came before."""

    key: str
    """Its id, or name, where items share a rank or have none."""


def list_digest(*filters: object) -> str:
    """Short fingerprint of a list's filters, so that a token only continues its own list."""
    return hashlib.sha256(repr(filters).encode()).hexdigest()[:12]


def encode_token(cursor: Cursor, digest: str) -> str:
    """Token for the items after `cursor` of the list with this digest."""
    text = json.dumps([digest, cursor.rank, cursor.key], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_token(token: str, digest: str) -> Cursor:
    """Inverse of `encode_token`.

    Raises:
        InvalidPageTokenError: not a token of this list.
    """
    try:
        if len(token) > _MAX_TOKEN:
            raise InvalidPageTokenError
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeError, binascii.Error, ValueError, RecursionError) as error:
        raise InvalidPageTokenError from error
    match values:
        case [str(found), int(rank), str(key)] if (
            found == digest and not isinstance(rank, bool) and 0 <= rank < _MAX_RANK
        ):
            return Cursor(rank, key)
    raise InvalidPageTokenError
