"""Experiments with real workers on a real store: led to their end, whatever happens on the way."""

import json
import threading

import pytest

from grpo_platform.core.errors import ConflictError, QueueFullError, UnknownExperimentError
from grpo_platform.core.names import Tag
from grpo_platform.core.states import JobStatus
from grpo_platform.experiments import finalize
from grpo_platform.jobs import leader
from tests.service.experiments_support import LONG, asked, experiments_on

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiments")
    with experiments_on(folder, max_queued_jobs=20) as found:
        yield found


@pytest.mark.rotated(8)
def test_an_experiment_trains_each_seed_once(experiments):
    experiment_id = experiments.submit((5, 3, 4))
    done = experiments.ended(experiment_id)
    assert done.status is JobStatus.COMPLETED
    assert done.error_message is None
    seeds = experiments.seeds(experiment_id)
    assert [seed.seed for seed in seeds] == [3, 4, 5]
    assert [seed.job.request.config.seed for seed in seeds] == [3, 4, 5]
    assert [seed.state for seed in seeds] == ["completed"] * 3
    assert all(seed.job.experiment == experiment_id for seed in seeds)
    listed = experiments.platform.jobs.list(experiment=experiment_id).items
    assert {job.job_id for job in listed} == {seed.job_id for seed in seeds}


def test_all_seeds_find_room_or_none_is_queued(experiments):
    before = experiments.runs()
    with pytest.raises(QueueFullError, match="no room for 100 jobs together"):
        experiments.submit(range(100))
    assert experiments.runs() == before


@pytest.mark.rotated(12)
def test_what_a_crash_left_half_made_is_completed(experiments):
    platform, store = experiments.platform, experiments.store
    # all seeds were given away, and no job was published
    drafts, _ = store.create(asked((1, 2)))
    # `mlflow run` made the parent, and no seed has a job yet
    run = platform.client.create_run(platform.place.experiment_id)
    adopted = store.adopt(run.info.run_id, asked((7, 8)))
    for experiment in (drafts, adopted):
        done = experiments.ended(experiment.experiment_id)
        assert done.status is JobStatus.COMPLETED, done.error_message
        assert experiments.states(done.experiment_id) == ["completed"] * 2
    assert sorted(experiments.store.experiment(adopted.experiment_id).seed_jobs) == [7, 8]


@pytest.mark.rotated(3)
def test_an_experiment_stops_and_goes_on(experiments):
    experiment_id = experiments.submit((1, 2), **LONG)
    experiments.until(experiment_id, lambda _: "running" in experiments.states(experiment_id))
    experiments.runner.stop(experiment_id)
    assert experiments.ended(experiment_id).status is JobStatus.STOPPED
    assert experiments.states(experiment_id) == ["stopped"] * 2
    with pytest.raises(ConflictError, match="No seed"):
        experiments.runner.retry(experiment_id)
    experiments.runner.resume(experiment_id)
    experiments.until(experiment_id, lambda _: "running" in experiments.states(experiment_id))
    assert [seed.job.attempt for seed in experiments.seeds(experiment_id)] == [2, 2]
    with pytest.raises(ConflictError, match="is running; stop it first"):
        experiments.runner.delete(experiment_id)
    experiments.runner.stop(experiment_id)
    experiments.ended(experiment_id)
    jobs = [seed.job_id for seed in experiments.seeds(experiment_id)]
    # somebody resumes a job of it elsewhere
    experiments.platform.runner.resume(jobs[0])
    experiments.until(experiment_id, lambda found: found.status is JobStatus.RUNNING)
    experiments.runner.stop(experiment_id)
    experiments.ended(experiment_id)
    experiments.runner.delete(experiment_id)
    with pytest.raises(UnknownExperimentError):
        experiments.store.experiment(experiment_id)
    assert not experiments.runs() & {experiment_id, *jobs}


@pytest.mark.rotated(6)
def test_failed_seeds_are_retried_while_others_train_and_after_the_end(experiments):
    jobs, runner = experiments.platform.jobs, experiments.platform.runner
    blocking = experiments.submit((1, 2), **LONG)
    experiments.until(blocking, lambda _: "running" in experiments.states(blocking))
    experiment_id = experiments.submit((1, 2, 3))
    first, second, third = (seed.job_id for seed in experiments.seeds(experiment_id))
    jobs.finish(first, JobStatus.FAILED, "it broke")
    jobs.finish(second, JobStatus.FAILED, "it broke")
    assert [seed.seed for seed in experiments.runner.retry(experiment_id)] == [1, 2]
    assert experiments.states(experiment_id) == ["queued"] * 3
    jobs.finish(first, JobStatus.FAILED, "it broke again")
    runner.stop(third)
    experiments.runner.stop(blocking)
    failed = experiments.ended(experiment_id)
    assert failed.status is JobStatus.FAILED
    assert failed.error_message.startswith("1 of 3 seeds failed (seed 1: it broke again).")
    assert experiments.states(experiment_id) == ["failed", "completed", "stopped"]
    experiments.runner.retry(experiment_id)
    stopped = experiments.until(experiment_id, lambda found: found.status is JobStatus.STOPPED)
    assert stopped.error_message.startswith("1 of 3 seeds were stopped")
    assert experiments.states(experiment_id) == ["completed", "completed", "stopped"]
    # somebody resumes the job itself: the experiment is told
    runner.resume(third)
    experiments.runner.reopen(experiment_id)
    done = experiments.until(experiment_id, lambda found: found.status is JobStatus.COMPLETED)
    assert done.error_message is None
    with pytest.raises(ConflictError, match="is completed; it needs no resume"):
        experiments.runner.resume(experiment_id)
    experiments.ended(blocking)


@pytest.mark.rotated(12)
def test_an_end_that_takes_minutes_holds_up_neither_heartbeats_nor_other_experiments(
    experiments, monkeypatch
):
    begun, go_on = threading.Event(), threading.Event()

    def slowly(promoter, experiment, seeds):
        begun.set()
        assert go_on.wait(60)

    monkeypatch.setattr(finalize, "select", slowly)
    monkeypatch.setattr(leader, "_BEAT_SECONDS", 0.1)
    slow = experiments.submit((1, 2))
    try:
        assert begun.wait(60)
        monkeypatch.undo()
        monkeypatch.setattr(leader, "_BEAT_SECONDS", 0.1)
        before = experiments.store.experiment(slow).heartbeat_ms
        experiments.until(slow, lambda found: found.heartbeat_ms > before, seconds=20)
        other = experiments.submit((3, 4), **LONG)
        experiments.until(other, lambda _: "running" in experiments.states(other))
        experiments.runner.stop(other)
        assert experiments.ended(other).status is JobStatus.STOPPED
        assert experiments.store.experiment(slow).status is JobStatus.RUNNING
    finally:
        go_on.set()
    assert experiments.ended(slow).status is JobStatus.COMPLETED


def test_the_jobs_of_an_experiment_that_was_deleted_in_mlflow_are_stopped(experiments):
    experiment_id = experiments.submit((1, 2), **LONG)
    jobs = [seed.job_id for seed in experiments.seeds(experiment_id)]
    experiments.platform.training(jobs[0])
    experiments.platform.client.delete_run(experiment_id)
    for job_id in jobs:
        assert experiments.platform.wait(job_id).status is JobStatus.STOPPED


@pytest.mark.rotated(14)
def test_a_deleted_seed_is_told_as_failed(experiments):
    experiment_id = experiments.submit((1, 2))
    experiments.ended(experiment_id)
    experiments.platform.client.delete_run(experiments.seeds(experiment_id)[0].job_id)
    assert experiments.states(experiment_id) == ["failed", "completed"]


def test_an_experiment_whose_tag_was_edited_fails_and_stops_its_jobs(experiments):
    experiment_id = experiments.submit((1, 2), **LONG)
    jobs = [seed.job_id for seed in experiments.seeds(experiment_id)]
    experiments.store.set_tags(experiment_id, {Tag.EXPERIMENT_REQUEST: json.dumps({"seeds": []})})
    failed = experiments.ended(experiment_id)
    assert failed.status is JobStatus.FAILED
    assert "stored request cannot be read" in failed.error_message
    for job_id in jobs:
        assert experiments.platform.wait(job_id).status is JobStatus.STOPPED
