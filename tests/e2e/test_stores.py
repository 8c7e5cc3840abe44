"""Two servers on one store of each kind: the journey across them, and what must not stop it.

Each server has a working directory and a TMPDIR of its own, and where the system allows it another
host name: what they share goes through the store. `make test-stores` runs them all, `make test` one
of PostgreSQL and one of a remote MLflow server.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import requests
from mlflow.tracking import MlflowClient

from grpo_platform.client import ApiError, GRPOClient
from grpo_platform.core.names import CLAIM_TAG
from tests.e2e.processes import Server, failing_start, server
from tests.e2e.stores import PASSWORD, STORES, SharedStore, on_a_host_called
from tests.service.tracking_support import working_in
from tests.waiting import until

LEANS_RIGHT = [0.1, 0.0, 0.05, 0.0]
HOSTS = ("one", "two")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def kinds(*names: str, always: str = "") -> list[object]:
    """Parameters of `store`; with that of `always`, the test also runs in `make test`."""
    return [
        pytest.param(name, marks=[] if name == always else pytest.mark.stores) for name in names
    ]


@pytest.fixture(scope="module", params=kinds(*STORES))
def store(request, tmp_path_factory) -> Iterator[SharedStore]:
    with STORES[request.param](tmp_path_factory.mktemp("store")) as found:
        yield found


@contextlib.contextmanager
def server_on(store: SharedStore, folder: Path, host: str) -> Iterator[Server]:
    temporary = folder / "tmp"
    temporary.mkdir(parents=True)
    settings = {"TMPDIR": str(temporary), "GRPO_MAX_CONCURRENT_JOBS": "1", **store.settings}
    with server(folder, prefix=on_a_host_called(host), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def servers(store, tmp_path_factory) -> Iterator[list[Server]]:
    """Two, started at once on an empty store."""
    folder = tmp_path_factory.mktemp("servers")
    with contextlib.ExitStack() as running:

        def start(host: str) -> Server:
            return running.enter_context(server_on(store, folder / host, host))

        with ThreadPoolExecutor() as pool:
            started = list(pool.map(start, HOSTS))
        yield started
        assert all(PASSWORD not in found.log for found in started)


@pytest.fixture(scope="module")
def clients(servers) -> Iterator[list[GRPOClient]]:
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(GRPOClient(found.url)) for found in servers]


class Worker(NamedTuple):
    """Who claimed an attempt."""

    host: str
    process_id: int


def claims(store: SharedStore, folder: Path, job_id: str) -> dict[str, Worker]:
    """The worker that claimed each attempt."""
    with working_in(folder, **store.settings):
        run = MlflowClient(store.settings["MLFLOW_TRACKING_URI"]).get_run(job_id)
    claimed = {name: text for name, text in run.data.tags.items() if name.startswith(CLAIM_TAG)}
    return {
        name.removeprefix(CLAIM_TAG): Worker(
            text.partition(":")[0].rpartition("-")[0], int(text.split(":")[1])
        )
        for name, text in claimed.items()
    }


def until_answered(url: str, status: int) -> None:
    until(lambda: requests.get(url, timeout=120).status_code == status)


def champion(client: GRPOClient) -> int:
    return int(client.model("shared")["champion"])


def status_of(call: Callable[[], object]) -> int:
    try:
        call()
    except ApiError as error:
        return error.status
    return 200


def test_the_journey_goes_across_servers(clients):
    one, two = clients
    assert status_of(lambda: one.job("0" * 32)) == 404
    assert status_of(lambda: two.model("shared")) == 404
    first = one.train_model("shared", timesteps=3000, seed=1, n_eval_episodes=5)
    assert first["status"] == "completed", first["error_message"]
    assert first["promoted"] is True
    job_id = str(first["job_id"])
    assert two.job(job_id) == first
    assert any("Registered" in line for line in two.logs(job_id))
    assert two.history(job_id, "rollout/reward").index.is_monotonic_increasing

    answers = [client.predict("shared", LEANS_RIGHT) for client in clients]
    assert answers[0] == answers[1]
    assert answers[0]["model_version"] == 1
    assert status_of(lambda: two.predict("shared/2", LEANS_RIGHT)) == 404

    second = two.train_model("shared", timesteps=3000, seed=2, n_eval_episodes=5)
    assert second["model_version"] == 2
    for client in clients:
        assert [job["job_id"] for job in client.iter_jobs(model_name="shared")] == [
            second["job_id"],
            job_id,
        ]
    for version in (1, 2, 1):
        one.promote("shared", version, force=True)
        assert two.model("shared")["champion"] == version
        until(lambda: two.predict("shared", LEANS_RIGHT)["model_version"] == champion(one))

    two.delete_job(job_id)
    assert status_of(lambda: one.job(job_id)) == 404
    assert [job["job_id"] for job in one.iter_jobs(model_name="shared")] == [second["job_id"]]
    one.delete_model("shared")
    until(lambda: "shared" not in {model["name"] for model in two.iter_models()})
    # it may have answered a second ago, and looks again each second
    until(lambda: status_of(lambda: two.predict("shared", LEANS_RIGHT)) == 404)


@pytest.mark.rotated(12)
@pytest.mark.parametrize("store", kinds(*STORES, always="postgresql"), indirect=True)
def test_each_job_runs_once(store, clients, tmp_path):
    jobs = [
        clients[number % 2].start_training(
            total_timesteps=2000, model_name=f"job_{number}", seed=number, n_eval_episodes=1
        )["job_id"]
        for number in range(6)
    ]
    for number, job_id in enumerate(jobs):
        job = clients[0].wait(job_id, timeout_seconds=240)
        assert job["status"] == "completed", job["error_message"]
        assert (job["attempt"], job["current_timesteps"]) == (1, 2000)
        assert len(clients[1].model(f"job_{number}")["versions"]) == 1
    claimed = [claims(store, tmp_path, job_id) for job_id in jobs]
    assert all(list(found) == ["1"] for found in claimed)
    if on_a_host_called("other"):
        assert {found["1"].host for found in claimed} == set(HOSTS)


def test_one_key_is_one_job_whichever_servers_are_asked_at_once(clients):
    def ask(client: GRPOClient, key: str) -> str:
        accepted = client.start_training(
            idempotency_key=key, total_timesteps=64, seed=1, n_eval_episodes=1
        )
        return str(accepted["job_id"])

    asked = []
    with ThreadPoolExecutor(4) as pool:
        for number in range(6):
            calls = [pool.submit(ask, client, f"key-{number}") for client in [*clients, *clients]]
            (job_id,) = {call.result() for call in calls}
            asked.append(job_id)
    jobs = [job["job_id"] for job in clients[0].iter_jobs()]
    assert jobs[: len(asked)] == asked[::-1]
    for job_id in asked:
        assert clients[1].wait(job_id, timeout_seconds=240)["status"] == "completed"


def test_a_job_is_stopped_resumed_and_survives_its_worker(store, clients, tmp_path):
    one, two = clients
    job_id = one.start_training(
        total_timesteps=150_000, model_name="paused", seed=1, checkpoint_seconds=0.5,
        n_eval_episodes=1,
    )["job_id"]  # fmt: skip
    until(lambda: one.job(job_id)["current_timesteps"] > 5_000)
    two.stop(job_id)
    stopped = two.wait(job_id, timeout_seconds=120)
    assert stopped["status"] == "stopped"
    assert 5_000 < stopped["current_timesteps"] < 150_000

    two.resume(job_id)
    until(lambda: one.job(job_id)["current_timesteps"] > stopped["current_timesteps"] + 5_000)
    attempt = one.job(job_id)["attempt"]
    worker = claims(store, tmp_path, job_id)[str(attempt)]
    psutil.Process(worker.process_id).kill()
    job = two.wait(job_id, timeout_seconds=300)
    assert job["status"] == "completed", job["error_message"]
    assert (job["attempt"], job["current_timesteps"]) == (attempt + 1, 150_000)
    log = "\n".join(one.logs(job_id, tail=1000))
    assert log.count("It goes on from checkpoint") == 2
    assert len(one.model("paused")["versions"]) == 1
    steps = list(two.history(job_id, "rollout/reward").index)
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("store", kinds(*STORES), indirect=True)
def test_a_killed_servers_job_goes_on_from_its_checkpoint(store, clients, tmp_path):
    # one each, so that neither takes the job that is to run on the third server
    others = [
        clients[0].start_training(total_timesteps=50_000_000, model_name=f"other_{n}")["job_id"]
        for n in range(2)
    ]
    until(lambda: all(clients[0].job(other)["status"] == "running" for other in others))
    with server_on(store, tmp_path / "gone", "gone") as victim:
        with GRPOClient(victim.url) as client:
            job_id = client.start_training(
                total_timesteps=100_000, model_name="moved", seed=1, checkpoint_seconds=0.5,
                n_eval_episodes=1,
            )["job_id"]  # fmt: skip
            until(lambda: any("Checkpoint at" in line for line in client.logs(job_id)))
        children = psutil.Process(victim.process.pid).children(recursive=True)
        victim.process.kill()
        for process in children:
            process.kill()
        assert not psutil.wait_procs(children, timeout=30)[1]
    shutil.rmtree(tmp_path / "gone")  # as with the machine that it was on
    for other in others:
        clients[0].stop(other)
    job = clients[0].wait(job_id, timeout_seconds=300)
    assert job["status"] == "completed", job["error_message"]
    assert (job["attempt"], job["current_timesteps"]) == (2, 100_000)
    log = "\n".join(clients[1].logs(job_id, tail=1000))
    assert "It goes on from checkpoint" in log
    assert len(clients[1].model("moved")["versions"]) == 1
    steps = list(clients[1].history(job_id, "rollout/reward").index)
    assert steps == sorted(set(steps))
    if on_a_host_called("other"):
        claimed = claims(store, tmp_path, job_id)
        assert claimed["1"].host == "gone"
        assert claimed["2"].host in HOSTS


def test_a_store_that_goes_away_in_use_is_503_until_it_returns(store, servers, clients):
    started = clients[0].start_training(total_timesteps=60_000, model_name="kept", seed=1)
    job_id = started["job_id"]
    until(lambda: clients[1].job(job_id)["current_timesteps"] > 0)
    with store.away():
        for found in servers:
            until_answered(f"{found.url}/training/jobs", 503)
            until_answered(f"{found.url}/health/ready", 503)
            assert requests.get(f"{found.url}/health/live", timeout=30).ok
            refused = requests.post(f"{found.url}/train", json={}, timeout=120)
            assert refused.status_code == 503
            # a file that is gone does not come back by trying again
            detail = refused.json()["detail"]
            assert "try again" in detail or "mlflow.db is gone. Put it back" in detail
            assert PASSWORD not in refused.text
    for found in servers:
        until_answered(f"{found.url}/health/ready", 200)
    job = clients[1].wait(job_id, timeout_seconds=300)
    assert job["status"] == "completed", job["error_message"]
    assert job["current_timesteps"] == 60_000
    assert len(clients[0].model("kept")["versions"]) == 1
    after = clients[0].train_model("after", timesteps=500, seed=1, n_eval_episodes=1)
    assert after["status"] == "completed", after["error_message"]


@pytest.mark.parametrize("store", kinds("postgresql", "mlflow-server"), indirect=True)
def test_a_store_that_is_away_at_start_is_a_sentence(store, tmp_path):
    with store.away():
        failed = failing_start(tmp_path, GRPO_PORT="0", **store.settings)
    assert failed.returncode == 1
    assert "grpo-platform cannot start. The MLflow store cannot be reached now" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("store", kinds("mlflow-server"), indirect=True)
@pytest.mark.parametrize("password", ["wrong", ""])
def test_wrong_credentials_are_a_sentence(store, tmp_path, password):
    wrong = store.settings | {"MLFLOW_TRACKING_PASSWORD": password, "GRPO_PORT": "0"}
    failed = failing_start(tmp_path, **wrong)
    assert failed.returncode == 1
    assert "does not accept the credentials: set MLFLOW_TRACKING_USERNAME" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
