"""What a policy remembers of an episode between two requests.

The caller sends it back as the opaque `state` of the last reply, or leaves it here under an
`episode_id` of its own. Either way an episode stays with the version that began it.
"""

import base64
import binascii
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from grpo_platform.core.errors import InvalidObservationError

__all__ = ["EPISODE_SECONDS", "MOST_EPISODES", "Episode", "Episodes", "pack", "unpack"]

EPISODE_SECONDS: Final = 600.0
"""How long an episode is kept after its last request."""

MOST_EPISODES: Final = 10_000
"""Episodes that are kept; beyond, those that were asked about longest ago are forgotten."""

_PACKED: Final = re.compile(
    r"(?P<version>[1-9][0-9]{0,8})\.(?P<mark>[A-Za-z0-9-]{1,8})\.(?P<state>[A-Za-z0-9+/]{1,100000}={0,2})"
)


class Episode(NamedTuple):
    """An episode so far."""

    version: int
    """Of the model that began it."""

    mark: str
    """`LoadedModel.mark` of it."""

    state: npt.NDArray[np.float32]
    """What it remembers, shape (n_state,)."""


def pack(episode: Episode) -> str:
    """An episode as the text that a reply has."""
    content = base64.b64encode(episode.state.astype("<f4").tobytes()).decode()
    return f"{episode.version}.{episode.mark}.{content}"


def unpack(text: str, field: str = "state") -> Episode:
    """Inverse of `pack`.

    Raises:
        InvalidObservationError: no reply had this text.
    """
    found = _PACKED.fullmatch(text)
    try:
        if found is None:
            raise ValueError("another form")
        content = base64.b64decode(found["state"], validate=True)
        state = np.frombuffer(content, "<f4").astype(np.float32)
        return Episode(int(found["version"]), found["mark"], state)
    except (binascii.Error, ValueError) as error:
        raise InvalidObservationError(
            "Send the state of the last reply as it was, or none at the start of an episode.",
            field=field,
        ) from error


@dataclass(slots=True)
class _Kept:
    episode: Episode
    asked: float


class Episodes:
    """Episodes that this server keeps, by what the caller calls the model and the episode.

    For the event loop alone: nothing here waits, and nothing is locked.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, model: str, episode_id: str) -> Episode | None:
        """An episode; None where it is new, or was forgotten."""
        kept = self._kept.get((model, episode_id))
        fresh = kept is not None and time.monotonic() - kept.asked <= EPISODE_SECONDS
        return kept.episode if kept is not None and fresh else None

    def put(self, model: str, episode_id: str, episode: Episode) -> None:
        """Keep an episode for the next request."""
        now = time.monotonic()
        self._kept[model, episode_id] = _Kept(episode, now)
        self._kept.move_to_end((model, episode_id))
        oldest = next(iter(self._kept.values()))
        while len(self._kept) > MOST_EPISODES or now - oldest.asked > EPISODE_SECONDS:
            self._kept.popitem(last=False)
            oldest = next(iter(self._kept.values()))
