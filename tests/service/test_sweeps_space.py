"""Search spaces: what is refused, that what is drawn fits, and that it can be drawn again."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.config import GRPOConfig, resolve_config
from grpo.errors import ConfigError, IncompatibleError, OutOfRangeError, UnknownNameError
from grpo.fields import fields_of
from grpo_platform.sweeps.figures import draw_importance, draw_parallel_coordinates
from grpo_platform.sweeps.records import Trial
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.sweeps.sampling import importances, propose, should_prune
from grpo_platform.sweeps.space import check_space, grid_size, parse_space

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "n_steps": {"type": "int", "low": 8, "high": 63, "step": 8},
    "net_arch": {"type": "categorical", "choices": [[32], [64, 64]]},
    "bootstrap": {"type": "categorical", "choices": [True, False]},
}


@pytest.mark.parametrize(
    ("name", "spec", "error", "said"),
    [
        ("learning_rates", SPACE["learning_rate"], UnknownNameError, "learning_rate"),
        ("seed", {"type": "int", "low": 0, "high": 9}, IncompatibleError, "Give the sweep seeds"),
        ("seeds", {"type": "int", "low": 2, "high": 9}, IncompatibleError, "is not searched"),
        ("gamma", {"type": "real", "low": 0, "high": 1}, UnknownNameError, "categorical"),
        ("gamma", {"type": "float", "low": 0.0}, OutOfRangeError, "needs high"),
        ("gamma", {"type": "float", "low": 0, "high": 1, "q": 1}, UnknownNameError, "log"),
        ("gamma", {"type": "float", "low": 0.9, "high": 0.1}, OutOfRangeError, "at most"),
        ("gamma", {"type": "float", "low": 0.5, "high": 1.5}, OutOfRangeError, "at most 1"),
        ("gamma", {"type": "float", "low": 0.0, "high": 1.0, "log": True}, OutOfRangeError, "log"),
        ("gamma", {"type": "float", "low": float("nan"), "high": 1}, OutOfRangeError, "finite"),
        ("gamma", {"type": "int", "low": 0, "high": 1}, OutOfRangeError, "type int"),
        ("net_arch", {"type": "categorical", "choices": ["", [64]]}, OutOfRangeError, "is no"),
        ("gamma", {"type": "float", "low": "a", "high": 1}, OutOfRangeError, "finite"),
        ("learning_rate", {"type": "float", "low": 0, "high": 1}, OutOfRangeError, "above 0"),
        ("n_steps", {"type": "float", "low": 1, "high": 9}, OutOfRangeError, "type float"),
        ("n_steps", {"type": "int", "low": 1.5, "high": 9}, OutOfRangeError, "type int"),
        ("n_steps", {"type": "int", "low": 1, "high": 9, "step": 0}, OutOfRangeError, "step"),
        ("advantage", {"type": "categorical", "choices": []}, OutOfRangeError, "1 to 100"),
        ("advantage", {"type": "categorical", "choices": ["x"]}, OutOfRangeError, "z_time"),
        ("gamma", {"type": "categorical", "choices": ["x"]}, OutOfRangeError, "type float"),
        ("gamma", {"type": "categorical", "choices": [0.5, 0.5]}, OutOfRangeError, "differ"),
        ("gamma", None, UnknownNameError, "float"),
    ],
)
def test_impossible_spaces_are_refused(name, spec, error, said):
    with pytest.raises(error, match=said) as refused:
        parse_space({name: spec})
    assert refused.value.field.startswith("search_space")


@pytest.mark.parametrize("values", [{}, [], None, "x"])
def test_a_space_names_a_field(values):
    with pytest.raises(OutOfRangeError, match="at least one"):
        parse_space(values)


def test_a_corner_that_cannot_be_trained_is_refused():
    space = parse_space({"eval_freq": {"type": "int", "low": 0, "high": 500}})
    check_space(space, {})
    with pytest.raises(IncompatibleError, match='"eval_freq": 0'):
        check_space(space, {"target_return": 100.0})
    with pytest.raises(IncompatibleError, match="both fixed and searched"):
        check_space(space, {"eval_freq": 100})


@st.composite
def float_ranges(draw):
    name = draw(st.sampled_from(["learning_rate", "gamma", "clip_range", "ent_coef"]))
    bound = fields_of(GRPOConfig)[name].bound
    numbers = st.floats(bound.low, bound.high, exclude_min=bound.exclusive_low)
    low, high = sorted((draw(numbers), draw(numbers)))
    return {
        name: {"type": "float", "low": low, "high": high, "log": low > 0 and draw(st.booleans())}
    }


@settings(deadline=None, max_examples=50)
@given(values=float_ranges(), seed=st.integers(0, 2**32 - 1), number=st.integers(0, 999))
def test_what_is_drawn_can_be_trained(values, seed, number):
    space = parse_space(values)
    check_space(space, {})
    drawn = propose(space, [], seed=seed, number=number, sampler="tpe", maximize=True)
    ((name, spec),) = space.items()
    assert spec.low <= drawn[name] <= spec.high
    resolve_config(**drawn)


@settings(deadline=None)
@given(low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_range_is_taken_exactly_when_it_is_one(low, high):
    values = {"gamma": {"type": "float", "low": low, "high": high}}
    if low <= high:
        parse_space(values)
    else:
        with pytest.raises(ConfigError):
            parse_space(values)


def run(n, seed, sampler="tpe"):
    space, past = parse_space(SPACE), []
    for number in range(n):
        p = propose(space, past, seed=seed, number=number, sampler=sampler, maximize=True)
        value = -abs(p["learning_rate"] - 3e-3) * 1e3 - (p["net_arch"] == [32])
        past.append(Trial(params=p, outcome="completed", value=value))
    return past


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_past_gives_the_same_trial_and_another_seed_another(sampler):
    assert run(14, 1, sampler) == run(14, 1, sampler)
    assert run(14, 1, sampler) != run(14, 2, sampler)


def test_a_grid_has_every_combination_once():
    space = parse_space({name: SPACE[name] for name in ("n_steps", "net_arch", "bootstrap")})
    assert grid_size(space) == 7 * 2 * 2
    points = [
        propose(space, [], seed=0, number=n, sampler="grid", maximize=True) for n in range(28)
    ]
    assert points[:3] == [
        {"n_steps": 8, "net_arch": [32], "bootstrap": True},
        {"n_steps": 8, "net_arch": [32], "bootstrap": False},
        {"n_steps": 8, "net_arch": [64, 64], "bootstrap": True},
    ]
    assert {p["n_steps"] for p in points} == set(range(8, 57, 8))
    assert len({json.dumps(point) for point in points}) == 28


def test_a_grid_has_as_many_trials_as_points():
    choices = {"bootstrap": SPACE["bootstrap"]}
    SweepRequest(search_space=choices, n_trials=2, sampler="grid")
    with pytest.raises(IncompatibleError, match="at most 2"):
        SweepRequest(search_space=choices, n_trials=3, sampler="grid")
    with pytest.raises(IncompatibleError, match="learning_rate"):
        SweepRequest(search_space=SPACE, n_trials=1, sampler="grid")


def test_steps_and_choices_are_kept():
    for trial in run(12, 1):
        assert trial.params["n_steps"] in range(8, 57, 8)
        assert trial.params["net_arch"] in ([32], [64, 64])
        assert isinstance(trial.params["bootstrap"], bool)


def test_trials_of_every_outcome_are_taken():
    space, (first, *rest) = parse_space(SPACE), run(12, 1)
    past = [Trial(params=first.params, outcome=o) for o in ("running", "failed", "pruned")]
    drawn = propose(space, rest + past, seed=1, number=14, sampler="tpe", maximize=True)
    assert drawn.keys() == SPACE.keys()


@pytest.mark.parametrize(("value", "pruned"), [(1.0, True), (9.0, False)])
@pytest.mark.parametrize("maximize", [True, False])
def test_a_trial_below_the_median_is_pruned(value, pruned, maximize):
    space = parse_space(SPACE)
    params = run(1, 1)[0].params
    sign = 1 if maximize else -1
    past = [
        Trial(params=params, outcome="completed", value=sign * 5.0, intermediate={5: sign * 5.0})
        for _ in range(5)
    ]
    trial = Trial(params=params, outcome="running", intermediate={5: sign * value})
    early = Trial(params=params, outcome="running", intermediate={3: sign * value})
    assert should_prune(space, past, trial, maximize=maximize) is pruned
    assert not should_prune(space, past[:4], trial, maximize=maximize)
    assert not should_prune(space, past, early, maximize=maximize)


def test_what_the_value_depends_on_is_important_and_drawn(tmp_path):
    space, past = parse_space(SPACE), run(24, 1)
    shares = importances(space, past, maximize=True)
    assert max(shares, key=shares.get) == "learning_rate"
    assert sum(shares.values()) == pytest.approx(1.0)
    draw_parallel_coordinates(space, past, "eval/mean_reward", tmp_path / "lines.png")
    assert draw_importance(space, past, maximize=True, path=tmp_path / "bars.png")
    for name in ("lines.png", "bars.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_trials_that_tell_nothing_have_no_importance(tmp_path):
    space, past = parse_space(SPACE), run(6, 1)
    same = [Trial(params=t.params, outcome="completed", value=1.0) for t in past]
    assert importances(space, same, maximize=True) == {}
    assert not draw_importance(space, past[:4], maximize=True, path=tmp_path / "bars.png")
    draw_parallel_coordinates(space, same, "eval/mean_reward", tmp_path / "lines.png")
