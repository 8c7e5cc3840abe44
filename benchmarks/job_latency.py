"""How soon a job trains, completes and stops, beside a cold process and `mlflow run`.

On an idle server, guide step 2, one job after the other:

- POST /train to the first training step: at most 0.7 s (median);
- POST /train to completed, the version registered: at most 3 s (median).

Beside it, the same training in a process of its own that starts cold, and by `mlflow run`. Then,
while as many jobs train as there are cores: POST /train answers in under 150 ms (median), and a
running job is stopped within 2 s of being told (the slowest).
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from mlflow.tracking import MlflowClient

from benchmarks.results import write_rows
from benchmarks.server import SERVER, environment, machine, serving
from grpo_platform.demo import GUIDE_STEP_2

ROOT = SERVER.parent
MOST_TO_FIRST_STEP = 0.7
MOST_TO_COMPLETED = 3.0
MOST_TO_ACCEPTED = 0.150
MOST_TO_STOPPED = 2.0
LONG = {"total_timesteps": 100_000_000, "eval_freq": 0, "model_name": "long"}
SETTLE_SECONDS = 3.0  # figure and video of the job before; nobody waits for them


def post(url: str, **fields: object) -> str:
    """Submit a job."""
    reply = requests.post(f"{url}/train", json=fields, timeout=60)
    reply.raise_for_status()
    return str(reply.json()["job_id"])


def wait(url: str, job_id: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Poll a job's status."""
    while True:
        job: dict[str, Any] = requests.get(f"{url}/training/{job_id}/status", timeout=60).json()
        if until(job):
            return job
        if job["status"] == "failed":
            raise RuntimeError(job["error_message"])
        time.sleep(0.01)


def warm(url: str, client: MlflowClient, seed: int) -> tuple[float, float]:
    """Seconds from POST to the first step, and to completed."""
    wall, start = time.time(), time.perf_counter()
    job_id = post(url, **GUIDE_STEP_2 | {"seed": seed, "model_name": f"warm-{seed}"})
    wait(url, job_id, lambda job: job["status"] == "completed")
    completed = time.perf_counter() - start
    points = client.get_metric_history(job_id, "rollout/reward")
    first = min(point.timestamp for point in points) / 1000
    return first - wall, completed


def project(folder: Path, seed: int) -> float:
    """Seconds of `mlflow run`, local environment."""
    values = GUIDE_STEP_2 | {"seed": seed, "model_name": f"project-{seed}"}
    words = [word for name, value in values.items() for word in ("-P", f"{name}={value}")]
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager=local", *words]
    return timed(command, folder)


def cold(folder: Path, client: MlflowClient, seed: int) -> float:
    """Seconds of the same in a process that starts cold, its run being there."""
    run = client.create_run("0")
    values = GUIDE_STEP_2 | {"seed": seed, "model_name": f"cold-{seed}"}
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "grpo_platform.mlproject", "train", *words]
    return timed(command, folder, MLFLOW_RUN_ID=run.info.run_id)


def timed(command: list[str], folder: Path, **extra: str) -> float:
    """Seconds that a command takes.

    Raises:
        RuntimeError: it failed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment() | {"PATH": path} | extra, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return seconds


def busy(url: str, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of POST /train, and of a stop, while a job trains on each core."""
    training = [post(url, **LONG | {"seed": n, "model_name": f"long-{n}"}) for n in range(2)]
    for job_id in training:
        wait(url, job_id, lambda job: job["current_timesteps"] > 0)
    accepted, waiting = [], []
    for n in range(repeats):
        start = time.perf_counter()
        waiting.append(post(url, **LONG | {"seed": n, "model_name": f"waiting-{n}"}))
        accepted.append(time.perf_counter() - start)
    for job_id in waiting:
        requests.post(f"{url}/training/{job_id}/stop", timeout=60).raise_for_status()
    stopped = []
    for n in range(repeats // 2):
        job_id = training.pop(0)
        start = time.perf_counter()
        requests.post(f"{url}/training/{job_id}/stop", timeout=60).raise_for_status()
        wait(url, job_id, lambda job: job["status"] == "stopped")
        stopped.append(time.perf_counter() - start)
        training.append(post(url, **LONG | {"seed": n, "model_name": f"next-{n}"}))
        wait(url, training[-1], lambda job: job["current_timesteps"] > 0)
    for job_id in training:
        requests.post(f"{url}/training/{job_id}/stop", timeout=60).raise_for_status()
    return accepted, stopped


def show(name: str, seconds: list[float], bar: float | None = None, worst: bool = False) -> bool:
    """Print one line; returns whether the claim holds."""
    median, most = statistics.median(seconds), max(seconds)
    held = bar is None or (most if worst else median) <= bar
    claim = "" if bar is None else f"{'slowest' if worst else 'median'} at most {bar:g} s"
    print(
        f"{name:44} median {median:7.3f} s [{min(seconds):.3f}, {most:.3f}] of {len(seconds):2d}  "
        f"{claim} {'' if held else 'MISSED'}",
        flush=True,
    )
    return held


def main() -> int:
    """Run from the command line; the exit code says whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20, help="warm jobs, and submissions")
    parser.add_argument("--cold-repeats", type=int, default=3, help="cold processes")
    chosen = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with serving(folder) as url:
            client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
            warm(url, client, 0)  # the forkserver is warm from here on
            pairs = []
            for seed in range(1, chosen.repeats + 1):
                time.sleep(SETTLE_SECONDS)
                pairs.append(warm(url, client, seed))
            time.sleep(SETTLE_SECONDS)
            accepted, stopped = busy(url, chosen.repeats)
        with contextlib.chdir(folder):
            colds = [cold(folder, client, 100 + n) for n in range(chosen.cold_repeats)]
            projects = [project(folder, 200 + n) for n in range(chosen.cold_repeats)]
    claims: list[tuple[str, list[float], float | None, bool]] = [
        ("POST to first training step", [p[0] for p in pairs], MOST_TO_FIRST_STEP, False),
        ("POST to completed", [p[1] for p in pairs], MOST_TO_COMPLETED, False),
        ("  the same in a cold process", colds, None, False),
        ("  the same by mlflow run", projects, None, False),
        ("POST /train while two jobs train", accepted, MOST_TO_ACCEPTED, False),
        ("stop of a running job", stopped, MOST_TO_STOPPED, True),
    ]
    held = [show(*claim) for claim in claims]
    write_rows(
        "job_latency",
        [
            {
                "claim": name.strip(), "median_seconds": f"{statistics.median(seconds):.3f}",
                "least_seconds": f"{min(seconds):.3f}", "most_seconds": f"{max(seconds):.3f}",
                "repeats": len(seconds), "at_most_seconds": "" if bar is None else bar,
            }
            for name, seconds, bar, _ in claims
        ],
    )  # fmt: skip
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
