"""Which registered environments can be trained here, and why the others cannot, found by trial.

Each is tried once in a server's life, when a list first comes to it. A list waits for a moment;
what was not tried by then is said to be so, and is tried while nobody waits.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from grpo.errors import GRPOError
from grpo_platform.core.errors import PlatformError
from grpo_platform.jobs.isolation import Isolation
from grpo_platform.tracking.reader import Cursor, Page, decode_token, encode_token, list_digest

__all__ = ["EnvironmentRecord", "Environments"]

_log = logging.getLogger(__name__)

_BATCH: Final = 100
_PATIENCE_SECONDS: Final = 2.0
_NOT_YET: Final = "It was not tried yet; ask again, or submit a job."


class EnvironmentRecord(NamedTuple):
    """One registered environment, and whether POST /train takes it."""

    env_name: str
    trainable: bool | None
    """None: not tried yet."""

    reason: str | None
    """Why it is not trainable, or not known to be."""

    observation_space: str | None = None
    """As Gymnasium writes it; None where it is not trainable, or not known to be."""

    action_space: str | None = None
    """Likewise; with `, masked` where it says which actions may be taken."""

    policy: str | None = None
    """Name of the policy that is trained unless another is named; None likewise."""


class Environments:
    """The list of environments. Safe to call from several threads.

    Args:
        isolation: where they are tried.
        patience_seconds: how long a list waits for those not tried yet.
    """

    def __init__(self, isolation: Isolation, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._isolation = isolation
        self._patience = patience_seconds
        self._changed = threading.Condition()
        self._found: dict[str, dict[str, str]] = {}
        self._queue: deque[str] = deque()
        self._is_trying = False

    def list(
        self,
        *,
        name: str = "",
        trainable: bool = True,
        limit: int = 100,
        page_token: str | None = None,
    ) -> Page[EnvironmentRecord]:
        """Environments by name, those that are not tried yet among them.

        Args:
            name: only those whose id contains it, in whatever case.
            trainable: those that can be trained, or those that cannot.
            limit: most items of the page.
            page_token: from the page before.

        Raises:
            InvalidPageTokenError: the token is not one of this list.
            grpo.ConfigError: the plug-ins cannot be loaded.
        """
        digest = list_digest("environments", name, trainable)
        after = "" if page_token is None else decode_token(page_token, digest).key
        names = [
            known for known in self._isolation.environment_names()
            if known > after and name.casefold() in known.casefold()
        ]  # fmt: skip
        deadline = time.monotonic() + self._patience
        found: list[EnvironmentRecord] = []
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            self._try(batch, deadline)
            found += [r for r in map(self._record, batch) if r.trainable in (trainable, None)]
            if len(found) > limit:
                token = encode_token(Cursor(0, found[limit - 1].env_name), digest)
                return Page(found[:limit], token)
        return Page(found, None)

    def _record(self, name: str) -> EnvironmentRecord:
        with self._changed:
            if name not in self._found:
                return EnvironmentRecord(name, None, _NOT_YET)
            found = {"reason": None, **self._found[name]}
        return EnvironmentRecord(name, found["reason"] is None, **found)

    def _try(self, names: Iterable[str], deadline: float) -> None:
        """Have them tried, and wait for that until the deadline."""
        with self._changed:
            queued = set(self._queue)
            new = [name for name in names if name not in self._found]
            self._queue += [name for name in new if name not in queued]
            if self._queue and not self._is_trying:
                self._is_trying = True
                threading.Thread(target=self._work, name="environments", daemon=True).start()
            self._changed.wait_for(
                lambda: all(name in self._found for name in new) or not self._is_trying,
                max(0.0, deadline - time.monotonic()),
            )

    def _work(self) -> None:
        while True:
            with self._changed:
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
                self._is_trying = bool(batch)
                if not batch:
                    self._changed.notify_all()
                    return
            try:
                for name, found in self._isolation.try_environments(batch):
                    with self._changed:
                        self._found[name] = found
                        self._changed.notify_all()
            except (GRPOError, PlatformError, OSError) as error:
                _log.warning("Some environments could not be tried: %s", error)
