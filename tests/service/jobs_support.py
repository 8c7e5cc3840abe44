"""A real runner with real workers on a real sqlite store, for tests."""

import contextlib
import os
import signal
import time
from pathlib import Path

import gymnasium
import psutil
from mlflow.tracking import MlflowClient

from grpo_platform.jobs.local import LocalBackend
from grpo_platform.jobs.request import JobRequest
from grpo_platform.jobs.runner import Runner
from grpo_platform.jobs.states import TERMINAL, JobStatus
from grpo_platform.registry.models import Registry
from grpo_platform.settings import Settings
from grpo_platform.tracking.names import CLOCK_METRICS, SYSTEM_METRICS_PREFIX
from grpo_platform.tracking.records import JobRecord
from tests.service import faulty_environments
from tests.service.tracking_support import jobs_of, prepare, request, working_in


class Platform:
    """A store, a runner and what looks at them."""

    def __init__(self, folder: Path, backend=LocalBackend, uri=None, **settings) -> None:
        self.folder = folder
        self.place = prepare(folder, uri, **settings)
        self.jobs = jobs_of(self.place)
        self.registry = Registry(self.place.tracking_uri)
        self.client = MlflowClient(tracking_uri=self.place.tracking_uri)
        self.backend = backend(self.place)
        self.runner = Runner(self.jobs, self.backend, Settings(**settings))

    def submit(self, **fields) -> JobRecord:
        return self.runner.submit(request(**fields))

    def status(self, job_id: str) -> JobStatus:
        return self.jobs.get(job_id).status

    def wait(self, job_id: str, *statuses: JobStatus, seconds: float = 90.0) -> JobRecord:
        """Wait until the job has one of the statuses, by default a terminal one."""
        wanted = statuses or tuple(TERMINAL)
        return self.until(job_id, lambda record: record.status in wanted, seconds)

    def until(self, job_id: str, condition, seconds: float = 90.0) -> JobRecord:
        deadline = time.monotonic() + seconds
        while not condition(record := self.jobs.get(job_id)):
            assert time.monotonic() < deadline, record
            assert record.status not in TERMINAL, record
            time.sleep(0.02)
        return record

    def training(self, job_id: str, timesteps: int = 1, seconds: float = 90.0) -> JobRecord:
        """Wait until the job has trained so far."""
        return self.until(
            job_id,
            lambda r: r.status is JobStatus.RUNNING and r.current_timesteps >= timesteps,
            seconds,
        )

    def worker(self, job_id: str) -> psutil.Process:
        return psutil.Process(int(self.jobs.get(job_id).worker.split(":")[1]))

    def trainer(self, job_id: str) -> psutil.Process:
        (child,) = self.worker(job_id).children()
        return child

    def log(self, job_id: str) -> str:
        with contextlib.suppress(Exception):
            found = self.jobs.download(job_id, "logs/worker.log", self.folder)
            return found.read_text()
        return ""

    def histories(self, job_id: str) -> dict[str, list[tuple[int, float]]]:
        """All points of all metrics but the clock's, as stored."""
        keys = self.client.get_run(job_id).data.metrics.keys() - CLOCK_METRICS
        return {
            key: [(m.step, m.value) for m in self.client.get_metric_history(job_id, key)]
            for key in keys
            if not key.startswith(SYSTEM_METRICS_PREFIX)
        }

    def weights(self, record: JobRecord) -> bytes:
        policy = self.registry.load_policy(f"{record.model_name}/{record.model_version}")
        return policy.flat.tobytes() + b"".join(
            value.numpy().tobytes() for value in policy.buffers()
        )

    def versions_of(self, job_id: str) -> list[int]:
        found = self.client.search_model_versions(f"run_id = '{job_id}'")
        return [int(version.version) for version in found]


@contextlib.contextmanager
def platform(folder: Path, backend=LocalBackend, uri=None, **settings):
    """A running platform, its store sqlite or `uri`; its workers know the faulty environment."""
    (folder / "plugin").mkdir()
    if faulty_environments.FAULTY not in gymnasium.registry:
        faulty_environments.register()
    path = faulty_environments.install_plugin(folder / "plugin")
    with working_in(folder, PYTHONPATH=path, MLFLOW_TRACKING_URI=uri, TMPDIR=str(folder)):
        started = Platform(folder, backend, uri, **settings)
        started.runner.start()
        try:
            yield started
        finally:
            started.runner.shutdown()


def kill(process: psutil.Process) -> None:
    os.kill(process.pid, signal.SIGKILL)


def long_job(**fields) -> dict[str, object]:
    """Fields of a job that does not end by itself within a test."""
    return {"total_timesteps": 50_000_000, "checkpoint_seconds": 0.5} | fields


def assert_same_training(one: Platform, a: JobRecord, b: JobRecord) -> None:
    """Both jobs came to the same weights by the same points."""
    histories_a, histories_b = one.histories(a.job_id), one.histories(b.job_id)
    assert histories_a.keys() == histories_b.keys()
    for key, points in histories_a.items():
        assert points == histories_b[key], key
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), key
    assert one.weights(a) == one.weights(b)


__all__ = ["JobRequest", "Platform", "assert_same_training", "kill", "long_job", "platform"]
