import ctypes
import signal
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from grpo_platform.core.errors import ConflictError, UnknownJobError
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.backend import WorkerTask
from grpo_platform.jobs.local import LocalBackend
from grpo_platform.jobs.run_writer import read_log
from grpo_platform.jobs.runner import SCAN_SECONDS
from tests.service.faulty_environments import FAULTY, SLOWLY_DRAWN
from tests.service.jobs_support import assert_as_undisturbed, faulty, kill, long_job, platform
from tests.service.tracking_support import request
from tests.waiting import until


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with platform(tmp_path_factory.mktemp("jobs"), max_concurrent_jobs=2, max_queued_jobs=3) as p:
        yield p


@pytest.fixture(autouse=True)
def _nothing_left_running(live):
    yield
    live.stop_all()


@pytest.mark.rotated(14)
def test_a_trainer_dies_with_its_worker(live):
    job = live.submit(**long_job())
    live.training(job.job_id)
    trainer = live.trainer(job.job_id)
    kill(live.worker(job.job_id))
    _, alive = psutil.wait_procs([trainer], timeout=3)
    assert not alive


@pytest.fixture
def _container():
    """This process waits for what its descendants leave behind, as the first one of a container."""
    prctl, child_subreaper = ctypes.CDLL(None).prctl, 36
    prctl(child_subreaper, 1, 0, 0, 0)
    yield
    prctl(child_subreaper, 0, 0, 0, 0)


@pytest.mark.rotated(6)
@pytest.mark.usefixtures("_container")
def test_workers_survive_the_death_of_the_forkserver(live):
    job = live.submit(**long_job())
    live.training(job.job_id)
    worker, trainer = live.worker(job.job_id), live.trainer(job.job_id)
    assert worker.parent().num_threads() == 1  # else a fork may hold a lock of a thread for ever
    kill(worker.parent())
    other = live.submit(total_timesteps=300)
    told = live.until(other.job_id, lambda r: r.status_message is not None)
    assert "still importing" in told.status_message
    before = live.jobs.get(job.job_id).current_timesteps
    live.wait(other.job_id, JobStatus.COMPLETED)
    assert worker.is_running()
    assert live.jobs.get(job.job_id).current_timesteps > before
    assert live.jobs.get(job.job_id).attempt == 1
    kill(worker)
    live.until(job.job_id, lambda r: r.attempt == 2, seconds=10)
    assert "The worker of attempt 1 was killed by signal 9" in live.log(job.job_id)
    live.training(job.job_id)
    until(
        lambda: not {worker.pid, trainer.pid} & {child.pid for child in psutil.Process().children()}
    )


@pytest.mark.rotated(12)
def test_a_worker_that_cannot_begin_says_why(live):
    backend = LocalBackend(live.place)
    backend.start()
    backend.submit(WorkerTask(job_id="0" * 32, attempt=1, request="{"))
    ended = []
    while not ended:
        ended = backend.poll(60.0)
    backend.shutdown(0.0)
    assert ended[0].reason.startswith("ended with exit code 1 (JSONDecodeError: ")


@pytest.mark.rotated(13)
def test_jobs_do_without_a_temporary_folder_that_is_taken_away(live):
    job = live.submit(total_timesteps=60_000, checkpoint_seconds=0.3, n_eval_episodes=2)
    earlier = live.until(job.job_id, lambda record: record.checkpoint)
    (live.folder / "tmp").rename(live.folder / "removed")
    live.until(job.job_id, lambda record: record.checkpoint != earlier.checkpoint)
    assert live.wait(job.job_id, JobStatus.COMPLETED).attempt == 1


@pytest.mark.rotated(2)
def test_a_job_whose_files_are_taken_for_good_goes_on_elsewhere_and_says_why(live):
    job = live.submit(**long_job(total_timesteps=30_000, n_eval_episodes=2))
    live.until(job.job_id, lambda record: record.checkpoint)
    (live.folder / "tmp").rename(live.folder / "taken")
    (live.folder / "tmp").write_text("no folder")
    try:
        done = live.wait(job.job_id, JobStatus.COMPLETED)
    finally:
        (live.folder / "tmp").unlink()
        (live.folder / "tmp").mkdir()
    assert (done.attempt, done.crashes) == (2, 1)
    assert "could not use its files" in live.log(job.job_id)
    assert_as_undisturbed(live, done)


@pytest.mark.rotated(8)
@pytest.mark.slow
def test_a_frozen_worker_is_replaced_and_cannot_write_when_it_wakes(live):
    job = live.submit(**long_job())
    live.training(job.job_id)
    worker = live.worker(job.job_id)
    worker.send_signal(signal.SIGSTOP)
    live.until(job.job_id, lambda r: r.attempt == 2, seconds=30)
    assert not worker.is_running()
    live.training(job.job_id)


@pytest.mark.rotated(8)
@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_whose_run_was_deleted_in_mlflow_is_forgotten(live, state):
    busy = [live.submit(**long_job()) for _ in range(2 if state == "queued" else 0)]
    for job in busy:
        live.training(job.job_id)
    job = live.submit(**long_job(model_name=f"deleted-{state}"))
    worker = None
    if state == "running":
        live.training(job.job_id)
        worker = live.worker(job.job_id)
    live.client.delete_run(job.job_id)
    if worker is not None:
        psutil.wait_procs([worker], timeout=6)
        assert not worker.is_running()
    for other in busy:
        live.runner.stop(other.job_id)
    last = live.submit(total_timesteps=300)
    live.wait(last.job_id, JobStatus.COMPLETED)
    with pytest.raises(UnknownJobError):
        live.jobs.get(job.job_id)
    assert live.versions_of(job.job_id) == []
    until(lambda: job.job_id not in live.backend.running())


@pytest.mark.rotated(8)
def test_delete_removes_a_finished_job_and_keeps_its_model(live):
    job = live.submit(total_timesteps=300, model_name="kept")
    with pytest.raises(ConflictError):
        live.runner.delete(job.job_id)
    live.wait(job.job_id, JobStatus.COMPLETED)
    live.runner.delete(job.job_id)
    with pytest.raises(UnknownJobError):
        live.jobs.get(job.job_id)
    assert live.registry.resolve("kept").version == 1


@pytest.mark.rotated(9)
def test_equal_idempotency_keys_are_one_job(live):
    first = live.runner.submit(request(total_timesteps=300), idempotency_key="once")
    second = live.runner.submit(request(total_timesteps=400), idempotency_key="once")
    assert second.job_id == first.job_id
    live.wait(first.job_id, JobStatus.COMPLETED)
    assert live.runner.submit(request(), idempotency_key="once").job_id == first.job_id


@pytest.mark.rotated(14)
def test_a_job_cannot_take_the_machine_s_memory(live):
    job = live.submit(**faulty("eat"))
    failed = live.wait(job.job_id, JobStatus.FAILED)
    assert "GRPO_MAX_JOB_MEMORY_MEGABYTES" in failed.error_message
    other = live.submit(**long_job())
    live.training(other.job_id)
    scores = [
        int(Path(f"/proc/{process.pid}/oom_score_adj").read_text())
        for process in (psutil.Process(), live.worker(other.job_id), live.trainer(other.job_id))
    ]
    assert scores[0] < scores[1] == scores[2] == 800


def test_running_out_of_memory_says_what_to_make_smaller(live):
    job = live.submit(**faulty("memory"))
    failed = live.wait(job.job_id, JobStatus.FAILED)
    assert "out of memory" in failed.error_message
    assert "batch_size" in failed.error_message


def test_a_diverging_training_fails(live):
    job = live.submit(
        total_timesteps=20_000, learning_rate=1.0, max_grad_norm=1000.0, n_epochs=50,
        clip_range=10.0, kl_coef=100.0,
    )  # fmt: skip
    failed = live.wait(job.job_id, JobStatus.FAILED)
    assert "learning_rate" in failed.error_message


@pytest.mark.rotated(6)
def test_a_job_whose_environment_cannot_be_stored_goes_on_and_says_that_it_is_not_exact(live):
    job = live.submit(
        env_name=FAULTY, total_timesteps=3000, start_states="branch", n_eval_episodes=2,
        env_kwargs={"hidden": True, "seconds": 0.001, "max_episode_steps": 500},
    )  # fmt: skip
    live.training(job.job_id)
    live.runner.stop(job.job_id)
    stopped = live.wait(job.job_id, JobStatus.STOPPED)
    assert 0 < stopped.current_timesteps < 3000
    live.runner.resume(job.job_id)
    done = live.wait(job.job_id, JobStatus.COMPLETED)
    assert done.current_timesteps == 3000
    tags = live.client.get_run(job.job_id).data.tags
    assert tags["resume_exact"] == "false"
    assert done.branching == tags["grpo.branching"] == "exact"
    assert done.branching_reason == tags["grpo.branching_reason"]
    assert "this was exact: instances are copied, in memory only. Cheaper" in done.branching_reason
    log = read_log(live.jobs, job.job_id).decode()
    assert f"Trying how {FAULTY} can be put into visited states" in log
    assert done.branching_reason in log
    live.client.set_tag(job.job_id, "grpo.branching", "somebody's")
    assert live.jobs.get(job.job_id).branching is None


def test_a_scalar_observation_makes_a_version(live):
    """It once trained its whole budget and failed while the model was packaged."""
    job = live.submit(
        env_name=FAULTY, env_kwargs={"scalar": True}, total_timesteps=300, n_eval_episodes=5,
        start_states="reset",
    )  # fmt: skip
    done = live.wait(job.job_id, JobStatus.COMPLETED)
    assert done.model_version is not None
    assert done.branching == "none"
    assert "start_states is 'reset'" in done.branching_reason


@pytest.mark.rotated(12)
@pytest.mark.parametrize(("fault", "said"), [("segfault", "signal 11"), ("exit", "exit code 7")])
def test_a_trainer_that_crashes_again_and_again_fails_the_job(live, fault, said):
    job = live.submit(**faulty(fault))
    failed = live.wait(job.job_id, JobStatus.FAILED)
    assert said in failed.error_message
    assert "3 times" in failed.error_message
    # attempts are not used up in a moment that would pass
    assert failed.end_time - failed.start_time > timedelta(seconds=6)


@pytest.mark.rotated(10)
def test_max_seconds_is_a_budget_over_all_attempts_whatever_the_clock_is_set_to(live):
    job = live.submit(
        **long_job(max_seconds=12.0, n_eval_episodes=2, promote="always", model_name="timed")
    )
    live.until(job.job_id, lambda record: record.seconds > 1)
    for jump in (7200, -7200):  # in the middle of an attempt
        (live.folder / "clock").write_text(str(jump))
        seconds = live.jobs.get(job.job_id).seconds
        live.until(job.job_id, lambda record, past=seconds: record.seconds > past + 0.5)
        live.runner.stop(job.job_id)
        stopped = live.wait(job.job_id, JobStatus.STOPPED)
        assert stopped.end_time >= stopped.start_time
        assert stopped.checkpoint
        live.runner.resume(job.job_id)
    done = live.wait(job.job_id, JobStatus.COMPLETED)
    assert (done.stopped_by, done.progress, done.error_message) == ("max_seconds", 1.0, None)
    assert 0 < done.current_timesteps < done.total_timesteps
    assert 12 <= done.seconds < 60
    # of the last update, which ended a moment before the time was looked at
    assert 11 <= done.metrics["time/time_elapsed"] <= done.seconds
    assert 0 < done.metrics["time/fps"] < 1e6
    assert (done.attempt, done.crashes, done.promoted) == (3, 0, True)
    assert done.metrics["eval/mean_reward"] > 0
    assert live.registry.resolve("timed").version == 1


@pytest.mark.rotated(9)
def test_a_target_that_is_reached_completes_the_job_and_says_so(live):
    job = live.submit(**long_job(eval_freq=200, target_return=1.0, n_eval_episodes=2))
    done = live.wait(job.job_id, JobStatus.COMPLETED)
    assert done.stopped_by == "target_return"
    assert done.current_timesteps < 1000
    assert [step for step, _ in live.histories(job.job_id)["eval/mean_reward"]] == [
        done.current_timesteps
    ]


@pytest.mark.long
def test_a_trainer_that_hangs_does_not_outlive_its_max_seconds(live):
    job = live.submit(**faulty("hang"), max_seconds=1.0, max_attempts=1)
    failed = live.wait(job.job_id, JobStatus.FAILED, seconds=90)
    assert "60 s after the job's max_seconds=1" in failed.error_message
    assert failed.seconds >= 1


@pytest.mark.rotated(5)
def test_a_trainer_that_hangs_is_killed_after_a_grace_period(live):
    job = live.submit(**faulty("hang"))
    live.wait(job.job_id, JobStatus.RUNNING)
    time.sleep(1)
    began = time.monotonic()
    live.runner.stop(job.job_id)
    live.wait(job.job_id, JobStatus.STOPPED)
    assert time.monotonic() - began < 10


@pytest.mark.rotated(8)
def test_a_stop_of_a_waiting_job_does_not_kill_the_worker_that_it_gets_once_resumed(
    live, monkeypatch
):
    monkeypatch.setattr("grpo_platform.jobs.runner.KILL_SECONDS", 2.0)
    busy = [live.submit(**long_job()) for _ in range(2)]
    waiting = live.submit(**long_job())
    live.runner.stop(waiting.job_id)
    live.runner.resume(waiting.job_id)
    live.runner.stop(busy[0].job_id)
    live.training(waiting.job_id)
    time.sleep(2.5)
    assert live.training(waiting.job_id).crashes == 0


@pytest.mark.rotated(10)
def test_an_environment_that_prints_cannot_fill_the_disk(live):
    job = live.submit(**faulty("print", after=0) | {"total_timesteps": 12_000})
    live.wait(job.job_id, JobStatus.COMPLETED)
    assert len(read_log(live.jobs, job.job_id)) <= 1 << 20 + 64


@pytest.mark.rotated(12)
def test_completed_jobs_that_are_still_drawn_come_last_and_do_not_pile_up(
    live, tmp_path, monkeypatch
):
    monkeypatch.setattr("grpo_platform.jobs.runner.DRAWN_A_PLACE", 1)
    gate = tmp_path / "gate"
    gate.touch()
    job = faulty("", when=str(gate)) | {"env_name": SLOWLY_DRAWN, "total_timesteps": 400}
    drawn = [live.submit(**job) for _ in range(2)]
    drawn += [live.wait(each.job_id, JobStatus.COMPLETED) and live.submit(**job) for each in drawn]
    for each in drawn[2:]:
        live.wait(each.job_id, JobStatus.COMPLETED)
    waiting = live.submit(**job)
    time.sleep(3 * SCAN_SECONDS)
    assert live.status(waiting.job_id) is JobStatus.QUEUED
    for each in drawn:
        worker = live.worker(each.job_id)
        assert worker.nice() == 10
        if (group := Path(f"/proc/{worker.pid}/autogroup")).exists():
            assert group.read_text().split()[-1] == "10"
    gate.unlink()
    live.wait(waiting.job_id, JobStatus.COMPLETED)
