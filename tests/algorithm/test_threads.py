"""Small networks are trained on one thread, wherever that is; what the process had is put back."""

import pytest
import torch

from grpo import GRPO
from grpo.threads import fitting_threads, math_threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with math_threads().limit(limits=2):
        yield
    torch.set_num_threads(before)


def threads():
    found = {library["num_threads"] for library in math_threads().info()}
    return found | {torch.get_num_threads()}


@pytest.mark.parametrize(("n_weights", "inside"), [(5_000, {1}), (2_000_000, {2})])
def test_a_second_thread_is_for_large_networks(two_threads, n_weights, inside):
    with fitting_threads(n_weights):
        assert threads() == inside
    assert threads() == {2}


def test_learning_and_evaluating_is_on_one(two_threads):
    seen = []
    model = GRPO("CartPole-v1", seed=1)
    model.learn(64, callback=lambda *_: seen.append(threads()))
    model.evaluate(n_episodes=2)
    assert {1} in seen
    assert threads() == {2}
