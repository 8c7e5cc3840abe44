"""What a process and its machine are busy with, as metrics; imports no MLflow."""

from typing import Final

import psutil

from grpo_platform.core.names import SYSTEM_METRICS_PREFIX

__all__ = ["SystemMonitor"]

_MEGABYTE: Final = 1 << 20


class SystemMonitor:
    """Samples this process and its machine; shares of time are since the last sample."""

    keys = tuple(
        SYSTEM_METRICS_PREFIX + name
        for name in (
            "cpu_utilization_percentage",
            "system_memory_usage_megabytes",
            "system_memory_usage_percentage",
            "trainer_cpu_percentage",
            "trainer_memory_megabytes",
        )
    )
    """Metric keys of a sample: shares in percent, of one core for the process; memory in MiB."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.sample()  # the first shares of time mean nothing

    def sample(self) -> tuple[float, ...]:
        """Values of `keys` now."""
        memory = psutil.virtual_memory()
        return (
            psutil.cpu_percent(),
            memory.used / _MEGABYTE,
            memory.percent,
            self._process.cpu_percent(),
            self._process.memory_info().rss / _MEGABYTE,
        )
