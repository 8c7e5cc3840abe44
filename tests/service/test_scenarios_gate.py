"""Suites kept with a name, run by its versions, and asked for before one is promoted."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from grpo.scenarios.playing import check_suite
from grpo_platform.core.errors import InvalidRequestError, NotFoundError, StoreError
from grpo_platform.registry.deletion import delete_model
from grpo_platform.registry.models import Registry
from grpo_platform.registry.names import Tag
from grpo_platform.registry.promotion import Promoter
from grpo_platform.scenarios.files import parse_text
from grpo_platform.scenarios.keeping import Scenarios, replay_failures
from grpo_platform.serving.suites import play_suite_files
from tests.service.registry_support import Bench, balancing_policy, random_policy

SUITE = """
# what must not get worse
scenarios:
  - name: tilted
    start:
      - state: {x: 0, x_dot: 0, theta: 0.1, theta_dot: 0}
      - state: {x: 0, x_dot: 0, theta: -0.05, theta_dot: 0}
    assert: [return >= 450]
  - name: resets
    assert: [return >= 450 in 90% of 20 episodes]
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("scenarios"))
    bench.promoter = Promoter(bench.registry, play_suite=play_suite_files)
    bench.scenarios = Scenarios(bench.registry, check_suite, play_suite_files)
    return bench


def champion(bench, name):
    return bench.client.get_registered_model(name).aliases.get("champion")


def test_a_regression_is_refused_and_a_good_version_is_promoted(bench):
    name = bench.name()
    bench.register(name, balancing_policy(2.0), rule="if_better")
    kept = bench.scenarios.put(name, SUITE, "me")
    assert kept.record.digest == parse_text(SUITE).digest
    assert bench.scenarios.show(name).source == SUITE

    _, worse = bench.register(name, random_policy(seed=1), rule="if_better")
    assert (worse.verdict, worse.champion_after) == ("kept", 1)
    assert worse.reason.startswith("Scenario 'tilted' failed: 'return >= 450', held in 0 of 2")
    assert (worse.suite_digest, worse.suite_passed) == (kept.record.digest, False)
    assert worse.comparison is None  # nothing was compared

    _, good = bench.register(name, balancing_policy(0.2), rule="if_better")
    assert (good.verdict, good.suite_passed) == ("promoted", True)
    assert good.reason.startswith("All 2 scenarios passed. Better: ")
    assert good.comparison.ci_low > 0.0

    forced = bench.promoter.promote(name, 2, True, "me")
    assert (forced.verdict, forced.forced, forced.suite_passed) == ("promoted", True, False)
    assert forced.reason.startswith("Scenario 'tilted' failed")
    assert "Forced." in forced.reason

    back = bench.promoter.rollback(name, "me")  # asks for no suite
    assert (back.version, back.suite_digest) == (3, None)
    versions = {str(v.version): v for v in bench.client.search_model_versions(f"name = '{name}'")}
    assert versions["2"].tags[Tag.SCENARIOS] == f"failed ({kept.record.digest[:12]})"
    assert versions["3"].tags[Tag.SCENARIOS].startswith("passed")
    assert bench.registry.get(name).decisions[1:] == (worse, good, forced, back)


@pytest.mark.rotated(5)
def test_a_suite_is_played_once_for_a_version_and_again_when_it_changes(bench):
    name = bench.name()
    ref = bench.register(name, balancing_policy())
    suite = 'scenarios: [{name: a, episodes: 2, assert: ["length >= 400"]}]'
    bench.scenarios.put(name, suite, "me")
    assert bench.scenarios.run(name, "me").record.passed
    played = []

    def counted(*args, **kwargs):
        played.append(args[1])
        return play_suite_files(*args, **kwargs)

    promoter = Promoter(Registry(bench.uri), play_suite=counted)
    assert promoter.promote(name, ref.version, False, "me").suite_passed
    assert played == []
    bench.register(name, balancing_policy())
    bench.scenarios.put(name, suite.replace("400", "501"), "me")
    refused = promoter.promote(name, 2, False, "me")
    assert (played, refused.verdict) == ([f"{name}/2"], "kept")
    bench.scenarios.remove(name, "me")
    assert promoter.promote(name, 2, False, "me").verdict == "promoted"
    assert [r.passed for r in bench.scenarios.results(name, 1)] == [True]
    with pytest.raises(NotFoundError, match="has no suite"):
        bench.scenarios.show(name)
    with pytest.raises(NotFoundError, match="has no suite"):
        bench.scenarios.run(name, "me")
    with pytest.raises(NotFoundError, match="has no suite"):
        bench.scenarios.remove(name, "me")


def test_what_failed_is_played_again_to_the_last_bit(bench):
    name = bench.name()
    bench.register(name, balancing_policy(2.0))
    bench.scenarios.put(
        name,
        "scenarios: [{name: far, start: {state: {x: 1.5, x_dot: 1}}, seed: 4, perturb: "
        "{observation_noise: 0.05, action_delay: 1}, assert: [never |x| > 2, length >= 500]}]",
        "me",
    )
    record, result = bench.scenarios.run(name, "me")
    assert (record.passed, record.failed) == (False, ("far",))
    again = replay_failures(bench.registry, f"{name}/1")
    assert [each.assertion for each in again] == ["never |x| > 2", "length >= 500"]
    assert all(each.is_same for each in again)
    assert again[0].then.value > 2.0
    assert again[0].then.step < again[0].then.steps == len(again[0].then.actions)
    assert bench.scenarios.result(name, record).result == result
    with pytest.raises(NotFoundError, match="No such episode"):
        replay_failures(bench.registry, name, "far", 7)
    assert replay_failures(bench.registry, name, "far", 0)[0].is_same


@pytest.mark.rotated(5)
def test_a_version_whose_suite_cannot_be_played_is_not_promoted(bench):
    name = bench.name()
    bench.register(name, balancing_policy(2.0), rule="if_better")
    kept = bench.scenarios.put(name, SUITE, "me")
    bench.register(name, balancing_policy())
    alone = Promoter(bench.registry).promote(name, 2, False, "me")
    assert (alone.verdict, alone.suite_passed) == ("kept", False)
    assert "cannot be played by this process" in alone.reason

    run_id = bench.client.get_registered_model(name).tags[Tag.DECISIONS]
    path = bench.client.get_run(run_id).info.artifact_uri.removeprefix("file://")
    with open(f"{path}/{kept.record.artifact}", "w") as file:
        changed = SUITE.replace("450", "1")
        json.dump({"suite": parse_text(changed).to_dict(), "source": changed}, file)
    refused = bench.promoter.promote(name, 2, False, "me")
    assert refused.verdict == "kept"
    assert "was changed; put it anew" in refused.reason
    with pytest.raises(StoreError, match="put it anew"):
        bench.scenarios.show(name)
    bench.scenarios.put(name, SUITE, "me")
    assert bench.promoter.promote(name, 2, False, "me").verdict == "promoted"


def test_what_does_not_fit_the_environment_changes_nothing(bench):
    name = bench.name()
    bench.register(name, balancing_policy())
    bench.scenarios.put(name, SUITE, "me")
    log = bench.registry.suites(bench.registry.model(name))
    before = log.history()
    for bad, place in [
        ("scenarios: [{name: a, assert: [never y > 2]}]", "scenarios[0].assert[0]"),
        ("scenarios: [{name: a, start: {state: {y: 2}}, assert: [length > 2]}]",
         "scenarios[0].start[0]"),
        ("scenarios: [{name: a, asert: []}]", "scenarios[0].assert"),
    ]:  # fmt: skip
        with pytest.raises(ValueError if "asert" not in bad else InvalidRequestError) as caught:
            bench.scenarios.put(name, bad, "me")
        assert caught.value.field == place
    assert log.history() == before


def test_of_a_name_without_champion_the_suite_is_asked_for_too(bench):
    name = bench.name()
    bench.register(name, random_policy(seed=1))
    bench.scenarios.put(name, SUITE, "me")
    refused = bench.promoter.promote(name, 1, False, "me")
    assert (refused.verdict, champion(bench, name)) == ("kept", None)
    _, always = bench.register(name, random_policy(seed=2), rule="always")
    assert (always.verdict, always.suite_passed) == ("promoted", False)
    assert "Forced. The name had no champion." in always.reason


def test_of_several_who_put_a_suite_at_once_each_is_in_the_history(bench):
    name = bench.name()
    bench.register(name, balancing_policy())
    texts = [f"scenarios: [{{name: a, assert: [length >= {n}]}}]" for n in range(6)]

    def put(text):
        registry = Registry(bench.uri)
        return Scenarios(registry, check_suite, play_suite_files).put(name, text, "me").record

    with ThreadPoolExecutor(6) as pool:
        records = list(pool.map(put, texts))
    history = bench.registry.suites(bench.registry.model(name)).history()
    assert [each.number for each in history] == [1, 2, 3, 4, 5, 6]
    assert {each.digest for each in history} == {each.digest for each in records}
    assert bench.scenarios.show(name).record == history[-1]


def test_a_name_that_was_deleted_takes_its_suite_with_it(bench):
    name = bench.name()
    bench.register(name, balancing_policy(), rule="if_better")
    bench.scenarios.put(name, SUITE, "me")
    delete_model(bench.registry, name)
    _, decision = bench.register(name, random_policy(seed=1), rule="if_better")
    assert (decision.promoted, decision.suite_digest) == (True, None)
