"""Loaded models, least recently used out; one load at a time for each."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from grpo_platform.serving.model import LoadedModel

__all__ = ["Key", "ModelCache"]

Key = tuple[str, int, str]
"""(name, version, model id)"""


class ModelCache:
    """A bounded map from keys to models; safe to use from several threads.

    Args:
        size: most models that are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._models: OrderedDict[Key, LoadedModel] = OrderedDict()
        self._flights: dict[Key, Future[LoadedModel]] = {}
        self._generations: dict[str, int] = {}

    def get(self, key: Key) -> LoadedModel | None:
        """The model, which is now the most recently used one; None if it is not loaded."""
        with self._lock:
            model = self._models.get(key)
            if model is not None:
                self._models.move_to_end(key)
            return model

    def generation(self, name: str) -> int:
        """How often models of a name were dropped; what was looked up before that is void."""
        with self._lock:
            return self._generations.get(name, 0)

    def load(self, key: Key, generation: int, load: Callable[[], LoadedModel]) -> LoadedModel:
        """The model, loaded by the first caller while the others wait for it.

        A model whose name was dropped since `generation` is returned, but not kept.
        """
        with self._lock:
            if key in self._models:
                self._models.move_to_end(key)
                return self._models[key]
            flight = self._flights.get(key)
            leader = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if leader:
            self._run(key, generation, load, flight)
        return flight.result()

    def _run(
        self,
        key: Key,
        generation: int,
        load: Callable[[], LoadedModel],
        flight: Future[LoadedModel],
    ) -> None:
        try:
            model = load()
        except BaseException as error:
            with self._lock:
                del self._flights[key]
            flight.set_exception(error)
            raise
        with self._lock:
            del self._flights[key]
            if self._generations.get(key[0], 0) == generation:
                self._models[key] = model
                while len(self._models) > self._size:
                    self._models.popitem(last=False)
        flight.set_result(model)

    def drop(self, name: str) -> None:
        """Forget every model of a name, those too that are being loaded."""
        with self._lock:
            self._generations[name] = self._generations.get(name, 0) + 1
            for key in [key for key in self._models if key[0] == name]:
                del self._models[key]

    def loaded(self) -> list[Key]:
        """What is loaded, least recently used first."""
        with self._lock:
            return list(self._models)
