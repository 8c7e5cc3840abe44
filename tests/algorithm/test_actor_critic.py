"""Any torch networks behind the policy seam: the same as the MLP's where they are the same."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from grpo import ActorCriticPolicy, GRPOConfig, MlpPolicy, PolicySpec
from grpo.distributions import Categorical, DiagGaussian
from grpo.numpy_updater import NumpyUpdater
from grpo.policies import make_policy
from grpo.torch_updater import TorchUpdater
from grpo.updates import Batch
from tests.algorithm.builders import ACTIONS


def spec(kind, **fields):
    return PolicySpec(observation_shape=(4,), action=ACTIONS[kind], net_arch=(8, 5), **fields)


def twins(kind):
    """The same policy twice: in numpy, and of torch modules."""
    mlp, torch_policy = MlpPolicy(spec(kind), seed=1), ActorCriticPolicy(spec(kind), seed=2)
    rng = np.random.default_rng(0)
    mlp.flat += 0.3 * rng.standard_normal(mlp.flat.shape).astype(np.float32)
    x = rng.standard_normal((40, 4)) * 3.0 + 1.0
    for policy in (mlp, torch_policy):
        policy.observe(x)
    with torch.no_grad():
        for name, net in (("policy_net", mlp.policy_net), ("value_net", mlp.value_net)):
            layers = [m for m in getattr(torch_policy, name) if isinstance(m, nn.Linear)]
            for mine, theirs in zip(layers, net, strict=True):
                mine.weight.copy_(theirs.weight)
                mine.bias.copy_(theirs.bias)
        if mlp.head.log_std:
            torch_policy.log_std.copy_(mlp.log_std)
    return mlp, torch_policy


def batch(policy, actions, n=60):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((n, 4))
    encoded = policy.encode(x)
    return Batch(
        inputs=encoded,
        actions=actions,
        log_prob_old=policy.outputs(encoded).log_prob(actions)
        + 0.1 * rng.standard_normal(n).astype(np.float32),
        log_prob_reference=None,
        advantages=rng.standard_normal(n).astype(np.float32),
        informative=rng.random(n) > 0.2,
        alive=np.ones((n, 1), bool),
        targets=rng.standard_normal(n).astype(np.float32),
    )


@pytest.mark.parametrize("kind", ACTIONS)
def test_the_same_networks_give_the_same_answers(kind):
    mlp, other = twins(kind)
    x = np.random.default_rng(1).standard_normal((9, 4))
    here, there = mlp.predict(x), other.predict(x)
    np.testing.assert_allclose(here.actions, there.actions, atol=1e-5)
    np.testing.assert_allclose(here.values, there.values, atol=1e-5)
    for name in ("action_probs", "mean", "std"):
        one, two = getattr(here, name), getattr(there, name)
        assert (one is None) == (two is None)
        if one is not None:
            np.testing.assert_allclose(one, two, atol=1e-5)
    actions = mlp.actor(np.random.default_rng(0)).sample(x)
    one, two = mlp.outputs(mlp.encode(x)), other.outputs(other.encode(x))
    np.testing.assert_allclose(one.log_prob(actions), two.log_prob(actions), atol=1e-5)
    np.testing.assert_allclose(one.entropy(), two.entropy(), atol=1e-5)


@pytest.mark.parametrize("kind", ACTIONS)
def test_the_same_networks_learn_the_same(kind):
    mlp, other = twins(kind)
    actions = mlp.actor(np.random.default_rng(0)).sample(np.zeros((60, 4)))
    config = GRPOConfig(batch_size=16, n_epochs=2, learning_rate=1e-2, ent_coef=0.01)
    for policy, updater in ((mlp, NumpyUpdater), (other, TorchUpdater)):
        updater(policy, config).run(
            batch(policy, actions), np.random.default_rng(1), np.random.default_rng(2)
        )
    x = np.random.default_rng(1).standard_normal((9, 4))
    np.testing.assert_allclose(mlp.predict(x).values, other.predict(x).values, atol=2e-4)
    one, two = mlp(torch.from_numpy(x))[0], other(torch.from_numpy(x))[0]
    torch.testing.assert_close(one, two, atol=2e-4, rtol=0)


def test_parameters_are_views_of_the_flat_vector_also_of_a_copy():
    policy = ActorCriticPolicy(spec("box"), activation_fn=nn.ReLU)
    other = copy.deepcopy(policy)
    policy.flat[:] = 2.0
    assert all((p == 2.0).all() for p in policy.parameters())
    assert not all((p == 2.0).all() for p in other.parameters())
    other.flat[:] = 3.0
    assert all((p == 3.0).all() for p in other.parameters())
    assert all((p == 2.0).all() for p in policy.parameters())


def test_the_value_network_keeps_its_values_when_their_scale_changes():
    policy = ActorCriticPolicy(spec("discrete"))
    encoded = policy.encode(np.random.default_rng(0).standard_normal((9, 4)))
    before = policy.values(encoded)
    policy.rescale_values(np.array([1e3, 2e3, -5e2]))
    np.testing.assert_allclose(policy.values(encoded), before, atol=1e-3)


def test_other_weights_can_be_asked_without_a_change():
    policy = ActorCriticPolicy(spec("discrete"))
    encoded = policy.encode(np.zeros((3, 4)))
    actions, mine = np.array([0, 1, 2]), policy.flat[: policy.policy_size].copy()
    uniform = policy.outputs(encoded, np.zeros_like(mine)).log_prob(actions)
    np.testing.assert_allclose(uniform, -np.log(3.0), rtol=1e-6)
    np.testing.assert_array_equal(policy.flat[: policy.policy_size], mine)


def test_equal_seeds_are_equal_and_torchs_own_generator_is_left_alone():
    state = torch.random.get_rng_state()
    one, two, other = (ActorCriticPolicy(spec("discrete"), s).flat for s in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("kind", ["discrete", "box"])
def test_distributions_sample_what_they_say(kind):
    action = ACTIONS[kind]
    made = (Categorical if kind == "discrete" else DiagGaussian)(action)
    n = 200_000
    outputs = torch.tensor([0.5, -0.3, 0.1][: made.n_outputs]).expand(n, -1)
    log_std = torch.log(torch.tensor([0.5, 2.0])[: made.n_log_std])
    uniform = torch.rand((n, made.n_noise), generator=torch.Generator().manual_seed(0))
    drawn = made.sample(outputs, log_std, uniform.clamp(1e-7, 1 - 1e-7))
    if kind == "discrete":
        share = torch.bincount(drawn, minlength=3) / n
        torch.testing.assert_close(share, torch.softmax(outputs[0], 0), atol=5e-3, rtol=0)
    else:
        torch.testing.assert_close(drawn.mean(0), outputs[0], atol=2e-2, rtol=0)
        torch.testing.assert_close(drawn.std(0), log_std.exp(), atol=2e-2, rtol=0)
    entropy = -made.log_prob(outputs, log_std, drawn).mean()
    torch.testing.assert_close(entropy, made.entropy(outputs, log_std)[0], atol=2e-2, rtol=0)


def test_a_distribution_for_another_space_is_refused():
    for kind, name in (("discrete", "DiagGaussian"), ("box", "Categorical")):
        with pytest.raises(ValueError, match=f"{name} is for"):
            make_policy(
                spec(kind, policy="ActorCriticPolicy", policy_kwargs={"distribution_class": name})
            )
