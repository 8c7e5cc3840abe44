"""How jobs scale with the nodes of a Ray cluster: 32 of them on 1, 2 and 4 nodes of one CPU.

All nodes are this machine's: beyond its cores a node is only a name, so what further rows can show
is that nothing is lost by having more nodes. Beside it, the same jobs on the backend `local` with
as many at once as there are cores.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator

import psutil

from benchmarks.results import write_rows
from benchmarks.server import machine
from grpo import GRPOConfig
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import Settings
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.jobs.backend import Backend
from grpo_platform.jobs.local import LocalBackend
from grpo_platform.jobs.ray_backend import RayBackend
from grpo_platform.jobs.runner import Runner
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.store import Store, prepare_store
from tests.service.ray_support import ray_cluster

NODES = (1, 2, 4)


@contextlib.contextmanager
def running(backend: type[Backend], at_once: int) -> Iterator[tuple[Runner, JobStore]]:
    """A runner on an empty store, `at_once` jobs at once, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        settings = Settings(max_concurrent_jobs=at_once)
        store: Store = prepare_store(settings)
        jobs = JobStore(store.tracking_uri, store.experiment_id)
        runner = Runner(jobs, backend(store), settings)
        runner.start()
        try:
            yield runner, jobs
        finally:
            runner.shutdown()


def submit(runner: Runner, seed: int, timesteps: int) -> str:
    config = GRPOConfig(seed=seed, total_timesteps=timesteps, n_eval_episodes=20)
    return runner.submit(JobRequest(config=config)).job_id


def seconds_of(runner: Runner, jobs: JobStore, number: int, timesteps: int) -> tuple[float, int]:
    """Seconds from the first submission to the last end, and how many jobs completed."""
    began = time.perf_counter()
    ids = [submit(runner, seed, timesteps) for seed in range(number)]
    while not set(ends := [jobs.get(job_id).status for job_id in ids]) <= TERMINAL:
        time.sleep(0.2)
    return time.perf_counter() - began, ends.count(JobStatus.COMPLETED)


def on_ray(nodes: int, number: int, timesteps: int) -> tuple[float, int]:
    """The same on a new cluster, actors and imports included."""
    with ray_cluster() as cluster:
        for _ in range(nodes):
            cluster.add()
        with running(RayBackend, nodes) as (runner, jobs):
            return seconds_of(runner, jobs, number, timesteps)


def on_this_machine(at_once: int, number: int, timesteps: int) -> tuple[float, int]:
    """The same on the backend `local`, from a forkserver that is not warm yet."""
    with running(LocalBackend, at_once) as (runner, jobs):
        return seconds_of(runner, jobs, number, timesteps)


def main() -> int:
    """Run from the command line; the exit code says whether every job was completed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=32)
    parser.add_argument("--timesteps", type=int, default=10_000, help="of each job")
    chosen = parser.parse_args()
    print(machine(), flush=True)
    os.environ["MLFLOW_TRACKING_URI"] = ""
    cores = psutil.cpu_count() or 1
    rows = []
    for nodes in (*NODES, 0):
        run, size = (on_ray, nodes) if nodes else (on_this_machine, cores)
        seconds, completed = run(size, chosen.jobs, chosen.timesteps)
        plural = "" if nodes == 1 else "s"
        name = f"{nodes} node{plural} of one CPU" if nodes else f"local, {cores} at once"
        rows.append(
            {
                "claim": f"{chosen.jobs} jobs, {name}",
                "at_once": size,
                "jobs": chosen.jobs,
                "completed": completed,
                "timesteps": chosen.timesteps,
                "seconds": f"{seconds:.1f}",
                "jobs_per_minute": f"{60 * chosen.jobs / seconds:.1f}",
                "speedup": f"{float(rows[0]['seconds']) / seconds:.2f}" if rows else "1.00",
            }
        )
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
        write_rows("ray_scaling", rows)
    return int(any(row["completed"] != row["jobs"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
