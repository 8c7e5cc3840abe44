"""An environment that changed under a version: the first step that differs, and what that means."""

import json
import os
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from typer.testing import CliRunner

from grpo import GRPO
from grpo.envs import check_environment
from grpo.evaluation import evaluate
from grpo_platform.cli import app
from grpo_platform.core.errors import ConflictError, UnsafeModelError
from grpo_platform.registry import reference
from grpo_platform.registry.names import REFERENCE_FILE
from grpo_platform.registry.reference import ReferenceEpisodes, record_reference
from grpo_platform.registry.registering import register_policy
from grpo_platform.reproduction.environment import compare_environment
from grpo_platform.reproduction.verdict import EXIT_CODES
from grpo_platform.tracking.jobs import JobStore
from tests.algorithm.toy_environments import registered
from tests.service.registry_support import Bench


class Release(gym.Env):
    """A drive whose releases differ: class attributes say in what, from a step on."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(2)
    changes: ClassVar[dict[str, float]] = {}
    since: ClassVar[int] = 7

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.taken = self.np_random.normal(size=2), 0
        return self.place.copy(), {}

    def step(self, action):
        self.taken += 1
        changes = self.changes if self.taken >= self.since else {}
        if "raises" in changes:
            raise RuntimeError("unknown device")
        self.place += 0.1 * (action - 0.5) + changes.get("push", 0.0)
        reward = float(self.place[0]) + changes.get("reward", 0.0)
        if "noise" in changes:  # of its own generator, with no mean
            reward += float(np.random.default_rng(int(1e6 * abs(self.place[0]))).normal())
        ended = self.taken >= changes.get("ends", 30)
        return self.place.copy() + changes.get("offset", 0.0), reward, False, ended, {}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with registered(Release, "Release-v0"):
        yield Bench(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def policy(bench):
    return GRPO("Release-v0", seed=2).policy


@pytest.fixture(scope="module")
def store(bench):
    return JobStore(bench.uri, bench.store.experiment_id)


@pytest.fixture(scope="module")
def version(bench, policy):
    return register(bench, policy, "drive")


@pytest.fixture
def changed(monkeypatch):
    return lambda **changes: monkeypatch.setattr(Release, "changes", changes)


def register(bench, policy, name, *, keep=True, evaluated=True):
    found = evaluate(policy, "Release-v0", n_episodes=20) if evaluated else None
    job_id = bench.job()
    spec = check_environment("Release-v0")
    content = record_reference(policy, spec, found) if keep else None
    card = bench.card(job_id, "Release-v0", evaluation=found)
    return register_policy(bench.registry, job_id, policy, name, card, reference=content)


def compared(bench, store, version):
    return compare_environment(store, bench.registry, version.label)


def test_the_same_release_is_identical_and_a_run_keeps_that(bench, store, version):
    found = compared(bench, store, version)
    assert found.verdict == "identical"
    assert found.divergence is None
    assert (found.replayed, found.steps, found.packages, found.notes) == (2, 60, (), ())
    assert (found.returns.differing, found.returns.difference.estimate) == (0, 0.0)
    run = bench.client.get_run(found.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["grpo.replays"] == version.label
    assert run.data.tags["grpo.reproduction_verdict"] == "identical"
    files = {file.path for file in bench.client.list_artifacts(found.run_id)}
    assert files == {"environment.json", "environment.md"}


@pytest.mark.parametrize(
    ("changes", "what", "step", "verdict"),
    [
        ({"reward": 1e-13}, "reward", 7, "equivalent"),  # round-off
        ({"reward": 0.1}, "reward", 7, "different"),
        ({"noise": 1.0}, "reward", 7, "equivalent"),
        ({"push": 0.01}, "reward", 7, "different"),
        ({"offset": 1e-9}, "observation", 7, "equivalent"),
        ({"ends": 20}, "end", 20, "equivalent"),  # what is lost has no sign
        ({"raises": 1.0}, "error", 7, "different"),
    ],
)
def test_the_first_step_that_differs_is_named(
    bench, store, version, changed, changes, what, step, verdict
):
    changed(**changes)
    found = compared(bench, store, version)
    assert (found.divergence.what, found.divergence.step) == (what, step)
    assert found.verdict == verdict
    rows = found.rows()
    assert any(row[0].startswith(f"step {step} of seed") for row in rows)
    assert f"**{verdict}**" in found.to_markdown()
    assert json.loads(json.dumps(found.to_dict()))["first_difference"]["what"] == what


def test_spaces_that_changed_are_told_and_nothing_is_played(bench, store, version, monkeypatch):
    box = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    monkeypatch.setattr(Release, "observation_space", box)
    monkeypatch.setattr(Release, "reset", lambda self, **more: (np.zeros(3), {}))
    old = gym.registry.pop("Release-v0")  # a new registration is looked at anew
    with registered(Release, "Release-v0"):
        found = compared(bench, store, version)
    gym.registry["Release-v0"] = old
    assert found.verdict == "different"
    assert "other shapes" in found.notes[0]
    assert (found.replayed, found.returns) == (0, None)


def test_a_version_of_before_is_compared_by_its_evaluation_alone(bench, store, policy, changed):
    old = register(bench, policy, "old", keep=False)
    found = compared(bench, store, old)
    assert (found.verdict, found.replayed, found.divergence) == ("equivalent", 0, None)
    assert "no reference episodes" in found.notes[0]
    assert found.returns.then == found.returns.now
    changed(reward=5.0)
    assert compared(bench, store, old).verdict == "different"
    never = register(bench, policy, "never", keep=False, evaluated=False)
    with pytest.raises(ConflictError, match="nothing to compare"):
        compared(bench, store, never)


def test_other_packages_are_named(bench, store, version, monkeypatch):
    monkeypatch.setattr(
        "grpo_platform.reproduction.environment.environment_packages",
        lambda spec: reference.environment_packages(spec) | {"gymnasium": "9.0"},
    )
    found = compared(bench, store, version)
    assert [(one.what, one.now) for one in found.packages] == [("gymnasium", "9.0")]
    assert found.verdict == "identical"


def test_the_command_says_it_with_its_exit_code(bench, version, monkeypatch, changed):
    monkeypatch.chdir(os.path.dirname(bench.uri.removeprefix("sqlite:///")))
    call = ["reproduce", "drive", "--environment-only"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    assert "identical: drive/1 in Release-v0" in done.stdout
    changed(reward=0.1)
    done = CliRunner().invoke(app, [*call, "--json"])
    assert done.exit_code == EXIT_CODES["different"]
    assert json.loads(done.stdout)["first_difference"]["step"] == 7
    missing = CliRunner().invoke(app, ["reproduce", "f" * 32, "--environment-only"])
    assert missing.exit_code == 1
    assert "No training job" in missing.stderr
    both = CliRunner().invoke(app, [*call, "--seed", "3"])
    assert both.exit_code == 1
    assert "leave one out" in both.stderr


def test_what_is_kept_is_small_and_nothing_else_is_read_as_it(bench, store, version, policy):
    spec = check_environment("Release-v0")
    content = record_reference(policy, spec, evaluate(policy, "Release-v0", n_episodes=20))
    assert len(content) < 20_000
    kept = ReferenceEpisodes.from_bytes(content, "m/1")
    assert kept.evaluation.returns.shape == (20,)
    assert kept.packages["gymnasium"] == gym.__version__
    again = bench.registry.reference_of(version)
    assert np.array_equal(again.trajectories[0].rewards, kept.trajectories[0].rewards)
    for damaged in (b"", content[:-30], b"PK\x05\x06" + bytes(18)):
        with pytest.raises(UnsafeModelError, match="cannot be read"):
            ReferenceEpisodes.from_bytes(damaged, "m/1")
    path = bench.folder(version) / REFERENCE_FILE
    path.write_bytes(content[:-1])
    with pytest.raises(UnsafeModelError, match="was changed"):
        bench.registry.reference_of(version)


def test_a_large_observation_is_kept_for_fewer_steps():
    spec = check_environment("CarRacing-v3")
    assert reference._that_fit(spec) == reference._LEAST_STEPS
    assert reference._affordable(10.0, 0.5) == 0
