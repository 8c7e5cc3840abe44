"""Comparisons over a real store: versions that play, experiments seed by seed, what is refused."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from grpo.actions import DiscreteActions
from grpo.evaluation import evaluation_seeds
from grpo.policies import PolicySpec
from grpo.statistics import difference, iqm_interval, mean_interval, probability_of_improvement
from grpo_platform.client.comparisons import ShownComparison
from grpo_platform.comparisons.sides import SideReader
from grpo_platform.comparisons.store import ComparisonStore
from grpo_platform.core.names import Metric, Tag
from grpo_platform.core.states import JobStatus
from grpo_platform.experiments.request import ExperimentRequest
from grpo_platform.experiments.store import ExperimentStore
from grpo_platform.registry.policy_files import evaluate_files
from grpo_platform.services.comparisons import Comparisons
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.tracking.reporter import Point
from tests.service.api_support import client_of, services_in
from tests.service.registry_support import Bench, balancing_policy, random_policy
from tests.service.sweeps_support import SPACE
from tests.service.tracking_support import request

ACROBOT = PolicySpec(observation_shape=(6,), action=DiscreteActions(3))
GOOD, BAD = (480.0, 490.0, 500.0, 470.0), (300.0, 420.0, 350.0, 310.0)


class Made:
    """A server's parts, with versions 1 to 3 of `pole`, from good to bad, and two experiments."""

    def __init__(self, services) -> None:
        self.services, self.api = services, client_of(services)
        self.mlflow = MlflowClient(tracking_uri=services.store.tracking_uri)
        self.bench = Bench.__new__(Bench)
        self.bench.client, self.bench.registry = self.mlflow, services.registry
        self.bench.promoter, self.bench.job = services.promoter, self._run
        self.home = self.mlflow.get_experiment_by_name("grpo").experiment_id
        for speed in (0.2, 2.0, 0.0):
            self.bench.register("pole", balancing_policy(speed))
        self.good = self.experiment("good", GOOD)
        self.bad = self.experiment("bad", BAD, total_timesteps=2000)

    def _run(self) -> str:
        return self.mlflow.create_run(self.home).info.run_id

    def finish(self, job_id, *, value=None, version=None) -> str:
        jobs = self.services.store
        jobs.start(job_id, "host:1:1")
        if value is not None:
            now = int(time.time() * 1000)
            points = [Point(Metric.EVAL_MEAN, value * k / 4, 250 * k, now) for k in range(1, 5)]
            jobs.log_points(job_id, points)
        if version is not None:
            jobs.set_tags(job_id, {Tag.MODEL_VERSION: str(version), "x": "1"})
        jobs.finish(job_id, JobStatus.COMPLETED)
        return job_id

    def experiment(self, name, values, **fields) -> str:
        store = ExperimentStore(self.services.store)
        job = request(**({"total_timesteps": 1000, "model_name": name} | fields))
        record, _ = store.create(ExperimentRequest.of(job, tuple(range(len(values)))))
        for value, job_id in zip(values, record.seed_jobs.values(), strict=True):
            store.publish(job_id)
            if value is not None:
                self.finish(job_id, value=value)
        return record.experiment_id

    def job(self, version) -> str:
        job = self.services.store.create(request(model_name="pole"))
        return self.finish(job.job_id, value=9.0, version=version)

    def compare(self, *references, status=200, **fields):
        body = {"references": references, "seed": 3, **fields}
        reply = self.api.post("/comparisons", json=body)
        assert reply.status_code == status, reply.text
        return reply.json()

    def runs(self) -> int:
        return len(self.mlflow.search_runs([self.home], max_results=1000))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with services_in(tmp_path_factory.mktemp("store")) as services:
        yield Made(services)


@pytest.fixture(scope="module")
def versions(made):
    """Three versions that played 60 episodes."""
    return made.compare(*({"model": f"pole/{n}"} for n in (1, 2, 3)), episodes=60)


def estimate(found):
    return {"estimate": found.estimate, "low": found.low, "high": found.high}


@pytest.mark.rotated(4)
def test_versions_play_the_same_fresh_episodes_and_are_compared_in_pairs(versions):
    seeds = evaluation_seeds(60, 3).tolist()
    assert [side["seeds"] for side in versions["sides"]] == [seeds] * 3
    assert [side["unit"] for side in versions["sides"]] == ["episode"] * 3
    good, middling, bad = (np.array(side["returns"]) for side in versions["sides"])
    assert (good == 500.0).all()
    for pair, (a, b) in zip(
        versions["pairs"], [(good, middling), (good, bad), (middling, bad)], strict=True
    ):
        level = pair["confidence"]
        found = difference(a, b, paired=True, confidence=level)
        assert pair["mean"] == pytest.approx(estimate(found.mean))
        assert pair["iqm"] == pytest.approx(estimate(found.iqm))
        chance = probability_of_improvement(a, b, paired=True, confidence=level)
        assert pair["probability"] == pytest.approx(estimate(chance))
        assert (pair["paired"], pair["verdict"], pair["units"]) == (True, "first", [60, 60])


@pytest.mark.rotated(4)
def test_several_pairs_are_corrected_and_say_so(versions):
    assert "Holm" in versions["correction"]
    levels = sorted(pair["confidence"] for pair in versions["pairs"])
    assert levels == pytest.approx([0.95, 0.975, 1 - 0.05 / 3])
    for pair in versions["pairs"]:
        assert pair["adjusted_p_value"] >= pair["p_value"]
        assert f"{100 * pair['confidence']:.3g} % interval" in pair["sentence"]


def test_a_comparison_is_kept_as_a_run_with_its_files(made, versions):
    comparison_id = versions["comparison_id"]
    assert made.api.get(f"/comparisons/{comparison_id}").json() == versions
    run = made.mlflow.get_run(comparison_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["difference/0-1/mean"] == versions["pairs"][0]["mean"]["estimate"]
    files = {file.path for file in made.mlflow.list_artifacts(comparison_id)}
    assert files == {"comparison.json", "comparison.png", "pairs.csv", "report.html", "report.md",
                     "returns.csv"}  # fmt: skip
    assert versions["pairs"][0]["sentence"].startswith("pole/1 is better than pole/2: mean")
    newest = made.api.get("/comparisons?limit=1").json()["comparisons"][0]
    assert newest["references"] == [{"model": f"pole/{n}"} for n in (1, 2, 3)]
    assert newest["sentence"] == versions["pairs"][0]["sentence"]


def test_the_report_is_one_file_that_loads_nothing_and_runs_nothing(made, versions):
    reply = made.api.get(f"/comparisons/{versions['comparison_id']}/report")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    text = reply.text
    assert text.count("<svg") == 4
    assert "<script" not in text
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", text)
    assert not re.findall(r"url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text
    for pair in versions["pairs"]:
        assert pair["sentence"] in text
    markdown = made.api.get(f"/comparisons/{versions['comparison_id']}/report?format=markdown")
    assert markdown.headers["content-type"] == "text/markdown; charset=utf-8"
    assert markdown.text.startswith("## pole/1 against pole/2 against pole/3\n")
    refused = made.api.get(f"/comparisons/{versions['comparison_id']}/report?format=pdf")
    assert refused.status_code == 422


def test_experiments_are_compared_seed_by_seed(made):
    found = made.compare({"experiment": made.good}, {"experiment": made.bad})
    good, bad = found["sides"]
    assert (good["label"], good["unit"], good["seeds"]) == ("good", "seed", [0, 1, 2, 3])
    assert good["returns"] == list(GOOD)
    assert good["mean"] == pytest.approx(estimate(mean_interval(GOOD)))
    assert bad["iqm"] == pytest.approx(estimate(iqm_interval(BAD)))
    (pair,) = found["pairs"]
    assert pair["paired"] is True
    assert pair["mean"] == pytest.approx(estimate(difference(GOOD, BAD, paired=True).mean))
    assert (found["correction"], pair["confidence"]) == (None, 0.95)
    # the curves rise by quarters of the return, and are held to the budget of 1,000
    assert found["curve_metric"] == "eval/mean_reward"
    assert good["curve"]["count"][0] == 4
    assert good["area"] == pytest.approx(np.mean(GOOD) * (0.25 + 0.375 + 0.625 + 0.875) / 4)
    said = " ".join(found["warnings"])
    assert "good has only 4 seeds" in said
    assert "budgets differ (good 1,000, bad 2,000 timesteps)" in said


def test_seeds_that_failed_or_wait_are_left_out_and_told(made):
    fewer = made.experiment("fewer", (100.0, 110.0, 130.0, 120.0, None))
    found = made.compare({"experiment": fewer}, {"experiment": made.good})
    (pair,) = found["pairs"]
    assert (pair["paired"], pair["units"]) == (True, [4, 4])
    assert found["sides"][0]["left_out"] == 1
    assert "fewer is not finished, and 1 of its seeds are left out" in " ".join(found["warnings"])


@pytest.mark.rotated(4)
def test_seeds_that_hardly_overlap_are_not_paired(made):
    many = made.experiment("many", (200.0, 210.0, 230.0, 220.0, 180.0, 250.0, 240.0))
    found = made.compare({"experiment": many}, {"experiment": made.good})
    (pair,) = found["pairs"]
    assert (pair["paired"], pair["units"]) == (False, [7, 4])
    assert pair["verdict"] == "second"
    assert "share some of their seeds" in " ".join(found["warnings"])


def test_an_experiment_beside_a_version_compares_in_the_mean_alone(made):
    made.bench.promoter.promote("pole", 1, True, "test")
    found = made.compare({"experiment": made.bad}, {"model": "pole@champion"}, episodes=20)
    (pair,) = found["pairs"]
    assert (pair["iqm"], pair["probability"], pair["paired"]) == (None, None, False)
    assert found["sides"][1]["label"] == "pole/1"
    said = " ".join(found["warnings"])
    assert "only their means compare" in said
    assert "played only 20 episodes" in said
    assert "All 20 returns of pole/1 are equal" in said


@pytest.mark.rotated(4)
def test_a_job_and_a_sweeps_best_are_their_versions_and_the_choice_is_told(made):
    job = made.job(2)
    sweeps = made.services.sweeps
    fields = {"search_space": SPACE, "n_trials": 2, "config": {"total_timesteps": 1000}}
    sweep = sweeps.create(SweepRequest(**fields, seed=1, model_name="pole"))
    for number, (value, version) in enumerate([(10.0, 3), (400.0, 1)]):
        trial = sweep.request.trial({"learning_rate": 1e-3}, "pole", 10**9)
        draft = sweeps.claim_job(sweep.sweep_id, number, trial, f"trial {number}")
        sweeps.publish(draft.job_id)
        made.finish(draft.job_id, value=value, version=version)
    found = made.compare({"job": job}, {"sweep": sweep.sweep_id}, episodes=50)
    assert [side["label"] for side in found["sides"]] == ["pole/2", "pole/1"]
    assert found["sides"][1]["chosen"] == "trial 1, the best of 2 by eval/mean_reward"
    assert "pole/1 was chosen after looking (trial 1, the best of 2" in " ".join(found["warnings"])
    assert found["pairs"][0]["verdict"] == "second"
    seed = next(iter(ExperimentStore(made.services.store).experiment(made.bad).jobs.values()))
    made.bench.job = lambda: seed
    made.bench.register("one-of-four", balancing_policy(1.0))
    made.bench.job = made._run
    found = made.compare({"model": "one-of-four/1"}, {"model": "pole/3"}, episodes=50)
    said = " ".join(found["warnings"])
    assert "one-of-four/1 may have been chosen after looking (one of the seeds of experi" in said


def test_different_environments_are_refused_or_put_on_one_scale(made):
    made.bench.register("swing", random_policy(ACROBOT), env_name="Acrobot-v1")
    sides = {"model": "pole/1"}, {"model": "swing/1"}
    refused = made.compare(*sides, status=422)
    assert "Returns of CartPole-v1 and Acrobot-v1 do not compare" in refused["detail"]
    found = made.compare(*sides, normalize=True, episodes=20)
    pole, swing = found["sides"]
    # actions at random return 22 on average, the threshold is 475
    assert pole["mean"]["estimate"] == pytest.approx((500 - 22) / (475 - 22), abs=0.02)
    assert -0.2 < swing["mean"]["estimate"] < 1.0
    assert (found["normalized"], found["pairs"][0]["paired"]) == (True, False)
    assert "The environments differ: returns are normalised" in " ".join(found["warnings"])


@pytest.mark.parametrize(
    ("references", "fields", "status", "said"),
    [
        ([{"model": "pole/1"}], {}, 422, "at least 2"),
        ([{"model": "pole/1"}] * 2, {}, 422, "named twice"),
        ([{"model": f"pole/{n}"} for n in range(1, 10)], {}, 422, "at most 8"),
        (
            [{"model": "pole/1"}, {"model": "pole/77"}],
            {},
            404,
            "No model 'pole/77'. GET /models/pole lists its versions.",
        ),
        ([{"model": "pole/1"}, {"job": "0" * 32}], {}, 404, "No training job"),
        ([{"model": "pole/1"}, {"sweep": "0" * 32}], {}, 404, "No sweep"),
        ([{"model": "pole/1"}, {"experiment": "0" * 32}], {}, 404, "No experiment"),
        ([{"model": "pole/1"}, {"experiment": "../x"}], {}, 422, "experiment"),
        ([{"model": "pole/1"}, {}], {}, 422, "exactly one of experiment, job, model, sweep"),
        ([{"model": "pole/1"}, {"model": "pole/2", "job": "0" * 32}], {}, 422, "exactly one"),
        ([{"model": "pole/1"}, {"model": "pole/2"}], {"episodes": 3}, 422, "episodes"),
        ([{"model": "pole/1"}, {"model": "pole/2"}], {"seed": -1}, 422, "seed"),
        ([{"model": "pole/1"}, {"model": "pole/2"}], {"episode": 30}, 422, "episodes"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(made, references, fields, status, said):
    before = made.runs()
    reply = made.api.post("/comparisons", json={"references": references, **fields})
    assert (reply.status_code, said in reply.json()["detail"]) == (status, True), reply.text
    assert made.runs() == before


def test_a_version_under_two_names_is_refused(made):
    latest = made.services.registry.resolve("pole").label
    refused = made.compare({"model": latest}, {"model": "pole"}, status=422)
    assert f"The model {latest} and the model pole are both {latest}" in refused["detail"]


def test_what_has_nothing_to_compare_yet_says_so(made):
    waiting = made.services.store.create(request(model_name="pole")).job_id
    refused = made.compare({"model": "pole/1"}, {"job": waiting}, status=409)
    assert "has made no version that could play" in refused["detail"]
    alone = made.experiment("alone", (1.0, None))
    refused = made.compare({"experiment": alone}, {"experiment": made.good}, status=409)
    assert "has 1 evaluated seeds" in refused["detail"]
    sweep = made.services.sweeps.create(
        SweepRequest(search_space=SPACE, n_trials=2, config={}, seed=1)
    )
    refused = made.compare({"model": "pole/1"}, {"sweep": sweep.sweep_id}, status=409)
    assert "has no completed trial" in refused["detail"]


def test_an_unknown_comparison_and_one_that_somebody_edited(made, versions, tmp_path):
    for name in ("0" * 32, "x", made.good):
        assert made.api.get(f"/comparisons/{name}").status_code == 404
    found = made.compare({"experiment": made.good}, {"experiment": made.bad})
    (tmp_path / "comparison.json").write_text('{"sides": "<script>"}')
    made.mlflow.log_artifact(found["comparison_id"], str(tmp_path / "comparison.json"))
    made.mlflow.set_tag(found["comparison_id"], Tag.COMPARISON_SUMMARY, "{}")
    reply = made.api.get(f"/comparisons/{found['comparison_id']}/report")
    assert (reply.status_code, "was changed" in reply.json()["detail"]) == (503, True)
    newest = made.api.get("/comparisons?limit=1").json()["comparisons"][0]
    assert newest["sentence"] == "The comparison's tag was changed, and cannot be read."


@pytest.mark.rotated(4)
def test_a_deleted_comparison_is_gone_with_its_files_and_nothing_else_is(made, versions):
    found = made.compare({"experiment": made.good}, {"experiment": made.bad})
    path = f"/comparisons/{found['comparison_id']}"
    folder = made.mlflow.get_run(found["comparison_id"]).info.artifact_uri
    files = Path(folder.removeprefix("file://"))
    assert (files / "report.html").is_file()
    assert made.api.delete(path).json()["comparison_id"] == found["comparison_id"]
    assert not files.exists()
    for method in (made.api.get, made.api.delete):
        assert method(path).status_code == 404
    newest = made.api.get("/comparisons?limit=100").json()["comparisons"]
    assert found["comparison_id"] not in {each["comparison_id"] for each in newest}
    for run_id in (made.good, "0" * 32):  # no comparison of ours is deleted as one
        assert made.api.delete(f"/comparisons/{run_id}").status_code == 404
    assert made.api.get(f"/experiments/{made.good}").status_code == 200
    assert made.api.get(f"/comparisons/{versions['comparison_id']}").json() == versions


def test_a_list_goes_on_page_by_page(made, versions):
    first = made.api.get("/comparisons?limit=1").json()
    second = made.api.get(f"/comparisons?limit=1&page_token={first['next_page_token']}").json()
    ids = [page["comparisons"][0]["comparison_id"] for page in (first, second)]
    assert len(set(ids)) == 2


@pytest.mark.rotated(4)
def test_time_that_is_short_gives_fewer_episodes_and_is_told(made):
    services = made.services

    def slowly(*arguments, **game):
        time.sleep(0.4)
        return evaluate_files(*arguments, **game)

    reader = SideReader(
        services.store, ExperimentStore(services.store), services.sweeps, services.registry, slowly
    )
    comparisons = Comparisons(ComparisonStore(services.store), reader)
    sides = [{"model": "pole/2"}, {"model": "pole/3"}]
    found = comparisons.compare(sides, seed=3, max_seconds=1, episodes=200)
    assert {len(side.returns) for side in found.sides} == {20}
    assert any("no time for more than 20 episodes" in said for said in found.warnings)


def test_a_notebook_shows_sentences_and_a_table(versions):
    shown = ShownComparison(versions)._repr_html_()
    assert versions["pairs"][0]["sentence"] in shown
    assert "<td>pole/1</td><td>60 episodes</td><td>500.00 (500.00 to 500.00)</td>" in shown
