"""Collecting groups: what ends, what counts, where the next group starts."""

import gymnasium
import numpy as np
import pytest

from grpo import EnvironmentFaultError
from grpo.envs import check_environment, make_vec_env
from grpo.policies import MlpPolicy
from grpo.rewards import get_reward
from grpo.rng import Streams
from grpo.rollout import RolloutCollector
from grpo.trainer import policy_spec
from tests.algorithm.builders import short_config


class Corridor(gymnasium.Env):
    """Walk right with action 1: step i pays i; ends at `goal`, is truncated after `limit` steps."""

    def __init__(self, goal: int = 3, limit: int = 100, broken: bool = False) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.goal, self.limit, self.broken = goal, limit, broken

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.elapsed, self.mark = 0, 0, self.np_random.random()
        return self._observe(), {}

    def step(self, action):
        self.place += int(action)
        self.elapsed += 1
        terminated, truncated = self.place >= self.goal, self.elapsed >= self.limit
        return self._observe(), float(self.elapsed), terminated, truncated, {}

    def _observe(self):
        bad = self.broken and self.elapsed == 2
        return np.array([np.nan if bad else self.place, self.mark])


@pytest.fixture(autouse=True)
def corridor():
    gymnasium.register("Corridor-v0", Corridor)
    yield
    del gymnasium.registry["Corridor-v0"]


def make_collector(**fields):
    config = short_config(**{"env_name": "CartPole-v1", **fields})
    spec = check_environment(config.env_name, config.env_kwargs)
    policy = MlpPolicy(policy_spec(spec, config), config.seed)
    envs = make_vec_env(config.env_name, config.env_kwargs, config.num_groups * config.group_size)
    reward = get_reward(config.reward_function_type, spec)
    return (
        RolloutCollector(policy, envs, reward, config, Streams.from_seed(config.seed)),
        envs,
        policy,
    )


def always(policy, action):
    """Make a policy choose one action."""
    policy.policy_parameters.layers[-1][:] = 0.0
    policy.policy_parameters.layers[-1][action, -1] = 100.0


CORRIDOR = {
    "env_name": "Corridor-v0",
    "reward_function_type": "environment",
    "start_states": "reset",
}


def test_members_of_a_group_share_their_first_observation():
    collector, _, _ = make_collector(num_groups=3, group_size=4, n_steps=12)
    for _ in range(4):
        rollout = collector.collect(10_000)
        first = rollout.observations[:12].reshape(3, 4, -1)
        np.testing.assert_array_equal(first, np.broadcast_to(first[:, :1], first.shape))
        assert len(np.unique(first[:, 0], axis=0)) == 3


def test_a_terminated_member_stops_and_is_marked():
    collector, _, policy = make_collector(**CORRIDOR, group_size=2, n_steps=10)
    always(policy, 1)
    rollout = collector.collect(10_000)
    assert rollout.alive.shape == (3, 1, 2)
    assert rollout.alive.all()
    np.testing.assert_array_equal(rollout.rewards, [1, 1, 2, 2, 3, 3])
    assert rollout.terminated.all()
    np.testing.assert_array_equal(rollout.last_observations[:, 0], 3)
    assert [(e.episode_return, e.length, e.timestep) for e in rollout.episodes] == [(6.0, 3, 6)] * 2
    assert collector.next_starts == [None]


def test_a_truncated_member_ends_without_being_terminated():
    collector, _, policy = make_collector(
        **CORRIDOR, env_kwargs={"limit": 4}, group_size=2, n_steps=10
    )
    always(policy, 0)
    rollout = collector.collect(10_000)
    assert rollout.alive.shape == (4, 1, 2)
    assert not rollout.terminated.any()
    assert [e.length for e in rollout.episodes] == [4, 4]


def test_a_cut_member_is_neither_and_its_episode_goes_on():
    collector, _, policy = make_collector(
        env_kwargs={"max_episode_steps": 8}, group_size=2, n_steps=5, branch_probability=1.0
    )
    rollout = collector.collect(10_000)
    assert not rollout.terminated.any()
    assert rollout.episodes == ()
    start = collector.next_starts[0]
    assert start is not None
    assert (start.episode_return, start.episode_length) == (5.0, 5)
    following = collector.collect(10_000)
    first = following.observations[:2]
    np.testing.assert_array_equal(first[0], first[1])
    assert any(np.array_equal(first[0], last) for last in rollout.last_observations)
    # the time limit is part of the state that was branched
    assert [(e.length, e.episode_return) for e in following.episodes] == [(8, 8.0)] * 2
    assert not following.terminated.any()
    assert collector.next_starts == [None]
    assert policy is not None


def test_an_end_does_not_leak_into_the_next_group():
    collector, _, policy = make_collector(**CORRIDOR, group_size=2, n_steps=10)
    always(policy, 1)
    collector.collect(10_000)
    again = collector.collect(10_000)
    np.testing.assert_array_equal(again.observations[:2, 0], 0)
    assert [e.episode_return for e in again.episodes] == [6.0, 6.0]


def test_members_end_at_different_times():
    collector, _, _ = make_collector(**CORRIDOR, group_size=6, n_steps=30)
    rollout = collector.collect(10_000)
    alive = rollout.alive[:, 0]
    lengths = alive.sum(axis=0)
    assert len(set(lengths)) > 1
    assert (alive == (np.arange(len(alive))[:, None] < lengths)).all()
    np.testing.assert_array_equal(
        rollout.padded(rollout.rewards)[:, 0], alive * np.arange(1, len(alive) + 1)[:, None]
    )
    np.testing.assert_array_equal(rollout.mean_rewards(), np.arange(1, len(alive) + 1))
    np.testing.assert_array_equal(rollout.timesteps, np.cumsum(alive.sum(axis=1)))
    by_time = sorted((e.timestep, e.length) for e in rollout.episodes)
    assert by_time == sorted((int(rollout.timesteps[n - 1]), int(n)) for n in lengths)


def test_rewards_are_those_trained_on_and_episodes_the_environments_own():
    collector, _, _ = make_collector(
        reward_function_type="optimized_cartpole", n_steps=200, group_size=2
    )
    rollout = collector.collect(10_000)
    assert rollout.rewards.max() > 2.0
    assert all(e.episode_return == e.length for e in rollout.episodes)
    assert rollout.episodes


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 7, 8, 15, 64, 65])
def test_a_small_budget_shortens_the_iteration(budget):
    collector, envs, _ = make_collector(num_groups=2, group_size=4, n_steps=8)
    rollout = collector.collect(budget)
    assert 0 < envs.steps_taken <= budget
    assert rollout.timesteps[-1] == envs.steps_taken == collector.timesteps
    assert len(rollout.observations) == rollout.alive.sum() == envs.steps_taken


def test_reset_starts_never_branch():
    collector, _, _ = make_collector(start_states="reset", n_steps=5)
    collector.collect(1000)
    assert collector.next_starts == [None]


def test_the_next_group_goes_on_from_the_survivor_that_did_worst():
    shaped = {"reward_function_type": "optimized_cartpole", "n_steps": 8, "group_size": 4}
    worst, best = 0, 0
    for seed in range(8):
        collector, _, _ = make_collector(
            **shaped, start_states="branch_worst", branch_probability=1.0, seed=seed
        )
        rollout = collector.collect(10_000)
        following = collector.collect(10_000).observations[0]
        survived = ~rollout.terminated
        sums = rollout.padded(rollout.rewards)[:, 0].sum(axis=0)[survived]
        last = rollout.last_observations[survived]
        worst += (last[sums == sums.min()] == following).all(axis=1).any()  # there may be equals
        best += (last[sums == sums.max()] == following).all(axis=1).any()
    assert (worst, best) == (8, 0)


def test_branching_happens_with_its_probability():
    collector, _, _ = make_collector(n_steps=2, branch_probability=0.7)
    branched = 0
    for _ in range(400):
        collector.collect(10**6)
        branched += collector.next_starts[0] is not None
    assert 0.6 < branched / 400 < 0.8


def test_an_observation_that_is_not_finite_is_the_environments_fault():
    collector, _, _ = make_collector(**CORRIDOR, env_kwargs={"broken": True}, n_steps=10)
    with pytest.raises(EnvironmentFaultError, match="not finite"):
        collector.collect(1000)


# --- members that go on with their own episodes ---------------------------------------------

CONTINUE = {"start_states": "continue", "baseline": "critic", "group_size": 1}


def test_each_member_goes_on_with_its_own_episode():
    collector, envs, policy = make_collector(
        **CORRIDOR | CONTINUE, env_kwargs={"limit": 7}, num_groups=3, n_steps=5
    )
    always(policy, 0)
    first = collector.collect(10_000)
    marks = first.observations[:3, 1]
    assert len(set(marks)) == 3  # a reset of its own each
    assert not first.shared.any()
    assert first.episodes == ()
    second = collector.collect(10_000)
    np.testing.assert_array_equal(second.observations[:3], first.last_observations)
    np.testing.assert_array_equal(second.rewards, np.repeat([6.0, 7.0], 3))
    assert [(e.episode_return, e.length) for e in second.episodes] == [(28.0, 7)] * 3
    third = collector.collect(10_000)
    assert not set(third.observations[:3, 1]) & set(marks)
    assert envs.steps_taken == 3 * (5 + 2 + 5)


def test_only_those_whose_episode_ended_are_reset():
    collector, _, _ = make_collector(**CORRIDOR | CONTINUE, num_groups=6, n_steps=4)
    ends = 0
    for _ in range(10):
        rollout = collector.collect(10_000)
        # after four steps a member is at its goal or not; who is not goes on
        going = rollout.last_observations[~rollout.terminated]
        ends += int(rollout.terminated.sum())
        following = collector.collect(10_000)
        first = following.observations[:6]
        np.testing.assert_array_equal(first[~rollout.terminated], going)
        assert (first[rollout.terminated, 0] == 0).all()
        lengths = following.alive[:, :, 0].sum(axis=0)
        for episode in following.episodes:
            assert episode.length > 4 or episode.length in lengths
    assert ends > 10


def test_a_small_budget_leaves_members_where_they_are():
    collector, envs, policy = make_collector(**CORRIDOR | CONTINUE, num_groups=4, n_steps=3)
    always(policy, 0)
    before = collector.collect(10_000).last_observations
    assert envs.steps_taken == 12
    rollout = collector.collect(2)
    assert rollout.alive.shape == (1, 2, 1)
    after = collector.collect(10_000).observations[:4]
    np.testing.assert_array_equal(after[2:], before[2:])
    np.testing.assert_array_equal(after[:2], rollout.last_observations)


def test_siblings_of_a_mixture_return_to_their_own_episodes():
    collector, _, _ = make_collector(
        start_states="mixed", baseline="shrinkage", num_groups=4, group_size=3, n_steps=5,
        branch_probability=0.5,
    )  # fmt: skip
    own = {}  # what those observe whose episode goes on
    trips = alone = 0
    for _ in range(60):
        rollout = collector.collect(10_000)
        first = rollout.observations[:12].reshape(4, 3, -1)
        last = rollout.last_observations.reshape(4, 3, -1)
        # CartPole's time limit is far: who stopped before the segment's end has ended
        full = rollout.alive.sum(axis=0) == len(rollout.alive)
        going = full & ~rollout.terminated.reshape(4, 3)
        for group in range(4):
            moved = list(range(3))
            if rollout.shared[group]:
                assert (first[group] == first[group][0]).all()
                moved = [k for k in moved if np.array_equal(own.get((group, k)), first[group][0])]
                assert len(moved) == 1
                trips += 1
            for k in moved:
                before = own.pop((group, k), None)
                if before is not None:
                    np.testing.assert_array_equal(first[group, k], before)
                    alone += 1
                if going[group, k]:
                    own[group, k] = last[group, k]
    assert trips > 60
    assert alone > 60


def test_siblings_are_as_many_as_their_chance_says():
    collector, _, policy = make_collector(
        **{**CORRIDOR, "start_states": "mixed"}, env_kwargs={"limit": 10**6}, baseline="both",
        num_groups=40, group_size=2, n_steps=1, branch_probability=0.3,
    )  # fmt: skip
    always(policy, 0)
    assert collector.collect(10_000).sibling_fraction == 0.0  # nobody has come anywhere yet
    fractions = [collector.collect(10_000).sibling_fraction for _ in range(50)]
    assert np.mean(fractions) == pytest.approx(0.3, abs=0.03)  # 2,000 draws


def test_the_way_back_counts_and_has_its_place_in_the_budget():
    collector, envs, _ = make_collector(
        env_name="LunarLander-v3", reward_function_type="environment", start_states="mixed",
        baseline="both", num_groups=1, group_size=2, n_steps=10, branch_probability=1.0,
    )  # fmt: skip
    collector.collect(20)
    assert envs.steps_taken == 20
    # ten steps are replayed on the way there, and ten on the way back
    assert collector.collect(40).alive.sum() == 20
    assert envs.steps_taken == 60
    # who was joined is twenty steps on, who returned ten: 30 for the ways, 2 are left
    assert collector.collect(32).alive.sum() == 2
    assert envs.steps_taken == 92


def test_an_episode_counts_what_its_member_went_through_before_a_branch():
    collector, _, policy = make_collector(
        **{**CORRIDOR, "start_states": "mixed"}, env_kwargs={"limit": 9}, baseline="both",
        num_groups=1, group_size=2, n_steps=4, branch_probability=1.0,
    )  # fmt: skip
    always(policy, 0)
    episodes = [e for _ in range(12) for e in collector.collect(10_000).episodes]
    assert len(episodes) > 4
    assert {(e.episode_return, e.length) for e in episodes} == {(45.0, 9)}


@pytest.mark.parametrize(
    "fields", [{"start_states": "branch"}, {"start_states": "mixed", "baseline": "both"}]
)
def test_every_episode_adds_up_whoever_it_came_from(fields):
    collector, _, _ = make_collector(
        **{**CORRIDOR, **fields}, group_size=4, num_groups=2, n_steps=2, branch_probability=0.8
    )
    episodes = [e for _ in range(60) for e in collector.collect(10_000).episodes]
    assert len({e.length for e in episodes}) > 4
    assert all(e.episode_return == e.length * (e.length + 1) / 2 for e in episodes)
