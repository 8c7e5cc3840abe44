"""Inference beside a bare FastAPI endpoint and `mlflow models serve`, as ratios of one run.

The three servers answer for the same trained model in turn, round by round, loaded by wrk from
another process, with one worker each and access logs off. Claims:

- p50 and requests per second within 1.25 times the bare endpoint's, at concurrency 1, 10 and 50;
- p50 at most a third of `mlflow models serve`'s at concurrency 1, and 1.8 times its requests;
- p99 while two jobs train below 10 times the idle one;
- batches of 1,000: 300,000 observations a second through pyfunc in process, and over HTTP 50
  times the observations of single calls;
- the first call on a saved model, load included, at most 0.3 s in a warm process.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import mlflow.pyfunc
import numpy as np
import requests
from mlflow.tracking import MlflowClient

from benchmarks.load import Load, Target, in_turn, median_of, spread_of
from benchmarks.results import write_rows
from benchmarks.server import environment, serving
from grpo_platform.registry.models import Registry
from grpo_platform.serving.service import ServingService

ROOT = Path(__file__).resolve().parent.parent
MODEL = "bench"
OBSERVATION = [0.01, -0.02, 0.03, 0.04]
BATCH = 1000
START_SECONDS = 180.0
MOST_OF_BARE = 1.25
MOST_OF_MLFLOW_P50 = 1 / 3
LEAST_OF_MLFLOW_RATE = 1.8
MOST_P99_IN_TRAINING = 10.0
LEAST_PYFUNC_RATE = 300_000
LEAST_BATCH_FACTOR = 50
MOST_FIRST_CALL = 0.3


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def process(
    command: list[str], folder: Path, ready: Callable[[], bool], **env: str
) -> Iterator[None]:
    """Run a server until the block ends."""
    clean = environment()
    scripts = Path(sys.executable).parent
    clean |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PATH": f"{scripts}{os.pathsep}{clean['PATH']}"}
    log = folder / f"{Path(command[1]).name}-{time.monotonic_ns()}.log"
    with log.open("wb") as sink:
        server = subprocess.Popen(
            command, cwd=folder, env=clean | env, stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text(errors="replace"))
            time.sleep(0.2)
        yield
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def answers(target: Target) -> Callable[[], bool]:
    """Whether a target replies as it should."""

    def ready() -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.post(target.url, target.body, headers=JSON, timeout=30).ok
        return False

    return ready


JSON = {"Content-Type": "application/json"}


def train(url: str, timesteps: int, wait: bool = True, **fields: object) -> str:
    """Start a job; with `wait`, until it has completed."""
    body = {"total_timesteps": timesteps, **fields}
    job_id: str = requests.post(f"{url}/train", json=body, timeout=60).json()["job_id"]
    while wait:
        status = requests.get(f"{url}/training/{job_id}/status", timeout=60).json()
        if status["status"] in {"completed", "failed", "stopped"}:
            if status["status"] != "completed":
                raise RuntimeError(status)
            break
        time.sleep(0.2)
    return job_id


def best_of(call: Callable[[], object], repeat: int, number: int) -> float:
    """Seconds of one call, the least of several means."""
    call()
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        for _ in range(number):
            call()
        times.append((time.perf_counter() - started) / number)
    return min(times)


class Report:
    """Prints figures beside their claims, and remembers whether all hold."""

    def __init__(self) -> None:
        self.holds = True
        self.rows: list[dict[str, object]] = []
        self.loads: list[dict[str, object]] = []

    def claim(
        self, text: str, value: float, most: float | None = None, least: float | None = None
    ) -> None:
        """One figure; outside its bounds the benchmark fails."""
        bound = f"at most {most:g}" if most is not None else f"at least {least:g}"
        fits = (most is None or value <= most) and (least is None or value >= least)
        self.holds = self.holds and fits
        self.rows.append({"claim": text, "value": f"{value:.4g}", "bound": bound, "holds": fits})
        print(f"{'ok  ' if fits else 'FAIL'} {text}: {value:.4g} ({bound})", flush=True)

    def load(self, connections: int, server: str, loads: list[Load]) -> Load:
        """What one server did at so many connections; its medians."""
        row = spread_of(loads)
        self.loads.append({"claim": f"c={connections} {server}", **row})
        print(
            f"     c={connections} {server}: "
            + ", ".join(
                f"{name} {row[name]} ({row[name + '_min']}–{row[name + '_max']})"
                for name in Load._fields
            ),
            flush=True,
        )
        return median_of(loads)


def bench_in_process(uri: str, report: Report) -> None:
    """What serving costs without HTTP."""
    registry = Registry(uri)
    service = ServingService(registry, 8)
    model = service.load(MODEL)
    first = []
    for _ in range(5):
        service.evict(MODEL)
        started = time.perf_counter()
        service.load(MODEL).predict_one(OBSERVATION)
        first.append(time.perf_counter() - started)
    report.claim("first call on a saved model, s", statistics.median(first), most=MOST_FIRST_CALL)
    model = service.load(MODEL)
    location = MlflowClient(uri, uri).get_logged_model(model.ref.model_id).artifact_location
    pyfunc = mlflow.pyfunc.load_model(urlsplit(location).path)
    batch = np.random.default_rng(0).normal(size=(BATCH, 4)).astype(np.float32)
    seconds = best_of(lambda: pyfunc.predict(batch), 10, 20)
    report.claim("pyfunc, observations/s", BATCH / seconds, least=LEAST_PYFUNC_RATE)
    service.close()


def bench_http(
    targets: dict[str, Target], options: argparse.Namespace, folder: Path, report: Report
) -> None:
    """Ours beside the bare endpoint and MLflow's scoring server."""
    for connections in (1, 10, 50):
        found = in_turn(targets, connections, options.rounds, options.seconds, folder)
        ours, bare, peer = (
            report.load(connections, name, found[name]) for name in ("ours", "bare", "mlflow")
        )
        label = f"c={connections}, ours/bare"
        report.claim(f"{label}, p50", ours.p50 / bare.p50, most=MOST_OF_BARE)
        report.claim(f"{label}, bare/ours requests/s", bare.rate / ours.rate, most=MOST_OF_BARE)
        if connections == 1:
            report.claim("c=1, ours/mlflow, p50", ours.p50 / peer.p50, most=MOST_OF_MLFLOW_P50)
        report.claim(
            f"c={connections}, ours/mlflow, requests/s", ours.rate / peer.rate,
            least=LEAST_OF_MLFLOW_RATE,
        )  # fmt: skip


def bench_batches(url: str, options: argparse.Namespace, folder: Path, report: Report) -> None:
    """Observations a second of batches and of single calls, over HTTP."""
    targets = {
        "single": Target(f"{url}/inference", single_body()),
        "batch": Target(f"{url}/inference/batch", batch_body()),
    }
    found = in_turn(targets, 10, options.rounds, options.seconds, folder)
    batch, single = (report.load(10, name, found[name]) for name in ("batch", "single"))
    factor = batch.rate * BATCH / single.rate
    print(f"     batches: {batch.rate * BATCH:,.0f} observations/s over HTTP")
    report.claim("batch/single, observations/s", factor, least=LEAST_BATCH_FACTOR)


def bench_in_training(url: str, options: argparse.Namespace, folder: Path, report: Report) -> None:
    """The tail while two jobs train."""
    target = Target(f"{url}/inference", single_body())
    found = in_turn({"idle": target}, 10, options.rounds, options.seconds, folder)
    idle = report.load(10, "idle", found["idle"])
    jobs = [train(url, 5_000_000, wait=False, seed=seed) for seed in (1, 2)]
    time.sleep(5.0)
    found = in_turn({"busy": target}, 10, options.rounds, options.seconds, folder)
    busy = report.load(10, "while two jobs train", found["busy"])
    for job_id in jobs:
        requests.post(f"{url}/training/{job_id}/stop", timeout=60)
    report.claim("p99 training/idle", busy.p99 / idle.p99, most=MOST_P99_IN_TRAINING)


def single_body() -> str:
    """Body of a single call."""
    return json.dumps({"model_name": MODEL, "observation": OBSERVATION})


def batch_body() -> str:
    """Body of a call with 1,000 observations."""
    observations = np.random.default_rng(0).normal(size=(BATCH, 4)).round(4).tolist()
    return json.dumps({"model_name": MODEL, "observations": observations})


def run(options: argparse.Namespace, folder: Path) -> bool:
    """All of it; whether every claim holds."""
    report = Report()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    ports = {name: free_port() for name in ("bare", "mlflow")}
    python = sys.executable
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(serving(folder))
        targets = {
            "ours": Target(f"{url}/inference", single_body()),
            "bare": Target(f"http://127.0.0.1:{ports['bare']}/inference", single_body()),
            "mlflow": Target(
                f"http://127.0.0.1:{ports['mlflow']}/invocations",
                json.dumps({"inputs": [OBSERVATION]}),
            ),
        }
        train(url, 512, model_name=MODEL)
        bench_in_process(uri, report)
        bare = [python, str(ROOT / "benchmarks" / "serving_bare.py"), str(ports["bare"])]
        stack.enter_context(process(bare, folder, answers(targets["bare"]), PYTHONPATH=str(ROOT)))
        peer = [
            python, "-m", "mlflow", "models", "serve", "-m", f"models:/{MODEL}@champion",
            "--env-manager", "local", "--workers", "1", "--port", str(ports["mlflow"]),
        ]  # fmt: skip
        with process(peer, folder, answers(targets["mlflow"]), MLFLOW_TRACKING_URI=uri):
            bench_http(targets, options, folder, report)
        bench_batches(url, options, folder, report)
        bench_in_training(url, options, folder, report)
    write_rows("serving", report.rows)
    write_rows("serving_loads", report.loads)
    return report.holds


def main() -> int:
    """Print every figure; the exit status says whether all claims hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="times that each server is loaded")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if run(options, Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
