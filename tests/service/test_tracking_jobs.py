"""Jobs in a real sqlite store, and the same over a real MLflow server."""

import concurrent.futures
import itertools
import json
import math
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_store

from grpo.errors import UnknownNameError
from grpo_platform.core.errors import (
    ConflictError,
    InvalidPageTokenError,
    InvalidRequestError,
    StoreError,
    UnknownJobError,
)
from grpo_platform.core.names import Metric, Tag
from grpo_platform.core.request import JobRequest
from grpo_platform.core.states import JobStatus
from grpo_platform.tracking import histories, reader, runs
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.records import RUN_STATUS
from grpo_platform.tracking.reporter import Point
from tests.service.tracking_support import jobs_of, prepare, request


@pytest.fixture
def jobs(store):
    return jobs_of(store)


@pytest.fixture
def client(store):
    return MlflowClient(tracking_uri=store.tracking_uri)


def running(jobs, **fields):
    record = jobs.create(request(**fields))
    assert jobs.claim(record.job_id, 1, "w")
    return jobs.start(record.job_id, "w")


@pytest.mark.rotated(8)
def test_a_created_job_is_queued_and_whole(jobs, client):
    before = datetime.now(UTC)
    wanted = request(
        seed=7, total_timesteps=500, env_kwargs={"sutton_barto_reward": True},
        model_name="m", promote="never", max_seconds=60.0,
    )  # fmt: skip
    made = jobs.create(wanted)
    assert jobs.get(made.job_id) == made
    assert made.status is JobStatus.QUEUED
    assert made.request == wanted
    assert made.model_name == "m"
    assert made.progress == 0.0
    assert made.end_time is None
    assert abs((made.start_time - before).total_seconds()) < 5
    run = client.get_run(made.job_id)
    assert run.info.status == "SCHEDULED"
    assert set(run.data.params) == set(wanted.to_dict())
    assert run.data.params["seed"] == "7"
    assert run.data.params["net_arch"] == "[64, 64]"
    assert json.loads(run.data.params["env_kwargs"]) == {"sutton_barto_reward": True}


@pytest.mark.rotated(8)
def test_a_job_without_a_model_name_gets_one_of_its_own(jobs):
    made = jobs.create(request())
    assert made.model_name == f"grpo_model_{made.job_id}"
    assert [r.job_id for r in jobs.list(model_name=made.model_name).items] == [made.job_id]


def test_what_cannot_be_stored_is_refused_before_anything_is_made(jobs):
    count = len(jobs.list(limit=1000).items)
    with pytest.raises(InvalidRequestError) as caught:
        jobs.create(request(env_kwargs={"text": "x" * 9000}))
    assert caught.value.field == "env_kwargs"
    with pytest.raises(InvalidRequestError):
        jobs.create(request(env_kwargs={"text": "x" * 6500}))
    assert len(jobs.list(limit=1000).items) == count


@pytest.mark.parametrize("status", list(JobStatus))
def test_each_status_is_the_documented_run_status(jobs, client, status):
    record = jobs.create(request())
    if status is not JobStatus.QUEUED:
        jobs.start(record.job_id, "w")
    if status not in (JobStatus.QUEUED, JobStatus.RUNNING):
        jobs.finish(record.job_id, status, "why")
    expected = {
        "queued": "SCHEDULED", "running": "RUNNING", "completed": "FINISHED", "failed": "FAILED",
        "stopped": "KILLED",
    }  # fmt: skip
    assert client.get_run(record.job_id).info.status == expected[status]
    assert jobs.get(record.job_id).status is status
    assert set(RUN_STATUS) == set(JobStatus)


def test_the_end_is_null_until_a_job_is_terminal_also_after_resume(jobs):
    record = running(jobs)
    assert record.end_time is None
    failed = jobs.finish(record.job_id, JobStatus.FAILED, "no more memory")
    assert failed.end_time is not None
    assert failed.error_message == "no more memory"
    resumed = jobs.resume(record.job_id)
    assert (resumed.status, resumed.end_time, resumed.error_message) == (
        JobStatus.QUEUED, None, None,
    )  # fmt: skip
    assert resumed.attempt == 2
    again = jobs.start(record.job_id, "w2")
    assert again.end_time is None
    time.sleep(0.01)
    done = jobs.finish(record.job_id, JobStatus.COMPLETED)
    assert done.end_time > failed.end_time
    assert done.progress == 1.0


def test_finishing_twice_is_fine_but_not_in_another_way(jobs):
    record = running(jobs)
    first = jobs.finish(record.job_id, JobStatus.COMPLETED)
    assert jobs.finish(record.job_id, JobStatus.COMPLETED) == first
    with pytest.raises(ConflictError):
        jobs.finish(record.job_id, JobStatus.FAILED, "late")
    assert jobs.get(record.job_id).error_message is None


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.STOPPED])
def test_a_finished_job_is_not_stopped_requeued_or_started(jobs, status):
    job_id = running(jobs).job_id
    jobs.finish(job_id, status)
    for move in (
        lambda: jobs.request_stop(job_id),
        lambda: jobs.requeue(job_id, crashed=True),
        lambda: jobs.start(job_id, "w"),
    ):
        with pytest.raises(ConflictError, match=f"Job {job_id} is {status.value}"):
            move()
    assert jobs.get(job_id).status is status


def test_only_stopped_and_failed_jobs_resume(jobs):
    job_id = jobs.create(request()).job_id
    with pytest.raises(ConflictError):
        jobs.resume(job_id)
    jobs.start(job_id, "w")
    with pytest.raises(ConflictError):
        jobs.resume(job_id)
    jobs.finish(job_id, JobStatus.COMPLETED)
    with pytest.raises(ConflictError):
        jobs.resume(job_id)


def test_a_stop_request_lasts_until_the_job_is_resumed(jobs):
    job_id = running(jobs).job_id
    jobs.request_stop(job_id)
    assert jobs.get(job_id).stop_requested
    assert jobs.requeue(job_id, crashed=False).stop_requested
    jobs.finish(job_id, JobStatus.STOPPED)
    assert not jobs.resume(job_id).stop_requested


def test_requeue_counts_attempts_and_crashes(jobs):
    job_id = running(jobs).job_id
    lost = jobs.requeue(job_id, crashed=True, attempt=1)
    assert (lost.status, lost.attempt, lost.crashes) == (JobStatus.QUEUED, 2, 1)
    twice = jobs.requeue(job_id, crashed=True, attempt=1)
    assert (twice.attempt, twice.crashes) == (2, 1)
    left = jobs.requeue(job_id, crashed=False)
    assert (left.attempt, left.crashes) == (3, 1)


def test_a_requeue_that_stopped_half_way_is_completed_and_counts_once(jobs):
    job_id = running(jobs).job_id
    jobs.set_tags(job_id, {Tag.ATTEMPT: "2", Tag.CRASHES: "1"})
    found = jobs.requeue(job_id, crashed=False, attempt=2)
    assert (found.status, found.attempt, found.crashes) == (JobStatus.QUEUED, 2, 1)


def test_one_worker_wins_a_claim(jobs):
    job_id = jobs.create(request()).job_id
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(lambda i: jobs.claim(job_id, 1, f"w{i}"), range(8)))
    assert wins.count(True) == 1
    winner = f"w{wins.index(True)}"
    assert jobs.claim(job_id, 1, winner)  # asked again after an answer that was lost
    assert not jobs.claim(job_id, 1, "another")
    assert jobs.claim(job_id, 2, "another")


def test_claims_of_an_earlier_release_are_honoured(jobs):
    """It kept them as params of the job's own run, where there is no ledger."""
    client = MlflowClient(tracking_uri=jobs.tracking_uri)
    job_id = jobs.create(request()).job_id
    client.delete_tag(job_id, Tag.LEDGER)
    client.log_param(job_id, "claim.1", "earlier")
    assert jobs.get(job_id).claimed_by == "earlier"
    assert not jobs.claim(job_id, 1, "new")
    jobs.requeue(job_id, crashed=True)
    assert jobs.claim(job_id, 2, "new")
    assert not jobs.claim(job_id, 2, "another")
    assert client.get_run(job_id).data.params["claim.2"] == "new"
    assert jobs.get(job_id).claimed_by == "new"


def test_a_claim_holds_whatever_happens_to_its_ledger(jobs):
    client = MlflowClient(tracking_uri=jobs.tracking_uri)
    job_id = jobs.create(request()).job_id
    book = client.get_run(job_id).data.tags[Tag.LEDGER]
    client.log_param(book, f"{job_id}.1", "dead")  # it had no time to show it on the run
    assert jobs.get(job_id).claimed_by is None
    assert not jobs.claim(job_id, 1, "new")
    assert jobs.get(job_id).claimed_by == "dead"
    client.delete_experiment(client.get_run(book).info.experiment_id)
    assert jobs.claim(job_id, 2, "w")
    assert client.get_run(book).data.params[f"{job_id}.2"] == "w"
    if jobs.tracking_uri.startswith("http"):
        return
    client.delete_run(book)
    _get_store(jobs.tracking_uri)._hard_delete_run(book)  # as `mlflow gc`
    assert not jobs.claim(job_id, 2, "another")
    assert jobs.claim(job_id, 3, "w")
    assert not jobs.claim(job_id, 3, "another")
    later = JobStore(jobs.tracking_uri)  # finds the newest ledger gone, and makes another
    job_id = later.create(request()).job_id
    assert client.get_run(job_id).data.tags[Tag.LEDGER] != book
    assert later.claim(job_id, 1, "w")


def test_jobs_share_ledgers_that_do_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_CLAIMED_RUNS", 3)
    uri = prepare(tmp_path).tracking_uri
    client = MlflowClient(tracking_uri=uri)
    one, two = JobStore(uri), JobStore(uri)
    used = []
    for store in (one, one, two, one, one):
        job_id = store.create(request()).job_id
        assert store.claim(job_id, 1, "w")
        used.append(client.get_run(job_id).data.tags[Tag.LEDGER])
    assert used[0] == used[1] == used[2] == used[3]  # by then it holds four
    assert used[4] != used[0]


def test_queued_and_running_are_oldest_first(jobs):
    first, second = (jobs.create(request(seed=seed)).job_id for seed in (1, 2))
    queued = [record.job_id for record in jobs.queued(1000)]
    assert queued.index(first) < queued.index(second)
    assert jobs.queued(1) == jobs.queued(1000)[:1]
    jobs.start(second, "w")
    assert second in [record.job_id for record in jobs.running()]
    assert second not in [record.job_id for record in jobs.queued(1000)]


def test_a_beat_tells_life_and_what_is_written_with_points_progress(jobs):
    job_id = running(jobs, total_timesteps=200).job_id
    before = time.time_ns() // 1_000_000
    jobs.beat(job_id)
    jobs.log_points(job_id, [], {Tag.TIMESTEPS: "50"})
    record = jobs.get(job_id)
    assert record.heartbeat_ms >= before
    assert (record.current_timesteps, record.progress) == (50, 0.25)


def test_metrics_come_back_finite_and_json_never_breaks(jobs):
    job_id = running(jobs, total_timesteps=100).job_id
    points = [Point(Metric.TIMESTEPS, float(i), i, 1_000 + i) for i in range(1, 51)]
    points += [
        Point("a", math.nan, 1, 1), Point("b", math.inf, 1, 1), Point("c", -math.inf, 1, 1),
        Point("d", 1.5, 1, 1), Point("d", math.nan, 2, 2),
    ]  # fmt: skip
    jobs.log_points(job_id, points, {"tag": "with it"})
    record = jobs.get(job_id)
    assert record.metrics == {Metric.TIMESTEPS: 50.0}
    json.dumps(dict(record.metrics), allow_nan=False)
    assert record.current_timesteps == 50
    assert jobs.history(job_id, "d", 10) == [(1, 1.5, 1)]
    assert jobs.list(limit=1).items[0].metrics == record.metrics


@pytest.mark.rotated(8)
def test_thousands_of_points_are_written_and_read(jobs):
    job_id = running(jobs).job_id
    points = [Point("x", float(i), i, i) for i in range(2_500)]
    jobs.log_points(job_id, points)
    jobs.log_points(job_id, points[2_000:])  # again, as after an answer that was lost
    assert jobs.last_steps(job_id, ["x", "y"]) == {"x": 2_499}
    assert [p.step for p in jobs.history(job_id, "x", 10_000)] == list(range(2_500))
    thinned = jobs.history(job_id, "x", 100)
    assert len(thinned) == 100
    assert (thinned[0].step, thinned[-1].step) == (0, 2_499)
    assert jobs.history(job_id, "eval/iqm", 10) == []
    with pytest.raises(UnknownNameError, match="Did you mean 'eval/iqm'"):
        jobs.history(job_id, "eval/iqr", 10)


def test_a_long_error_is_cut_not_lost(jobs):
    job_id = running(jobs).job_id
    assert jobs.finish(job_id, JobStatus.FAILED, "x" * 20_000).error_message == "x" * 4_000


def test_an_error_that_no_database_takes_is_told_as_far_as_it_can_be(jobs):
    job_id = running(jobs).job_id
    told = jobs.finish(job_id, JobStatus.FAILED, "no file a\udcff\x00b").error_message
    assert told == "no file a??b"


def test_a_claimed_job_that_a_second_server_queued_again_can_still_be_completed(jobs):
    job_id = jobs.create(request()).job_id
    assert jobs.claim(job_id, 1, "worker")
    with pytest.raises(ConflictError):
        jobs.finish(jobs.create(request()).job_id, JobStatus.COMPLETED)  # nobody claimed this one
    assert jobs.finish(job_id, JobStatus.COMPLETED).status is JobStatus.COMPLETED


def test_a_server_that_queues_a_job_again_too_late_leaves_it_to_its_new_worker(jobs, store):
    job_id = running(jobs).job_id

    class Late(JobStore):
        """A server that stands still for a moment while another does the same."""

        def set_tags(self, job_id, tags):
            super().set_tags(job_id, tags)
            jobs.requeue(job_id, crashed=True, attempt=1)
            assert jobs.claim(job_id, 2, "new")
            jobs.start(job_id, "new")

    late = Late(store.tracking_uri, store.experiment_id).requeue(job_id, crashed=True, attempt=1)
    assert (late.status, late.attempt, late.crashes) == (JobStatus.RUNNING, 2, 1)
    assert late.claimed_by == late.worker == "new"


BAD_IDS = [
    "", "x", "0" * 31, "0" * 33, "A" * 32, "../../etc/passwd", "a' OR '1'='1", "0" * 31 + "\n",
    "\x00" * 32, "é" * 32, "g" * 32, "x" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("job_id", [*BAD_IDS, "0" * 32], ids=lambda text: repr(text[:20]))
def test_what_is_not_a_job_is_unknown(jobs, job_id, tmp_path):
    (tmp_path / "f").write_text("x")
    for call in (
        lambda: jobs.get(job_id),
        lambda: jobs.claim(job_id, 1, "w"),
        lambda: jobs.start(job_id, "w"),
        lambda: jobs.beat(job_id),
        lambda: jobs.requeue(job_id, crashed=True),
        lambda: jobs.resume(job_id),
        lambda: jobs.finish(job_id, JobStatus.FAILED),
        lambda: jobs.request_stop(job_id),
        lambda: jobs.delete(job_id),
        lambda: jobs.set_tags(job_id, {"a": "b"}),
        lambda: jobs.log_points(job_id, [Point("x", 1.0, 1, 1)]),
        lambda: jobs.last_steps(job_id, ["x"]),
        lambda: jobs.history(job_id, "x", 10),
        lambda: jobs.upload(job_id, tmp_path / "f"),
        lambda: jobs.list_artifacts(job_id),
        lambda: jobs.adopt(job_id, request()),
    ):
        with pytest.raises(UnknownJobError):
            call()


def test_runs_of_others_are_never_seen(jobs, client, store):
    other = client.create_run(store.experiment_id)
    client.set_tag(other.info.run_id, "grpo.note", "not a job")
    with pytest.raises(UnknownJobError):
        jobs.get(other.info.run_id)
    with pytest.raises(UnknownJobError):
        jobs.delete(other.info.run_id)
    assert other.info.run_id not in [r.job_id for r in jobs.list(limit=1000).items]
    assert other.info.run_id not in [r.job_id for r in jobs.running()]
    assert client.get_run(other.info.run_id).info.lifecycle_stage == "active"


def test_a_half_created_job_is_not_a_job(jobs, client, store):
    half = client.create_run(store.experiment_id, tags={Tag.CREATING: "1"})
    assert half.info.run_id not in [r.job_id for r in jobs.running()]
    with pytest.raises(UnknownJobError):
        jobs.get(half.info.run_id)


def test_a_run_deleted_in_mlflow_is_forgotten(jobs, client):
    job_id = running(jobs).job_id
    client.delete_run(job_id)
    assert jobs.get(job_id, include_deleted=True).deleted
    assert job_id not in [r.job_id for r in jobs.running()]
    for call in (
        lambda: jobs.get(job_id),
        lambda: jobs.beat(job_id),
        lambda: jobs.log_points(job_id, [Point("x", 1.0, 1, 1)]),
        lambda: jobs.claim(job_id, 2, "w"),
        lambda: jobs.finish(job_id, JobStatus.COMPLETED),
    ):
        with pytest.raises(UnknownJobError):
            call()


def test_a_damaged_request_is_reported_and_breaks_no_list(jobs, client):
    record = jobs.create(request(env_name="Acrobot-v1"))
    for text in ("", "{", "[]", '{"unknown": 1}', '{"seed": "x"}', "null", '{"seed": -1}'):
        client.set_tag(record.job_id, Tag.REQUEST, text)
        damaged = jobs.get(record.job_id)
        assert damaged.request_error
        assert damaged.request.config.env_name == "Acrobot-v1"
        assert damaged == jobs.list(env_name="Acrobot-v1").items[0]
    client.set_tag(record.job_id, Tag.ATTEMPT, "many")
    assert jobs.get(record.job_id).attempt == 1


def test_an_idempotency_key_finds_its_job(jobs):
    key = 'it\'s "mine" `é`'
    made, is_new = jobs.create_once(request(), key)
    assert is_new
    assert jobs.find_idempotent(key).job_id == made.job_id
    assert jobs.find_idempotent(key + " ") is None
    assert jobs.create_once(request(), key) == (jobs.get(made.job_id), False)


@pytest.mark.rotated(8)
def test_adopting_the_run_of_mlflow_run(jobs, client, store):
    experiment = client.create_experiment("users own", artifact_location=None)
    run_id = client.create_run(experiment).info.run_id
    for name, text in (("learning_rate", "3e-4"), ("total_timesteps", "500"), ("model_name", "''")):
        client.log_param(run_id, name, text)
    record = jobs.adopt(run_id, request(total_timesteps=500, learning_rate=0.0003))
    assert record.status is JobStatus.RUNNING
    assert record.attempt == 1
    assert record.heartbeat_ms is not None
    assert jobs.adopt(run_id, request(total_timesteps=500)) == record
    params = client.get_run(run_id).data.params
    assert params["learning_rate"] == "3e-4"
    assert params["seed"] == "0"
    time.sleep(2.1)  # experiments that hold jobs are read every two seconds
    assert run_id in [r.job_id for r in jobs.running()]
    client.delete_experiment(experiment)


def test_adopting_with_other_values_is_refused(jobs, client, store):
    run_id = client.create_run(store.experiment_id).info.run_id
    client.log_param(run_id, "total_timesteps", "500")
    with pytest.raises(InvalidRequestError, match="total_timesteps"):
        jobs.adopt(run_id, request(total_timesteps=501))
    with pytest.raises(UnknownJobError):
        jobs.get(run_id)


def test_artifacts_are_stored_verified_listed_fetched_and_deleted(jobs, tmp_path):
    job_id = running(jobs).job_id
    source = tmp_path / "0001 ü.npz"
    source.write_bytes(bytes(range(256)) * 5_000)
    path = jobs.upload(job_id, source, "checkpoints", verify=True)
    assert path == "checkpoints/0001 ü.npz"
    assert jobs.list_artifacts(job_id) == ["checkpoints"]
    assert jobs.list_artifacts(job_id, "checkpoints") == [path]
    target = tmp_path / "fetched"
    target.mkdir()
    assert jobs.download(job_id, path, target).read_bytes() == source.read_bytes()
    with pytest.raises(StoreError):
        jobs.download(job_id, "checkpoints/none.npz", target)
    jobs.delete_artifact(job_id, path)
    jobs.delete_artifact(job_id, path)
    assert jobs.list_artifacts(job_id, "checkpoints") == []


def test_delete_really_deletes(jobs, client, store, tmp_path):
    job_id = running(jobs).job_id
    jobs.log_points(job_id, [Point("x", 1.0, 1, 1)])
    (tmp_path / "f.txt").write_text("x")
    jobs.upload(job_id, tmp_path / "f.txt", "logs")
    with pytest.raises(ConflictError):
        jobs.delete(job_id)
    jobs.finish(job_id, JobStatus.STOPPED)
    kept = running(jobs).job_id
    jobs.upload(kept, tmp_path / "f.txt", "logs")
    jobs.delete(job_id)
    with pytest.raises(UnknownJobError):
        jobs.get(job_id)
    with pytest.raises(UnknownJobError):
        jobs.delete(job_id)
    if store.is_local:
        with pytest.raises(UnknownJobError):
            jobs.get(job_id, include_deleted=True)  # the rows are gone as well
    assert jobs.list_artifacts(kept, "logs") == ["logs/f.txt"]


def test_delete_leaves_no_file(tmp_path):
    store = prepare(tmp_path)
    jobs = jobs_of(store)
    job_id = running(jobs).job_id
    (tmp_path / "f.txt").write_text("x")
    jobs.upload(job_id, tmp_path / "f.txt", "logs")
    assert list(tmp_path.rglob("mlruns/**/f.txt"))
    jobs.finish(job_id, JobStatus.STOPPED)
    jobs.delete(job_id)
    assert [p for p in (tmp_path / "mlruns").rglob("*") if job_id in str(p)] == []


# -- lists ---------------------------------------------------------------------------------------


def test_pages_hold_each_job_once_whatever_is_added_meanwhile(tmp_path):
    jobs = jobs_of(prepare(tmp_path))
    made = [jobs.create(request(seed=seed)).job_id for seed in range(7)]
    seen, token = [], None
    while True:
        page = jobs.list(limit=3, page_token=token)
        seen += [record.job_id for record in page.items]
        jobs.create(request(seed=99))
        token = page.next_page_token
        if token is None:
            break
    assert seen == made[::-1]


def test_pages_split_jobs_of_one_millisecond(tmp_path, monkeypatch):
    jobs = jobs_of(prepare(tmp_path))
    monkeypatch.setattr("grpo_platform.tracking.jobs.now_ms", lambda: 1_700_000_000_000)
    made = {jobs.create(request(seed=seed)).job_id for seed in range(7)}
    seen, token = [], None
    while True:
        page = jobs.list(limit=2, page_token=token)
        seen += [record.job_id for record in page.items]
        token = page.next_page_token
        if token is None:
            break
    assert len(seen) == 7
    assert set(seen) == made


def test_lists_are_filtered(jobs):
    mine = request(env_name="Acrobot-v1", model_name="filtered")
    first, second = (jobs.create(mine).job_id for _ in range(2))
    jobs.start(second, "w")
    assert [r.job_id for r in jobs.list(model_name="filtered").items] == [second, first]
    both = jobs.list(model_name="filtered", status=JobStatus.QUEUED, env_name="Acrobot-v1")
    assert [r.job_id for r in both.items] == [first]
    assert jobs.list(model_name="filtered", env_name="CartPole-v1").items == []


def test_a_frequent_kind_is_listed_as_a_rare_one_is(tmp_path, monkeypatch):
    """Whether the newest runs hold enough of them or not, no job is left out or doubled."""
    jobs = jobs_of(prepare(tmp_path))
    kinds = ["CartPole-v1"] * 3 + ["Acrobot-v1"] * 9 + ["CartPole-v1", "Acrobot-v1"] * 2
    made = [(kind, jobs.create(request(env_name=kind)).job_id) for kind in kinds]
    monkeypatch.setattr(reader, "_MANY", 3)
    monkeypatch.setattr(reader, "_SPARE", 1)
    for window, kind in itertools.product((1, 2), set(kinds)):
        monkeypatch.setattr(reader, "_WINDOW", window)
        seen, token = [], None
        while True:
            page = jobs.list(env_name=kind, limit=2, page_token=token)
            seen += [record.job_id for record in page.items]
            if (token := page.next_page_token) is None:
                break
        assert seen == [job_id for kind_made, job_id in reversed(made) if kind_made == kind]


def test_a_token_only_continues_its_own_list(jobs):
    for seed in range(3):
        jobs.create(request(seed=seed))
    token = jobs.list(limit=1).next_page_token
    assert jobs.list(limit=1, page_token=token).items
    with pytest.raises(InvalidPageTokenError):
        jobs.list(limit=1, page_token=token, status=JobStatus.QUEUED)
    for bad in ("", "x", token[:-2], token + "A", "é", "AAAA", "=" * 4, "bnVsbA", "W10"):
        with pytest.raises(InvalidPageTokenError):
            jobs.list(limit=1, page_token=bad)


@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=40), field=st.sampled_from(["env_name", "model_name", "page_token"]))
def test_no_text_breaks_a_list(sqlite_store, text, field):
    jobs = jobs_of(sqlite_store)
    try:
        found = jobs.list(limit=1, **{field: text}).items
    except InvalidPageTokenError:
        assert field == "page_token"
    else:
        assert all(isinstance(record.request, JobRequest) for record in found)


def test_a_history_that_changes_no_more_is_read_once():
    read = []

    def stored(run_ids):
        read.append(run_ids)
        points = {"a": [(1, 1, 1.0), (2, 1, 2.0)], "b": [(1, 1, 3.0)], "c": []}
        found = {run_id: histories._history(points[run_id]) for run_id in run_ids}
        return {run_id: history for run_id, history in found.items() if len(history.steps)}

    cache = histories.HistoryCache(max_points=100)  # three of them
    first = cache.read(["a", "b", "c"], "m", ["a", "c"], stored)
    again = cache.read(["a", "b", "c"], "m", ["a", "c"], stored)
    assert list(first) == list(again) == ["a", "b"]
    assert again["a"].values.tolist() == [1.0, 2.0]
    assert read == [["a", "b", "c"], ["b"]], "c has no points, and never will"
    cache.read(["b"], "m", ["b"], stored)
    assert cache.read(["b"], "m", ["b"], stored).keys() == {"b"}
    assert len(read) == 3
    cache.read(["c"], "other", ["c"], stored)  # no room: what was used longest ago goes
    cache.read(["a"], "m", ["a"], stored)
    assert read[3:] == [["c"], ["a"]]
    with pytest.raises(ValueError, match="read-only"):
        again["a"].values[0] = 9.0


def test_the_histories_of_many_jobs_are_read_together(jobs):
    first, second, empty = (jobs.create(request()).job_id for _ in range(3))
    key = Metric.EPISODE_RETURN
    written = [(10, 1.0, 5), (30, 3.0, 6), (20, 2.0, 7), (20, 2.5, 8), (40, float("nan"), 9)]
    jobs.log_points(first, [Point(key, value, step, at) for step, value, at in written])
    jobs.log_points(second, [Point(key, -1.0, 7, 1), Point(Metric.REWARD, 9.0, 7, 1)])
    found = jobs.histories_of([first, second, empty], key)
    assert found.keys() == {first, second}
    assert found[first].steps.tolist() == [10, 20, 30]
    assert found[first].values.tolist() == [1.0, 2.5, 3.0]
    assert found[second].values.tolist() == [-1.0]
    assert jobs.histories_of([], key) == jobs.histories_of([empty], key) == {}
    with pytest.raises(UnknownNameError, match="ep_rew_mean"):
        jobs.histories_of([first], "rollout/ep_rew_men")
    with pytest.raises(UnknownJobError):
        jobs.histories_of(["x' OR 1"], key)
