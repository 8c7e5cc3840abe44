"""Whatever an environment does while it is made or played, who asked goes on and hears of it."""

import dataclasses
import os
import threading
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grpo import GRPOConfig, evaluate
from grpo.actions import DiscreteActions
from grpo.errors import (
    ConfigError,
    EnvironmentFaultError,
    IncompatibleError,
    UnknownNameError,
    UnsupportedEnvironmentError,
)
from grpo.policies import ActorCriticPolicy, PolicySpec, make_policy
from grpo.scenarios.playing import play_suite
from grpo_platform.comparisons.sides import SideReader
from grpo_platform.comparisons.store import ComparisonStore
from grpo_platform.core.errors import BusyError, UnsafeModelError
from grpo_platform.experiments.store import ExperimentStore
from grpo_platform.jobs import isolation
from grpo_platform.jobs.isolation import Isolation
from grpo_platform.registry.policy_files import policy_to_files
from grpo_platform.registry.promotion import Promoter
from grpo_platform.registry.registering import register_policy
from grpo_platform.scenarios.files import parse_text
from grpo_platform.services.comparisons import Comparisons
from grpo_platform.sweeps.store import SweepStore
from tests.service.faulty_environments import FAULTY, install_plugin
from tests.service.registry_support import CARTPOLE, Bench, balancing_policy, random_policy
from tests.service.tracking_support import jobs_of
from tests.waiting import until

SECONDS = 2.0


def config(env_name=FAULTY, **kwargs):
    return GRPOConfig(env_name=env_name, env_kwargs=kwargs)


@pytest.mark.rotated(14)
def test_a_large_policy_is_built_elsewhere_and_not_for_long():
    here = Isolation(1.0)
    began = time.monotonic()
    here.validate(GRPOConfig(net_arch=(4096,) * 8))  # the library's own fits, and is not drawn
    assert time.monotonic() - began < 1
    with pytest.raises(UnsupportedEnvironmentError, match="1 s while ActorCriticPolicy was built"):
        here.validate(GRPOConfig(net_arch=(4096,) * 8, policy="ActorCriticPolicy"))
    with pytest.raises(ConfigError, match="policy_kwargs"):
        here.validate(GRPOConfig(policy_kwargs={"features_extractor_kwargs": 5}))
    here.close()


def test_what_is_gymnasiums_own_is_looked_at_right_here():
    here = Isolation(SECONDS)
    for env_name, kwargs in (
        ("CartPole-v1", {"sutton_barto_reward": True}),
        ("Hopper-v5", {"max_episode_steps": 9}),
        ("LunarLander-v3", {}),
    ):
        here.validate(config(env_name, **kwargs))
    with pytest.raises(UnknownNameError):
        here.validate(config("nobodys/Place-v0"))
    assert here._forks._process is None
    assert not isolation._is_trusted("Hopper-v5", {"frame_skip": 3})
    here.close()


@pytest.fixture(scope="module")
def isolated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", install_plugin(folder))
        patch.syspath_prepend(str(folder))
        isolation._plug_ins.cache_clear()
        found = Isolation(SECONDS)
        yield found
        found.close()
    isolation._plug_ins.cache_clear()


@pytest.mark.rotated(2)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("segfault", "signal 11 (a crash in native code) while tests/Faulty-v0 was made and reset"),
        ("leave", "cannot be made here: SystemExit: 3."),
        ("exit", "ended with exit code 7 while tests/Faulty-v0 was made and reset"),
        ("hang", "it took longer than 2 s while tests/Faulty-v0 was made and reset"),
        ("fork", "ended without an answer while tests/Faulty-v0 was made and reset"),
        ("raise", "cannot be made here: RuntimeError: the floor gave way"),
    ],
)
def test_a_constructor_that_does_what_it_must_not(isolated, fault, said):
    began = time.monotonic()
    with pytest.raises(UnsupportedEnvironmentError) as caught:
        isolated.validate(config(fault=fault, after=-1))
    assert said in str(caught.value)
    assert caught.value.field == "env_name"
    assert time.monotonic() - began < 60
    isolated.validate(config(fault=fault, after=10))  # and the next one is answered


def test_errors_come_back_as_they_were_raised(isolated):
    with pytest.raises(UnknownNameError, match=f"Did you mean '{FAULTY}'") as unknown:
        isolated.validate(config("tests/Faulty-v1"))
    assert unknown.value.field == "env_name"
    assert {"CartPole-v1", FAULTY} <= set(unknown.value.allowed)
    with pytest.raises(IncompatibleError, match="wings") as kwargs:
        isolated.validate(config(wings=2))
    assert kwargs.value.field == "env_kwargs"
    assert {reward["name"] for reward in isolated.rewards()} >= {"environment"}


def test_answers_are_kept_and_failures_are_not(isolated, monkeypatch):
    isolated.validate(config(seconds=0.001))
    asked = []
    ask = Isolation._ask
    monkeypatch.setattr(Isolation, "_ask", lambda *a, **k: asked.append(1) or ask(*a, **k))
    isolated.validate(config(seconds=0.001))
    assert not asked
    for _ in range(2):
        with pytest.raises(UnsupportedEnvironmentError):
            isolated.validate(config(fault="raise", after=-1))
    assert len(asked) == 2


@pytest.mark.rotated(3)
def test_a_process_that_was_killed_is_started_again(isolated):
    isolated.validate(config(after=11))
    isolated._forks._process.kill()
    isolated.validate(config(after=12))


@pytest.mark.rotated(6)
def test_callers_that_wait_are_as_many_as_may_and_share_an_answer(isolated):
    raised = []

    def call():
        try:
            isolated.validate(config(fault="hang", after=-1))
        except (UnsupportedEnvironmentError, BusyError) as error:
            raised.append(type(error))

    threads = [threading.Thread(target=call) for _ in range(isolation._AT_ONCE + 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert raised.count(UnsupportedEnvironmentError) == isolation._AT_ONCE
    assert raised.count(BusyError) == 4
    isolated.validate(config(after=13))


@pytest.mark.rotated(3)
def test_what_hangs_is_ended_with_all_that_it_started(isolated):
    with pytest.raises(UnsupportedEnvironmentError):
        isolated.validate(config(fault="hang", after=-1))
    parent = isolated._forks._process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children")
    until(lambda: not children.read_text().split())


GAME = {"n_episodes": 3, "seed": 1, "skip": 0}


def test_games_are_played_elsewhere(isolated):
    policy = balancing_policy()
    files = policy_to_files(policy)
    played = isolated.evaluate(files, "m/1", "CartPole-v1", env_kwargs=None, **GAME)
    assert played.returns.tolist() == evaluate(policy, "CartPole-v1", **GAME).returns.tolist()
    wrong = {"fault": "segfault", "after": 3}
    with pytest.raises(EnvironmentFaultError, match=r"signal 11.*while tests/Faulty-v0 was played"):
        isolated.evaluate(files, "m/1", FAULTY, env_kwargs=wrong, **GAME)
    damaged = files._replace(weights=b"damaged")
    with pytest.raises(UnsafeModelError, match="m/1 is not loaded: its files hold no policy"):
        isolated.evaluate(damaged, "m/1", "CartPole-v1", env_kwargs=None, **GAME)


@pytest.mark.rotated(5)
def test_a_suite_is_played_elsewhere_and_not_for_long(isolated, monkeypatch):
    policy = balancing_policy()
    files = policy_to_files(policy)
    suite = parse_text("scenarios: [{name: a, episodes: 3, assert: [return >= 400, length < 5]}]")
    game = {"suite": suite, "seconds": 60.0}
    found = isolated.play_suite(files, "m/1", "CartPole-v1", env_kwargs={}, **game)
    assert found.scenarios[0].assertions == (
        play_suite(policy, suite, "CartPole-v1", {}).scenarios[0].assertions
    )
    isolated.check_suite(suite, "CartPole-v1", {})
    wrong = parse_text("scenarios: [{name: a, assert: [never y > 3]}]")
    with pytest.raises(IncompatibleError, match="shows no 'y'") as caught:
        isolated.check_suite(wrong, "CartPole-v1", {})
    assert caught.value.field == "scenarios[0].assert[0]"
    two = policy_to_files(
        make_policy(PolicySpec(observation_shape=(2,), action=DiscreteActions(2)))
    )
    crash = {"fault": "segfault", "after": 3}
    with pytest.raises(EnvironmentFaultError, match=r"signal 11.*while tests/Faulty-v0 was played"):
        isolated.play_suite(two, "m/1", FAULTY, env_kwargs=crash, **game)
    with pytest.raises(EnvironmentFaultError, match="Scenario 'a': it did not end in the time"):
        isolated.play_suite(files, "m/1", "CartPole-v1", env_kwargs={}, suite=suite, seconds=0.0)
    monkeypatch.setattr(isolation, "_GRACE_SECONDS", 0.5)
    hang = {"fault": "hang", "after": 3}
    with pytest.raises(EnvironmentFaultError, match=r"took longer than 1\.5 s"):
        isolated.play_suite(two, "m/1", FAULTY, env_kwargs=hang, suite=suite, seconds=1.0)


class NotingPolicy(ActorCriticPolicy):
    """A plug-in's policy that writes down in which process it is built."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        with open(os.environ["NOTED"], "a") as file:
            print(os.getpid(), file=file)


def test_a_comparison_of_an_environment_that_crashes_is_refused_and_leaves_nothing(
    isolated, tmp_path
):
    bench = Bench(tmp_path / "store")
    jobs = jobs_of(bench.store)
    for seed in range(2):
        job_id = bench.job()
        card = dataclasses.replace(
            bench.card(job_id), env_name=FAULTY, env_kwargs={"fault": "segfault"}
        )
        policy = random_policy(dataclasses.replace(CARTPOLE, observation_shape=(2,)), seed)
        register_policy(bench.registry, job_id, policy, "fragile", card)
    stores = ExperimentStore(jobs), SweepStore(jobs)
    reader = SideReader(jobs, *stores, bench.registry, isolated.evaluate)
    comparisons = Comparisons(ComparisonStore(jobs), reader)
    before = bench.client.search_runs([bench.store.experiment_id])
    with pytest.raises(EnvironmentFaultError, match="cannot be played"):
        comparisons.compare([{"model": "fragile/1"}, {"model": "fragile/2"}])
    assert len(bench.client.search_runs([bench.store.experiment_id])) == len(before)


@pytest.mark.rotated(3)
def test_a_promotion_builds_a_plug_ins_policy_elsewhere(tmp_path, monkeypatch):
    path = install_plugin(tmp_path, policies=f"NotingPolicy = {__name__}:NotingPolicy")
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("NOTED", str(tmp_path / "noted"))
    monkeypatch.setattr(isolation, "_plug_ins", lambda: True)
    bench = Bench(tmp_path / "store")
    name = bench.name()
    spec = dataclasses.replace(CARTPOLE, policy="NotingPolicy")
    for seed in range(2):
        bench.register(name, NotingPolicy(spec, seed=seed))
    here = Isolation(60.0)
    promoter = Promoter(bench.registry, here.evaluate)
    (tmp_path / "noted").unlink()
    promoter.promote(name, 1, False, "me")  # the first has nobody to be compared with
    assert not (tmp_path / "noted").exists()
    assert promoter.promote(name, 2, False, "me").comparison is not None
    here.close()
    pids = (tmp_path / "noted").read_text().split()
    assert len(pids) >= 2
    assert str(os.getpid()) not in pids


@pytest.fixture(scope="module")
def drawing():
    here = Isolation(60.0)
    yield here
    here.close()


@pytest.mark.rotated(3)
def test_an_environment_is_drawn_and_what_cannot_be_drawn_says_why(drawing):
    content = drawing.picture("CartPole-v1")
    with Image.open(BytesIO(content)) as drawn:
        assert drawn.format == "WEBP"
        assert max(drawn.size) == 240
        assert np.asarray(drawn).std() > 1.0, "not one colour alone"
    with pytest.raises(UnsupportedEnvironmentError, match="cannot be drawn"):
        drawing.picture("NoSuchThing-v0")


def test_what_a_version_sees_and_does_in_its_evaluation(drawing):
    policy = make_policy(PolicySpec(observation_shape=(4,), action=DiscreteActions(2)))
    found = drawing.observe(
        policy_to_files(policy), "m/1", "CartPole-v1", env_kwargs={}, most_numbers=64
    )
    assert found["episodes"] == 10
    assert len(found["observations"]) == len(found["actions"]) >= 80
    assert {len(row) for row in found["observations"]} == {4}
    assert {tuple(row) for row in found["actions"]} <= {(0.0,), (1.0,)}
    few = drawing.observe(
        policy_to_files(policy), "m/1", "CartPole-v1", env_kwargs={}, most_numbers=3
    )
    assert few["observations"][0] == []
