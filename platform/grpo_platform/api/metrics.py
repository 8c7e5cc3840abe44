"""Prometheus metrics of the application; the middleware adds what it counts of requests."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from grpo_platform.serving.service import CacheStats

__all__ = ["Metrics"]

_INFERENCE_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip


class _CacheCollector(Collector):
    """The model cache's own counters, read when they are asked for."""

    def __init__(self, cache: Callable[[], CacheStats]) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        stats = self._cache()
        for name, text, value in (
            ("grpo_model_cache_hits", "Calls that found their model loaded.", stats.hits),
            ("grpo_model_cache_misses", "Calls that looked their model up.", stats.misses),
            ("grpo_model_loads", "Models loaded.", stats.loads),
            ("grpo_model_load_seconds", "Time spent loading models.", stats.load_seconds),
        ):
            yield CounterMetricFamily(name, text, value)


class Metrics:
    """What `GET /metrics` shows. Job and request ids are never labels.

    Args:
        cache: gives the present counters of the model cache.

    Attributes:
        registry: of this application; whoever counts something more registers it there.
    """

    def __init__(self, cache: Callable[[], CacheStats]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_CacheCollector(cache))
        self._inference = Histogram(
            "grpo_inference_request_duration_seconds", "Time to predict, loading included.",
            ["model", "version"], buckets=_INFERENCE_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._observations = Counter(
            "grpo_inference_observations", "Observations predicted for.", ["model", "version"],
            registry=self.registry,
        )  # fmt: skip
        self._jobs = Gauge(
            "grpo_training_jobs", "Jobs that are not finished, by status.", ["status"],
            registry=self.registry,
        )  # fmt: skip
        self._loaded = Gauge(
            "grpo_models_loaded", "Models in memory.", registry=self.registry
        )  # fmt: skip
        self._inference_children: dict[tuple[str, int], tuple[Histogram, Counter]] = {}

    def inference(self, model: str, version: int, seconds: float, observations: int) -> None:
        """Note one prediction of a model's version."""
        key = (model, version)
        children = self._inference_children.get(key)
        if children is None:
            children = self._inference_children[key] = (
                self._inference.labels(model, str(version)),
                self._observations.labels(model, str(version)),
            )
        children[0].observe(seconds)
        children[1].inc(observations)

    def render(
        self, jobs: Mapping[str, int], loaded_models: int, accept: str = ""
    ) -> tuple[bytes, str]:
        """The text that Prometheus reads, and its media type.

        Args:
            jobs: number of unfinished jobs by status.
            loaded_models: models in memory now.
            accept: media types that the client reads; OpenMetrics where it is among them.
        """
        for status, count in jobs.items():
            self._jobs.labels(status).set(count)
        self._loaded.set(loaded_models)
        if "application/openmetrics-text" in accept:
            write: Callable[[CollectorRegistry], bytes] = openmetrics.generate_latest
            return write(self.registry), openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
