"""What a suite may say, where an error is, and what is safe to read."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo.envs import make_vec_env
from grpo.errors import IncompatibleError
from grpo.scenarios.assertions import Assertion, Feature
from grpo.scenarios.suite import Start, Suite, snapshot_from_json, snapshot_to_json
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.scenarios.editing import add_start_state
from grpo_platform.scenarios.files import dump_suite, parse_text
from grpo_platform.scenarios.grammar import MOST_CHARACTERS, parse_suite

SUITE = """
description: What a pole balancer must do.
scenarios:
  - name: resets
    assert:
      - return ≥ 450 in 95 % of 40 episodes
      - never |x| > 2
      - latency <= 200 µs
  - name: tilted
    seed: 3
    max_steps: 50
    start:
      - state: {x: 0, theta: 1e-1}
      - seed: 7
    perturb: {observation_noise: {x: 0.1}, action_delay: 2, physics: {gravity: 12}}
    assert: ["always observation[2] < 0.2", mean return >= 3]
"""


def test_a_suite_is_what_was_written():
    resets, tilted = parse_text(SUITE).scenarios
    assert (resets.episodes, tilted.episodes) == (40, 2)
    assert (tilted.seed, tilted.max_steps, tilted.action_delay) == (3, 50, 2)
    assert tilted.starts == (Start(state={"x": 0, "theta": 0.1}), Start(seed=7))
    assert (tilted.observation_noise, tilted.physics) == ({"x": 0.1}, {"gravity": 12})
    share, never, latency = resets.assertions
    assert (share.subject, share.bound, share.share) == ("return", 450.0, 0.95)
    assert (never.feature, latency.statistic) == (Feature("x", (), True), "median")
    assert latency.bound == 200e-6


def test_equal_suites_have_one_digest_however_they_are_written():
    suite = parse_text(SUITE)
    for text in (dump_suite(suite), json.dumps(suite.to_dict()), f"# a remark\n{SUITE}"):
        assert parse_text(text) == suite
        assert parse_text(text).digest == suite.digest
    assert Suite.from_dict(suite.to_dict()) == suite
    assert parse_text(SUITE.replace("450", "451")).digest != suite.digest


def one(**fields):
    return {"scenarios": [{"name": "ok", "assert": ["length > 3"]}, {"name": "a", **fields}]}


HOLDS = {"assert": ["length > 3"]}


@pytest.mark.parametrize(
    ("values", "place", "said"),
    [
        ({}, "scenarios", "required"),
        ({"scenarios": []}, "scenarios", "at least 1"),
        ({"scenario": [], "scenarios": []}, "scenarios", "Did you mean 'scenarios'"),
        (one(asert=["length > 3"]), "scenarios[1].assert", "Did you mean 'assert'"),
        (one(**{"assert": ["retrun > 3"]}), "scenarios[1].assert[0]", "Did you mean 'return'"),
        (one(**{"assert": ["length > 3", "length == 3"]}), "scenarios[1].assert[1]", "looks like"),
        (one(**{"assert": ["length > 3 in 0% of episodes"]}), "scenarios[1].assert[0]", "above 0%"),
        (one(**{"assert": ["latency >= 1 ms"]}), "scenarios[1].assert[0]", "bounded from above"),
        (
            one(**{"assert": ["length > 3 in 5% of 5000 episodes"]}),
            "scenarios[1].assert[0]",
            "1 to 1000",
        ),
        (
            one(episodes=3, **{"assert": ["length > 3 in 5% of 4 episodes"]}),
            "scenarios[1].assert[0]",
            "say one number",
        ),
        (one(**HOLDS, perturb={"action_dely": 1}), "scenarios[1].perturb.action_dely", "_delay'"),
        (one(**HOLDS, perturb={"action_delay": -1}), "scenarios[1].perturb.action_delay", ""),
        (
            one(**HOLDS, perturb={"observation_noise": {"x": -1}}),
            "scenarios[1].perturb.observation_noise",
            "negative",
        ),
        (one(**HOLDS, start={"seed": 1, "state": {"x": 1}}), "scenarios[1].start[0]", "one of"),
        (one(**HOLDS, start=[{"seed": -1}]), "scenarios[1].start[0].seed", "greater"),
        (one(**HOLDS, start={"state": {"x": True}}), "scenarios[1].start[0].state.x", "finite"),
        (
            one(**HOLDS, start={"snapshot": {"state": {"dtype": "O", "shape": [], "data": []}}}),
            "scenarios[1].start[0].snapshot",
            "dtype, shape and data",
        ),
        (one(**HOLDS, name="ok"), "scenarios[0].name", "two scenarios"),
        (one(**HOLDS, name="../x"), "scenarios[1].name", "starts with a letter"),
        (one(**HOLDS, episodes=1001), "scenarios[1].episodes", "1000"),
    ],
)
def test_errors_name_the_place(values, place, said):
    with pytest.raises(InvalidRequestError) as caught:
        parse_suite(values)
    assert caught.value.field == place
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x [1]\nb: *x", "aliases are not taken"),
        ("[" * 5000, "no YAML"),
        ("'", "no YAML"),
        ("a: 1\na: 2", "stands twice"),
        ("? [a]\n: 3", "no YAML"),
        ("a: 2020-01-01", "in quotes"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("x" * (MOST_CHARACTERS + 1), "at most"),
        ("", "mapping"),
        ("scenarios: .nan", "list"),
        ("seed: " + "9" * 5000, "no YAML"),
    ],
)
def test_hostile_texts_are_refused(text, said):
    with pytest.raises(InvalidRequestError, match=said):
        parse_text(text)


@given(st.text(max_size=60))
def test_no_text_is_an_assertion_by_accident_or_breaks_the_parser(text):
    try:
        found = Assertion.parse(text)
    except ValueError:
        return
    assert Assertion.parse(found.text) == found


@pytest.mark.parametrize(
    ("text", "values", "holds"),
    [
        ("return >= 2", [1, 2, 3], [False, True, True]),
        ("return > 2", [1, 2, 3], [False, False, True]),
        ("length <= 2", [1, 2, 3], [True, True, False]),
        ("never |x| > 2", [1, 2, 3], [True, True, False]),
        ("always x < 2", [1, 2, 3], [True, False, False]),
        ("mean return >= -1.5e0", [-2, -1.5], [False, True]),
    ],
)
def test_sides_of_a_bound(text, values, holds):
    assert Assertion.parse(text).holds(values).tolist() == holds


def test_snapshots_travel_exactly():
    envs = make_vec_env("CartPole-v1", None, 2)
    envs.reset(np.array([0]), [5])
    envs.step(np.array([0]), np.array([1]))
    taken = envs.snapshot(0)
    text = json.dumps(snapshot_to_json(taken))
    back = snapshot_from_json(json.loads(text))
    assert back["state"].tobytes() == taken["state"].tobytes()
    odd = {"array_0": np.array([[1, 2]], np.uint64) + 2**60, "gone": np.float32(np.nan), "t": "x"}
    again = snapshot_from_json(json.loads(json.dumps(snapshot_to_json(odd))))
    assert again["array_0"].dtype == np.uint64
    assert again["array_0"].tolist() == odd["array_0"].tolist()
    assert np.isnan(again["gone"])
    with pytest.raises(IncompatibleError, match="cannot be stored"):
        snapshot_to_json({"env": object()})


def test_a_start_state_is_added_to_a_scenario_or_makes_one():
    state = Start(state={"x": 1.0})
    suite = add_start_state(None, "found", state, ["return >= 450"])
    assert [s.name for s in suite.scenarios] == ["found"]
    suite = add_start_state(suite, "found", Start(seed=3))
    (found,) = suite.scenarios
    assert (found.starts, found.episodes) == ((state, Start(seed=3)), 2)
    assert add_start_state(suite, "found", state) == suite
    other = parse_text(SUITE)
    more = add_start_state(other, "tilted", Start(seed=9))
    assert more.scenarios[1].episodes == 3
    assert more.scenarios[0] == other.scenarios[0]
    with pytest.raises(InvalidRequestError, match="say what must hold"):
        add_start_state(other, "new", state)
    with pytest.raises(InvalidRequestError, match="begins at resets"):
        add_start_state(other, "resets", state)
