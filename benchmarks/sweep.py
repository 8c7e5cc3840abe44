"""A sweep whose server is killed once in the middle ends with exactly its trials.

30 trials of 3,000-step CartPole, two at once. When 13 have ended, the server gets kill -9; another
one takes its place in the same directory. At the end there are 30 trials, numbered from 0 without a
gap, each with a run of its own; every completed one has one version, and no run is left over.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from benchmarks.server import machine, started
from grpo_platform.client import GRPOClient

N_TRIALS = 30
KILLED_AT = 13
SPACE = {
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "n_epochs": {"type": "int", "low": 2, "high": 16},
    "clip_range": {"type": "float", "low": 0.1, "high": 0.4},
    "advantage": {"type": "categorical", "choices": ["z_time", "dr", "loo_time"]},
}


def begin_and_kill(folder: Path) -> str:
    """Start the sweep, and kill the server when some trials have ended; returns the sweep's id."""
    with started(folder) as (url, process):
        client = GRPOClient(url)
        sweep_id = str(
            client.start_sweep(
                SPACE, N_TRIALS, config={"total_timesteps": 3000}, seed=1, model_name="swept",
                max_concurrent_trials=2,
            )["sweep_id"]
        )  # fmt: skip
        while sum(client.sweep(sweep_id)["counts"].get(s, 0) for s in ("completed", "pruned")) < (
            KILLED_AT
        ):
            time.sleep(0.2)
        process.kill()
        process.wait()
    return sweep_id


def failings(folder: Path, sweep: dict[str, Any], versions: list[dict[str, Any]]) -> list[str]:
    """What is not as it should be."""
    store = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    nested = store.search_runs(
        [experiment.experiment_id for experiment in store.search_experiments()],
        f"tags.mlflow.parentRunId = '{sweep['sweep_id']}'",
        run_view_type=ViewType.ACTIVE_ONLY,
    )
    jobs = [trial["job_id"] for trial in sweep["trials"]]
    completed = [t["job_id"] for t in sweep["trials"] if t["state"] == "completed"]
    expected = {
        "the sweep is completed": sweep["status"] == "completed",
        "30 trials, numbered from 0": [t["number"] for t in sweep["trials"]] == [*range(N_TRIALS)],
        "each with a job of its own": len(set(jobs)) == N_TRIALS,
        "no run but theirs": sorted(run.info.run_id for run in nested) == sorted(jobs),
        "all completed or pruned": set(sweep["counts"]) <= {"completed", "pruned"},
        "one version for each completed one": sorted(v["job_id"] for v in versions)
        == sorted(completed),
    }
    return [what for what, held in expected.items() if not held]


def main() -> int:
    """Run from the command line; the exit code says whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="directory for the store, which then stays")
    parser.add_argument("--plot", type=Path, help="file for the parallel coordinates")
    chosen = parser.parse_args()
    print(machine())
    with contextlib.ExitStack() as stack:
        folder = chosen.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.perf_counter()
        sweep_id = begin_and_kill(folder)
        print(f"kill -9 after {time.perf_counter() - begin:.0f} s", flush=True)
        with started(folder) as (url, _), GRPOClient(url) as client:
            sweep = client.wait_for_sweep(sweep_id)
            seconds = time.perf_counter() - begin
            attempts = Counter(client.job(t["job_id"])["attempt"] for t in sweep["trials"])
            versions = client.model("swept")["versions"]
        missed = failings(folder, sweep, versions)
        print(
            f"{len(sweep['trials'])} trials in {seconds:.0f} s: {sweep['counts']}, best "
            f"{sweep['metric']} {sweep['best_value']:.1f}, {len(versions)} versions; trials by "
            f"attempts: {dict(attempts)}"
        )
        print("MISSED: " + "; ".join(missed) if missed else "exactly its trials")
        if chosen.plot is not None:
            store = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
            shutil.copy(store.download_artifacts(sweep_id, "parallel_coordinates.png"), chosen.plot)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
