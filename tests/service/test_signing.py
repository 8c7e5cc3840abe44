"""With a token, what others put into the store is not trained, whatever it looks like."""

import time

import pytest
from typer.testing import CliRunner

from grpo_platform.cli import app
from grpo_platform.core.access import Signer
from grpo_platform.core.errors import ConflictError
from grpo_platform.core.names import JOB_READY, Tag
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.local import LocalBackend
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.sweeps.store import SweepStore
from tests.service.sweeps_support import SPACE, sweeps_on
from tests.service.tracking_support import jobs_of, request, working_in

TOKEN = "t" * 32
TINY = {"total_timesteps": 64, "n_eval_episodes": 1}
LOOKS = 2.0
"""Seconds between two looks of a server at the store, as `SCAN_SECONDS`."""


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signed")
    with sweeps_on(folder, LocalBackend, api_token=TOKEN, max_concurrent_jobs=2) as found:
        yield found


@pytest.fixture(scope="module")
def live(sweeps):
    return sweeps.platform


@pytest.fixture(scope="module")
def done(live):
    return live.wait(live.submit(**TINY, model_name="own").job_id, JobStatus.COMPLETED)


def plant(live, tags, status="SCHEDULED", location=None):
    """A run that somebody with access to the store made."""
    experiment = live.place.experiment_id
    if location is not None:
        experiment = live.client.create_experiment("planted", location.as_uri())
    run = live.client.create_run(experiment, tags=tags)
    live.client.update_run(run.info.run_id, status=status)
    return run.info.run_id


def assert_refused(live, job_id):
    """It waits, says why, and no server touches it any further."""
    told = live.until(job_id, lambda record: record.status_message is not None)
    assert f"`grpo-platform store sign {job_id}`" in told.status_message
    time.sleep(2 * LOOKS)
    record = live.jobs.get(job_id)
    assert (record.status, record.worker, record.claimed_by) == (JobStatus.QUEUED, None, None)


@pytest.mark.rotated(5)
def test_a_job_of_the_server_itself_is_trained(done):
    assert done.model_version == "1"


@pytest.mark.rotated(9)
def test_a_run_with_all_tags_of_a_genuine_job_is_not_trained(live, done, tmp_path):
    tags = live.client.get_run(done.job_id).data.tags
    assert tags[Tag.SIGNATURE]
    copied = {k: v for k, v in tags.items() if k.startswith("grpo.") and k != Tag.WORKER}
    queued = plant(live, copied, location=tmp_path)
    lost = plant(live, copied | {Tag.WORKER: "elsewhere:1:1"}, status="RUNNING")
    live.client.set_tag(lost, Tag.HEARTBEAT, "1")
    assert_refused(live, queued)
    live.runner.stop(queued)
    with pytest.raises(ConflictError, match="store sign"):
        live.runner.resume(queued)
    assert live.jobs.get(lost).worker == "elsewhere:1:1"
    assert live.client.get_model_version("own", "1").run_id == done.job_id


def test_a_genuine_job_whose_request_was_changed_is_not_resumed(live):
    job = live.submit(**TINY | {"total_timesteps": 10**8}, model_name="changed")
    live.training(job.job_id)
    live.runner.stop(job.job_id)
    stopped = live.wait(job.job_id, JobStatus.STOPPED)
    stored = live.jobs.get(job.job_id).stored_request
    live.client.set_tag(job.job_id, Tag.REQUEST, stored.replace('"CartPole-v1"', '"Acrobot-v1"'))
    with pytest.raises(ConflictError, match="was changed since"):
        live.runner.resume(job.job_id)
    live.client.set_tag(job.job_id, Tag.REQUEST, stored)
    live.runner.resume(job.job_id)
    live.training(job.job_id, stopped.current_timesteps + 1)
    live.runner.stop(job.job_id)
    live.wait(job.job_id, JobStatus.STOPPED)


@pytest.mark.rotated(6)
def test_jobs_of_a_server_without_the_token_wait_until_they_are_signed(live):
    """As those that were queued before there was a token."""
    unsigned = jobs_of(live.place).create(request(**TINY, model_name="before"))
    others = jobs_of(live.place, "o" * 32).create(request(**TINY, model_name="others"))
    for job in (unsigned, others):
        assert_refused(live, job.job_id)
    shown = store_sign(live)
    assert {unsigned.job_id, others.job_id} <= set(shown.split())
    store_sign(live, unsigned.job_id)
    done = live.wait(unsigned.job_id, JobStatus.COMPLETED)
    assert done.model_version == "1"
    assert live.status(others.job_id) is JobStatus.QUEUED
    assert unsigned.job_id not in store_sign(live)


def store_sign(live, *ids):
    with working_in(live.folder, GRPO_API_TOKEN=TOKEN):
        told = CliRunner().invoke(app, ["store", "sign", *ids])
    assert told.exit_code == 0, told.output
    return told.output


@pytest.mark.rotated(5)
def test_a_sweep_that_others_put_there_is_not_led(sweeps, live):
    stranger = SweepStore(jobs_of(live.place))
    values = {"search_space": SPACE, "config": TINY, "n_trials": 1, "pruner": "none"}
    planted = stranger.create(SweepRequest(**values)).sweep_id
    told = sweeps.until(planted, lambda sweep: sweep.error_message is not None)
    assert f"`grpo-platform store sign {planted}`" in told.error_message
    own = sweeps.submit(n_trials=1)
    assert sweeps.ended(own).status is JobStatus.COMPLETED
    assert sweeps.trials(planted) == []
    store_sign(live, planted)
    assert sweeps.ended(planted).status is JobStatus.COMPLETED


def test_a_trial_that_others_made_for_a_sweep_of_ours_fails(sweeps, live):
    tags = {Tag.TRIAL: JOB_READY}
    draft = jobs_of(live.place).draft(request(**TINY), extra_tags=tags)
    assert sweeps.store.publish(draft.job_id) is None
    failed = live.wait(draft.job_id, JobStatus.FAILED)
    assert "not queued with this server's" in failed.error_message


def test_a_signature_is_of_one_run_and_one_request_and_needs_the_token():
    signer = Signer(TOKEN)
    signature = signer.sign("a" * 32, "{}")
    assert signer.vouches_for("a" * 32, "{}", signature)
    assert Signer(TOKEN).vouches_for("a" * 32, "{}", signature)
    for run_id, text, given in (
        ("b" * 32, "{}", signature), ("a" * 32, "{ }", signature), ("a" * 32, "{}", ""),
        ("a" * 32, "{}", "é"),
    ):  # fmt: skip
        assert not signer.vouches_for(run_id, text, given)
    assert not Signer("u" * 32).vouches_for("a" * 32, "{}", signature)
    assert Signer().vouches_for("a" * 32, "{}", "")
    assert Signer().sign("a" * 32, "{}") == ""
