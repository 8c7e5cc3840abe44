"""A real sweep runner on a real platform, for tests."""

import contextlib
import time

from grpo_platform.core.states import TERMINAL
from grpo_platform.jobs.in_memory import InMemoryBackend
from grpo_platform.registry.promotion import Promoter
from grpo_platform.sweeps.records import SweepRecord, TrialRecord
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.sweeps.runner import SweepRunner
from grpo_platform.sweeps.store import SweepStore
from tests.service.jobs_support import Platform, platform

SPACE = {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
SHORT = {"total_timesteps": 200, "n_eval_episodes": 1}


class Sweeps:
    """Sweeps of a platform, and what looks at them."""

    def __init__(self, one: Platform) -> None:
        self.platform = one
        self.store = SweepStore(one.jobs)
        self.runner = SweepRunner(self.store, one.jobs, one.runner, Promoter(one.registry), 10**9)

    def submit(self, n_trials: int = 2, **fields) -> str:
        values = {"search_space": SPACE, "config": SHORT, "n_trials": n_trials, "pruner": "none"}
        return self.runner.submit(SweepRequest(**(values | fields))).sweep_id

    def trials(self, sweep_id: str) -> list[TrialRecord]:
        return self.store.trials(self.store.sweep(sweep_id))

    def until(self, sweep_id: str, condition, seconds: float = 240.0) -> SweepRecord:
        deadline = time.monotonic() + seconds
        while not condition(sweep := self.store.sweep(sweep_id)):
            assert time.monotonic() < deadline, sweep
            time.sleep(0.05)
        return sweep

    def until_trial(self, sweep_id: str, number: int, state: str) -> SweepRecord:
        def reached(_: SweepRecord) -> bool:
            trials = self.trials(sweep_id)
            return len(trials) > number and trials[number].state == state

        return self.until(sweep_id, reached)

    def ended(self, sweep_id: str, seconds: float = 240.0) -> SweepRecord:
        return self.until(sweep_id, lambda sweep: sweep.status in TERMINAL, seconds)


@contextlib.contextmanager
def sweeps_on(folder, backend=InMemoryBackend, **settings):
    """A platform that leads sweeps; their trials run in this process, one at a time."""
    with platform(folder, backend, **settings) as one:
        sweeps = Sweeps(one)
        sweeps.runner.start()
        try:
            yield sweeps
        finally:
            sweeps.runner.shutdown()
