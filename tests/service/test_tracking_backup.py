"""Backup and restore of a sqlite store: whole, checked, and never under a server."""

import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from grpo_platform.cli import app
from grpo_platform.core.errors import ConflictError, InvalidRequestError, StoreError
from grpo_platform.tracking.backup import back_up_store, restore_store
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.locations import sqlite_uri
from grpo_platform.tracking.store import Store, hold_store
from tests.service.registry_support import Bench
from tests.service.tracking_support import jobs_of, processes, request, working_in


def invoke(folder, *words):
    with working_in(folder, MLFLOW_TRACKING_URI=None):
        return CliRunner().invoke(app, ["store", *words])


def _crash_in_the_middle(uri):
    """Write without end, and die with the log of the last writes beside the database."""
    jobs = JobStore(uri)
    for _ in range(3):
        jobs.create(request())
    os._exit(1)


def _serve(store, ready, leave):
    hold_store(store)
    ready.set()
    leave.wait()


def _count(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with a model and a job with an artifact, and a copy of it as it was made."""
    folder = tmp_path_factory.mktemp("made") / "a%20b"
    folder.mkdir()
    maker = run(_make, folder)
    maker.join()
    assert maker.exitcode == 0
    shutil.copytree(folder, folder.with_name("pristine"))
    return folder


@pytest.fixture
def used(made):
    """The store as it was made, which no process has open."""
    shutil.rmtree(made)
    shutil.copytree(made.with_name("pristine"), made)
    return made


def _make(folder):
    bench = Bench(folder)
    bench.register("m")
    jobs = jobs_of(bench.store)
    (folder / "f.txt").write_text("x")
    jobs.upload(jobs.create(request()).job_id, folder / "f.txt", "kept")


def uri_of(folder):
    return sqlite_uri(folder / "mlflow.db")


def run(target, *arguments):
    process = processes(__name__).Process(target=target, args=arguments)
    process.start()
    return process


def _check_what_was_restored(folder):
    bench = Bench(folder)
    bench.registry.load_policy("m")
    (job,) = bench.registry.client.search_runs(["1"], "tags.`grpo.job` = '1'")
    assert jobs_of(bench.store).list_artifacts(job.info.run_id, "kept") == ["kept/f.txt"]


@pytest.mark.rotated(7)
def test_a_store_is_restored_after_a_crash_as_it_was(used, tmp_path):
    before = _count(used / "mlflow.db")
    done = invoke(used, "backup", str(tmp_path / "copy"))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0
    crashed = run(_crash_in_the_middle, uri_of(used))
    crashed.join()
    assert (used / "mlflow.db-wal").stat().st_size > 0
    shutil.rmtree(used / "mlruns" / "grpo" / "models")
    restored = invoke(used, "restore", str(tmp_path / "copy"))
    assert restored.exit_code == 0, restored.output
    assert _count(used / "mlflow.db") == before
    (old,) = used.glob("mlflow.db.before-restore-*")
    assert _count(old) == before + 3
    checked = run(_check_what_was_restored, used)
    checked.join()
    assert checked.exitcode == 0


def test_a_store_in_use_is_copied_whole(tmp_path):
    bench = Bench(tmp_path / "used")
    jobs = jobs_of(bench.store)
    ended = threading.Event()

    def write():
        while not ended.is_set():
            jobs.create(request())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        bench.register("m")
        manifest = back_up_store(bench.uri, tmp_path / "copy")
        count = _count(tmp_path / "copy" / "mlflow.db")
    finally:
        ended.set()
        writer.join()
    assert count > 2
    assert not manifest.missing
    assert sum(name.endswith("weights.pt") for name in manifest.files) == 1
    with pytest.raises(ConflictError, match="stop the server"):
        restore_store(bench.uri, tmp_path / "copy")
    assert not list((tmp_path / "used").glob("*restor*"))


def test_a_damaged_database_is_replaced_but_not_under_a_server(used, tmp_path):
    back_up_store(uri_of(used), tmp_path / "copy")
    context = processes(__name__)
    ready, leave = context.Event(), context.Event()
    location = (used / "mlruns" / "grpo").as_uri()
    store = Store(tracking_uri=uri_of(used), experiment_id="1", artifact_location=location)
    server = run(_serve, store, ready, leave)
    assert ready.wait(60)
    (used / "mlflow.db").write_bytes(b"this is no database " * 1_000)
    (used / "mlflow.db-wal").write_bytes(b"nor its log")
    with pytest.raises(ConflictError, match="in use"):
        restore_store(uri_of(used), tmp_path / "copy")
    leave.set()
    server.join()
    restored = restore_store(uri_of(used), tmp_path / "copy")
    assert {path.parent for path in restored.kept} == {used, used / "mlruns"}
    assert not (used / "mlflow.db-wal").exists()
    assert _count(used / "mlflow.db") == _count(tmp_path / "copy" / "mlflow.db")


def test_a_backup_that_is_not_whole_changes_nothing(used, tmp_path):
    copy = tmp_path / "copy"
    back_up_store(uri_of(used), copy)
    weights = next(copy.rglob("weights.pt"))
    whole = weights.read_bytes()
    before = sorted(used.rglob("*"))
    for damage in (lambda: weights.write_bytes(whole[:-1]), weights.unlink):
        damage()
        with pytest.raises(StoreError, match="backup is damaged"):
            restore_store(uri_of(used), copy)
    weights.write_bytes(whole)
    (copy / "manifest.json").write_text('{"format": 1')
    with pytest.raises(InvalidRequestError, match="no backup"):
        restore_store(uri_of(used), copy)
    assert sorted(used.rglob("*")) == before


def test_what_cannot_be_backed_up_or_restored_is_told(used, tmp_path):
    back_up_store(uri_of(used), tmp_path / "copy")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for words, said in (
        (("restore", str(tmp_path / "copy")), "restore it from"),
        (("restore", str(elsewhere)), "no backup"),
        (("backup", str(elsewhere)), "exists already"),
        (("backup", str(tmp_path / "other")), "There is no database"),
    ):
        refused = invoke(elsewhere, *words)
        assert refused.exit_code == 1
        assert said in " ".join(refused.output.split())
    inside = invoke(used, "backup", str(used / "mlruns" / "grpo" / "copy"))
    assert "in what it copies" in inside.output
    with pytest.raises(InvalidRequestError, match="pg_dump"):
        back_up_store("postgresql://host/db", tmp_path / "other")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["copy", "elsewhere"]
    assert list(elsewhere.iterdir()) == []
