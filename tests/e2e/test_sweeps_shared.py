"""A sweep that two servers share, one of which is killed: every job once, and no more."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from grpo_platform.client import GRPOClient
from tests.e2e.processes import Server, server
from tests.e2e.stores import STORES, SharedStore, on_a_host_called
from tests.e2e.test_sweeps import SPACE
from tests.service.tracking_support import working_in
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.stores, pytest.mark.timeout(600)]

N_TRIALS = 3
SEEDS = [3, 14]


@contextlib.contextmanager
def server_on(store: SharedStore, folder: Path, host: str) -> Iterator[Server]:
    temporary = folder / host / "tmp"
    temporary.mkdir(parents=True)
    settings = {"TMPDIR": str(temporary), "GRPO_MAX_CONCURRENT_JOBS": "1", **store.settings}
    with server(folder / host, prefix=on_a_host_called(host), **settings) as running:
        yield running


@pytest.mark.parametrize("kind", STORES)
def test_two_servers_share_a_sweep_and_one_of_them_is_killed(kind: str, tmp_path: Path) -> None:
    with (
        STORES[kind](tmp_path) as store,
        server_on(store, tmp_path, "one") as one,
        server_on(store, tmp_path, "two") as two,
    ):
        first, second = GRPOClient(one.url), GRPOClient(two.url)
        sweep_id = first.start_sweep(
            SPACE,
            N_TRIALS,
            config={"total_timesteps": 2000, "n_eval_episodes": 2},
            model_name="swept",
            seeds=SEEDS,
            max_concurrent_trials=2,
            pruner="none",
        )["sweep_id"]
        until(lambda: second.sweep(sweep_id)["started_trials"] >= 2)
        one.process.kill()
        one.process.wait()
        sweep = second.wait_for_sweep(sweep_id, timeout_seconds=400)
        versions = second.model("swept")["versions"]
        jobs = [seed["job_id"] for trial in sweep["trials"] for seed in trial["seeds"]]
        listed = {job["job_id"] for job in second.iter_jobs()}
        found = [points_of(store, job_id) for job_id in jobs]
    assert sweep["status"] == "completed", sweep["error_message"]
    assert sweep["counts"] == {"completed": N_TRIALS}
    assert [trial["number"] for trial in sweep["trials"]] == list(range(N_TRIALS))
    assert [
        seed["seed"] for trial in sweep["trials"] for seed in trial["seeds"]
    ] == SEEDS * N_TRIALS
    assert len(set(jobs)) == N_TRIALS * len(SEEDS)
    assert listed == set(jobs), "no job but the trials"
    assert sorted(v["job_id"] for v in versions) == sorted(jobs), "one version each"
    for steps in found:
        assert steps == sorted(set(steps)), "no point twice"
        assert len(steps) > 10


def points_of(store: SharedStore, job_id: str) -> list[int]:
    """Steps of a metric in the order of their writing."""
    with working_in(Path.cwd(), **store.settings):
        client = MlflowClient(tracking_uri=store.settings["MLFLOW_TRACKING_URI"])
        points = client.get_metric_history(job_id, "rollout/reward")
    return [point.step for point in sorted(points, key=lambda p: p.timestamp)]
