"""Reproductions: what differs, which verdict follows, and what is refused before a step is made."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from mlflow.tracking import MlflowClient

from grpo_platform.core.errors import ConflictError, InvalidRequestError, UnknownJobError
from grpo_platform.core.names import Tag
from grpo_platform.core.states import JobStatus
from grpo_platform.registry.models import Registry
from grpo_platform.reproduction.reproducing import begin_run, plan_reproduction, run_plan
from grpo_platform.reproduction.sources import source_tree
from grpo_platform.reproduction.verdict import (
    Difference,
    Findings,
    Reproduction,
    Verdict,
    compare,
    differences,
)
from tests.service.tracking_support import jobs_of, prepare, request

EVALUATED = {"eval/ci_low": 10.0, "eval/ci_high": 20.0}
HISTORY = {"train/entropy": [(32, 0.5), (64, math.nan)], "time/fps": [(64, 900.0)]}


def findings(histories=HISTORY, weights="aa", metrics=EVALUATED) -> Findings:
    return Findings(histories=histories, weights_sha256=weights, metrics=metrics)


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (findings(), "identical"),
        (findings(HISTORY | {"time/fps": [(64, 1.0)], "system/memory": [(64, 2.0)]}), "identical"),
        (findings(weights="bb"), "equivalent"),
        (findings(weights=None), "equivalent"),
        (findings(HISTORY | {"train/entropy": [(32, 0.5), (64, 0.5)]}), "equivalent"),
        (findings(HISTORY | {"train/entropy": [(32, math.nextafter(0.5, 1)), (64, math.nan)]}),
         "equivalent"),
        (findings(HISTORY | {"train/n_updates": [(64, 1.0)]}), "equivalent"),
        (findings(weights="bb", metrics={"eval/ci_low": 20.0, "eval/ci_high": 30.0}), "equivalent"),
        (findings(weights="bb", metrics={"eval/ci_low": 20.1, "eval/ci_high": 30.0}), "different"),
        (findings(weights="bb", metrics={"eval/ci_low": 1.0, "eval/ci_high": 9.9}), "different"),
        (findings(weights="bb", metrics={}), "different"),
    ],
)  # fmt: skip
def test_verdicts(now: Findings, verdict: str) -> None:
    assert compare(findings(), now).verdict == verdict


def test_weights_that_nobody_knows_are_not_identical() -> None:
    gone = findings(weights=None)
    assert compare(gone, gone).verdict is Verdict.EQUIVALENT


def test_runs_without_metrics_are_not_identical() -> None:
    empty = findings({}, metrics={})
    assert compare(empty, empty).verdict is Verdict.DIFFERENT


def test_what_differs_is_named_then_and_now() -> None:
    then = {Tag.GIT_COMMIT: "a", Tag.SEED: "1", Tag.PACKAGES: '{"numpy":"1","torch":"2"}'}
    now = {Tag.GIT_COMMIT: "b", Tag.SEED: "1", Tag.PACKAGES: '{"mlflow":"3","torch":"2"}'}
    assert differences(then, then) == ()
    assert differences(then, now) == (
        Difference("commit", "a", "b"),
        Difference("mlflow", "unknown", "3"),
        Difference("numpy", "1", "unknown"),
    )
    assert differences({Tag.PACKAGES: "edited ["}, {Tag.PACKAGES: "[]"}) == ()


def test_the_report_names_both_runs_and_the_verdict() -> None:
    result = Reproduction(
        original="old", run_id="new", differences=(Difference("seed", "1", "2"),),
        comparison=compare(findings(), findings(weights=None)),
    )  # fmt: skip
    text = result.to_markdown()
    assert text.startswith("**equivalent**: run new reproduces old.\n")
    assert "| seed | 1 | 2 |" in text
    assert "| weights SHA-256 | aa | not known |" in text
    assert json.loads(json.dumps(result.to_dict()))["evaluation_interval"]["now"] == [10.0, 20.0]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return jobs_of(prepare(tmp_path_factory.mktemp("reproduction")))


@pytest.fixture
def completed(store):
    job_id = store.create(request(total_timesteps=100, seed=3)).job_id
    store.start(job_id, "w")
    store.finish(job_id, JobStatus.COMPLETED)
    return job_id


def runs_of(store) -> list[str]:
    client = MlflowClient(tracking_uri=store.tracking_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    return sorted(run.info.run_id for run in client.search_runs(experiments))


def refused(store, run_id: str, error: type[Exception], words: str) -> None:
    before = runs_of(store)
    with pytest.raises(error, match=words):
        plan_reproduction(store, run_id)
    assert runs_of(store) == before


def test_an_unknown_run_and_one_that_is_not_ours(store) -> None:
    foreign = MlflowClient(tracking_uri=store.tracking_uri).create_run("0").info.run_id
    refused(store, "0" * 32, UnknownJobError, "No training job")
    refused(store, "no-such-run", UnknownJobError, "No training job")
    refused(store, foreign, UnknownJobError, "No training job")


def test_only_a_completed_job_is_reproduced(store) -> None:
    job_id = store.create(request()).job_id
    refused(store, job_id, ConflictError, "is queued; only a completed job")
    store.start(job_id, "w")
    refused(store, job_id, ConflictError, "is running; only a completed job")
    store.finish(job_id, JobStatus.FAILED, "it was")
    refused(store, job_id, ConflictError, "is failed; only a completed job")


def test_a_job_that_a_clock_ended_cannot_be_reproduced(store, completed) -> None:
    store.set_tags(completed, {Tag.STOPPED_BY: "max_seconds"})
    refused(store, completed, ConflictError, "ended by its max_seconds")


@pytest.mark.parametrize("commit", ["f" * 40, "--help", "HEAD"])
def test_a_commit_that_is_not_here(store, completed, commit) -> None:
    store.set_tags(completed, {Tag.GIT_COMMIT: commit})
    refused(store, completed, ConflictError, "fetch it|without its history")


@pytest.mark.parametrize(
    ("commit", "module"),
    [
        ("3e58ed89998b303b41802c23259b9f8ff25907df", "grpo_platform.project"),
        (None, "grpo_platform.mlproject"),
    ],
)
def test_what_trains_has_the_name_that_it_had_in_that_commit(commit, module) -> None:
    known = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    if commit is not None and subprocess.run(known, capture_output=True, check=False).returncode:
        pytest.skip("this checkout has no history")
    with source_tree(commit) as tree:
        assert tree.module == module


def test_a_request_that_someone_edited(store, completed) -> None:
    store.set_tags(completed, {Tag.REQUEST: "{"})
    refused(store, completed, InvalidRequestError, "cannot be read")


def test_a_plan_names_the_seed_and_leaves_the_champion_alone(store, completed) -> None:
    plan = plan_reproduction(store, completed, seed=4)
    assert Difference("seed", "3", "4") in plan.expected
    assert plan.fields["seed"] == 4
    assert plan.fields["promote"] == "never"
    assert plan.fields["model_name"] == f"reproduction_of_{completed}"


@pytest.mark.rotated(7)
@pytest.mark.timeout(120)
def test_a_training_that_is_refused_leaves_a_failed_run(store, completed) -> None:
    plan = replace(plan_reproduction(store, completed), commit=None)
    broken = replace(plan, fields=plan.fields | {"env_name": "Nowhere-v0"})
    run_id = begin_run(store, broken)
    with pytest.raises(ConflictError, match=run_id):
        run_plan(store, Registry(store.tracking_uri), broken, run_id)
    run = MlflowClient(tracking_uri=store.tracking_uri).get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags[Tag.REPRODUCES] == completed
    assert Tag.REPRODUCTION_VERDICT not in run.data.tags


@pytest.mark.rotated(4)
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("uri", "words"),
    [("sqlite:///missing.db", "missing.db"), ("postgresql://127.0.0.1:1/x", "cannot be reached")],
)
def test_a_store_that_is_away_is_a_sentence(tmp_path, uri, words) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "grpo_platform", "reproduce", "0" * 32],
        cwd=tmp_path, env={"PATH": "", "HOME": str(tmp_path), "MLFLOW_TRACKING_URI": uri},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("*.db")) == []
