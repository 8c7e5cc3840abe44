"""What a process and its machine are busy with, as metrics; imports no MLflow."""

from typing import Final

import psutil

from grpo_platform.tracking.names import SYSTEM_METRICS_PREFIX

__all__ = ["SystemMonitor"]

_MEGABYTE: Final = 1 << 20


class SystemMonitor:
    """Samples this process and its machine; shares of time are since the last sample."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.sample()  # the first shares of time mean nothing

    def sample(self) -> dict[str, float]:
        """Metrics by key: shares in percent (of one core for the process), memory in MiB."""
        memory = psutil.virtual_memory()
        figures = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / _MEGABYTE,
            "system_memory_usage_percentage": memory.percent,
            "trainer_cpu_percentage": self._process.cpu_percent(),
            "trainer_memory_megabytes": self._process.memory_info().rss / _MEGABYTE,
        }
        return {f"{SYSTEM_METRICS_PREFIX}{name}": value for name, value in figures.items()}
