"""Sweeps whose trials are trained with several seeds: what a trial is worth, and what ends it."""

import pytest
from mlflow.tracking import MlflowClient

from grpo.statistics import mean_interval
from grpo_platform.api.schemas.sweeps import sweep_reply
from grpo_platform.core.errors import InvalidRequestError, QueueFullError
from grpo_platform.core.names import Metric, Tag
from grpo_platform.core.states import JobStatus
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.sweeps.runner import SweepRunner
from grpo_platform.tracking.reporter import Point
from tests.service.api_support import client_of, services_in
from tests.service.sweeps_support import SHORT, SPACE, Sweeps, sweeps_on
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LONG = {"total_timesteps": 10**8, "n_eval_episodes": 1}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    with sweeps_on(tmp_path_factory.mktemp("sweeps")) as sweeps:
        yield sweeps


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with services_in(
        tmp_path_factory.mktemp("store"), max_queued_jobs=20, max_concurrent_jobs=1
    ) as services:
        yield services


@pytest.mark.rotated(11)
def test_a_trial_is_worth_the_mean_over_its_seeds(sweeps):
    sweep_id = sweeps.submit(2, seeds=(3, 14), model_name="seeded")
    sweep = sweeps.ended(sweep_id)
    assert sweep.status is JobStatus.COMPLETED, sweep.error_message
    trials = sweeps.trials(sweep_id)
    assert [trial.number for trial in trials] == [0, 1]
    for trial in trials:
        assert [seed.job.request.config.seed for seed in trial.seeds] == [3, 14]
        assert len({seed.job.request.config.learning_rate for seed in trial.seeds}) == 1
        returns = [seed.job.metrics[Metric.EVAL_MEAN] for seed in trial.seeds]
        assert trial.value == pytest.approx(sum(returns) / 2)
        assert trial.interval == mean_interval(returns)
        assert trial.chosen.job.metrics[Metric.EVAL_MEAN] == max(returns)
    assert trials[0].params != trials[1].params
    found = sweep_reply(sweep, trials)
    best = max(trials, key=lambda trial: trial.value)
    assert (found.n_seeds, found.started_trials, found.progress) == (2, 2, 1.0)
    assert found.best.number == best.number
    assert found.best_value == sweep.best_value == best.value
    assert (found.best.ci_low, found.best.ci_high) == best.interval[1:]
    assert [seed.job_id for seed in found.best.seeds] == [seed.job_id for seed in best.seeds]
    assert found.best.job_id == best.chosen.job_id
    registry = sweeps.platform.registry
    assert registry.resolve("seeded@champion").version == found.best.model_version
    run = sweeps.platform.client.get_run(sweep_id)
    assert "(mean of 2 seeds, 95 % interval " in run.data.tags[Tag.NOTE]
    names = {sweeps.platform.client.get_run(s.job_id).info.run_name for s in trials[0].seeds}
    assert names == {"trial 0, seed 3", "trial 0, seed 14"}


@pytest.mark.rotated(11)
def test_a_failed_seed_is_the_end_of_its_trial_and_the_sweep_takes_it_up_again(sweeps):
    sweep_id = sweeps.submit(1, seeds=(1, 2), config=LONG)
    sweeps.until_trial(sweep_id, 0, "running")
    until(lambda: len(sweeps.trials(sweep_id)[0].seeds) == 2)
    (trial,) = sweeps.trials(sweep_id)
    first, second = (seed.job_id for seed in trial.seeds)
    sweeps.platform.jobs.finish(second, JobStatus.FAILED, "it broke")
    failed = sweeps.ended(sweep_id)
    assert failed.status is JobStatus.FAILED
    assert failed.error_message == "No trial was completed. it broke"
    (trial,) = sweeps.trials(sweep_id)
    assert (trial.state, trial.value) == ("failed", None)
    assert [seed.state for seed in trial.seeds] == ["stopped", "failed"]

    sweeps.runner.resume(sweep_id)
    sweeps.until_trial(sweep_id, 0, "running")
    until(lambda: [seed.job.attempt for seed in sweeps.trials(sweep_id)[0].seeds] == [2, 2])
    (trial,) = sweeps.trials(sweep_id)
    assert [seed.job_id for seed in trial.seeds] == [first, second]
    sweeps.runner.stop(sweep_id)
    assert sweeps.ended(sweep_id).status is JobStatus.STOPPED
    assert [trial.state for trial in sweeps.trials(sweep_id)] == ["stopped"]


@pytest.mark.rotated(7)
def test_a_trial_that_a_crash_left_half_made_gets_its_other_seeds(sweeps):
    sweeps.runner._closing = True
    sweep_id = sweeps.submit(1, seeds=(1, 2, 3))
    request = sweeps.store.sweep(sweep_id).request
    job = request.trial({"learning_rate": 1.5e-3}, f"grpo_sweep_{sweep_id}", 10**9, 1)
    draft = sweeps.store.claim_job(sweep_id, 0, job, "trial 0, seed 1")
    assert draft is not None
    (begun,) = sweeps.trials(sweep_id)
    assert (begun.state, begun.lacks_seeds) == ("queued", True)
    other = Sweeps(sweeps.platform)
    other.runner.start()
    try:
        assert other.ended(sweep_id).status is JobStatus.COMPLETED
    finally:
        other.runner.shutdown()
    (trial,) = sweeps.trials(sweep_id)
    assert trial.seeds[0].job_id == draft.job_id
    assert [seed.job.request.config.seed for seed in trial.seeds] == [1, 2, 3]
    assert [seed.params for seed in trial.seeds] == [{"learning_rate": 1.5e-3}] * 3


class ByHand:
    """A sweep whose jobs are written to the store as if they had been trained."""

    def __init__(self, services, n_trials: int) -> None:
        self.services = services
        self.client = MlflowClient(tracking_uri=services.store.tracking_uri)
        self.runner = SweepRunner(
            services.sweeps, services.store, services.jobs, services.registry, 10**9
        )
        self.request = SweepRequest(
            search_space=SPACE, config=SHORT, n_trials=n_trials, seeds=(1, 2)
        )
        self.sweep_id = services.sweeps.create(self.request).sweep_id
        self.sweep = services.sweeps.sweep(self.sweep_id)

    def trial(self, number: int, courses, status: str, value: float | None = None) -> list[str]:
        """A trial by its seeds' episode returns, at 50, 100 and 150 of 200 timesteps."""
        jobs = []
        for place, returns in enumerate(courses):
            request = self.request.trial({"learning_rate": 1e-3}, "by_hand", 10**9, 1 + place)
            job = self.services.sweeps.claim_job(self.sweep_id, 2 * number + place, request, "x")
            self.services.store.publish(job)
            points = [
                Point(Metric.EPISODE_RETURN, y, 50 * (n + 1), 1) for n, y in enumerate(returns)
            ]
            points += [] if value is None else [Point(Metric.EVAL_MEAN, value, 200, 1)]
            self.services.store.log_points(job.job_id, points)
            self.client.update_run(job.job_id, status)
            jobs.append(job.job_id)
        return jobs

    def trials(self):
        return self.services.sweeps.trials(self.services.sweeps.sweep(self.sweep_id))


@pytest.mark.rotated(11)
def test_the_pruner_sees_the_mean_where_all_seeds_are(services):
    made = ByHand(services, 6)
    for number in range(5):
        made.trial(number, [(10.0, 20.0, 30.0), (30.0, 40.0, 50.0)], "FINISHED", 40.0)
    # one seed alone is better than all others were, their mean is not
    last = made.trial(5, [(10.0, 90.0, 90.0), (10.0,)], "RUNNING")
    *done, running = made.trials()
    assert made.runner._course(made.request, done[0]) == {5: 20.0, 10: 30.0, 15: 40.0}
    assert made.runner._course(made.request, running) == {5: 10.0}
    made.runner._prune(made.sweep, made.trials())
    for job_id in last:
        tags = made.client.get_run(job_id).data.tags
        assert tags[Tag.TRIAL_PRUNED] == "true"
        assert tags[Tag.STOP_REQUESTED] == "true"
    for job_id in last:
        made.client.update_run(job_id, "KILLED")
    assert [trial.state for trial in made.trials()] == ["completed"] * 5 + ["pruned"]


def test_what_a_crash_left_of_a_pruned_trial_is_pruned_too(services):
    made = ByHand(services, 1)
    first, second = made.trial(0, [(1.0,), (1.0,)], "RUNNING")
    services.sweeps.mark_pruned(first)
    made.client.update_run(first, "KILLED")
    (trial,) = made.trials()
    assert (trial.state, trial.ended) == ("pruned", False)
    made.runner._stop_in_vain(made.sweep, [trial])
    tags = made.client.get_run(second).data.tags
    assert (tags[Tag.TRIAL_PRUNED], tags[Tag.STOP_REQUESTED]) == ("true", "true")


def test_a_trial_s_seeds_find_room_together_or_none_is_queued(services):
    made = ByHand(services, 1)
    with services.jobs.room(20), pytest.raises(QueueFullError, match="no room for 2 jobs"):
        made.runner._make_seeds(made.sweep, 0, {"learning_rate": 1e-3}, 0)
    assert made.trials() == []


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"seeds": [3, 3]}, 422, "seeds has 3 more than once"),
        ({"seeds": 1}, 422, "It must be how many seeds, 2 to 100"),
        ({"seeds": 101}, 422, "It must be how many seeds, 2 to 100"),
        ({"seeds": [1, -2]}, 422, "It must be how many seeds, 2 to 100"),
        ({"seeds": 22}, 422, "GRPO_MAX_QUEUED_JOBS"),
        ({"seeds": 2, "n_trials": 501}, 422, "1002 jobs, and a sweep has at most 1000"),
        ({"seeds": [1, 2], "config": {"seed": 7}}, 422, "leave seed out of config"),
        ({"seeds": 2, "config": {"seed": 7}}, 422, "leave seed out of config"),
        ({"config": {"seeds": 2}}, 422, "seeds"),
        (
            {"search_space": {"seed": {"type": "int", "low": 0, "high": 9}}},
            400,
            "Give the sweep seeds",
        ),
    ],
)
def test_seeds_that_make_no_sense_are_refused_and_leave_nothing(services, fields, status, said):
    client = client_of(services)
    before = client.get("/sweeps").json()
    refused = client.post("/sweeps", json={"search_space": SPACE, "config": SHORT} | fields)
    assert refused.status_code == status, refused.text
    assert said in refused.json()["detail"]
    assert client.get("/sweeps").json() == before


def test_a_number_of_seeds_is_counted_from_the_sweep_s(services):
    client = client_of(services)
    accepted = client.post(
        "/sweeps", json={"search_space": SPACE, "config": SHORT, "seeds": 3, "seed": 2**32 - 2}
    ).json()
    request = services.sweeps.sweep(accepted["sweep_id"]).request
    assert request.seeds == request.trial_seeds == (2**32 - 2, 2**32 - 1, 0)
    assert request.params()["seeds"] == "[4294967294, 4294967295, 0]"


def test_a_stored_request_without_seeds_trains_one():
    with_seed = SweepRequest(search_space=SPACE, config={"seed": 7}, seed=1)
    assert with_seed.trial_seeds == (7,)
    assert SweepRequest(search_space=SPACE, seed=1).trial_seeds == (1,)
    with pytest.raises(InvalidRequestError, match="2 to 100"):
        SweepRequest(search_space=SPACE, seeds=())
