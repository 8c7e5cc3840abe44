"""Why this action: cases worked out by hand, pairs of seeds, and gradients that add up."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from grpo import explanation
from grpo.actions import BoxActions, DiscreteActions, MultiDiscreteActions
from grpo.envs import check_environment
from grpo.envs.classic_control import ClassicControlVecEnv
from grpo.envs.factory import make_branches
from grpo.envs.rendering import make_drawn
from grpo.envs.sync_vec_env import SyncVecEnv
from grpo.errors import IncompatibleError, OutOfRangeError
from grpo.explanation import attribute, candidate_actions, compare_actions
from grpo.policies import MlpPolicy, PolicySpec, make_policy
from tests.algorithm.toy_environments import Wild, registered

LEFT, RIGHT = np.asarray(0), np.asarray(1)


class Fork(gym.Env):
    """The first action counts: after RIGHT every reward from step 4 on is 3, else 1; 6 steps long.

    Args:
        noise: standard deviation of what the environment adds to each reward.
        deadly: RIGHT ends it after the next step, with −5.
        tips: what each RIGHT adds to its reward.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self, noise: float = 0.0, deadly: bool = False, tips: float = 0.0) -> None:
        self.noise, self.deadly, self.tips = noise, deadly, tips
        self.first, self.taken = 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.first, self.taken = -1, 0
        return self._seen(), {}

    def step(self, action):
        if self.taken == 0:
            self.first = int(action)
        self.taken += 1
        died = self.deadly and self.first == 1 and self.taken == 2
        reward = -5.0 if died else 3.0 if self.first == 1 and self.taken >= 4 else 1.0
        reward += self.noise * self.np_random.normal() + self.tips * int(action)
        return self._seen(), reward, died or self.taken == 6, False, {}

    def _seen(self):
        return np.array([float(self.first), float(self.taken)])


def policy_of(n_features=2, action=None, seed=0):
    spec = PolicySpec(
        observation_shape=(n_features,), action=action or DiscreteActions(2), net_arch=(8,)
    )
    return make_policy(spec, seed)


def explained(name, actions=(LEFT, RIGHT), policy=None, **arguments):
    spec = check_environment(
        name, {k: arguments.pop(k) for k in ("noise", "deadly", "tips") if k in arguments}
    )
    drawn = make_drawn(spec)
    drawn.reset(np.array([0]), [3])
    try:
        return compare_actions(
            policy or policy_of(), spec, drawn.snapshot(0), actions,
            **{"continuations": 8, "horizon": 50} | arguments,
        )  # fmt: skip
    finally:
        drawn.close()


# --- what an action leads to -------------------------------------------------------------


def test_returns_difference_and_parting_of_a_case_worked_out_by_hand():
    with registered(Fork) as name:
        found = explained(name)
    left, right = found.actions
    assert left.returns.tolist() == [6.0] * 8
    assert right.returns.tolist() == [3 * 1.0 + 3 * 3.0] * 8
    assert left.lengths.tolist() == right.lengths.tolist() == [6] * 8
    assert (left.difference, left.parts_at) == (None, None)
    assert right.difference == (6.0, 6.0, 6.0)  # equal samples: an interval of no width
    assert right.parts_at == 4
    assert right.mean == (12.0, 12.0, 12.0)
    assert (found.continuations, found.horizon, found.cut) == (8, 50, 0)


def test_an_action_that_ends_it_parts_where_it_ends():
    with registered(Fork) as name:
        found = explained(name, deadly=True)
    right = found.actions[1]
    assert right.returns.tolist() == [1.0 - 5.0] * 8
    assert right.lengths.tolist() == [2] * 8
    assert right.difference == (-10.0, -10.0, -10.0)
    assert right.parts_at == 2
    assert len(right.worst) == len(right.typical) == 2
    assert int(right.worst[0]) == 1


def test_pairs_have_the_same_noise_so_that_it_cancels():
    with registered(Fork) as name:
        found = explained(name, noise=10.0)
        again, other = explained(name, noise=10.0), explained(name, noise=10.0, seed=1)
    left, right = found.actions
    assert np.std(left.returns) > 1.0  # each continuation has noise of its own
    np.testing.assert_allclose(right.returns - left.returns, 6.0, atol=1e-9)
    assert right.difference.estimate == pytest.approx(6.0)
    assert right.difference.high - right.difference.low < 1e-6
    assert right.parts_at == 4
    np.testing.assert_array_equal(left.returns, again.actions[0].returns)
    assert not np.array_equal(left.returns, other.actions[0].returns)


def test_the_same_action_twice_never_parts():
    with registered(Fork) as name:
        twin = explained(name, (LEFT, LEFT), noise=3.0).actions[1]
    assert twin.difference == (0.0, 0.0, 0.0)
    assert twin.parts_at is None


def test_typical_and_worst_are_continuations_that_were_played():
    with registered(Fork) as name:
        found = explained(name, tips=0.25, continuations=9).actions[1]
    returns = [12.0 + 0.25 * sum(map(int, path)) for path in (found.typical, found.worst)]
    assert len(set(found.returns)) > 2
    assert returns == [np.median(found.returns), found.returns.min()]
    assert int(found.typical[0]) == int(found.worst[0]) == 1


def test_what_goes_on_beyond_the_horizon_is_cut_and_counted():
    with registered(Fork) as name:
        found = explained(name, horizon=4)
    assert found.cut == 2 * 8
    assert found.actions[1].returns.tolist() == [6.0] * 8
    assert found.actions[1].parts_at == 4


def test_there_is_no_further_lot_once_the_time_is_over(monkeypatch):
    monkeypatch.setattr(explanation, "_HEAVY_TOGETHER", 4)
    with registered(Fork) as name:
        assert explained(name, seconds=0.0, continuations=10).continuations == 4
        assert explained(name, seconds=60.0, continuations=10).continuations == 10


def test_it_is_cancelled_before_or_after_the_first_lot(monkeypatch):
    monkeypatch.setattr(explanation, "_HEAVY_TOGETHER", 4)
    answers = iter([False] * 2 * 6)  # two actions, six steps
    with registered(Fork) as name:
        with pytest.raises(IncompatibleError, match="cancelled before"):
            explained(name, should_stop=lambda: True)
        found = explained(name, continuations=8, should_stop=lambda: next(answers, True))
    assert found.continuations == 4


def test_what_cannot_be_compared_is_refused_with_the_reason():
    with registered(Fork) as name, pytest.raises(OutOfRangeError, match="at least 2"):
        explained(name, continuations=1)
    with registered(Wild) as name:
        spec = check_environment(name, {})
        with pytest.raises(IncompatibleError, match="cannot be put into the same state twice"):
            compare_actions(policy_of(4), spec, {}, [np.asarray(5)])


# --- classic control, all at once --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("CartPole-v1", {}),
        ("CartPole-v1", {"sutton_barto_reward": True}),
        ("Acrobot-v1", {}),
        ("MountainCar-v0", {}),
        ("MountainCarContinuous-v0", {}),
        ("Pendulum-v1", {"g": 9.81}),
    ],
)
@pytest.mark.parametrize("before", [0, 17])
def test_members_as_one_array_go_on_as_an_instance_does(name, kwargs, before):
    spec = check_environment(name, kwargs)
    spec.action_space.seed(before)
    drawn = make_drawn(spec)
    one, three = np.array([0]), np.arange(3)
    drawn.reset(one, [before])
    actions = [np.asarray(spec.action_space.sample()) for _ in range(60)]
    for action in actions[:before]:
        drawn.step(one, action[None])
    snapshot = drawn.snapshot(0)
    fast, state = make_branches(spec, snapshot, actions[:1], 3)
    assert isinstance(fast, ClassicControlVecEnv)
    assert fast.restore(three, state)[1].tobytes() == drawn.observation_of(0).tobytes()
    for action in actions[before:]:
        a, b = drawn.step(one, action[None]), fast.step(three, np.stack([action] * 3))
        assert [np.asarray(part[0]).tobytes() for part in a] == [
            np.asarray(part[2]).tobytes() for part in b
        ]
        if a.terminated[0] or a.truncated[0]:
            break
    drawn.close()


def test_the_time_limit_goes_on_where_the_episode_was():
    spec = check_environment("Pendulum-v1", {})
    drawn = make_drawn(spec)
    drawn.reset(np.array([0]), [1])
    for _ in range(190):
        drawn.step(np.array([0]), np.zeros((1, 1), np.float32))
    policy = policy_of(3, BoxActions((1,), (-2.0,), (2.0,)))
    push = np.array([1.0], np.float32)
    found = compare_actions(policy, spec, drawn.snapshot(0), [push, -push], continuations=4)
    assert found.actions[0].lengths.tolist() == [10] * 4  # of 200
    assert found.cut == 0
    drawn.close()


def test_what_is_wrapped_is_stepped_by_itself():
    with registered(
        lambda: gym.wrappers.TransformReward(gym.make("CartPole-v1"), lambda r: 2 * r)
    ) as name:
        spec = check_environment(name, {})
        drawn = make_drawn(spec)
        drawn.reset(np.array([0]), [0])
        envs, state = make_branches(spec, drawn.snapshot(0), [RIGHT], 2)
        assert isinstance(envs, SyncVecEnv)
        envs.restore(np.arange(2), state)
        assert envs.step(np.arange(2), np.array([1, 1])).rewards.tolist() == [2.0, 2.0]
        envs.close()
        drawn.close()


# --- which actions -----------------------------------------------------------------------


def test_all_of_a_discrete_space_the_preferred_first():
    policy = policy_of(action=DiscreteActions(3, start=5))
    assert [int(a) for a in candidate_actions(policy, np.asarray(6))] == [6, 5, 7]


def test_one_number_on_a_grid_of_nine():
    policy = policy_of(action=BoxActions((1,), (-2.0,), (2.0,)))
    found = candidate_actions(policy, np.array([0.5], np.float32))
    assert [float(a[0]) for a in found] == [0.5, -2.0, -1.5, -1.0, -0.5, 0.0, 1.0, 1.5, 2.0]
    assert all(a.dtype == np.float32 for a in found)
    assert len(candidate_actions(policy, np.array([0.3], np.float32))) == 10


@pytest.mark.parametrize(("size", "points"), [(2, 3), (4, 3), (6, 2), (8, 2)])
def test_several_numbers_each_in_turn(size, points):
    policy = policy_of(action=BoxActions((size,), (-1.0,) * size, (1.0,) * size))
    preferred = np.full(size, 0.25, np.float32)
    found = candidate_actions(policy, preferred)
    assert len(found) == 1 + size * points
    assert all((a != preferred).sum() == 1 for a in found[1:])


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (DiscreteActions(19), "At most 18"),
        (BoxActions((9,), (-1.0,) * 9, (1.0,) * 9), "At most 18"),
        (MultiDiscreteActions((2,), (2, 2), (0, 0)), "another kind"),
        (BoxActions((1,), (-np.inf,), (1.0,)), "finite bounds"),
    ],
)
def test_actions_that_are_too_many_or_of_another_kind(action, message):
    with pytest.raises(IncompatibleError, match=message):
        candidate_actions(policy_of(action=action), np.zeros(9, np.float32))


# --- what counts in the observation ------------------------------------------------------


def test_a_nearly_linear_policy_is_attributed_by_its_weights():
    # one path of weights 0.01, 0.02, 0.03: tanh is the identity but for 1e-9 of that
    policy = MlpPolicy(PolicySpec(observation_shape=(3,), action=BoxActions((1,), (-2.0,), (2.0,))))
    policy.flat[:] = 0.0
    with torch.no_grad():
        policy.policy_net[0].weight[0] = torch.tensor([0.01, -0.02, 0.0])
        policy.policy_net[1].weight[0, 0] = 0.02
        policy.policy_net[2].weight[0, 0] = 0.03
        policy.observation_mean += torch.tensor([1.0, 0.0, 5.0])
        policy.observation_var *= torch.tensor([4.0, 1.0, 1.0])
    found = attribute(policy, np.array([3.0, 2.0, 1.0], np.float32), np.zeros(1, np.float32))
    gain = 0.02 * 0.03
    expected = [gain * 0.01 * (3 - 1) / 2, gain * -0.02 * 2, 0.0]
    np.testing.assert_allclose(found.values, expected, rtol=1e-3, atol=1e-12)
    assert found.baseline.tolist() == [1.0, 0.0, 5.0]
    assert found.target == "mean of the action"
    assert found.at_baseline == 0.0


@pytest.mark.parametrize("action", [0, 2])
def test_attributions_of_a_probability_add_up(action):
    policy = policy_of(4, DiscreteActions(3), seed=2)
    policy.flat[:] *= 4.0
    row = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
    found = attribute(policy, row, np.asarray(action))
    probability = policy.predict(row[None], True).action_probs[0, action]
    assert found.at_observation == pytest.approx(np.log(probability), abs=1e-5)
    assert found.values.sum() == pytest.approx(found.at_observation - found.at_baseline, abs=1e-3)
    assert found.values[3] == 0.0  # it is what it always is
    assert found.target == f"log-probability of action {action}"


def test_what_are_no_plain_numbers_is_not_attributed():
    with pytest.raises(IncompatibleError, match="plain numbers"):
        attribute(policy_of(4), np.zeros(5, np.float32), LEFT)
    with pytest.raises(IncompatibleError, match="Discrete or Box"):
        attribute(
            policy_of(4, MultiDiscreteActions((2,), (2, 2), (0, 0))), np.zeros(4, np.float32), LEFT
        )
