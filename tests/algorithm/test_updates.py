"""Minibatch updates: the closed form is autograd, and what must not move does not."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from grpo import GRPOConfig, TrainingDivergedError, torch_updater
from grpo.actions import DiscreteActions
from grpo.errors import IncompatibleError
from grpo.numpy_updater import FlatAdam, NumpyUpdater, clip_norm
from grpo.torch_updater import TorchUpdater, policy_loss, resolve_device
from grpo.updates import minibatches
from tests.algorithm.builders import ACTIONS, BOX, make_batch, make_policy


def config(**fields):
    return GRPOConfig(batch_size=16, n_epochs=3, learning_rate=1e-2, **fields)


def streams():
    return np.random.default_rng(1), np.random.default_rng(2)


@pytest.mark.rotated(6)
@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("net_arch", [(), (7,), (8, 5), (6, 5, 4)])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"clip_range": 0.1, "clip_range_high": 0.3},
        {"clip_range": 1.5},
        {"ent_coef": 0.05},
        {"kl_coef": 0.3},
        {"ent_coef": 0.02, "kl_coef": 0.1, "max_grad_norm": 0.01},
        {"log_std_rate": 0.3},
    ],
)
def test_closed_form_equals_autograd_in_float64(kind, net_arch, fields):
    closed = make_policy(ACTIONS[kind], net_arch=net_arch)
    plain = copy.deepcopy(closed)
    batch = make_batch(closed, kl="kl_coef" in fields, silent=0.2)
    one = NumpyUpdater(closed, config(**fields))
    two = TorchUpdater(plain, config(**fields))
    start = closed.flat.copy()
    for rate in (config().learning_rate, 0.5 * config().learning_rate):
        one.set_learning_rate(rate)
        two.set_learning_rate(rate)
        here, there = one.run(batch, *streams()), two.run(batch, *streams())
    np.testing.assert_allclose(closed.flat, plain.flat, rtol=0, atol=1e-10)
    assert np.abs(closed.flat - start).max() > 1e-2
    assert here.policy_updates == there.policy_updates
    assert here.grad_norm == pytest.approx(there.grad_norm, rel=1e-10)
    for name in ("exp_avg", "exp_avg_sq"):
        mine, theirs = getattr(one.state(), name), getattr(two.state(), name)
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("updater", [NumpyUpdater, TorchUpdater])
def test_a_learning_rate_of_zero_changes_nothing(updater):
    policy = make_policy(BOX)
    before = policy.flat.copy()
    one = updater(policy, config())
    one.set_learning_rate(0.0)
    one.run(make_batch(policy), *streams())
    np.testing.assert_array_equal(policy.flat, before)


@pytest.mark.parametrize("updater", [NumpyUpdater, TorchUpdater])
def test_log_std_has_its_share_of_the_step_and_nothing_else_has(updater):
    start = make_policy(BOX)
    batch = make_batch(start)

    def moved(share):
        policy = copy.deepcopy(start)
        once = GRPOConfig(batch_size=1_000, n_epochs=1, learning_rate=1e-2, log_std_rate=share)
        updater(policy, once).run(batch, *streams())
        change = policy.flat - start.flat
        return change[own], np.delete(change, own)

    end = start.policy_parameters.flat.size
    own = np.arange(end - start.log_std.numel(), end)
    whole, others = moved(1.0)
    assert np.abs(whole).min() > 1e-3
    for share in (0.0, 0.3, 2.0):
        mine, rest = moved(share)
        np.testing.assert_allclose(mine, share * whole, rtol=1e-9, atol=0)
        np.testing.assert_array_equal(rest, others)


@pytest.mark.rotated(6)
@pytest.mark.parametrize("kind", ACTIONS)
def test_a_replica_on_a_device_does_the_same_bit_for_bit(kind):
    # all that the CUDA path does but the device itself: weights sent, fetched, moments kept
    near = make_policy(ACTIONS[kind], dtype=np.float32)
    far = copy.deepcopy(near)
    fields = {"kl_coef": 0.1, "ent_coef": 0.01}
    one, two = (
        TorchUpdater(near, config(**fields)),
        TorchUpdater(far, config(**fields), "cpu"),
    )
    for seed in range(3):
        batch = make_batch(near, seed=seed, kl=True, silent=0.2)
        for policy, updater in ((near, one), (far, two)):
            policy.observe(np.random.default_rng(seed).standard_normal((9, 4)))
            updater.run(batch, *streams())
    np.testing.assert_array_equal(near.flat, far.flat)
    for name, buffer in near.named_buffers():
        assert torch.equal(buffer, far.get_buffer(name))
    resumed = TorchUpdater(far, config(**fields), "cpu")
    resumed.load(two.state())
    for updater in (one, resumed):
        updater.run(batch, *streams())
    np.testing.assert_array_equal(near.flat, far.flat)


def test_cuda_is_refused_where_there_is_none_and_auto_takes_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(IncompatibleError, match="use cpu or auto") as caught:
        resolve_device("cuda")
    assert caught.value.field == "device"
    assert resolve_device("auto") == "cpu"


@pytest.mark.parametrize("kind", ACTIONS)
def test_closed_form_stays_near_autograd_in_float32(kind):
    closed = make_policy(ACTIONS[kind], dtype=np.float32)
    plain = copy.deepcopy(closed)
    batch = make_batch(closed)
    NumpyUpdater(closed, config()).run(batch, *streams())
    TorchUpdater(plain, config()).run(batch, *streams())
    np.testing.assert_allclose(closed.flat, plain.flat, atol=1e-4)


@pytest.mark.parametrize("source", [NumpyUpdater, TorchUpdater])
@pytest.mark.parametrize("target", [NumpyUpdater, TorchUpdater])
def test_optimizer_state_carries_over_between_the_paths(source, target):
    policy = make_policy(BOX)
    batch = make_batch(policy)
    first = source(policy, config())
    first.run(batch, *streams())
    other = copy.deepcopy(policy)
    second = target(other, config())
    second.load(first.state())
    first.run(batch, *streams())
    second.run(batch, *streams())
    np.testing.assert_allclose(policy.flat, other.flat, rtol=0, atol=1e-10)


@pytest.mark.parametrize("updater", [NumpyUpdater, TorchUpdater])
def test_transitions_without_signal_leave_the_policy_bit_identical(updater):
    policy = make_policy()
    runner = updater(policy, config(ent_coef=0.1))
    runner.run(make_batch(policy), *streams())  # Adam has momentum now
    before, value_before = policy.policy_parameters.flat.copy(), policy.value_parameters.flat.copy()
    silent = make_batch(policy, silent=2.0)
    summary = runner.run(silent, *streams())
    assert summary.policy_updates == 0
    np.testing.assert_array_equal(policy.policy_parameters.flat, before)
    assert not np.array_equal(policy.value_parameters.flat, value_before)


def test_silent_transitions_among_others_change_nothing():
    policy = make_policy()
    batch = make_batch(policy, silent=0.5)
    other = copy.deepcopy(policy)
    noisy = copy.copy(batch.advantages)
    noisy[~batch.informative] = 1e6
    NumpyUpdater(policy, config()).run(batch, *streams())
    NumpyUpdater(other, config()).run(
        type(batch)(**{n: getattr(batch, n) for n in batch.__slots__} | {"advantages": noisy}),
        *streams(),
    )
    np.testing.assert_array_equal(policy.flat, other.flat)


def test_the_value_head_cannot_touch_the_policy():
    policy = make_policy(dtype=np.float32)
    other = copy.deepcopy(policy)
    batch = make_batch(policy)
    wrong = {n: getattr(batch, n) for n in batch.__slots__} | {"targets": batch.targets * 1e3}
    other.value_parameters.flat[:] = 7.0
    NumpyUpdater(policy, config()).run(batch, *streams())
    NumpyUpdater(other, config()).run(
        type(batch)(**wrong), np.random.default_rng(1), np.random.default_rng(99)
    )
    np.testing.assert_array_equal(policy.policy_parameters.flat, other.policy_parameters.flat)


@pytest.mark.parametrize("updater", [NumpyUpdater, TorchUpdater])
def test_a_gradient_that_is_not_finite_ends_the_training(updater):
    policy = make_policy()
    batch = make_batch(policy)
    batch.advantages[3] = np.nan
    with pytest.raises(TrainingDivergedError, match="learning_rate"):
        updater(policy, config()).run(batch, *streams())


# --- the surrogate ---------------------------------------------------------------------------


def gradient_by_log_prob(log_ratio, advantage, low=0.2, high=0.2):
    log_prob = torch.tensor([log_ratio], dtype=torch.float64, requires_grad=True)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64)
    torch_updater.clipped_surrogate(log_prob, zero, one, low, high).backward()
    return float(log_prob.grad)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.1, 1.0, True), (1.3, 1.0, False), (0.7, 1.0, True),
        (0.9, -1.0, True), (0.7, -1.0, False), (1.3, -1.0, True),
    ],
)  # fmt: skip
def test_clipping_stops_only_what_would_move_further_away(ratio, advantage, moves):
    expected = -ratio * advantage if moves else 0.0
    assert gradient_by_log_prob(np.log(ratio), advantage) == pytest.approx(expected)


def test_clip_higher_lets_good_actions_grow_further():
    assert gradient_by_log_prob(np.log(1.25), 1.0, high=0.28) == pytest.approx(-1.25)
    assert gradient_by_log_prob(np.log(1.25), 1.0, high=0.2) == 0.0


@pytest.mark.parametrize("kind", ACTIONS)
def test_at_the_old_policy_the_gradient_is_reinforces(kind):
    policy = make_policy(ACTIONS[kind])
    batch = make_batch(policy)
    inputs = torch.from_numpy(np.ascontiguousarray(batch.inputs[:-1].T))
    actions, advantages = torch.from_numpy(batch.actions), torch.from_numpy(batch.advantages)

    def log_prob():
        return policy.distribution.log_prob(*policy.policy_outputs(inputs), actions)

    reinforce = -(log_prob() * advantages).mean()
    surrogate = policy_loss(
        policy, config(), inputs=inputs, actions=actions, log_prob_old=log_prob().detach(),
        advantages=advantages,
    )  # fmt: skip
    parameters = [p for n, p in policy.named_parameters() if not n.startswith("value")]
    for here, there in zip(
        torch.autograd.grad(surrogate, parameters),
        torch.autograd.grad(reinforce, parameters),
        strict=True,
    ):
        torch.testing.assert_close(here, there, rtol=1e-12, atol=1e-14)


@given(st.lists(st.tuples(st.floats(-20, 0), st.floats(-20, 0)), min_size=1, max_size=20))
@example([(-2.5473e-11, 0.0)])
def test_k3_is_never_negative(pairs):
    here, there = torch.tensor(pairs, dtype=torch.float64).T
    assert float(torch_updater.k3(here, there)) >= 0.0
    assert float(torch_updater.k3(here, here)) == 0.0


def test_k3_estimates_the_divergence():
    p, q = torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([0.4, 0.4, 0.2]).double()
    r = q / p
    expected = (p * (r - torch.log(r) - 1.0)).sum()  # exact expectation under p
    torch.testing.assert_close(expected, (p * torch.log(p / q)).sum())
    counts = torch.tensor([7, 2, 1])
    samples = torch.repeat_interleave(torch.arange(3), counts)
    torch.testing.assert_close(torch_updater.k3(p.log()[samples], q.log()[samples]), expected)


# --- distributions ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["discrete", "box"])
def test_numpy_heads_equal_torch(kind):
    policy = make_policy(ACTIONS[kind])
    rng = np.random.default_rng(0)
    outputs = 3.0 * rng.standard_normal((policy.head.outputs, 40))
    log_std = policy.policy_parameters.log_std
    actions = policy.head.sample(outputs, log_std, rng)
    encoded = policy.head.encode(actions, np.float64)
    log_prob, _ = policy.head.log_prob(outputs, log_std, encoded)
    rows = torch.from_numpy(outputs.T)
    if kind == "discrete":
        reference = torch.distributions.Categorical(logits=rows)
    else:
        reference = torch.distributions.Independent(
            torch.distributions.Normal(rows, torch.from_numpy(np.exp(log_std))), 1
        )
    expected = reference.log_prob(torch.from_numpy(actions)).numpy()
    np.testing.assert_allclose(log_prob, expected, rtol=1e-10)
    np.testing.assert_allclose(
        policy.head.entropy(outputs, log_std), reference.entropy().numpy(), rtol=1e-10
    )


def test_sampling_follows_the_probabilities():
    head = make_policy().head
    outputs = np.tile(np.log([[0.2], [0.5], [0.3]]), 200_000)
    drawn = np.bincount(head.sample(outputs, np.zeros(0), np.random.default_rng(0)))
    np.testing.assert_allclose(drawn / 200_000, [0.2, 0.5, 0.3], atol=0.005)


def test_sampling_of_two_actions_follows_the_probabilities():
    head = make_policy(DiscreteActions(n=2)).head
    outputs = np.tile(np.log([[0.3], [0.7]]), 200_000)
    drawn = np.bincount(head.sample(outputs, np.zeros(0), np.random.default_rng(0)))
    np.testing.assert_allclose(drawn / 200_000, [0.3, 0.7], atol=0.005)


def test_gaussian_samples_have_its_moments():
    head = make_policy(BOX).head
    outputs, log_std = np.tile([[1.0], [-2.0]], 200_000), np.log([0.5, 2.0])
    drawn = head.sample(outputs, log_std, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(axis=0), [1.0, -2.0], atol=0.02)
    np.testing.assert_allclose(drawn.std(axis=0), [0.5, 2.0], rtol=0.01)


def test_the_mode_is_the_largest_logit_and_the_mean():
    logits = np.array([[0.1, 2.0, 1.0], [0.3, -1.0, 1.0], [0.2, 0.0, 0.5]])
    np.testing.assert_array_equal(make_policy().head.mode(logits), [1, 0, 0])
    means = np.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]])
    np.testing.assert_array_equal(make_policy(BOX).head.mode(means), means.T)


# --- optimiser and minibatches -----------------------------------------------------------------


@settings(max_examples=25)
@given(st.integers(0, 2**16), st.integers(1, 30))
def test_flat_adam_equals_torch(seed, steps):
    rng = np.random.default_rng(seed)
    mine = rng.standard_normal(17)
    theirs = torch.nn.Parameter(torch.from_numpy(mine.copy()))
    adam = FlatAdam(mine, 1e-2)
    reference = torch.optim.Adam([theirs], lr=1e-2, eps=1e-5)
    for _ in range(steps):
        gradient = rng.standard_normal(17) * 10.0 ** rng.integers(-4, 2)
        theirs.grad = torch.from_numpy(gradient.copy())
        reference.step()
        adam.step(gradient)
    np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_clip_norm_equals_torch(scale):
    mine = scale * np.random.default_rng(0).standard_normal(9)
    theirs = torch.nn.Parameter(torch.zeros(9, dtype=torch.float64))
    theirs.grad = torch.from_numpy(mine.copy())
    expected = float(torch.nn.utils.clip_grad_norm_([theirs], 0.5))
    assert clip_norm(mine, 0.5) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(mine, theirs.grad.numpy(), rtol=1e-12)


@given(st.integers(0, 300), st.integers(1, 100), st.integers(1, 3))
def test_minibatches_cover_each_epoch_evenly(n, batch_size, n_epochs):
    parts = list(minibatches(n, batch_size, n_epochs, np.random.default_rng(0)))
    sizes = [len(part) for part in parts]
    assert len(parts) == n_epochs * -(-n // batch_size)
    assert not sizes or (max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1)
    seen = np.concatenate([np.zeros(0, np.int64), *parts])
    np.testing.assert_array_equal(np.sort(seen), np.repeat(np.arange(n), n_epochs))
