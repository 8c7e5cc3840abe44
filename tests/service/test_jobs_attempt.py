"""An attempt, whatever comes when: orders, the trainer's words, the store; in time that is told."""

import itertools
import json
import os
import shutil
from multiprocessing import Pipe

import pytest

from grpo_platform.core.errors import StoreError, StoreUnavailableError, UnknownJobError
from grpo_platform.core.names import Tag
from grpo_platform.core.process import worker_name
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.completion import Completion
from grpo_platform.jobs.lease import LEASE_SECONDS
from grpo_platform.jobs.run_writer import read_log
from grpo_platform.jobs.trainer_process import train
from grpo_platform.jobs.worker import LEAVE_SECONDS, OVERTIME_SECONDS, STOP_GRACE_SECONDS
from grpo_platform.registry.models import Registry
from grpo_platform.tracking.files import RunFiles
from grpo_platform.tracking.reporter import Point
from tests.service.tracking_support import prepare, request
from tests.service.worker_support import World

FIELDS = {"n_eval_episodes": 2, "promote": "always"}
ENVIRONMENT = {"resumes_exactly": True, "branching": "exact", "branching_reason": "It is."}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("attempt"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What a real trainer leaves: its last message, and the checkpoint that this one names."""
    folder = tmp_path_factory.mktemp("trained")
    ours, theirs = Pipe()
    order = {"kind": "start", "checkpoint": None, "weights": None, "seconds": 0.0}
    ours.send_bytes(json.dumps(order).encode())
    train(theirs, request(total_timesteps=600, seed=5, **FIELDS), folder)
    said = [json.loads(ours.recv_bytes()) for _ in iter(ours.poll, False)]
    return said[-1]


@pytest.fixture
def world(place, tmp_path):
    def make(**fields):
        return World(place, tmp_path, **FIELDS | fields)

    return make


def points(*steps):
    made = [["rollout/ep_rew_mean", float(step), step, 1000 + step] for step in steps]
    return {"points": made, "timesteps": steps[-1], "seconds": steps[-1] / 100}


def file_of(one, trained, name="local"):
    """A checkpoint that the trainer has just written."""
    path = one.folder / f"{name}.npz"
    shutil.copy(trained["path"], path)
    return str(path)


def done(one, time, trained, **values):
    one.clock.at(
        time,
        lambda: one.attempt.hear(trained | {"path": file_of(one, trained, "final")} | values),
    )


def answers_stop(one, trained, timesteps=300):
    """The trainer answers a stop with what it has."""
    one.trainer.when_stopped = lambda: one.attempt.hear(
        trained | {"path": file_of(one, trained, "final"), "timesteps": timesteps, "stopped": True}
    )


def steps_of(one, key="rollout/ep_rew_mean"):
    return [point.step for point in one.jobs.history(one.job_id, key, 1000)]


# --- undisturbed -------------------------------------------------------------------------


@pytest.mark.rotated(3)
@pytest.mark.parametrize("foreground", [False, True])
def test_a_training_that_ends_is_a_completed_job_with_all_that_was_said(world, trained, foreground):
    one = world(foreground=foreground, model_name=f"done-{foreground}")
    one.says(0.1, "environment", **ENVIRONMENT)
    one.says(0.5, "points", **points(100, 200))
    one.says(1.5, "points", **points(300))
    one.clock.at(
        2.0,
        lambda: one.attempt.hear(
            {"kind": "checkpoint", "path": file_of(one, trained), "timesteps": 300}
        ),
    )
    one.says(2.5, "checkpoint_failed", message="No room.")
    done(one, 4.0, trained)
    assert one.run() == 0
    record = one.record
    assert (record.status, record.model_version, record.promoted) == (
        JobStatus.COMPLETED, "1", True,
    )  # fmt: skip
    assert steps_of(one) == [100, 200, 300]
    assert record.worker == record.claimed_by == worker_name(os.getpid())
    assert (record.branching, record.checkpoint) == ("exact", None)
    assert one.jobs.list_artifacts(one.job_id, "checkpoints") == []
    assert one.trainer.begun is None, "it trained already"


def test_the_words_of_a_training_that_fails_are_the_jobs_and_its_points_are_kept(world):
    one = world()
    one.says(0.1, "points", **points(100))
    one.says(0.2, "failed", message="Training raised it.", traceback="Traceback")
    assert one.run() == 0
    record = one.record
    assert (record.status, record.error_message) == (JobStatus.FAILED, "Training raised it.")
    assert (record.crashes, record.current_timesteps, steps_of(one)) == (0, 100, [100])


# --- claims ------------------------------------------------------------------------------


def test_a_job_that_another_worker_claimed_is_left_alone(world):
    one = world()
    assert one.jobs.claim(one.job_id, 1, "other:1:1")
    assert one.run() == 0
    assert (one.status, one.record.claimed_by) == (JobStatus.QUEUED, "other:1:1")
    assert one.trainer.killed_at == 0.0


@pytest.mark.parametrize("status", [JobStatus.STOPPED, JobStatus.FAILED])
def test_a_job_that_ended_while_it_waited_is_left_alone(world, status):
    one = world()
    one.jobs.finish(one.job_id, status)
    assert one.run() == 0
    assert one.status is status


def test_a_server_that_dies_before_the_claim_costs_nothing(world):
    one = world()
    one.attempt.leave()
    assert one.run() == 0
    record = one.record
    assert (record.status, record.attempt, record.claimed_by) == (JobStatus.QUEUED, 1, None)


# --- orders ------------------------------------------------------------------------------


@pytest.mark.parametrize("trainer", ["answers", "is silent", "dies"])
@pytest.mark.parametrize("order", ["stop", "leave", "sigterm"])
def test_an_order_ends_the_training_whatever_the_trainer_does(world, trained, order, trainer):
    one = world()
    one.says(0.5, "points", **points(100))
    getattr(one, order)(2.0)
    if trainer == "answers":
        answers_stop(one, trained)
    elif trainer == "dies":
        one.trainer.when_stopped = lambda: one.trainer.end("was killed by signal 11")
    assert one.run() == 0
    record = one.record
    stopped = order == "stop"
    assert record.status is (JobStatus.STOPPED if stopped else JobStatus.QUEUED)
    assert (record.attempt, record.crashes) == (1 if stopped else 2, 0)
    assert record.error_message is None
    assert steps_of(one) == [100]
    assert (record.checkpoint is not None) is (trainer == "answers")
    assert one.trainer.stopped_at == 2.0
    if trainer == "is silent":
        waited = one.trainer.killed_at - one.trainer.stopped_at
        assert STOP_GRACE_SECONDS < waited < STOP_GRACE_SECONDS + 1.0


def test_a_stop_is_no_shutdown_where_the_look_at_it_failed(world):
    one = world()
    one.clock.at(2.0, lambda: one.jobs.request_stop(one.job_id))
    one.leave(2.0)
    assert one.run() == 0
    assert (one.status, one.record.attempt) == (JobStatus.STOPPED, 1)


def test_what_was_asked_of_an_earlier_attempt_is_not_asked_of_this_one(world):
    one = world(attempt=2)
    one.jobs.ask_for_checkpoint(one.job_id)
    one.sigterm(1.0)  # the heartbeat looks at once
    one.trainer.when_stopped = lambda: one.trainer.end("left")
    one.run()
    assert one.trainer.orders == []


@pytest.mark.parametrize("earlier", [None, "checkpoint"])
def test_a_stop_before_the_start_stops_and_keeps_the_earlier_checkpoint(world, trained, earlier):
    one = world(attempt=2)
    if earlier:
        path = file_of(one, trained, "earlier")
        pointed = one.jobs.upload(one.job_id, one.folder / path, "checkpoints")
        one.jobs.set_tags(one.job_id, {Tag.CHECKPOINT: pointed})
    one.jobs.request_stop(one.job_id)
    before = one.record.checkpoint
    assert one.run() == 0
    assert (one.status, one.record.checkpoint) == (JobStatus.STOPPED, before)
    assert one.trainer.begun is None


def test_a_first_attempt_that_trains_already_when_the_stop_is_seen_keeps_what_it_has(
    world, trained
):
    one = world()
    answers_stop(one, trained, timesteps=40)
    one.jobs.request_stop(one.job_id)
    assert one.run() == 0
    assert one.status is JobStatus.STOPPED
    assert "/000000000040-1-" in one.record.checkpoint


def forget(one, time):
    """Somebody deletes the run in MLflow, and the worker looks."""

    def delete():
        one.jobs._client.delete_run(one.job_id)
        return one._interrupt()

    one.clock.at(time, delete)


ORDERS = {"stop": World.stop, "leave": World.leave, "forget": forget}


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(ORDERS, 2)))
def test_of_two_orders_the_weightier_counts(world, first, second):
    one = world()
    ORDERS[first](one, 1.0)
    if first != "forget":
        ORDERS[second](one, 2.0)
    assert one.run() == 0
    if "forget" in (first, second):
        with pytest.raises(UnknownJobError):
            one.jobs.get(one.job_id)
        assert one.trainer.killed_at == (1.0 if first == "forget" else 2.0)
    else:
        assert one.status is JobStatus.STOPPED


def test_a_stop_that_overtakes_the_end_of_the_training_stops(world, trained):
    one = world()
    one.trainer.when_stopped = lambda: one.attempt.hear(
        trained | {"path": file_of(one, trained, "final")}  # it had ended already
    )
    one.stop(1.0)
    assert one.run() == 0
    assert (one.status, one.record.model_version) == (JobStatus.STOPPED, None)
    assert one.record.checkpoint is not None


# --- a trainer that is lost --------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({}, JobStatus.QUEUED, 0),
        ({"max_attempts": 1}, JobStatus.FAILED, 0),
        ({"foreground": True}, JobStatus.FAILED, 1),
    ],
)
def test_a_trainer_that_is_killed_costs_an_attempt(world, fields, status, code):
    one = world(**fields)
    one.says(0.5, "points", **points(100))
    one.clock.at(1.0, lambda: one.trainer.end("was killed by signal 9"))
    assert one.run() == code
    record = one.record
    assert (record.status, record.crashes) == (status, int(status is JobStatus.QUEUED))
    assert steps_of(one) == [100]
    if status is JobStatus.FAILED:
        assert "lost its trainer, which was killed by signal 9" in record.error_message


def test_the_next_attempt_begins_at_the_checkpoint_and_repeats_no_point(world, trained):
    one = world(attempt=2)
    earlier = [Point(*point) for point in points(100, 200)["points"]]
    one.jobs.log_points(one.job_id, earlier, {Tag.SECONDS: "7.5", Tag.TIMESTEPS: "200"})
    again = points(200, 300, 400)
    for point in again["points"]:
        point[-1] += 10_000  # at another time, so that the store would keep both
    one.says(0.5, "points", **again)
    done(one, 3.0, trained)
    assert one.run() == 0
    assert one.trainer.begun == {"checkpoint": None, "weights": None, "seconds": 7.5}
    assert one.status is JobStatus.COMPLETED
    assert steps_of(one) == [100, 200, 300, 400]


def test_an_iteration_that_does_not_end_is_ended_and_the_next_attempt_only_evaluates(world):
    one = world(max_seconds=10.0)
    one.says(1.0, "points", **points(100))
    assert one.run() == 0
    record = one.record
    assert one.trainer.killed_at == pytest.approx(10.0 + OVERTIME_SECONDS, abs=1.0)
    assert (record.status, record.crashes, record.seconds) == (JobStatus.QUEUED, 1, 10.0)


@pytest.mark.rotated(3)
def test_an_evaluation_may_take_longer_than_the_training(world, trained):
    one = world(max_seconds=10.0)
    one.says(9.0, "finishing")
    done(one, 500.0, trained, stopped_by="max_seconds")
    assert one.run() == 0
    assert (one.status, one.record.stopped_by) == (JobStatus.COMPLETED, "max_seconds")


# --- a store that is lost ----------------------------------------------------------------


def test_what_was_said_while_the_store_was_away_is_written_once_it_is_back(world, trained):
    one = world()
    one.says(0.5, "points", **points(100))
    one.clock.at(1.0, one.jobs.away)
    for step in range(200, 600, 100):
        one.says(step / 100, "points", **points(step))
    one.clock.at(90.0, one.jobs.back)
    one.says(95.0, "points", **points(600))
    done(one, 100.0, trained)
    assert one.run() == 0
    assert one.status is JobStatus.COMPLETED
    assert steps_of(one) == [100, 200, 300, 400, 500, 600]
    assert one.record.attempt == 1


@pytest.mark.rotated(3)
def test_a_training_that_ends_while_the_store_is_away_is_registered_once_it_is_back(world, trained):
    one = world(model_name="late")
    one.clock.at(1.0, one.jobs.away)
    done(one, 2.0, trained)
    one.clock.at(500.0, one.jobs.back)
    assert one.run() == 0
    assert (one.status, one.record.model_version) == (JobStatus.COMPLETED, "1")
    assert len(Registry(one.jobs.tracking_uri).get("late").versions) == 1


def test_a_claim_waits_for_the_store_as_long_as_the_server_lives(world, trained):
    one = world()
    one.jobs.away()
    one.clock.at(60.0, one.jobs.back)
    done(one, 61.0, trained)
    assert one.run() == 0
    assert one.status is JobStatus.COMPLETED


@pytest.mark.parametrize("claimed", [False, True])
def test_a_worker_that_must_leave_does_not_wait_for_the_store(world, claimed):
    one = world()
    one.clock.at(1.0 if claimed else 0.0, one.jobs.away)
    if not claimed:
        one.jobs.away()
    one.leave(2.0)
    one.trainer.when_stopped = lambda: one.trainer.end("was killed by signal 9")
    assert one.run() == 0
    assert 2.0 <= one.clock.time <= 2.0 + LEAVE_SECONDS
    one.jobs.back()
    record = one.record
    assert record.attempt == 1
    assert (record.claimed_by is not None) is claimed
    assert record.status is (JobStatus.RUNNING if claimed else JobStatus.QUEUED)


def test_a_store_that_refuses_everything_makes_a_lost_worker(world):
    one = world()
    one.says(0.5, "points", **points(100))
    one.clock.at(0.4, one.jobs.refuse)
    with pytest.raises(StoreError, match="it refuses"):
        one.run()
    assert one.trainer.killed_at is not None
    one.jobs.back()
    assert one.status is JobStatus.RUNNING, "which the runner counts, and queues again"


def test_a_store_that_refuses_points_alone_fails_the_job_and_says_so(world):
    one = world()
    one.says(0.5, "points", **points(100))

    def refuse(*arguments):
        raise StoreError("it refuses")

    one.jobs.log_points = refuse
    assert one.run() == 0
    assert (one.status, one.record.error_message) == (JobStatus.FAILED, "it refuses")


def checkpoint_at(one, trained, time, timesteps):
    one.clock.at(
        time,
        lambda: one.attempt.hear(
            {
                "kind": "checkpoint",
                "path": file_of(one, trained, str(timesteps)),
                "timesteps": timesteps,
            }
        ),
    )


def upload_fails(one):
    one.jobs.upload_trouble = StoreUnavailableError("no artifacts")


def test_a_checkpoint_that_cannot_be_stored_is_tried_again_unless_a_newer_one_is_there(
    world, trained
):
    one = world()
    one.clock.at(0.5, lambda: upload_fails(one))
    checkpoint_at(one, trained, 1.0, 100)
    checkpoint_at(one, trained, 4.0, 200)
    one.clock.at(8.0, one.jobs.back)
    one.leave(20.0)
    one.trainer.when_stopped = lambda: one.trainer.end("was killed by signal 9")
    assert one.run() == 0
    assert "/000000000200-1-" in one.record.checkpoint
    assert len(one.jobs.list_artifacts(one.job_id, "checkpoints")) == 1
    assert not (one.folder / "100.npz").exists()


def test_a_last_checkpoint_that_cannot_be_stored_leaves_the_earlier_one_to_count(world, trained):
    one = world()
    checkpoint_at(one, trained, 1.0, 100)
    one.clock.at(3.0, lambda: upload_fails(one))
    answers_stop(one, trained)
    one.stop(4.0)
    assert one.run() == 0
    one.jobs.back()
    assert one.status is JobStatus.STOPPED
    assert "/000000000100-1-" in one.record.checkpoint


# --- a lease that is lost ----------------------------------------------------------------


def given_away(one, time):
    """A server that sees no heartbeat queues the job again."""
    one.clock.at(time, lambda: one.jobs.requeue(one.job_id, crashed=True))


def test_a_worker_whose_job_was_given_away_writes_no_more_once_its_lease_is_over(world):
    one = world()
    one.says(0.5, "points", **points(100))
    given_away(one, 2.0)
    assert one.run() == 0
    record = one.record
    assert (record.status, record.attempt, record.claimed_by) == (JobStatus.QUEUED, 2, None)
    assert steps_of(one) == [100]
    assert LEASE_SECONDS <= one.trainer.killed_at <= LEASE_SECONDS + 0.6


def test_a_job_given_away_while_its_model_is_uploaded_gets_no_second_version(
    world, trained, monkeypatch
):
    one = world()
    upload = RunFiles.upload_folder

    def upload_slowly(files, location, folder):
        upload(files, location, folder)
        one.jobs.requeue(one.job_id, crashed=True)

    monkeypatch.setattr(RunFiles, "upload_folder", upload_slowly)
    done(one, 1.0, trained)
    assert one.run() == 0
    assert (one.status, one.record.attempt) == (JobStatus.QUEUED, 2)
    assert not any(Registry(one.jobs.tracking_uri).search_versions(f"run_id = '{one.job_id}'"))


def test_a_job_given_away_while_its_policy_is_compared_is_not_ended_by_its_first_worker(
    world, trained, monkeypatch
):
    one = world()
    register = Completion.register

    def register_slowly(completion, *arguments):
        register(completion, *arguments)
        one.jobs.requeue(one.job_id, crashed=True)

    monkeypatch.setattr(Completion, "register", register_slowly)
    done(one, 1.0, trained)
    assert one.run() == 0
    assert (one.status, one.record.attempt) == (JobStatus.QUEUED, 2)
    assert b"completed" not in read_log(one.jobs, one.job_id)


@pytest.mark.parametrize("given", [False, True])
def test_a_machine_that_slept_looks_before_it_writes(world, trained, given):
    one = world()
    if given:
        given_away(one, 1.0)
    one.clock.at(1.0, lambda: setattr(one.clock, "asleep", 3600.0))
    one.says(1.0, "points", **points(100))
    if not given:
        done(one, 2.0, trained)
    assert one.run() == 0
    assert one.status is (JobStatus.QUEUED if given else JobStatus.COMPLETED)
    assert steps_of(one) == ([] if given else [100])
