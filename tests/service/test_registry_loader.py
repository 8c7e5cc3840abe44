"""The loader that travels with models: equal to the policy, fast, strict."""

import ast
import hashlib
import io
import json
import math
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.actions import BoxActions, DiscreteActions
from grpo.policies import PolicySpec
from grpo_platform.core.errors import UnsafeModelError
from grpo_platform.registry import integrity
from grpo_platform.registry import loader as loader_module
from grpo_platform.registry.loader import FORMAT, GRPOPredictor, read_policy
from grpo_platform.registry.names import LOADER_MODULE
from tests.service.registry_support import CARTPOLE, PENDULUM, random_policy


def predictor(policy) -> GRPOPredictor:
    buffer = io.BytesIO()
    torch.save(policy.state_dict(), buffer)
    spec = {"format": FORMAT} | policy.spec.to_dict()
    return read_policy(json.dumps(spec).encode(), buffer.getvalue())


actions = st.one_of(
    st.builds(DiscreteActions, n=st.integers(1, 6), start=st.integers(-2, 2)),
    st.sampled_from(
        [
            BoxActions((), (-2.0,), (2.0,)),
            BoxActions((2,), (-3.0, -8.0), (5.0, 9.0), integer=True),
            BoxActions((1,), (-2.0,), (2.0,)),
            BoxActions((2,), (-1.0, -math.inf), (3.0, math.inf)),
            BoxActions((2, 2), (0.0, 0.0, -1.0, -1.0), (1.0, 1.0, math.inf, 0.0)),
        ]
    ),
)
specs = st.builds(
    PolicySpec,
    observation_shape=st.sampled_from([(), (1,), (4,), (2, 3), (24,)]),
    action=actions,
    net_arch=st.sampled_from([(), (8,), (64, 64), (16, 8, 4), (160,)]),
)


@settings(max_examples=40, deadline=None)
@given(spec=specs, seed=st.integers(0, 1000), n=st.integers(1, 5))
def test_it_predicts_what_the_policy_predicts(spec, seed, n):
    policy = random_policy(spec, seed)
    loaded = predictor(policy)
    observations = np.random.default_rng(seed).normal(0, 3, (n, *spec.observation_shape))

    expected = policy.predict(observations)
    batch = loaded.predict_batch(observations)

    np.testing.assert_allclose(batch["value"], expected.values, rtol=1e-4, atol=1e-4)
    if expected.action_probs is not None:
        np.testing.assert_array_equal(batch["action"], expected.actions)
        np.testing.assert_allclose(batch["action_probs"], expected.action_probs, atol=1e-6)
    else:
        np.testing.assert_allclose(batch["action"], expected.actions, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(batch["mean"], expected.mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(batch["std"], expected.std, rtol=1e-5)
    for row, observation in enumerate(observations):
        one = loaded.predict_one(observation.ravel().tolist())
        np.testing.assert_allclose(one.action, batch["action"][row], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(one.value, batch["value"][row], rtol=1e-4, atol=1e-4)
        if one.action_probs is not None:
            np.testing.assert_allclose(one.action_probs, batch["action_probs"][row], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    spec=specs,
    value=st.floats(allow_nan=False, allow_infinity=False),
    other=st.floats(allow_nan=False, allow_infinity=False),
)
def test_every_finite_observation_gets_a_finite_answer(spec, value, other):
    loaded = predictor(random_policy(spec))
    observation = [value if i % 2 else other for i in range(spec.observation_size)]
    one = loaded.predict_one(observation)
    batch = loaded.predict_batch(np.array(observation).reshape(1, *spec.observation_shape))
    assert math.isfinite(one.value)
    assert np.isfinite(one.action).all()
    assert one.action_probs is None or math.isclose(sum(one.action_probs), 1.0, rel_tol=1e-6)
    assert all(np.isfinite(array).all() for array in batch.values())


def test_samples_of_single_calls_follow_the_probabilities():
    loaded = predictor(random_policy(PolicySpec(observation_shape=(2,), action=DiscreteActions(5))))
    rng = np.random.default_rng(0)
    observation = [0.3, -0.2]
    n = 20_000
    drawn = [loaded.predict_one(observation, False, rng).action for _ in range(n)]
    expected = np.array(loaded.predict_one(observation).action_probs) * n
    assert scipy.stats.chisquare(np.bincount(drawn, minlength=5), expected).pvalue > 1e-3


def test_samples_of_a_batch_follow_the_probabilities():
    loaded = predictor(random_policy(PolicySpec(observation_shape=(2,), action=DiscreteActions(5))))
    n = 20_000
    batch = np.tile([0.3, -0.2], (n, 1))
    result = loaded.predict_batch(batch, False, np.random.default_rng(0))
    counts = np.bincount(result["action"], minlength=5)
    expected = result["action_probs"].mean(axis=0, dtype=np.float64)
    assert scipy.stats.chisquare(counts, expected / expected.sum() * n).pvalue > 1e-3


def test_continuous_samples_follow_the_gaussian_and_stay_in_bounds():
    loaded = predictor(random_policy(PENDULUM, gain=1.0))
    rng = np.random.default_rng(0)
    observation = [0.1, 0.2, 0.3]
    batch = loaded.predict_batch(np.tile(observation, (5000, 1)), False, rng)
    singles = np.array([loaded.predict_one(observation, False, rng).action for _ in range(5000)])
    for drawn in (batch["action"], singles):
        assert drawn.min() >= -2.0
        assert drawn.max() <= 2.0
        inside = drawn[(drawn > -2.0) & (drawn < 2.0)]
        mean, std = float(batch["mean"][0, 0]), float(batch["std"][0, 0])
        low, high = (-2.0 - mean) / std, (2.0 - mean) / std
        law = scipy.stats.truncnorm(low, high, loc=mean, scale=std)
        assert scipy.stats.kstest(inside.ravel(), law.cdf).pvalue > 1e-3


def test_deterministic_is_a_parameter_of_mlflow():
    loaded = predictor(random_policy(gain=1.0))
    observations = np.zeros((200, 4), np.float32)
    assert len(set(loaded.predict(observations)["action"])) == 1
    assert len(set(loaded.predict(observations, {"deterministic": False})["action"])) == 2


def test_an_empty_batch_gives_empty_arrays():
    result = predictor(random_policy()).predict_batch(np.zeros((0, 4)))
    assert result["action"].shape == (0,)
    assert result["action_probs"].shape == (0, 2)
    assert result["value"].shape == (0,)


def test_wrong_shapes_are_refused():
    loaded = predictor(random_policy())
    with pytest.raises(ValueError, match="4 numbers"):
        loaded.predict_one([1.0])
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        loaded.predict_batch(np.zeros((2, 5)))


class Bomb:
    def __reduce__(self):
        return (print, ("boom",))


def saved(**changes):
    state = random_policy().state_dict() | changes
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


SPEC = json.dumps({"format": FORMAT} | CARTPOLE.to_dict()).encode()


@pytest.mark.parametrize(
    ("spec", "weights"),
    [
        (SPEC, b""),
        (SPEC, b"not an archive"),
        (SPEC, pickle.dumps(Bomb())),
        (SPEC, saved(extra=torch.tensor([math.nan]))),
        (SPEC, saved(observation_mean=torch.zeros(3, dtype=torch.float64))),
        (SPEC, saved(**{"policy_net.0.weight": torch.zeros(64, 5)})),
        (SPEC.replace(b'"format": 1', b'"format": 2'), saved()),
        (b"{}", saved()),
        (b"[1", saved()),
    ],
    ids=["empty", "text", "pickle", "nan", "normaliser", "shape", "format", "no spec", "no json"],
)
def test_files_that_hold_no_policy_are_refused(spec, weights, capsys):
    with pytest.raises(ValueError, match=r".+"):
        read_policy(spec, weights)
    assert "boom" not in capsys.readouterr().out


def test_a_pickle_inside_a_torch_archive_is_not_run(capsys):
    buffer = io.BytesIO()
    torch.save({"policy_net.0.weight": Bomb()}, buffer)
    with pytest.raises(ValueError, match="hold no policy"):
        read_policy(SPEC, buffer.getvalue())
    assert "boom" not in capsys.readouterr().out


def test_it_stands_alone():
    """It must work where only MLflow, numpy and torch are installed."""
    tree = ast.parse(Path(loader_module.__file__).read_text())
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        (node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    }
    assert imported <= {
        "collections", "io", "itertools", "json", "math", "operator", "pathlib", "typing", "numpy",
            "torch",
    }  # fmt: skip


def test_the_installed_loader_is_a_released_one(monkeypatch):
    source = integrity.installed_loader()
    names = integrity.RELEASED_LOADERS
    assert names[hashlib.sha256(source).hexdigest()] == LOADER_MODULE
    assert len(set(names.values())) == len(names), "a process would take one for another"
    monkeypatch.setattr(integrity, "RELEASED_LOADERS", {})
    with pytest.raises(UnsafeModelError, match="not a released one"):
        integrity.installed_loader()


@pytest.mark.parametrize("spec", [CARTPOLE, PENDULUM], ids=["discrete", "box"])
def test_a_single_prediction_takes_microseconds(spec):
    """The aim is 20 µs; the best of several runs, with room for a busy machine."""
    loaded = predictor(random_policy(spec))
    observation = [0.1] * spec.observation_size
    best = math.inf
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(500):
            loaded.predict_one(observation)
        best = min(best, (time.perf_counter() - started) / 500)
    assert best < 60e-6
