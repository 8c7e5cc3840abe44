"""A real runner with real workers on a real sqlite store, for tests."""

import contextlib
import functools
import json
import os
import signal
import time
from pathlib import Path

import gymnasium
import psutil
from mlflow.tracking import MlflowClient

from grpo import GRPOConfig
from grpo.policies import MlpPolicy
from grpo.trainer import Trainer
from grpo_platform.core.names import CLOCK_METRICS, SYSTEM_METRICS_PREFIX
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import Settings
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.jobs.local import LocalBackend
from grpo_platform.jobs.runner import Runner
from grpo_platform.registry.models import Registry
from grpo_platform.tracking.records import JobRecord
from grpo_platform.tracking.reporter import TrackingReporter
from tests.service import faulty_environments
from tests.service.tracking_support import jobs_of, prepare, request, working_in

CLOCK = faulty_environments.ROOT / "benchmarks" / "chaos" / "clock"


class Onlooker:
    """A store and what looks at it, whoever runs the jobs."""

    def __init__(self, folder: Path, uri=None, **settings) -> None:
        self.folder = folder
        self.place = prepare(folder, uri, **settings)
        self.jobs = jobs_of(self.place, settings.get("api_token"))
        self.registry = Registry(self.place.tracking_uri)
        self.client = MlflowClient(tracking_uri=self.place.tracking_uri)

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
        return {
            key: [(m.step, m.value) for m in self.client.get_metric_history(job_id, key)]
            for key in self.client.get_run(job_id).data.metrics
            if is_reproducible(key)
        }

    def weights(self, record: JobRecord) -> bytes:
        return weights_of(self.registry.load_policy(f"{record.model_name}/{record.model_version}"))

    def versions_of(self, job_id: str) -> list[int]:
        found = self.client.search_model_versions(f"run_id = '{job_id}'")
        return [int(version.version) for version in found]


class Platform(Onlooker):
    """The same with a runner."""

    def __init__(self, folder: Path, backend=LocalBackend, uri=None, **settings) -> None:
        super().__init__(folder, uri, **settings)
        self.backend = backend(self.place)
        self.runner = Runner(self.jobs, self.backend, Settings(**settings))

    def submit(self, **fields) -> JobRecord:
        return self.runner.submit(request(**fields))

    def stop_all(self) -> None:
        """Stop whatever a test has left, and wait until it has ended."""
        for record in [*self.jobs.queued(100), *self.jobs.running()]:
            self.runner.stop(record.job_id)
            self.wait(record.job_id)


@contextlib.contextmanager
def platform(folder: Path, backend=LocalBackend, uri=None, **settings):
    """A running platform, its store sqlite or `uri`; its workers know the faulty environment.

    Its workers' clock is off by the seconds that its folder's file `clock` says, if there is one.
    """
    for name in ("plugin", "tmp"):
        (folder / name).mkdir()
    if faulty_environments.FAULTY not in gymnasium.registry:
        faulty_environments.register()
    path = faulty_environments.install_plugin(folder / "plugin")
    path = os.pathsep.join([path, str(CLOCK)])
    with working_in(
        folder,
        PYTHONPATH=path,
        MLFLOW_TRACKING_URI=uri,
        TMPDIR=str(folder / "tmp"),
        CHAOS_CLOCK_FILE=str(folder / "clock"),
    ):
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


def faulty(fault: str, **kwargs) -> dict[str, object]:
    """Fields of a job whose environment goes wrong."""
    return {
        "env_name": faulty_environments.FAULTY, "env_kwargs": {"fault": fault, **kwargs},
        "total_timesteps": 5000, "start_states": "reset",
    }  # fmt: skip


def assert_same_training(one: Platform, a: JobRecord, b: JobRecord) -> None:
    """Both jobs came to the same weights by the same points."""
    histories_a, histories_b = one.histories(a.job_id), one.histories(b.job_id)
    assert histories_a.keys() == histories_b.keys()
    for key, points in histories_a.items():
        assert points == histories_b[key], key
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), key
    assert one.weights(a) == one.weights(b)


def assert_as_undisturbed(one: Onlooker, record: JobRecord) -> None:
    """The job came to what its request comes to in a process that nobody disturbs."""
    config = json.dumps(record.request.config.to_dict(), sort_keys=True)
    histories, weights = _undisturbed(config, record.request.max_metric_points)
    found = one.histories(record.job_id)
    assert found.keys() == histories.keys()
    for key, points in histories.items():
        assert found[key] == points, key
    assert one.weights(record) == weights
    assert len(one.versions_of(record.job_id)) == 1


@functools.cache
def _undisturbed(config: str, max_points: int) -> tuple[dict[str, list[tuple[int, float]]], bytes]:
    reporter = TrackingReporter(json.loads(config)["total_timesteps"], max_points)
    trainer = Trainer(GRPOConfig(**json.loads(config)), reporter=reporter)
    result = trainer.train()
    reporter.on_verdict(trainer.verdict(result.evaluation))
    histories: dict[str, list[tuple[int, float]]] = {}
    for point in [*reporter.drain(), *reporter.finish()]:
        if is_reproducible(point.key):
            histories.setdefault(point.key, []).append((point.step, point.value))
    return histories, weights_of(result.policy)


def weights_of(policy: MlpPolicy) -> bytes:
    return policy.flat.tobytes() + b"".join(value.numpy().tobytes() for value in policy.buffers())


def is_reproducible(key: str) -> bool:
    return key not in CLOCK_METRICS and not key.startswith(SYSTEM_METRICS_PREFIX)


__all__ = [
    "JobRequest", "Onlooker", "Platform", "assert_as_undisturbed", "assert_same_training", "faulty",
    "kill",
    "long_job", "platform",
]  # fmt: skip
