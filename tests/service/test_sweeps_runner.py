"""Sweeps on a real store with real workers: what goes wrong with one, and what the others see."""

import json
import os
from collections import Counter

import pytest

from grpo_platform.core.errors import ConflictError, StoreUnavailableError
from grpo_platform.core.names import Tag, trial_claim, trials_tag
from grpo_platform.core.process import worker_name
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.in_memory import InMemoryBackend
from grpo_platform.jobs.local import LocalBackend
from grpo_platform.jobs.recovery import CONFIRM_SECONDS, SILENT_SECONDS
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.sweeps.runner import SweepRunner
from grpo_platform.sweeps.sampling import propose
from grpo_platform.sweeps.space import parse_space
from grpo_platform.sweeps.store import SweepStore
from grpo_platform.tracking import runs
from tests.service.api_support import client_of, services_in
from tests.service.jobs_support import platform
from tests.service.sweeps_support import SHORT, SPACE, Sweeps, sweeps_on

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REQUEST = SweepRequest(search_space=SPACE, config=SHORT, n_trials=2)
LONG = {"total_timesteps": 10**8, "n_eval_episodes": 1}
ELSEWHERE = "elsewhere:1:1"
TOO_LONG = {"env_kwargs": {"note": "x" * 6100}}


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with services_in(tmp_path_factory.mktemp("store")) as services:
        yield services


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "EOF"),
        ("[]", "request: Input should be an object"),
        ('{"search_space": {"gamma": 1}, "n_trials": 2}', "search_space.gamma.type"),
        ('{"search_space": {}, "n_trials": "many"}', "n_trials: Input should be a valid integer"),
        ('{"search_space": {}, "n_trials": 2, "config": "x"}', "config: Input should be"),
        ('{"search_space": {}, "n_trials": 2, "metric": "x"}', "Unknown metric"),
        ('{"search_space": {}, "n_trials": 2, "lucky": 1}', "lucky: Unexpected keyword"),
    ],
)
def test_a_sweep_whose_tag_was_edited_is_listed_with_the_reason(services, text, said):
    sweep_id = services.sweeps.create(REQUEST).sweep_id
    services.sweeps.set_tags(sweep_id, {Tag.SWEEP_REQUEST: text})
    client = client_of(services)
    listed = client.get("/sweeps", params={"limit": 1}).json()["sweeps"][0]
    assert listed["sweep_id"] == sweep_id
    assert listed["error_message"].startswith("The sweep's stored request cannot be read: ")
    assert said in listed["error_message"]
    shown = client.get(f"/sweeps/{sweep_id}").json()
    assert shown.pop("trials") == []
    assert shown == listed


@pytest.mark.rotated(14)
def test_a_sweep_whose_tag_was_edited_fails_and_the_others_go_on(tmp_path):
    with sweeps_on(tmp_path, LocalBackend) as sweeps:  # both at once
        broken = sweeps.submit(3, config={"total_timesteps": 10**8})
        sweeps.until(broken, lambda sweep: sweep.trial_jobs)
        sweeps.store.set_tags(broken, {Tag.SWEEP_REQUEST: "{"})
        other = sweeps.submit(1)
        assert sweeps.ended(other).status is JobStatus.COMPLETED
        failed = sweeps.ended(broken)
        assert failed.status is JobStatus.FAILED
        assert "stored request cannot be read" in failed.error_message
        (trial,) = sweeps.trials(broken)
        assert sweeps.platform.wait(trial.job_id).status is JobStatus.STOPPED


def runs_of(sweeps):
    client = sweeps.platform.client
    return {run.info.run_id for run in client.search_runs([sweeps.platform.place.experiment_id])}


def test_values_that_no_run_can_hold_are_refused(services):
    client = client_of(services)
    before = client.get("/sweeps").json()
    refused = client.post("/sweeps", json={"search_space": SPACE, "config": TOO_LONG})
    assert refused.status_code == 422, refused.text
    assert "At most 4000 characters" in refused.json()["detail"]
    assert client.get("/sweeps").json() == before


def test_a_trial_that_cannot_be_stored_fails_its_sweep_and_leaves_no_run(tmp_path):
    with sweeps_on(tmp_path) as sweeps:
        sweep_id = sweeps.submit(config=TOO_LONG)  # as if another release had taken it
        failed = sweeps.ended(sweep_id)
        assert failed.status is JobStatus.FAILED
        assert "env_kwargs takes" in failed.error_message
        assert not failed.trial_jobs
        assert runs_of(sweeps) == {sweep_id}


@pytest.mark.rotated(12)
def test_a_claimed_trial_that_cannot_be_stored_fails_alone(tmp_path):
    with platform(tmp_path, InMemoryBackend) as one:
        sweeps = Sweeps(one)
        sweep_id = sweeps.submit(2)
        request = REQUEST.trial({"learning_rate": 1e-3}, "m", 10**9)
        tags = {Tag.PARENT_RUN: sweep_id, Tag.TRIAL: "1", trials_tag(sweep_id): "1"}
        draft = one.jobs.draft(request, extra_tags=tags)
        values = request.to_dict() | TOO_LONG
        one.jobs.set_tags(draft.job_id, {Tag.REQUEST: json.dumps(values)})
        ledger = one.client.get_run(sweep_id).data.tags[Tag.LEDGER]
        one.client.log_param(ledger, f"{sweep_id}.{trial_claim(0)}", draft.job_id)
        sweeps.runner.start()
        try:
            assert sweeps.ended(sweep_id).status is JobStatus.COMPLETED
        finally:
            sweeps.runner.shutdown()
        first, second = sweeps.trials(sweep_id)
        assert (first.state, second.state) == ("failed", "completed")
        assert "env_kwargs takes" in first.job.error_message


@pytest.mark.rotated(12)
def test_a_resumed_sweep_keeps_its_limit_and_resumes_each_trial_once(tmp_path):
    with sweeps_on(tmp_path) as sweeps:
        sweep_id = sweeps.submit(3, config=LONG, max_concurrent_trials=1)
        jobs = []
        for number in range(3):
            sweeps.until_trial(sweep_id, number, "running")
            jobs.append(sweeps.trials(sweep_id)[number].job_id)
            if number < 2:
                sweeps.platform.runner.stop(jobs[-1])
        sweeps.runner.stop(sweep_id)
        assert sweeps.ended(sweep_id).status is JobStatus.STOPPED

        sweeps.runner.resume(sweep_id)
        for number, job_id in enumerate(jobs):
            sweeps.until(
                sweep_id, lambda _, n=number: sweeps.trials(sweep_id)[n].state == "running"
            )
            later = {trial.state for trial in sweeps.trials(sweep_id)[number + 1 :]}
            assert later <= {"stopped"}, "one at a time"
            sweeps.platform.runner.stop(job_id)
            sweeps.platform.wait(job_id)
        assert sweeps.ended(sweep_id).status is JobStatus.FAILED, "no trial was completed"
        assert [trial.job.attempt for trial in sweeps.trials(sweep_id)] == [2, 2, 2]


def test_the_newest_best_value_is_the_last_point(services):
    sweep_id = services.sweeps.create(REQUEST).sweep_id
    for value, completed in ((10.0, 4), (12.0, 6), (11.0, 5)):  # a trial's run was deleted
        services.sweeps.log_best(sweep_id, REQUEST.metric, value, completed)
        assert services.sweeps.sweep(sweep_id).best_value == value


def test_an_error_is_kept_without_what_a_database_refuses(services):
    sweep_id = services.sweeps.create(REQUEST).sweep_id
    services.sweeps.finish(sweep_id, JobStatus.FAILED, "a\0b\ud800" + "c" * 9000)
    assert services.sweeps.sweep(sweep_id).error_message == "a?b?" + "c" * 3996


def first_seed(space, wanted):
    """A sweep's seed with which random search draws these choices first."""

    def drawn(seed):
        return [
            propose(space, [], seed=seed, number=n, sampler="random", maximize=True)
            for n in range(len(wanted))
        ]

    ((name, _),) = space.items()
    return next(s for s in range(10**6) if [params[name] for params in drawn(s)] == wanted)


@pytest.mark.rotated(12)
def test_a_trial_that_learns_nothing_is_stopped_early(tmp_path, monkeypatch):
    rates = [3e-3, 1e-9]
    space = {"learning_rate": {"type": "categorical", "choices": rates}}
    seed = first_seed(parse_space(space), [rates[0]] * 5 + [rates[1]])
    looked = Counter()
    read = runs.read_histories

    def counted(uri, client, run_ids, key):
        looked.update(run_ids)
        return read(uri, client, run_ids, key)

    monkeypatch.setattr(runs, "read_histories", counted)
    with platform(tmp_path, InMemoryBackend) as one:
        sweeps = Sweeps(one)
        sweeps.runner.start()
        try:
            sweep_id = sweeps.submit(
                6,
                search_space=space,
                config={"total_timesteps": 60_000, "n_eval_episodes": 2},  # seconds: many looks
                sampler="random",
                pruner="median",
                seed=seed,
                max_concurrent_trials=1,
            )
            sweep = sweeps.ended(sweep_id, seconds=500)
        finally:
            sweeps.runner.shutdown()
        *done, last = sweeps.trials(sweep_id)
        assert sweep.status is JobStatus.COMPLETED
        assert {trial.state for trial in done} == {"completed"}
        assert last.state == "pruned"
        assert last.job.status is JobStatus.STOPPED
        assert 4_000 <= last.job.current_timesteps < 60_000
        assert last.job.model_version is None
        assert {looked[trial.job_id] for trial in done} == {1}, "what is done changes no more"


class AwayNowAndThen(SweepStore):
    away = False

    def unfinished(self):
        if self.away:
            raise StoreUnavailableError("it is away")
        return super().unfinished()


class Led:
    """A sweep that a server elsewhere leads, and one here that looks now and then."""

    def __init__(self, services) -> None:
        self.store = AwayNowAndThen(services.store)
        self.now = 100.0
        self.runner = SweepRunner(
            self.store, services.store, services.jobs, services.registry, 10**9, lambda: self.now
        )
        self.sweep_id = self.store.create(REQUEST).sweep_id
        self.store.start(self.sweep_id, ELSEWHERE)

    def owner_after(self, seconds):
        self.now += seconds
        self.runner.look()
        return self.store.sweep(self.sweep_id).owner

    def end(self):
        for trial in self.store.sweep(self.sweep_id).trial_jobs.values():
            self.runner._stop_job(trial)
        self.store.finish(self.sweep_id, JobStatus.STOPPED)


@pytest.fixture
def led(services):
    made = Led(services)
    yield made
    made.end()


def test_a_leader_that_is_silent_is_replaced_once_the_store_has_taken_a_write(led):
    assert led.owner_after(0) == ELSEWHERE
    assert led.owner_after(SILENT_SECONDS + 1) == ELSEWHERE
    led.store.beat(led.sweep_id)
    assert led.owner_after(CONFIRM_SECONDS + 1) == ELSEWHERE, "it was heard in time"
    assert led.owner_after(SILENT_SECONDS + 1) == ELSEWHERE
    assert led.owner_after(CONFIRM_SECONDS + 1) == worker_name(os.getpid())


def test_a_leader_is_given_time_to_beat_after_the_store_was_away(led):
    led.owner_after(0)
    led.store.away = True
    led.owner_after(10 * SILENT_SECONDS)
    led.store.away = False
    assert led.owner_after(1) == ELSEWHERE, "it could not beat either"
    assert led.owner_after(CONFIRM_SECONDS + 1) == ELSEWHERE, "it is observed anew"


def test_a_sweep_moves_as_a_job_does(services):
    sweeps = services.sweeps
    sweep_id = sweeps.create(REQUEST).sweep_id
    with pytest.raises(ConflictError, match=f"Sweep {sweep_id} is queued; it needs no resume"):
        sweeps.resume(sweep_id)
    with pytest.raises(ConflictError, match="is queued; it cannot become completed"):
        sweeps.finish(sweep_id, JobStatus.COMPLETED)
    assert sweeps.start(sweep_id, "here").status is JobStatus.RUNNING
    assert sweeps.finish(sweep_id, JobStatus.STOPPED).status is JobStatus.STOPPED
    for move in (
        lambda: sweeps.start(sweep_id, "late"),
        lambda: sweeps.request_stop(sweep_id),
        lambda: sweeps.finish(sweep_id, JobStatus.FAILED, "late"),
    ):
        with pytest.raises(ConflictError, match=f"Sweep {sweep_id} is stopped"):
            move()
    assert sweeps.sweep(sweep_id).owner == "here"
    assert sweeps.resume(sweep_id).status is JobStatus.QUEUED
    sweeps.start(sweep_id, "here")
    sweeps.finish(sweep_id, JobStatus.COMPLETED)
    with pytest.raises(ConflictError, match="is completed; it needs no resume"):
        sweeps.resume(sweep_id)
