"""Watches, while chaos goes on, that no run stays RUNNING without a living worker."""

import contextlib
import threading
import time

from benchmarks.chaos.world import World
from grpo_platform.core.errors import PlatformError
from grpo_platform.core.process import liveness
from grpo_platform.jobs.backend import Liveness


class Watch(threading.Thread):
    """Measures for how long runs are RUNNING without a living worker.

    Time in which no server takes jobs does not count: there is nobody who could notice.
    """

    def __init__(self, world: World) -> None:
        super().__init__(name="watch", daemon=True)
        self._world = world
        self._ended = threading.Event()
        self._orphaned: dict[str, float] = {}
        self.longest_seconds = 0.0
        self.longest_job = ""

    def run(self) -> None:
        """Look once a second."""
        before = time.monotonic()
        while not self._ended.wait(1.0):
            now = time.monotonic()
            passed, before = now - before, now
            if any(server.is_ready() for server in self._world.servers):
                with contextlib.suppress(PlatformError):
                    self._look(passed)

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self.join()

    def _look(self, passed: float) -> None:
        orphans = {
            record.job_id
            for record in self._world.store().running()
            if record.worker is None or liveness(record.worker) is Liveness.DEAD
        }
        self._orphaned = {i: self._orphaned.get(i, 0.0) + passed for i in orphans}
        for job_id, seconds in self._orphaned.items():
            if seconds > self.longest_seconds:
                self.longest_seconds, self.longest_job = seconds, job_id
