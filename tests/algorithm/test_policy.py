"""The policy: one flat vector under torch and numpy, normaliser, action scaling, copies."""

import copy
import io
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo import policies
from grpo.actions import BoxActions, DiscreteActions
from grpo.errors import OutOfRangeError
from grpo.policies import MlpPolicy, PolicySpec
from grpo.running_mean_std import forgetting_moments, merge_moments
from tests.algorithm.builders import ACTIONS, BOX, DISCRETE, make_policy


def observations(n=6):
    return 3.0 + 5.0 * np.random.default_rng(0).standard_normal((n, 4))


def trained_like(kind, dtype=np.float64):
    policy = make_policy(ACTIONS[kind], dtype=dtype)
    policy.observe(observations(20))
    policy.rescale_values(10.0 + observations(5)[:, 0])
    return policy


@pytest.mark.parametrize("kind", ACTIONS)
def test_numpy_and_torch_give_the_same(kind):
    policy = trained_like(kind)
    x = observations()
    outputs, values = policy(torch.from_numpy(x))
    inputs = policy.encode(x)
    np.testing.assert_allclose(
        policy.forward_columns(inputs).T, outputs.detach().numpy(), rtol=1e-12
    )
    np.testing.assert_allclose(policy.values(inputs), values.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("kind", ACTIONS)
def test_parameters_are_views_of_the_flat_vector(kind):
    policy = trained_like(kind)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(2.0)
    assert (policy.flat == 2.0).all()
    assert sum(p.numel() for p in policy.parameters()) == policy.flat.size
    policy.flat[:] = 3.0
    assert all((p == 3.0).all() for p in policy.parameters())


@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])  # noqa: S301
def test_copies_are_whole_and_apart(kind, clone):
    policy = trained_like(kind, np.float32)
    other = clone(policy)
    assert other.spec == policy.spec
    np.testing.assert_array_equal(other.act(observations()), policy.act(observations()))
    other.flat[:] = 0.0
    assert policy.flat.any()
    assert not any(p.any() for p in other.parameters())


@pytest.mark.parametrize("kind", ACTIONS)
def test_state_dict_carries_everything(kind):
    policy = trained_like(kind, np.float32)
    buffer = io.BytesIO()
    torch.save(policy.state_dict(), buffer)
    buffer.seek(0)
    other = MlpPolicy(PolicySpec.from_dict(json.loads(json.dumps(policy.spec.to_dict()))), seed=9)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    here, there = policy.predict(observations()), other.predict(observations())
    np.testing.assert_array_equal(here.actions, there.actions)
    np.testing.assert_array_equal(here.values, there.values)


def test_state_dict_is_a_copy_without_shared_memory():
    policy = make_policy()
    state = policy.state_dict()
    assert all(value.is_contiguous() for value in state.values())
    assert len({value.untyped_storage().data_ptr() for value in state.values()}) == len(state)
    before = state["policy_net.0.weight"].clone()
    policy.flat[:] = 0.0
    assert torch.equal(state["policy_net.0.weight"], before)


def test_equal_seeds_are_equal_and_different_ones_differ():
    one, two, other = (make_policy(seed=s).flat for s in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).mean() > 0.5


def test_a_fresh_policy_is_near_uniform_and_orthogonal():
    policy = MlpPolicy(PolicySpec(observation_shape=(4,), action=DISCRETE), seed=0)
    probabilities = policy.predict(observations()).action_probs
    np.testing.assert_allclose(probabilities, 1 / 3, atol=0.02)
    weight = policy.state_dict()["policy_net.1.weight"].double()
    torch.testing.assert_close(weight @ weight.T, 2.0 * torch.eye(64).double(), rtol=0, atol=1e-5)


def test_box_actions_are_scaled_and_clipped_in_the_environments_units():
    policy = make_policy(BOX)
    raw = np.array([[0.5, 5.0], [9.0, -9.0]])
    # [-1, 1] keeps its scale; without an upper bound the second has none, and clips at -2
    np.testing.assert_array_equal(policy.to_env(raw), [[0.5, 5.0], [1.0, -2.0]])
    torque = BoxActions(shape=(1,), low=(-2.0,), high=(6.0,))
    scaled = make_policy(torque).to_env(np.array([[0.5], [-3.0]]))
    np.testing.assert_array_equal(scaled, [[4.0], [-2.0]])


def test_prediction_of_box_actions_gives_mean_and_deviation_in_the_environments_units():
    torque = BoxActions(shape=(1,), low=(-2.0,), high=(6.0,))
    policy = make_policy(torque)
    policy.policy_parameters.log_std[:] = np.log(0.25)
    prediction = policy.predict(observations())
    raw = policy.forward_columns(policy.encode(observations())).T
    np.testing.assert_allclose(prediction.mean, 2.0 + 4.0 * raw)
    np.testing.assert_allclose(prediction.std, 1.0)
    np.testing.assert_allclose(prediction.actions, np.clip(2.0 + 4.0 * raw, -2.0, 6.0))
    assert prediction.action_probs is None


@pytest.mark.parametrize(
    ("action", "deviations"),
    [
        (BoxActions((1,), (-2.0,), (2.0,)), 1.0),
        (BoxActions((4,), (-1.0,) * 4, (1.0,) * 4), 0.5**0.5),
        (BoxActions((2, 8), (-1.0,) * 16, (1.0,) * 16), 0.5),
    ],
)
@pytest.mark.parametrize("policy", ["MlpPolicy", "ActorCriticPolicy"])
def test_many_components_of_an_action_start_with_less_noise_each(policy, action, deviations):
    spec = PolicySpec(observation_shape=(3,), action=action, policy=policy)
    made = policies.make_policy(spec)
    np.testing.assert_allclose(np.exp(made.log_std.detach().numpy()), deviations, rtol=1e-6)
    chosen = policies.make_policy(replace(spec, policy_kwargs={"log_std_init": -1.5}))
    assert type(chosen) is type(made)
    np.testing.assert_allclose(chosen.log_std.detach().numpy(), -1.5)
    weights = [name for name in made.state_dict() if name != "log_std"]
    for name in weights:
        np.testing.assert_array_equal(made.state_dict()[name], chosen.state_dict()[name])


@pytest.mark.parametrize("policy", ["MlpPolicy", "ActorCriticPolicy"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 21, True, "-1", [0.0]])
def test_a_first_deviation_that_is_none_is_refused(policy, value):
    spec = PolicySpec(
        observation_shape=(3,), action=BoxActions((2,), (-1.0,) * 2, (1.0,) * 2), policy=policy,
        policy_kwargs={"log_std_init": value},
    )  # fmt: skip
    with pytest.raises(OutOfRangeError, match=r"^log_std_init must be a number from -20 to 20"):
        policies.make_policy(spec)


def test_sampled_actions_follow_the_generator():
    policy = make_policy()
    draws = [
        policy.predict(observations(99), False, np.random.default_rng(s)).actions for s in (1, 1, 2)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_observations_of_any_shape_are_flattened():
    spec = PolicySpec(observation_shape=(2, 3), action=DiscreteActions(2))
    policy = MlpPolicy(spec)
    x = np.random.default_rng(0).standard_normal((5, 2, 3))
    policy.observe(x)
    outputs, _ = policy(torch.from_numpy(x))
    np.testing.assert_allclose(
        policy.forward_columns(policy.encode(x)).T, outputs.detach(), atol=1e-6
    )
    assert policy.act(x).shape == (5,)


# --- running moments -----------------------------------------------------------------------


@settings(max_examples=30)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.floats(-1e3, 1e3))
def test_merged_moments_are_those_of_all_samples(sizes, offset):
    rng = np.random.default_rng(0)
    batches = [offset + rng.standard_normal((n, 3)) * (i + 1) for i, n in enumerate(sizes)]
    mean, var, count = np.zeros(3), np.ones(3), 0.0
    for batch in batches:
        mean, var, count = merge_moments(mean, var, count, batch)
    everything = np.concatenate(batches)
    np.testing.assert_allclose(mean, everything.mean(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(var, everything.var(axis=0), rtol=1e-9, atol=1e-9)
    assert count == len(everything)


def test_the_normaliser_standardises_what_it_saw():
    policy = make_policy()
    x = observations(500)
    for part in np.array_split(x, 7):
        policy.observe(part)
    inputs = policy.encode(x)[:-1]
    np.testing.assert_allclose(inputs.mean(axis=1), 0.0, atol=1e-9)
    np.testing.assert_allclose(inputs.std(axis=1), 1.0, rtol=1e-6)


def test_without_normalisation_observations_pass():
    policy = MlpPolicy(
        PolicySpec(observation_shape=(4,), action=DISCRETE, normalize_observations=False)
    )
    policy.observe(observations())
    np.testing.assert_allclose(policy.encode(observations())[:-1].T, observations(), rtol=1e-6)


@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_observations_are_clipped_once_normalised(kind, dtype):
    policy = trained_like(kind, dtype)
    huge = np.array([1e20, -1e20, 1.7e308, -1.7e308])
    bound = policy.observation_mean.numpy() + 1e6 * np.sign(huge) * np.sqrt(
        policy.observation_var.numpy() + 1e-8
    )
    far, at_the_bound = policy.predict(huge[None]), policy.predict(bound[None])
    np.testing.assert_allclose(policy.encode(huge[None])[:-1, 0], 1e6 * np.sign(huge))
    np.testing.assert_allclose(far.values, at_the_bound.values, rtol=1e-5)
    np.testing.assert_allclose(far.actions, at_the_bound.actions, rtol=1e-5)
    outputs, value = policy(torch.from_numpy(huge[None]))
    assert torch.isfinite(outputs).all()
    np.testing.assert_allclose(value.detach().numpy(), far.values, rtol=1e-5)


def test_rescaling_keeps_every_value_and_standardises_the_targets():
    policy = trained_like("discrete")
    inputs = policy.encode(observations())
    before = policy.values(inputs)
    scaled = policy.rescale_values(np.array([1e4, 2e4, -5e3]))
    np.testing.assert_allclose(policy.values(inputs), before, rtol=1e-9)
    assert np.abs(scaled).max() < 4.0
    mean, std = float(policy.value_mean), float(policy.value_std)
    np.testing.assert_allclose(scaled, (np.array([1e4, 2e4, -5e3]) - mean) / std)


def test_forgetting_moments_mix_what_was_and_the_batch():
    first = forgetting_moments(0.0, 1.0, 0, np.array([1.0, 3.0]), 0.1)
    assert first == (2.0, 1.0)
    mean, std = forgetting_moments(2.0, 1.0, 1, np.array([4.0, 4.0]), 0.1)
    assert mean == 3.0
    assert std == pytest.approx(np.sqrt(0.5 * 1.0 + 1.0))  # mixture of N(2, 1) and a point at 4


def test_old_returns_are_forgotten_at_least_so_fast():
    mean, std = forgetting_moments(2.0, 1.0, 1_000, np.array([4.0, 4.0]), 0.1)
    assert mean == pytest.approx(2.2)
    assert std == pytest.approx(np.sqrt(0.9 * 1.0 + 0.9 * 0.1 * 4.0))
