"""Runs chaos and prints what came of it; ends with 1 where something was lost or changed."""

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

import torch
from threadpoolctl import threadpool_limits

from benchmarks.chaos.faults import Fault, plan
from benchmarks.chaos.verify import Verdict, verify
from benchmarks.chaos.watch import Watch
from benchmarks.chaos.world import World, world
from grpo_platform.core.errors import PlatformError
from grpo_platform.core.states import TERMINAL, JobStatus

_ACTIVE: Final = 4
_POSSIBLE_SECONDS: Final = 300.0
_MOST_ORPHANED_SECONDS: Final = 30.0


def main() -> None:
    """Run chaos as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=30, help="at least so many")
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timesteps", type=int, default=40_000, help="of the longest job")
    parser.add_argument("--twins", type=int, default=40, help="jobs trained again, at most")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)  # as where jobs train: a twin has its bits
    with tempfile.TemporaryDirectory(prefix="grpo-chaos-") as folder:
        sys.exit(0 if run(Path(folder), chosen) else 1)


def run(folder: Path, chosen: argparse.Namespace) -> bool:
    """Chaos, quiet, and the verdict; True where nothing is wrong."""
    done: Counter[str] = Counter()
    began = time.monotonic()
    with world(folder, chosen.servers, chosen.seed, chosen.timesteps) as made:
        watch = Watch(made)
        watch.start()
        faults = plan(chosen.seed, chosen.faults, has_small_disk=made.has_small_disk)
        for number, fault in enumerate(faults, 1):
            _break_something(made, fault, random.Random(f"{chosen.seed}/{number}"))
            done[fault.__name__] += 1
            print(f"{number:4d} {fault.__name__}", flush=True)
        chaos_seconds = time.monotonic() - began
        while len(made.jobs) < chosen.jobs:
            made.keep_alive()
            _submit(made)
            time.sleep(0.5)
        for server in made.servers:
            made.wait_until_ready(server)
        _wait_for_all(made)
        watch.end()
        verdict = verify(made, chosen.seed, chosen.twins)
    return _report(made, done, verdict, watch, chaos_seconds)


def _break_something(made: World, fault: Fault, rng: random.Random) -> None:
    """Let a moment pass, and then the fault happen, as soon as it can.

    Raises:
        RuntimeError: it could not happen for a long time.
    """
    deadline = time.monotonic() + _POSSIBLE_SECONDS
    pause = rng.uniform(0.2, 1.5)
    while time.monotonic() < deadline:
        made.keep_alive()
        _submit(made)
        time.sleep(pause)
        pause = 0.2
        with contextlib.suppress(PlatformError):  # the store is away still, from the fault before
            if fault(made, rng):
                return
    raise RuntimeError(f"{fault.__name__} could not happen for {_POSSIBLE_SECONDS:g} s.")


def _submit(made: World) -> None:
    """Keep a few jobs alive."""
    try:
        store = made.store()
        active = len(store.running()) + len(store.queued(_ACTIVE))
    except PlatformError:
        return
    for _ in range(_ACTIVE - active):
        made.submit()


def _wait_for_all(made: World) -> None:
    """Wait until every job has ended; those that a full disk or a stop ended are resumed once."""
    resumed: set[str] = set()
    waiting = made.jobs.keys() - made.deleted
    deadline = time.monotonic() + 900
    while waiting and time.monotonic() < deadline:
        for job_id in sorted(waiting):
            job = made.call("GET", f"/training/{job_id}/status").json()
            status = job["status"]
            if status == JobStatus.FAILED and "disk is full" not in (job["error_message"] or ""):
                made.failed[job_id] = job["error_message"]
            if status in (JobStatus.STOPPED, JobStatus.FAILED) and job_id not in resumed:
                resumed.add(job_id)
                made.call("POST", f"/training/{job_id}/resume")
            elif status in TERMINAL:
                waiting = waiting - {job_id}
        time.sleep(0.5)


def _report(
    made: World, done: Counter[str], verdict: Verdict, watch: Watch, chaos_seconds: float
) -> bool:
    print(f"\n{done.total()} faults in {chaos_seconds:.0f} s")
    for name, count in sorted(done.items()):
        print(f"  {name:18} {count:4d}")
    print(f"{len(made.jobs)} jobs accepted, {len(made.deleted)} deleted in MLflow on purpose")
    figures = {
        "completed": verdict.completed,
        "lost": verdict.lost,
        "failed, though not for a full disk": verdict.failed,
        "without exactly one version": verdict.versions,
        "models that do not predict": verdict.deaf,
        "metric histories with doubled points": verdict.doubled,
        "metric histories with missing points": verdict.missing,
        "undisturbed twins trained": verdict.twins,
        "unlike their twin": verdict.changed,
    }
    for name, figure in figures.items():
        print(f"  {name:38} {figure:4d}")
    print(f"longest RUNNING without a living worker: {watch.longest_seconds:.1f} s")
    for finding in verdict.findings:
        print(f"  ! {finding}")
    return not verdict.findings and watch.longest_seconds <= _MOST_ORPHANED_SECONDS


if __name__ == "__main__":
    main()
