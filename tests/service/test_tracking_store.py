"""Preparing a store: fresh, used, moved, shared, foreign."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_store
from typer.testing import CliRunner

from grpo_platform.cli import app
from grpo_platform.core.errors import StoreError, StoreGoneError, StoreUnavailableError
from grpo_platform.registry.deletion import delete_model
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.sweeps.store import SweepStore
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.ui_view import COLUMNS, KIND_TAG, VIEW_TAG
from tests.service.registry_support import Bench
from tests.service.sweeps_support import SPACE
from tests.service.tracking_support import (
    TrackingServer,
    jobs_of,
    prepare,
    prepare_new,
    processes,
    request,
    working_in,
)


def test_a_fresh_directory_gets_a_database_in_wal_mode_and_an_experiment(tmp_path):
    store = prepare_new(tmp_path)
    assert store.tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert store.is_local
    assert store.artifact_location == (tmp_path / "mlruns" / "grpo").as_uri()
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert prepare(tmp_path) == store


@pytest.mark.rotated(12)
def test_the_default_experiment_can_be_used_by_the_api_and_mlflow_run(tmp_path):
    store = prepare_new(tmp_path)
    default = MlflowClient(tracking_uri=store.tracking_uri).get_experiment("0")
    assert default.artifact_location.removeprefix("file://") == str(tmp_path / "mlruns" / "0")
    client = MlflowClient(tracking_uri=store.tracking_uri)
    run_id = client.create_run("0").info.run_id
    jobs = jobs_of(store)
    jobs.adopt(run_id, request())
    (tmp_path / "f.txt").write_text("x")
    assert jobs.upload(run_id, tmp_path / "f.txt", verify=True) == "f.txt"
    assert (tmp_path / "mlruns" / "0" / run_id / "artifacts" / "f.txt").is_file()


def test_the_ui_gets_a_view_of_our_runs_and_one_that_somebody_changed_stays(tmp_path):
    store = prepare_new(tmp_path)
    client = MlflowClient(tracking_uri=store.tracking_uri)
    tags = client.get_experiment(store.experiment_id).tags
    assert tags[KIND_TAG] == "custom_model_development"
    view = json.loads(tags[VIEW_TAG])
    assert json.loads(view["state"])["selectedColumns"] == list(COLUMNS)
    client.set_experiment_tag(store.experiment_id, VIEW_TAG, "mine")
    prepare(tmp_path)
    assert client.get_experiment(store.experiment_id).tags[VIEW_TAG] == "mine"


def test_a_relative_uri_is_made_absolute(tmp_path):
    store = prepare(tmp_path, "sqlite:///here/runs.db")
    assert store.tracking_uri == f"sqlite:///{tmp_path / 'here' / 'runs.db'}"


@pytest.mark.rotated(14)
@pytest.mark.parametrize("name", ["a%20b ü", "q?1=2&x", "h#x;y@:+", "日本 100%"])
def test_a_store_is_in_its_own_directory_whatever_the_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    store = prepare_new(folder)
    jobs = jobs_of(store)
    client = MlflowClient(tracking_uri=store.tracking_uri)
    runs = [jobs.create(request()).job_id, client.create_run("0").info.run_id]
    jobs.adopt(runs[1], request())
    (folder / "f.txt").write_text("x")
    for run_id, experiment in zip(runs, ("grpo", "0"), strict=True):
        jobs.upload(run_id, folder / "f.txt", verify=True)
        assert (folder / "mlruns" / experiment / run_id / "artifacts" / "f.txt").is_file()
        assert jobs.list_artifacts(run_id) == ["f.txt"]
        client.log_text(run_id, "by MLflow", "by/mlflow.txt")
        assert jobs.download(run_id, "by/mlflow.txt", folder).is_file()
    with sqlite3.connect(folder / "mlflow.db") as connection:
        # the two, and the ledger of claims
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (3,)
    assert prepare(folder) == store  # by its absolute URI, from another process's settings
    assert prepare(tmp_path, store.tracking_uri) == store
    assert [path.name for path in tmp_path.iterdir()] == [name]  # no folder of a misread name


def test_an_experiment_that_mlflow_made_in_an_oddly_named_directory_is_refused(tmp_path):
    folder = tmp_path / "a%20b"
    folder.mkdir()
    with working_in(folder):
        client = MlflowClient(tracking_uri=prepare_new(folder).tracking_uri)
        made = client.create_experiment("theirs")  # as `mlflow run --experiment-name theirs` does
        run_id = client.create_run(made).info.run_id
        with pytest.raises(StoreError, match="--experiment-name grpo"):
            JobStore(prepare(folder).tracking_uri).adopt(run_id, request())


def test_a_damaged_database_is_explained_at_the_start(tmp_path):
    used, copy = tmp_path / "used", tmp_path / "copy"
    used.mkdir()
    copy.mkdir()
    prepare(used)
    with sqlite3.connect(used / "mlflow.db") as source:
        source.execute("VACUUM INTO ?", [str(copy / "mlflow.db")])
    whole = (copy / "mlflow.db").read_bytes()
    for damaged in (b"this is no database " * 1_000, whole[:4096] + bytes(len(whole) - 4096)):
        (copy / "mlflow.db").write_bytes(damaged)
        with pytest.raises(StoreError, match=r"damaged.*store restore"):
            prepare(copy)


def test_a_directory_that_cannot_be_written_is_explained_at_the_start():
    with pytest.raises(StoreError, match=r"/proc/mlflow.db cannot be written.*MLFLOW_TRACKING_URI"):
        prepare_new(Path("/proc"))


def _prepare_and_count(folder):
    jobs = jobs_of(prepare_new(folder))
    jobs.create(request())
    return len(jobs.queued(100))


@pytest.mark.rotated(13)
def test_four_servers_may_start_on_one_fresh_directory_at_once(tmp_path):
    with processes(__name__).Pool(4) as pool:
        counts = pool.map(_prepare_and_count, [tmp_path] * 4, chunksize=1)
    assert max(counts) == 4


def _claim(arguments):
    uri, job_id, attempt, worker = arguments
    return JobStore(uri).claim(job_id, attempt, worker)


@pytest.mark.rotated(12)
@pytest.mark.parametrize("remote", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_of_four_processes_that_claim_at_once_one_wins(tmp_path, remote):
    server = TrackingServer(tmp_path)
    if remote:
        server.start()
    try:
        store = prepare(tmp_path, server.uri if remote else None)
        jobs = jobs_of(store)
        job_id = jobs.create(request()).job_id
        with processes(__name__).Pool(4) as pool:
            for attempt in range(1, 9):
                claims = [(store.tracking_uri, job_id, attempt, f"w{i}") for i in range(4)]
                assert pool.map(_claim, claims, chunksize=1).count(True) == 1
        run = MlflowClient(store.tracking_uri).get_run(job_id).data
        assert not [key for key in run.params if "claim" in key]  # it would lead every comparison
        assert jobs.get(job_id).claimed_by == run.tags["grpo.claim.1"]
    finally:
        server.stop()


def test_a_moved_directory_is_noticed_and_explained(tmp_path):
    (tmp_path / "old").mkdir()
    prepare(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(StoreError, match="moved"):
        prepare(tmp_path / "new")
    assert not (tmp_path / "old").exists()


@pytest.mark.parametrize("left", [True, False])  # an empty mount point, or nothing
def test_a_start_without_the_artifacts_is_refused_until_they_are_back_or_given_up(tmp_path, left):
    store = prepare(tmp_path)
    (tmp_path / "mlruns").rename(tmp_path / "away")
    if left:
        (tmp_path / "mlruns").mkdir()
    with pytest.raises(StoreGoneError, match="grpo-platform store adopt"):
        prepare(tmp_path)
    assert not (tmp_path / "mlruns" / "grpo").exists()
    with working_in(tmp_path, MLFLOW_TRACKING_URI=None):
        assert CliRunner().invoke(app, ["store", "adopt"]).exit_code == 0
    assert prepare(tmp_path) == store
    jobs_of(store).create(request())


@pytest.mark.rotated(12)
def test_a_store_on_a_full_disk_takes_no_jobs_and_says_so(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system may be mounted here")
    try:
        jobs = jobs_of(prepare_new(disk))
        jobs.check_writable()
        job_id = jobs.create(request()).job_id
        (tmp_path / "f.txt").write_bytes(bytes(1 << 16))
        jobs.upload(job_id, tmp_path / "f.txt", "kept")
        with pytest.raises(OSError, match="space"):
            (disk / "filler").write_bytes(bytes(32 << 20))
        time.sleep(1.1)  # a look holds for a second
        for call in (
            jobs.check_writable,
            lambda: jobs.create(request()),
            lambda: jobs.download(job_id, "kept", disk),
        ):
            with pytest.raises(StoreUnavailableError, match=r"No space left|disk is full"):
                call()
        (disk / "filler").unlink()
        jobs.check_writable()
        jobs.create(request())
        assert (jobs.download(job_id, "kept", disk) / "f.txt").stat().st_size == 1 << 16
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_an_artifact_root_that_vanishes_within_an_upload_is_not_made_anew(tmp_path):
    """What is being written then lies in the root wherever that was moved."""
    store = prepare(tmp_path)
    jobs = jobs_of(store)
    job_id = jobs.create(request()).job_id
    root, away, file = tmp_path / "mlruns", tmp_path / "away", tmp_path / "f.txt"
    file.write_text("x")
    stored, over = [], threading.Event()

    def upload():
        while not over.is_set():
            with contextlib.suppress(StoreUnavailableError):
                stored.append(jobs.upload(job_id, file, f"folder-{len(stored)}", verify=True))
                jobs.download(job_id, stored[-1], tmp_path)

    with ThreadPoolExecutor(1) as other:
        uploads = other.submit(upload)
        try:
            for _ in range(100):
                time.sleep(0.003)
                root.rename(away)
                time.sleep(0.003)
                away.rename(root)  # refused where somebody made it anew
        finally:
            over.set()
        uploads.result()
    artifacts = root / "grpo" / job_id / "artifacts"
    assert len(stored) > 20
    assert all((artifacts / path).read_text() == "x" for path in stored)


def test_an_artifact_root_that_vanishes_while_in_use_is_away_until_it_returns(tmp_path):
    bench = Bench(tmp_path)
    jobs, registry = jobs_of(bench.store), bench.registry
    job_id = jobs.create(request()).job_id
    (tmp_path / "f.txt").write_text("x")
    jobs.upload(job_id, tmp_path / "f.txt", "kept")
    version = bench.register("m")
    (tmp_path / "mlruns").rename(tmp_path / "away")
    for call in (
        lambda: jobs.create(request()),
        lambda: jobs.upload(job_id, tmp_path / "f.txt", "kept"),
        lambda: jobs.list_artifacts(job_id),
        lambda: jobs.download(job_id, "kept/f.txt", tmp_path),
        lambda: jobs.delete_artifact(job_id, "kept/f.txt"),
        lambda: registry.load_policy("m"),
        lambda: delete_model(registry, "m"),
        lambda: bench.register("m"),
    ):
        with pytest.raises(StoreGoneError, match="mounted"):
            call()
    assert not (tmp_path / "mlruns").exists()
    (tmp_path / "away").rename(tmp_path / "mlruns")
    assert jobs.list_artifacts(job_id) == ["kept"]
    assert registry.resolve("m") == version
    registry.load_policy("m")
    jobs.create(request())


def test_a_deleted_experiment_is_restored(tmp_path):
    store = prepare(tmp_path)
    client = MlflowClient(tracking_uri=store.tracking_uri)
    client.delete_experiment(store.experiment_id)
    assert prepare(tmp_path) == store
    jobs_of(store).create(request())


@pytest.mark.rotated(12)
def test_an_experiment_that_is_deleted_while_serving_is_restored_by_the_next_job(tmp_path):
    store = prepare(tmp_path)
    jobs, sweeps = jobs_of(store), SweepStore(jobs_of(store))
    client = MlflowClient(tracking_uri=store.tracking_uri)
    for create in (
        lambda: jobs.create(request()),
        lambda: sweeps.create(SweepRequest(search_space=SPACE, n_trials=1)),
    ):
        client.delete_experiment(store.experiment_id)
        create()
        assert client.get_experiment(store.experiment_id).lifecycle_stage == "active"
    client.delete_experiment(store.experiment_id)
    jobs_of(store).check_writable()  # a job could be taken
    _get_store(store.tracking_uri)._hard_delete_experiment(store.experiment_id)  # as `mlflow gc`
    for call in (lambda: jobs.create(request()), jobs_of(store).check_writable):
        with pytest.raises(StoreError, match="start the server again"):
            call()
    assert JobStore(prepare(tmp_path).tracking_uri).create(request())


@pytest.mark.rotated(4)
def test_a_store_that_a_ui_made_first_is_explained_where_it_cannot_be_used(tmp_path):
    # what a bare `mlflow ui` leaves behind: experiment 0 with artifacts behind the server
    code = (
        "from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as S;"
        f"S('sqlite:///{tmp_path / 'mlflow.db'}', 'mlflow-artifacts:/')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
    store = prepare(tmp_path)
    assert store.artifact_location.startswith("file:")
    client = MlflowClient(tracking_uri=store.tracking_uri)
    run_id = client.create_run("0").info.run_id
    with pytest.raises(StoreError, match="--experiment-name"):
        jobs_of(store).adopt(run_id, request())


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("file:///somewhere", "not supported"),
        ("mysql://host/db", "not supported"),
        ("databricks", "not supported"),
        ("postgresql://nobody@127.0.0.1:9/none", None),
    ],
)
def test_a_store_that_cannot_be_used_says_what_to_do(tmp_path, uri, says):
    with pytest.raises(StoreError, match=says):
        prepare(tmp_path, uri)


@pytest.mark.rotated(12)
def test_a_server_that_is_away_is_unavailable_within_seconds(tmp_path):
    with pytest.raises(StoreUnavailableError):
        prepare(tmp_path, "http://127.0.0.1:9")


@pytest.mark.rotated(7)
def test_an_old_schema_is_explained(tmp_path):
    prepare(tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    code = (
        "from grpo_platform.core.settings import Settings;"
        "from grpo_platform.tracking.store import prepare_store;"
        "from grpo_platform.core.errors import StoreError\n"
        "try: prepare_store(Settings())\n"
        "except StoreError as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "grpo-platform store upgrade" in done.stdout


def test_what_the_user_set_of_mlflow_stays(tmp_path):
    with working_in(tmp_path, MLFLOW_HTTP_REQUEST_TIMEOUT="7", MLFLOW_DISABLE_TELEMETRY=None):
        prepare(tmp_path)
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_half_created_runs_are_swept_up_at_the_next_start(tmp_path):
    store = prepare(tmp_path)
    client = MlflowClient(tracking_uri=store.tracking_uri)
    half = client.create_run(store.experiment_id, start_time=1, tags={"grpo.creating": "1"})
    fresh = client.create_run(store.experiment_id, tags={"grpo.creating": "1"})
    others = client.create_run(store.experiment_id, start_time=1)
    prepare(tmp_path)
    stages = {
        run.info.run_id: client.get_run(run.info.run_id).info.lifecycle_stage
        for run in (half, fresh, others)
    }
    assert list(stages.values()) == ["deleted", "active", "active"]
    assert Path(tmp_path / "mlflow.db").exists()


@pytest.mark.rotated(9)
def test_a_database_that_vanishes_while_in_use_is_away_until_it_returns(tmp_path):
    store = prepare(tmp_path)
    jobs = jobs_of(store)
    job_id = jobs.create(request()).job_id
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for file in tmp_path.glob("mlflow.db*"):
        file.rename(hidden / file.name)
    for call in (lambda: jobs.get(job_id), lambda: jobs.create(request()), lambda: jobs.queued(9)):
        with pytest.raises(StoreUnavailableError):
            call()
    assert not list(tmp_path.glob("mlflow.db*"))  # nobody made another
    for file in hidden.glob("mlflow.db*"):
        file.rename(tmp_path / file.name)
    assert jobs.get(job_id).job_id == job_id
    assert jobs.create(request()).job_id in {record.job_id for record in jobs.queued(9)}


def test_nothing_is_written_to_a_database_that_was_replaced(tmp_path):
    store = prepare(tmp_path)
    jobs = jobs_of(store)
    first = jobs.create(request()).job_id
    with sqlite3.connect(tmp_path / "mlflow.db") as source:
        copy = sqlite3.connect(tmp_path / "restored.db")
        source.backup(copy)
        copy.close()
    for file in tmp_path.glob("mlflow.db*"):
        file.unlink()
    (tmp_path / "restored.db").rename(tmp_path / "mlflow.db")
    second = jobs.create(request()).job_id
    fresh = JobStore(store.tracking_uri)
    assert {record.job_id for record in fresh.queued(9)} == {first, second}
