"""From a name to an answer: which loaded model serves it now, loading it where it must be.

A name's version is looked up again once a second in the background while it is in use, so that
promotions by other servers are followed; this server's own are followed before they are
reported as done. The version looked up is loaded before the one before it is let go. A store that
does not answer keeps nobody waiting whose model is loaded.
"""

import contextlib
import logging
import math
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from grpo_platform.core.errors import PlatformError, StoreError, UnknownModelError, UnsafeModelError
from grpo_platform.registry.models import Registry
from grpo_platform.registry.records import ModelVersionRef
from grpo_platform.serving.cache import Key, ModelCache
from grpo_platform.serving.model import LoadedModel

__all__ = ["CacheStats", "ServingService"]

_log = logging.getLogger(__name__)

FRESH_SECONDS: Final = 1.0
"""How long a looked up version is taken as it is."""

STALE_SECONDS: Final = 5.0
"""When it is not used any more without looking it up first."""

PATIENCE_SECONDS: Final = 1.0
"""How long the store may take to answer before a model that is loaded serves without it."""


@dataclass(slots=True)
class CacheStats:
    """Counters since the start."""

    hits: int = 0
    """Calls that found their model loaded."""

    misses: int = 0
    """Calls that had to look it up or load it."""

    loads: int = 0
    """Models loaded."""

    load_seconds: float = 0.0
    """Time spent loading, in all."""


@dataclass(slots=True)
class _Binding:
    """Which model a reference names; moments of the monotonic clock."""

    key: Key

    known: float
    """When the store said so."""

    checked: float
    """When it was asked last, whether it answered or not."""

    lookup: Future[LoadedModel] | None = None
    """The latest one; if it ends well, it replaces the binding."""

    started: float = math.inf
    """When that was."""


class ServingService:
    """Predictions by model name; safe to call from several threads.

    Args:
        registry: where versions and files come from.
        cache_size: most models kept in memory.
    """

    def __init__(self, registry: Registry, cache_size: int) -> None:
        self._registry = registry
        self._cache = ModelCache(cache_size)
        self._bindings: dict[str, _Binding] = {}
        # one a reference, kept only while somebody holds or waits for it: clients choose references
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._locks_lock = threading.Lock()
        self._refresher = ThreadPoolExecutor(1, thread_name_prefix="model-refresh")
        self.stats = CacheStats()
        registry.subscribe(self._changed)

    def ready(self, reference: str) -> LoadedModel | None:
        """The model that serves a reference, if that is known without waiting.

        Microseconds, no input or output: for the event loop. If it returns None, call `load` in
        a thread.
        """
        binding = self._bindings.get(reference)
        if binding is None:
            return None
        now = time.monotonic()
        age = now - binding.checked
        if age > STALE_SECONDS and not _asked_in_vain(binding, now):
            return None
        model = self._cache.get(binding.key)
        if model is None:
            return None
        if age > FRESH_SECONDS:
            with contextlib.suppress(RuntimeError):  # shutting down
                self._start_lookup(reference, binding)
        self.stats.hits += 1
        return model

    def load(self, reference: str) -> LoadedModel:
        """The model that serves a reference, looked up and loaded if it must be; it may wait.

        Raises:
            UnknownModelError: no such model of ours.
            UnsafeModelError: its files are not what was registered, or not ours.
            StoreError: the store refused, or is away and the model is not loaded.
        """
        self.stats.misses += 1
        binding = self._bindings.get(reference)
        if binding is not None and self._cache.get(binding.key) is not None:
            with contextlib.suppress(TimeoutError):
                return self._start_lookup(reference, binding).result(PATIENCE_SECONDS)
            held = self._cache.get(binding.key)
            if held is not None:  # not deleted meanwhile
                return held
        with self._lock(reference):
            return self._look_up(reference)

    def loaded(self) -> list[str]:
        """Names with a version in memory, sorted."""
        return sorted({name for name, _, _ in self._cache.loaded()})

    def evict(self, name: str) -> None:
        """Forget a name: its next call starts from the registry."""
        self._cache.drop(name)
        for reference in self._references(name):
            self._bindings.pop(reference, None)

    def close(self) -> None:
        """Stop looking versions up in the background."""
        self._refresher.shutdown(wait=True, cancel_futures=True)

    def refresh(self, name: str, since: float = math.inf) -> None:
        """Look up again what a name serves, and load that, if the name is in use.

        For changes made elsewhere, such as by a job that has just ended.

        Args:
            name: of the model.
            since: a moment of the monotonic clock; what was looked up after it stays.
        """
        for reference in self._references(name):
            binding = self._bindings.get(reference)
            if binding is not None and binding.known <= since:
                self._refresh_quietly(reference)

    def _changed(self, name: str, deleted: bool) -> None:
        if deleted:
            self.evict(name)
        else:
            self.refresh(name)

    def _references(self, name: str) -> list[str]:
        return [
            reference
            for reference, binding in list(self._bindings.items())
            if binding.key[0] == name
        ]

    def _refresh_quietly(self, reference: str) -> None:
        try:
            self._look_up_again(reference)
        except PlatformError as error:  # the next call shows it to whom it concerns
            _log.warning("Model %s cannot be looked up: %s", reference, error)

    def _start_lookup(self, reference: str, binding: _Binding) -> Future[LoadedModel]:
        """Look up what a reference names in the background, unless that is being done."""
        lookup = binding.lookup
        if lookup is None or lookup.done():
            binding.started = time.monotonic()
            lookup = binding.lookup = self._refresher.submit(self._look_up_again, reference)
        return lookup

    def _look_up_again(self, reference: str) -> LoadedModel:
        with self._lock(reference):
            return self._look_up(reference, even_if_fresh=True)

    def _look_up(self, reference: str, *, even_if_fresh: bool = False) -> LoadedModel:
        """Resolve, load, bind; the caller holds the reference's lock."""
        binding = self._bindings.get(reference)
        held = self._cache.get(binding.key) if binding else None
        fresh = binding and time.monotonic() - binding.checked <= FRESH_SECONDS
        if held and fresh and not even_if_fresh:
            return held
        name = reference.partition("/")[0].partition("@")[0]
        while True:
            generation = self._cache.generation(name)
            known = time.monotonic()
            try:
                ref = self._registry.resolve(reference)
                model = self._cache.load(ref.key, generation, partial(self._load, ref))
            except StoreError:
                if held is None or self._cache.generation(name) != generation:
                    raise
                model = held  # the store is away: what is loaded goes on answering
                known = binding.known if binding else -math.inf
            except UnknownModelError:
                if held is None or not self._registry.is_stored(held.ref):
                    self._forget(reference, held)
                    raise
                model = held  # deleted in the MLflow UI: its files are still there
            except UnsafeModelError:
                self._bindings.pop(reference, None)
                raise
            if self._cache.generation(name) == generation:
                self._bindings[reference] = _Binding(model.ref.key, known, time.monotonic())
                return model
            held = None  # deleted meanwhile: look again

    def _load(self, ref: ModelVersionRef) -> LoadedModel:
        started = time.monotonic()
        model = LoadedModel(ref, self._registry.read(ref))
        self.stats.loads += 1
        self.stats.load_seconds += time.monotonic() - started
        return model

    def _forget(self, reference: str, held: LoadedModel | None) -> None:
        self._bindings.pop(reference, None)
        if held is not None:
            self.evict(held.name)

    def _lock(self, reference: str) -> threading.Lock:
        with self._locks_lock:
            return self._locks.setdefault(reference, threading.Lock())


def _asked_in_vain(binding: _Binding, now: float) -> bool:
    """Whether the store is being asked, and does not answer."""
    lookup = binding.lookup
    return lookup is not None and not lookup.done() and now - binding.started > PATIENCE_SECONDS
