"""What tracking costs a training: with it and without it, as ratios measured side by side.

Each round trains the same CartPole run without a reporter, as a real job on a sqlite store, and
as a real job over an MLflow server, one after the other, in another order each time; the time is
from before the trainer is made to its last update. The median of the rounds' ratios counts; their
lowest and highest are printed with it. Claims: at most 1.05 on sqlite,
1.10 over HTTP; they need two idle cores, one for the trainer and one for the rest. The CPU time
of the trainer's process is shown as well, which other load disturbs less. Beside it: a naive
`log_metric` for every value, on a shorter run, and the CPU time of writing 1,000 points.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import requests
import torch
from mlflow.tracking import MlflowClient

from benchmarks.results import write_rows
from grpo.config import resolve_config
from grpo.reporting import Reporter, RolloutStats, UpdateStats
from grpo.trainer import Trainer
from grpo_platform.core.names import Metric
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import Settings
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.worker import run_worker
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.reporter import Point
from grpo_platform.tracking.store import Store, configure_mlflow, prepare_store

CLAIMS = {"sqlite": 1.05, "http": 1.10}
NAIVE_TIMESTEPS = 1_000
WRITTEN = 3_000
UPDATE_FIELDS = (
    "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "grad_norm",
    "explained_variance",
)  # fmt: skip


class LastUpdate(Reporter):
    """Notes when the last update ended."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.seconds = 0.0

    def on_update(self, stats: UpdateStats) -> None:
        """Take the time."""
        self.seconds = time.perf_counter() - self.begun


class NaiveReporter(LastUpdate):
    """Logs every value by itself, in the thread that trains."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.points = 0
        self.client = MlflowClient(tracking_uri=store.tracking_uri)
        self.run_id = self.client.create_run(store.experiment_id).info.run_id
        self.begun = time.perf_counter()

    def on_rollout(self, stats: RolloutStats) -> None:
        """Log the rewards."""
        for reward, step in zip(stats.rewards.tolist(), stats.timesteps.tolist(), strict=True):
            self.log("rollout/reward", reward, step)

    def on_update(self, stats: UpdateStats) -> None:
        """Log the figures."""
        for name in UPDATE_FIELDS:
            self.log(f"train/{name}", getattr(stats, name), stats.timesteps)
        super().on_update(stats)

    def log(self, key: str, value: float, step: int) -> None:
        """One call for one point."""
        self.client.log_metric(self.run_id, key, value, step=step)
        self.points += 1


def job_request(timesteps: int, seed: int) -> JobRequest:
    """The run that is measured; one evaluation episode, since evaluations are not."""
    config = resolve_config(
        env_name="CartPole-v1", total_timesteps=timesteps, seed=seed, n_eval_episodes=1
    )
    return JobRequest(config=config, promote="never")


def child(*arguments: str) -> str:
    """Run this file in a process of its own; returns what it prints."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.tracking_overhead", *arguments]
    # without a video: its encoder would count as a child of the worker, like the trainer
    environment = os.environ | {"IMAGEIO_FFMPEG_EXE": os.devnull}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


class Cost(NamedTuple):
    """What a training took."""

    seconds: float
    """To the last update."""

    trainer_cpu: float
    """CPU seconds of the trainer."""

    worker_cpu: float = 0.0
    """CPU seconds of its worker, model export and figures included."""


def train_plain(request: JobRequest) -> Cost:
    """Train in this process, without tracking."""
    torch.set_num_threads(1)
    cpu = time.process_time()
    clock = LastUpdate()
    Trainer(request.config, reporter=clock).train()
    return Cost(clock.seconds, time.process_time() - cpu)


def plain_cost(request: JobRequest) -> Cost:
    """The same in a fresh process."""
    return Cost(*json.loads(child("--plain", request.to_json())))


def work(store: Store, job_id: str, request: JobRequest) -> tuple[float, float]:
    """Be the worker of a job; returns the CPU seconds of its trainer and its own."""
    cpu = time.process_time()
    run_worker(store, job_id, 1, request)
    trainer = resource.getrusage(resource.RUSAGE_CHILDREN)
    return trainer.ru_utime + trainer.ru_stime, time.process_time() - cpu


def tracked_cost(store: Store, request: JobRequest) -> Cost:
    """Train as a real job, worker and trainer each in a process."""
    jobs = JobStore(store.tracking_uri, store.experiment_id)
    job_id = jobs.create(request).job_id
    task = {"store": asdict(store), "job_id": job_id, "request": request.to_json()}
    cpu = json.loads(child("--worker", json.dumps(task)).splitlines()[-1])
    record = jobs.get(job_id)
    if record.status is not JobStatus.COMPLETED:
        raise RuntimeError(f"{record.status}: {record.error_message}")
    points = jobs.history(job_id, Metric.TIMESTEPS, 10**6)
    if points[-1].value != request.config.total_timesteps or len(points) > 1_000:
        raise RuntimeError("points are missing, or too many")
    return Cost(record.metrics[Metric.TIME_ELAPSED], *cpu)


def compare(stores: dict[str, Store], timesteps: int, rounds: int) -> bool:
    """Print the rounds; returns whether the claims hold."""
    ratios: dict[str, list[float]] = {name: [] for name in stores}
    rows: list[dict[str, object]] = []
    for number in range(rounds):
        costs = one_round(stores, job_request(timesteps, seed=number), number)
        plain = costs["without"]
        print(f"round {number + 1}: without {plain.seconds:.2f} s, CPU {plain.trainer_cpu:.2f} s")
        for name in stores:
            cost = costs[name]
            ratios[name].append(cost.seconds / plain.seconds)
            rows.append(row_of(name, timesteps, number, plain, cost))
            print(
                f"  {name}: {cost.seconds:.2f} s ({ratios[name][-1]:.3f}), CPU of the trainer "
                f"{cost.trainer_cpu:.2f} s ({cost.trainer_cpu / plain.trainer_cpu:.3f}), of the "
                f"worker {cost.worker_cpu:.2f} s",
                flush=True,
            )
    held = True
    for name, found in ratios.items():
        median = statistics.median(found)
        held &= median <= CLAIMS[name]
        print(
            f"{name}: {median:.3f} times the time without, {min(found):.3f} to {max(found):.3f} "
            f"in {rounds} rounds (claim: {CLAIMS[name]:.2f})"
        )
    write_rows("tracking_overhead", rows)
    return held


def one_round(stores: dict[str, Store], request: JobRequest, number: int) -> dict[str, Cost]:
    """Train without and with each store; who begins changes with the round."""
    kinds = ["without", *stores]
    turn = number % len(kinds)
    return {
        kind: plain_cost(request) if kind == "without" else tracked_cost(stores[kind], request)
        for kind in kinds[turn:] + kinds[:turn]
    }


def row_of(store: str, timesteps: int, number: int, plain: Cost, cost: Cost) -> dict[str, object]:
    """One round of one store, for the file of results."""
    return {
        "store": store, "timesteps": timesteps, "round": number + 1,
        "seconds_without": round(plain.seconds, 3), "seconds": round(cost.seconds, 3),
        "ratio": round(cost.seconds / plain.seconds, 4),
        "cpu_without": round(plain.trainer_cpu, 3), "cpu_trainer": round(cost.trainer_cpu, 3),
        "cpu_worker": round(cost.worker_cpu, 3),
    }  # fmt: skip


def naive(store: Store) -> None:
    """Print what a call for every point costs the training."""
    request = job_request(NAIVE_TIMESTEPS, seed=0)
    plain = train_plain(request)
    reporter = NaiveReporter(store)
    cpu = time.process_time()
    Trainer(request.config, reporter=reporter).train()
    cpu = time.process_time() - cpu
    ratio = reporter.seconds / plain.seconds
    print(
        f"naive log_metric, {NAIVE_TIMESTEPS:,} timesteps: {ratio:.0f} times the time without; "
        f"{1_000 * cpu / reporter.points:.2f} CPU s for 1,000 points, training included"
    )


def cpu_of_writing(store: Store) -> float:
    """CPU seconds in the worker for 1,000 points, in batches like a worker's."""
    jobs = JobStore(store.tracking_uri, store.experiment_id)
    job_id = jobs.create(job_request(1_000, seed=0)).job_id
    keys = [value for name, value in vars(Metric).items() if name.isupper()]
    batches = [
        [Point(key, float(step), step, step) for key in keys for step in range(i, i + 20)]
        for i in range(0, WRITTEN // len(keys), 20)
    ]
    jobs.log_points(job_id, [Point("warm", 0.0, 0, 0)])
    cpu = time.process_time()
    for batch in batches:
        jobs.log_points(job_id, batch)
    return 1_000 * (time.process_time() - cpu) / sum(map(len, batches))


@contextlib.contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """A real `mlflow server` on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    extra = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | extra, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"http://127.0.0.1:{port}/health", timeout=2).ok:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def prepared(folder: Path, tracking_uri: str | None) -> Store:
    """The store that a server started in this folder would use."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if tracking_uri is not None:
        os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
    with contextlib.chdir(folder):
        return prepare_store(Settings())


def measure(timesteps: int, rounds: int) -> bool:
    """Everything; returns whether the claims hold."""
    configure_mlflow()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with tracking_server(folder) as uri:
            stores = {"sqlite": prepared(folder, None), "http": prepared(folder, uri)}
            held = compare(stores, timesteps, rounds)
            for name, store in stores.items():
                print(f"{name}: {cpu_of_writing(store):.3f} CPU s to write 1,000 points")
            naive(stores["sqlite"])
    return held


def main() -> int:
    """Run from the command line; the exit code says whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timesteps", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        print(json.dumps(train_plain(JobRequest.from_json(arguments.plain))))
        return 0
    if arguments.worker:
        task = json.loads(arguments.worker)
        request = JobRequest.from_json(task["request"])
        print(json.dumps(work(Store(**task["store"]), task["job_id"], request)))
        return 0
    return int(not measure(arguments.timesteps, arguments.rounds))


if __name__ == "__main__":
    sys.exit(main())
