"""Experiments in a real store: made whole or not at all, read together, listed page by page."""

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from grpo.errors import ConfigError
from grpo_platform.core.errors import (
    ConflictError,
    InvalidRequestError,
    StoreUnavailableError,
    UnknownExperimentError,
)
from grpo_platform.core.names import Tag, seed_claim
from grpo_platform.core.states import JobStatus
from grpo_platform.experiments.finalize import outcome
from grpo_platform.experiments.records import SeedRecord
from grpo_platform.experiments.request import MAX_SEED, ExperimentRequest, seeds_from
from grpo_platform.experiments.store import ExperimentStore
from tests.service.tracking_support import jobs_of, prepare, request

REQUEST = ExperimentRequest.of(request(total_timesteps=500, model_name="m"), (3, 1, 2))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def experiments(place):
    return ExperimentStore(jobs_of(place))


def runs_of(experiments, place):
    found = experiments._client.search_runs([place.experiment_id])
    return {run.info.run_id for run in found}


def test_seeds_are_counted_from_the_first_or_taken_as_they_are():
    assert seeds_from(3, 7) == (7, 8, 9)
    assert seeds_from(3, MAX_SEED - 1) == (MAX_SEED - 1, MAX_SEED, 0)
    assert seeds_from([5, 2], 7) == (5, 2)


@pytest.mark.parametrize("seeds", [(), (1,), (1, 2, 1), tuple(range(101)), (-1, 2), (2**32, 1)])
def test_seeds_that_are_no_experiment_are_refused(seeds):
    with pytest.raises((InvalidRequestError, ConfigError), match="seeds") as caught:
        dataclasses.replace(REQUEST, seeds=seeds)
    assert caught.value.field == "seeds"


def test_a_request_travels_as_json_and_makes_jobs_that_differ_in_their_seeds_alone():
    again = ExperimentRequest.from_json(REQUEST.to_json())
    assert again == REQUEST
    first, second = again.job(3, "0" * 32), again.job(1, "0" * 32)
    assert (first.config.seed, second.config.seed) == (3, 1)
    assert first.promote == "never"
    assert first.model_name == f"grpo_seeds_{'0' * 32}"  # the model gets only what is chosen
    assert dataclasses.replace(again, register="each").job(3, "0" * 32).model_name == "m"
    assert dataclasses.replace(first.config, seed=1) == second.config
    unnamed = dataclasses.replace(REQUEST, model_name=None, register="each")
    assert unnamed.job(3, "a" * 32).model_name == f"grpo_experiment_{'a' * 32}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": {"seed": 1}}, "seed belongs to the experiment"),
        ({"config": {"lerning_rate": 1}}, "no field lerning_rate"),
        ({"config": {"env_kwargs": {"note": "x" * 8000}}}, "as JSON"),
        ({"register": "worst"}, "register"),
    ],
)
def test_what_cannot_be_an_experiment_is_refused(changes, said):
    with pytest.raises(InvalidRequestError, match=said):
        dataclasses.replace(REQUEST, **changes)


def test_an_experiment_is_made_with_a_draft_for_each_seed(experiments):
    made, _ = experiments.create(REQUEST, owner="here:1:1")
    assert made.status is JobStatus.QUEUED
    assert made.request == REQUEST
    assert made.owner == "here:1:1"
    assert sorted(made.seed_jobs) == [1, 2, 3]
    drafts = experiments.seeds(made)
    assert [(s.seed, s.job, s.state) for s in drafts] == [(n, None, "queued") for n in (1, 2, 3)]
    jobs = [experiments.publish(draft.job_id) for draft in drafts]
    assert [job.request.config.seed for job in jobs] == [1, 2, 3]
    seeds = experiments.seeds(made)
    assert [seed.job.job_id for seed in seeds] == [job.job_id for job in jobs]
    assert experiments.publish(jobs[0].job_id) is None, "it is one already"
    assert experiments.claim_seed(made.experiment_id, REQUEST, 2) is None, "it has a job"
    run = experiments._client.get_run(made.experiment_id)
    assert run.data.params["config.total_timesteps"] == "500"
    assert run.data.params["seeds"] == "[3, 1, 2]"
    nested = experiments._client.get_run(jobs[0].job_id)
    assert nested.data.tags[Tag.PARENT_RUN] == made.experiment_id


def test_two_servers_publish_a_draft_at_one_moment(place, experiments):
    made, _ = experiments.create(dataclasses.replace(REQUEST, seeds=tuple(range(10))))
    other = ExperimentStore(jobs_of(place))
    with ThreadPoolExecutor(2) as pool:
        for draft in experiments.seeds(made):
            together = threading.Barrier(2)

            def publish(store, job_id=draft.job_id, together=together):
                together.wait(10)
                store.publish(job_id)

            for done in [pool.submit(publish, store) for store in (experiments, other)]:
                done.result(30)
    assert all(seed.job is not None for seed in experiments.seeds(made))


class Away(ExperimentStore):
    def claim_seed(self, experiment_id, request, seed):
        if seed == request.seeds[-1]:
            raise StoreUnavailableError("it is away")
        return super().claim_seed(experiment_id, request, seed)


def test_an_experiment_that_cannot_be_made_whole_leaves_nothing(place, experiments):
    before = runs_of(experiments, place)
    with pytest.raises(StoreUnavailableError):
        Away(jobs_of(place)).create(REQUEST)
    assert runs_of(experiments, place) == before


def test_pages_are_newest_first_and_members_are_read_together(experiments, monkeypatch):
    made = [experiments.create(REQUEST)[0].experiment_id for _ in range(3)]
    reads = []
    read = experiments._reader._read

    def counted(statement):
        reads.append(statement)
        return read(statement)

    monkeypatch.setattr(experiments._reader, "_read", counted)
    first = experiments.page(2)
    seeds = experiments.members_of(first.items)
    assert len(reads) == 2, "one for the parents, one for all their jobs"
    assert [e.experiment_id for e in first.items] == made[:0:-1]
    assert {len(found) for found in seeds.values()} == {3}
    rest = experiments.page(1, first.next_page_token)
    assert rest.items[0].experiment_id == made[0]


def test_a_run_whose_request_was_edited_says_so(experiments):
    made, _ = experiments.create(REQUEST)
    for text, said in (("", "EOF"), ("[]", "object"), ('{"seeds": [1], "config": {}}', "seeds")):
        experiments.set_tags(made.experiment_id, {Tag.EXPERIMENT_REQUEST: text})
        found = experiments.experiment(made.experiment_id)
        assert found.request_error == found.error_message
        assert said in found.error_message
        assert sorted(found.seed_jobs) == [1, 2, 3]
    changed = json.loads(REQUEST.to_json()) | {"config": {"lerning_rate": 1}}
    experiments.set_tags(made.experiment_id, {Tag.EXPERIMENT_REQUEST: json.dumps(changed)})
    assert "lerning_rate" in experiments.experiment(made.experiment_id).error_message


def test_what_is_no_experiment_is_unknown(place, experiments):
    job = jobs_of(place).create(request())
    for other in ("x", "0" * 32, job.job_id):
        with pytest.raises(UnknownExperimentError):
            experiments.experiment(other)
    gone = experiments.create(REQUEST)[0].experiment_id
    experiments._client.delete_run(gone)
    with pytest.raises(UnknownExperimentError):
        experiments.experiment(gone)


def test_an_experiment_is_resumed_with_what_did_not_complete(place, experiments):
    made, _ = experiments.create(REQUEST)
    jobs = jobs_of(place)
    for draft, status in zip(
        experiments.seeds(made), (JobStatus.FAILED, JobStatus.STOPPED, None), strict=True
    ):
        experiments.publish(draft.job_id)
        if status is not None:
            jobs.finish(draft.job_id, status)
    experiments.start(made.experiment_id, "here")
    with pytest.raises(ConflictError, match="is running; it needs no resume"):
        experiments.resume(made.experiment_id)
    experiments.finish(made.experiment_id, JobStatus.FAILED, "so")
    resumed = experiments.resume(made.experiment_id)
    assert resumed.status is JobStatus.QUEUED
    assert resumed.resuming == {1: 1, 2: 1}
    assert [s.waits_in(resumed) for s in experiments.seeds(resumed)] == [True, True, False]


def test_claims_of_seeds_are_numbers(experiments):
    made, _ = experiments.create(REQUEST)
    run = experiments._client.get_run(made.experiment_id)
    assert f"grpo.claim.{seed_claim(3)}" in run.data.tags


@pytest.mark.parametrize(
    ("states", "status", "said"),
    [
        (("completed", "completed"), JobStatus.COMPLETED, None),
        (("completed", "failed"), JobStatus.FAILED, "1 of 2 seeds failed"),
        (("stopped", "failed"), JobStatus.FAILED, "1 of 2 seeds failed"),
        (("completed", "stopped"), JobStatus.STOPPED, "1 of 2 seeds were stopped"),
    ],
)
def test_an_experiment_comes_to_what_its_seeds_came_to(states, status, said):
    seeds = [
        SeedRecord(number=number, job_id="j", job=None, state=state)
        for number, state in enumerate(states)
    ]
    found, message = outcome(seeds)
    assert found is status
    assert (said is None and message is None) or message.startswith(said)


def test_with_a_token_only_what_it_signed_is_led(place, experiments):
    ours = ExperimentStore(jobs_of(place, "t" * 32))
    made, _ = ours.create(REQUEST)
    assert ours.may_lead(made)
    assert ours.publish(made.seed_jobs[1]) is not None
    planted, _ = experiments.create(REQUEST)
    assert not ours.may_lead(planted)
    told = ours.experiment(planted.experiment_id).error_message
    assert f"`grpo-platform store sign {planted.experiment_id}`" in told
    assert planted.experiment_id in {found.experiment_id for found in ours.unsigned()}
    experiments.publish(planted.seed_jobs[1])
    signed = ours.sign(planted.experiment_id)
    assert ours.may_lead(signed)
    assert signed.error_message is None
    assert ours.vouches_for(ours.seeds(signed)[0].job)
    # a draft that a stranger hung below it is not trained
    assert ours.publish(planted.seed_jobs[2]) is None
    assert ours.seeds(signed)[1].state == "failed"
