"""Lists of a large store beside those of a small one, over HTTP, as ratios of one run.

Two servers, one on a store of 100 jobs and 100 models, one on 10,000 jobs and 1,000 models,
answer the same calls in turn. Claims: every p95 is at most 1.5 times the small store's, and the
median of the status call is below 15 ms.

Each store holds one job that was really trained and the model it made; their rows are then
copied in the database, with other ids, names, times and states.
"""

import argparse
import contextlib
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import requests

from benchmarks.results import write_rows
from benchmarks.server import serving

SMALL = (100, 100)
LARGE = (10_000, 1_000)
MOST_RATIO = 1.5
MOST_STATUS_MS = 15.0
ENV_NAMES = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1")
FILTERED = 20  # jobs in a filtered answer: both stores have as many of each kind
END_STATES = ("FINISHED", "FINISHED", "FINISHED", "FAILED", "KILLED")


def fill(folder: Path, jobs: int, models: int) -> str:
    """Make a store with that many jobs and models; returns the id of the real job."""
    with serving(folder) as url:
        wanted = {"total_timesteps": 1_000, "seed": 1, "model_name": "model-0"}
        job_id = requests.post(f"{url}/train", json=wanted, timeout=60).json()["job_id"]
        while True:
            status = requests.get(f"{url}/training/{job_id}/status", timeout=60).json()
            if status["end_time"] is not None:
                break
            time.sleep(0.2)
        time.sleep(5.0)  # what a worker still adds to a completed job
    if status["status"] != "completed":
        raise RuntimeError(str(status))
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        copy_runs(database, job_id, jobs, models)
        copy_models(database, models)
        database.commit()
    return str(job_id)


def copy_runs(database: sqlite3.Connection, job_id: str, jobs: int, models: int) -> None:
    """Add copies of a run until there are that many; each a minute older than the one before."""
    rows = {
        table: select(database, table, "run_uuid", job_id)
        for table in ("runs", "params", "tags", "latest_metrics", "metrics")
    }
    rows["metrics"] = rows["latest_metrics"]  # one point a key: lists do not read histories
    for number in range(1, jobs):
        run_id = uuid.uuid4().hex
        env_name = ENV_NAMES[number % len(ENV_NAMES)]
        model_name = f"model-{number % models if number >= FILTERED else 0}"
        (run,) = rows["runs"]
        moved = {"start_time": run["start_time"] - 60_000 * number, "name": f"copy {number}"}
        moved |= {"run_uuid": run_id, "status": END_STATES[number % len(END_STATES)]}
        insert(database, "runs", run | moved)
        for table in ("params", "tags", "latest_metrics", "metrics"):
            for row in rows[table]:
                other = {"run_uuid": run_id}
                for prefix, name in (("grpo.env/", env_name), ("grpo.model/", model_name)):
                    if str(row["key"]).startswith(prefix):
                        other["key"] = prefix + name
                insert(database, table, row | other)


def copy_models(database: sqlite3.Connection, models: int) -> None:
    """Add copies of the registered model until there are that many."""
    tables = (
        "registered_models", "registered_model_tags", "registered_model_aliases",
        "model_versions", "model_version_tags",
    )  # fmt: skip
    rows = {table: select(database, table, "name", "model-0") for table in tables}
    for number in range(1, models):
        for table in tables:
            for row in rows[table]:
                insert(database, table, row | {"name": f"model-{number}"})


def select(
    database: sqlite3.Connection, table: str, column: str, value: str
) -> list[dict[str, object]]:
    """Rows of a table, as dictionaries."""
    cursor = database.execute(f"SELECT * FROM {table} WHERE {column} = ?", (value,))
    names = [description[0] for description in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def insert(database: sqlite3.Connection, table: str, row: Mapping[str, object]) -> None:
    """Add one row."""
    names, marks = ", ".join(row), ", ".join("?" for _ in row)
    database.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))


def calls(job_id: str) -> dict[str, str]:
    """Paths that are measured, by name."""
    filtered = f"/training/jobs?limit={FILTERED}"
    return {
        "jobs, first page": "/training/jobs?limit=100",
        "jobs of a status": f"{filtered}&status=completed",
        "jobs of an environment": f"{filtered}&env_name=CartPole-v1",
        "jobs of a model": f"{filtered}&model_name=model-0",
        "status of a job": f"/training/{job_id}/status",
        "models, first page": "/models?limit=100",
    }


def measure(session: requests.Session, url: str) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    answer = session.get(url, timeout=120)
    took = time.perf_counter() - start
    answer.raise_for_status()
    return 1_000 * took


def compare(urls: tuple[str, str], job_ids: tuple[str, str], repeats: int) -> bool:
    """Print both servers' times; returns whether every claim holds."""
    good = True
    rows: list[dict[str, object]] = []
    session = requests.Session()
    print(
        f"{'call':24} {'small p50':>10} {'p95':>8} {'large p50':>10} {'p95':>8} {'ratio':>6}  [ms]"
    )
    paths = [calls(job_id) for job_id in job_ids]
    for name in paths[0]:
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(repeats + 3):
            for side in (0, 1):
                took = measure(session, urls[side] + paths[side][name])
                if turn >= 3:  # the first ones warm up
                    times[side].append(took)
        (small, small_p95), (large, large_p95) = (
            (statistics.median(side), statistics.quantiles(side, n=20)[-1]) for side in times
        )
        ratio = large_p95 / small_p95
        held = ratio <= MOST_RATIO and (name != "status of a job" or large < MOST_STATUS_MS)
        good &= held
        rows.append(
            {
                "call": name, "small_p50_ms": round(small, 2), "small_p95_ms": round(small_p95, 2),
                "large_p50_ms": round(large, 2), "large_p95_ms": round(large_p95, 2),
                "ratio_p95": round(ratio, 3),
            }
        )  # fmt: skip
        figures = f"{small:10.1f} {small_p95:8.1f} {large:10.1f} {large_p95:8.1f} {ratio:6.2f}"
        print(f"{name:24} {figures}  {'' if held else 'MISSED'}")
    write_rows("list_latency", rows)
    return good


def main() -> int:
    """Run from the command line; the exit code says whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=60, help="calls of each kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        sides = []
        for name, (jobs, models) in (("small", SMALL), ("large", LARGE)):
            folder = Path(scratch) / name
            folder.mkdir()
            start = time.perf_counter()
            job_id = fill(folder, jobs, models)
            print(f"{name}: {jobs:,} jobs, {models:,} models ({time.perf_counter() - start:.0f} s)")
            sides.append((folder, job_id))
        urls = [stack.enter_context(serving(folder)) for folder, _ in sides]
        return int(not compare((urls[0], urls[1]), (sides[0][1], sides[1][1]), arguments.repeats))


if __name__ == "__main__":
    sys.exit(main())
