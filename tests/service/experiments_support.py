"""A real experiment runner on a real platform, for tests."""

import contextlib
import time

from grpo_platform.core.states import TERMINAL
from grpo_platform.experiments.records import ExperimentRecord, SeedRecord
from grpo_platform.experiments.request import ExperimentRequest
from grpo_platform.experiments.runner import ExperimentRunner
from grpo_platform.experiments.store import ExperimentStore
from grpo_platform.jobs.in_memory import InMemoryBackend
from grpo_platform.registry.promotion import Promoter
from tests.service.jobs_support import Platform, platform
from tests.service.tracking_support import request

SHORT = {"total_timesteps": 200, "n_eval_episodes": 2}
LONG = {"total_timesteps": 10**8, "n_eval_episodes": 1}


def asked(seeds=(1, 2, 3), **fields) -> ExperimentRequest:
    return ExperimentRequest.of(request(**(SHORT | fields)), seeds)


class Experiments:
    """Experiments of a platform, and what looks at them."""

    def __init__(self, one: Platform) -> None:
        self.platform = one
        self.store = ExperimentStore(one.jobs)
        self.runner = ExperimentRunner(self.store, one.jobs, one.runner, Promoter(one.registry))

    def submit(self, seeds=(1, 2, 3), **fields) -> str:
        return self.runner.submit(asked(seeds, **fields)).experiment_id

    def seeds(self, experiment_id: str) -> list[SeedRecord]:
        return self.store.seeds(self.store.experiment(experiment_id))

    def states(self, experiment_id: str) -> list[str]:
        return [seed.state for seed in self.seeds(experiment_id)]

    def until(self, experiment_id: str, condition, seconds: float = 120.0) -> ExperimentRecord:
        deadline = time.monotonic() + seconds
        while not condition(experiment := self.store.experiment(experiment_id)):
            assert time.monotonic() < deadline, (experiment, self.states(experiment_id))
            time.sleep(0.05)
        return experiment

    def ended(self, experiment_id: str, seconds: float = 120.0) -> ExperimentRecord:
        return self.until(experiment_id, lambda found: found.status in TERMINAL, seconds)

    def runs(self) -> set[str]:
        """Every run of the store's experiment that nobody deleted."""
        place = self.platform.place.experiment_id
        return {run.info.run_id for run in self.platform.client.search_runs([place])}


@contextlib.contextmanager
def experiments_on(folder, backend=InMemoryBackend, **settings):
    """A platform that leads experiments; their jobs run in this process, one at a time."""
    with platform(folder, backend, **settings) as one:
        experiments = Experiments(one)
        experiments.runner.start()
        try:
            yield experiments
        finally:
            experiments.runner.shutdown()
