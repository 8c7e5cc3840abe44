"""Lists of a large store beside those of a small one, over HTTP, as ratios of one run.

Two servers, one on a store of 100 jobs, 100 models and 100 experiments, one on 10,000 jobs, 1,000
models and 1,000 experiments of three seeds each, answer the same calls in turn. Claims: every p95
is at most 1.5 times the small store's, and the median of the status call is below 15 ms.

Each store holds one job and one experiment that were really trained and the models they made; their
rows are then copied in the database, with other ids, names, times and states.
"""

import argparse
import contextlib
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import requests

from benchmarks.results import write_rows
from benchmarks.server import serving

SMALL = (100, 100, 100)
LARGE = (10_000, 1_000, 1_000)
SEEDS = 3
TABLES = ("runs", "params", "tags", "latest_metrics", "metrics")
MOST_RATIO = 1.5
MOST_STATUS_MS = 15.0
ENV_NAMES = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1")
FILTERED = 20  # jobs in a filtered answer: both stores have as many of each kind
END_STATES = ("FINISHED", "FINISHED", "FINISHED", "FAILED", "KILLED")


def fill(folder: Path, jobs: int, models: int, experiments: int) -> tuple[str, str]:
    """Make a store with so many of each; returns the ids of the real job and experiment."""
    budget = {"total_timesteps": 1_000, "seed": 1}
    with serving(folder) as url:
        job_id = start(url, budget | {"model_name": "model-0"})["job_id"]
        await_end(f"{url}/training/{job_id}/status")
        wanted = budget | {"seeds": SEEDS, "register": "each", "model_name": "experiment-0"}
        experiment_id = start(url, wanted)["experiment_id"]
        await_end(f"{url}/experiments/{experiment_id}")
        time.sleep(5.0)  # what a worker still adds to a completed job
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        copy_jobs(database, job_id, jobs, models)
        copy_experiments(database, experiment_id, experiments)
        copy_models(database, models)
        database.commit()
    return job_id, experiment_id


def start(url: str, wanted: Mapping[str, object]) -> dict[str, str]:
    """Start a training; returns the reply."""
    reply: dict[str, str] = requests.post(f"{url}/train", json=wanted, timeout=60).json()
    return reply


def await_end(address: str) -> None:
    """Wait until a job or experiment is completed."""
    while (found := requests.get(address, timeout=60).json())["end_time"] is None:
        time.sleep(0.2)
    if found["status"] != "completed":
        raise RuntimeError(str(found))


def copy_jobs(database: sqlite3.Connection, job_id: str, jobs: int, models: int) -> None:
    """Add copies of a job until there are that many; each a minute older than the one before."""
    rows = rows_of(database, job_id)
    for number in range(1, jobs):
        env_name = ENV_NAMES[number % len(ENV_NAMES)]
        model_name = f"model-{number % models if number >= FILTERED else 0}"

        def renamed(text: str, env: str = env_name, model: str = model_name) -> str:
            for prefix, name in (("grpo.env/", env), ("grpo.model/", model)):
                text = prefix + name if text.startswith(prefix) else text
            return text

        status = END_STATES[number % len(END_STATES)]
        copy_run(database, rows, uuid.uuid4().hex, number, renamed, {"status": status})


def copy_experiments(database: sqlite3.Connection, experiment_id: str, experiments: int) -> None:
    """Add copies of an experiment with its jobs until there are that many."""
    found = database.execute(
        "SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?", (experiment_id,)
    )
    family = [experiment_id, *(run_id for (run_id,) in found)]
    rows = {run_id: rows_of(database, run_id) for run_id in family}
    for number in range(1, experiments):
        ids = {run_id: uuid.uuid4().hex for run_id in family}

        def renamed(text: str, ids: Mapping[str, str] = ids) -> str:
            for run_id, other in ids.items():
                text = text.replace(run_id, other)
            return text

        for run_id, other in ids.items():
            copy_run(database, rows[run_id], other, number, renamed, {})


Rows = Mapping[str, list[dict[str, object]]]


def rows_of(database: sqlite3.Connection, run_id: str) -> Rows:
    """A run's rows, by table."""
    rows = {table: select(database, table, "run_uuid", run_id) for table in TABLES}
    rows["metrics"] = rows["latest_metrics"]  # one point a key: lists do not read histories
    return rows


def copy_run(
    database: sqlite3.Connection,
    rows: Rows,
    run_id: str,
    number: int,
    renamed: Callable[[str], str],
    changes: Mapping[str, object],
) -> None:
    """Add a copy of a run, so many minutes older, with other names in its keys and values."""
    (run,) = rows["runs"]
    moved = {"start_time": int(str(run["start_time"])) - 60_000 * number, "name": f"copy {number}"}
    insert(database, "runs", {**run, **moved, **changes, "run_uuid": run_id})
    for table in TABLES[1:]:
        for row in rows[table]:
            other = {name: renamed(v) if isinstance(v, str) else v for name, v in row.items()}
            insert(database, table, other | {"run_uuid": run_id})


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


def calls(job_id: str, experiment_id: str) -> dict[str, str]:
    """Paths that are measured, by name."""
    filtered = f"/training/jobs?limit={FILTERED}"
    return {
        "jobs, first page": "/training/jobs?limit=100",
        "jobs of a status": f"{filtered}&status=completed",
        "jobs of an environment": f"{filtered}&env_name=CartPole-v1",
        "jobs of a model": f"{filtered}&model_name=model-0",
        "status of a job": f"/training/{job_id}/status",
        "models, first page": "/models?limit=100",
        "experiments, first page": "/experiments?limit=100",
        "an experiment": f"/experiments/{experiment_id}",
        "jobs of an experiment": f"/training/jobs?experiment_id={experiment_id}",
    }


def measure(session: requests.Session, url: str) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    answer = session.get(url, timeout=120)
    took = time.perf_counter() - start
    answer.raise_for_status()
    return 1_000 * took


def compare(urls: tuple[str, str], ids: tuple[tuple[str, str], ...], repeats: int) -> bool:
    """Print both servers' times; returns whether every claim holds."""
    good = True
    rows: list[dict[str, object]] = []
    session = requests.Session()
    print(
        f"{'call':24} {'small p50':>10} {'p95':>8} {'large p50':>10} {'p95':>8} {'ratio':>6}  [ms]"
    )
    paths = [calls(*made) for made in ids]
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
        for name, size in (("small", SMALL), ("large", LARGE)):
            folder = Path(scratch) / name
            folder.mkdir()
            began = time.perf_counter()
            sides.append((folder, fill(folder, *size)))
            said = "{:,} jobs, {:,} models, {:,} experiments".format(*size)
            print(f"{name}: {said} ({time.perf_counter() - began:.0f} s)", flush=True)
        urls = [stack.enter_context(serving(folder)) for folder, _ in sides]
        return int(not compare((urls[0], urls[1]), (sides[0][1], sides[1][1]), arguments.repeats))


if __name__ == "__main__":
    sys.exit(main())
