"""Work that is done once, in the background, and kept: whoever asks never waits for another's."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from grpo_platform.core.errors import BusyError, StoreError

__all__ = ["Once"]

_V = TypeVar("_V")


class Once(Generic[_V]):
    """Results by key, made one after the other by a thread that starts with the first.

    Safe to call from several threads. What failed is kept as well: it would fail again, unless it
    was the store that was away.

    Args:
        name: of the thread.
        kept: most results that are kept, the ones asked for latest.
        waiting: most that may wait to be made.
    """

    def __init__(self, name: str, kept: int, waiting: int = 64) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._kept, self._waiting = kept, waiting
        self._lock = threading.Lock()
        self._found: OrderedDict[str, Future[_V]] = OrderedDict()

    def ask(self, key: str, make: Callable[[], _V]) -> Future[_V]:
        """The result of a key, or what will be it; `make` is called where it was not asked before.

        Raises:
            BusyError: as many wait as may.
        """
        with self._lock:
            future = self._found.get(key)
            if future is None or _may_come_out_otherwise(future):
                if sum(not one.done() for one in self._found.values()) >= self._waiting:
                    raise BusyError
                future = self._found[key] = self._pool.submit(make)
                while len(self._found) > self._kept:
                    self._found.popitem(last=False)[1].cancel()
            self._found.move_to_end(key)
            return future

    def close(self) -> None:
        """Make nothing any more; returns once what is being made has ended."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _may_come_out_otherwise(future: Future[_V]) -> bool:
    return future.cancelled() or (future.done() and isinstance(future.exception(), StoreError))
