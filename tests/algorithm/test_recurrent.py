"""A policy that remembers: one step and whole segments agree, and memory follows its episode."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from grpo import GRPO
from grpo.config import GRPOConfig
from grpo.envs import check_environment, make_vec_env
from grpo.errors import IncompatibleError, OutOfRangeError
from grpo.evaluation import evaluate
from grpo.learner import Learner
from grpo.policies import RecurrentPolicy, make_policy
from grpo.rewards import get_reward
from grpo.rng import Streams
from grpo.rollout import RolloutCollector
from grpo.torch_updater import TorchUpdater, policy_loss
from grpo.trainer import policy_spec

from .builders import assert_goes_on_as_if_never_paused

N_STATE = 6
SMALL = {"gru_hidden_size": N_STATE}


class Cue(gym.Env):
    """Shows which of two actions is right, then nothing; after a while one must still know."""

    steps = 4

    def __init__(self):
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cue, self.t = int(self.np_random.integers(2)), 0
        return np.array([2 * self.cue - 1, 1], np.float32), {}

    def step(self, action):
        self.t += 1
        done = self.t == self.steps
        reward = float(done and action == self.cue)
        return np.array([0, done], np.float32), reward, done, False, {}


class HiddenVelocity(gym.ObservationWrapper):
    """CartPole of which only positions are seen."""

    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def observation(self, observation):
        return observation[[0, 2]]


class Parts(gym.Env):
    """A Dict with an image in it, and a mask."""

    def __init__(self):
        self.observation_space = spaces.Dict(
            {"image": spaces.Box(0, 255, (8, 8, 1), np.uint8), "place": spaces.Discrete(3)}
        )
        self.action_space = spaces.Discrete(3)

    def _observe(self):
        image = self.np_random.integers(0, 256, (8, 8, 1), dtype=np.uint8)
        self.mask = np.eye(3, dtype=np.int8)[self.np_random.integers(3)]
        return {"image": image, "place": self.t % 3}, {"action_mask": self.mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._observe()

    def step(self, action):
        assert self.mask[action]
        self.t += 1
        observation, info = self._observe()
        return observation, float(action), self.t >= 9, False, info


class Risky(gym.Env):
    """Two numbers of chance; one of the actions may end the episode."""

    def __init__(self):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.standard_normal(2), {}

    def step(self, action):
        ended = self.np_random.random() < 0.15 * action
        return self.np_random.standard_normal(2), float(action), ended, False, {}


ENVIRONMENTS = {"cue": Cue, "positions": HiddenVelocity, "parts": Parts}
KINDS = [pytest.param(k, marks=[] if k == "parts" else pytest.mark.long) for k in ENVIRONMENTS]


def model_of(env, **fields):
    defaults = {"seed": 3, "n_steps": 8, "group_size": 4, "batch_size": 16, "n_epochs": 2}
    fields = {**defaults, **fields}
    return GRPO(env, policy="RecurrentPolicy", policy_kwargs=SMALL, **fields)


def collected(**fields):
    """A policy, what it did, and the config; groups that branch, and members that end early."""
    config = GRPOConfig(
        env_name="<e>", reward_function_type="environment", policy="RecurrentPolicy",
        policy_kwargs=SMALL, num_groups=2, group_size=3, n_steps=12, total_timesteps=4_000,
        bootstrap=True, **fields,
    )  # fmt: skip
    objects = {"<e>": Risky}
    spec = check_environment("<e>", {}, objects)
    policy = make_policy(policy_spec(spec, config, objects), 1)
    policy.flat += 0.3 * np.random.default_rng(0).standard_normal(policy.flat.shape).astype("f4")
    envs = make_vec_env("<e>", {}, 6, objects=objects)
    reward = get_reward("environment", spec)
    collector = RolloutCollector(policy, envs, reward, config, Streams.from_seed(1))
    while True:  # until some members ended in it, and some did not
        rollout = collector.collect(1_000)
        lengths = rollout.by_member().sum(axis=0)
        branched = rollout.episodes and policy.spec.reads.states(rollout.observations[:6]).any()
        if branched and lengths.max() == 12 and any(collector.next_starts):
            break
    envs.close()
    return policy, rollout, config, collector


def test_a_step_is_what_pytorch_does():
    policy, rollout, _, _ = collected()
    rows = torch.from_numpy(policy.encode(rollout.observations))
    with torch.no_grad():
        torch.testing.assert_close(policy.memories(rows), policy.memories(rows[None]))
        inside, hidden = rows[:, :2], rows[:, 2:]
        after, _ = policy.policy_net.gru(inside[None], hidden[None].contiguous())
    torch.testing.assert_close(policy.memories(rows), after[0])


def test_what_a_member_remembered_is_what_it_recalls_and_ends_with():
    policy, rollout, _, _ = collected(normalize_observations=False)
    alive, reads = rollout.by_member(), policy.spec.reads
    assert len({*alive.sum(axis=0)}) > 1  # some ended before others
    encoded = policy.encode(rollout.observations)
    np.testing.assert_allclose(policy.recall(encoded, alive), encoded, rtol=0, atol=1e-6)
    states, after = reads.states(rollout.observations), policy.next_states(rollout.observations)
    before = {}
    for row, member in enumerate(np.argwhere(alive)[:, 1]):
        if member in before:
            np.testing.assert_allclose(states[row], before[member], atol=1e-6)
        before[member] = after[row]
    for member, state in before.items():
        kept = reads.states(rollout.last_observations)[member]
        np.testing.assert_allclose(kept, state, atol=1e-6)


def test_recalling_starts_from_what_was_stored_and_follows_the_weights():
    policy, rollout, _, _ = collected()
    alive, encoded = rollout.by_member(), policy.encode(rollout.observations)
    weights = policy.flat[: policy.policy_size] * 0.5
    recalled = policy.recall(encoded, alive, weights)
    first = alive[0].sum()
    np.testing.assert_array_equal(recalled[:first], encoded[:first])
    assert np.abs(recalled[first:] - encoded[first:]).max() > 0.01
    present = policy.flat.copy()
    policy.flat[: policy.policy_size] = weights
    np.testing.assert_array_equal(policy.recall(encoded, alive), recalled)
    policy.flat[:] = present


def test_members_of_a_group_begin_with_the_same_memory_which_the_state_was_kept_with():
    policy, rollout, _, collector = collected(start_states="branch", branch_probability=1.0)
    reads = policy.spec.reads
    starts = reads.states(rollout.observations[:6]).reshape(2, 3, -1)
    for group in starts:
        np.testing.assert_array_equal(group, np.broadcast_to(group[0], group.shape))
    assert np.abs(starts).max() > 0.0  # visited states, whose episodes went on
    last = reads.states(rollout.last_observations)
    kept = [start.policy_state for start in collector.next_starts if start is not None]
    assert kept
    for state in kept:
        assert (last == state).all(axis=1).any()


def test_the_gradient_is_that_of_every_episode_played_through_time():
    policy, rollout, config, _ = collected()
    learner = Learner(policy, config, Streams.from_seed(0))
    comparison = learner.compare(rollout)
    batch = learner._batch(rollout, comparison)
    kept = np.flatnonzero(batch.informative)
    updater = TorchUpdater(policy, GRPOConfig(**{**config.to_dict(), "batch_size": 10_000}))
    (part,) = list(updater._minibatches(batch, np.random.default_rng(0)))[:1]
    inputs = torch.from_numpy(batch.inputs)
    judged = torch.from_numpy(part.judged)
    assert sorted(part.judged.tolist()) == kept.tolist()

    def gradient(loss):
        policy.zero_grad()
        loss.backward()
        return np.concatenate([p.grad.ravel().numpy() for p in policy.policy_parameters_list()])

    common = {
        "actions": torch.from_numpy(batch.actions)[judged],
        "log_prob_old": torch.from_numpy(batch.log_prob_old)[judged],
        "advantages": torch.from_numpy(batch.advantages)[judged],
    }
    found = gradient(
        policy_loss(
            policy, config, inputs=inputs[torch.from_numpy(part.read)],
            places=torch.from_numpy(part.places), **common,
        )
    )  # fmt: skip
    # the same, one member after the other, one step after the other
    outputs, cell = [None] * len(batch.actions), torch.nn.GRUCell(2, N_STATE)
    cell.load_state_dict(
        {k.removesuffix("_l0"): v for k, v in policy.policy_net.gru.state_dict().items()}
    )
    for name, parameter in policy.policy_net.gru.named_parameters():
        setattr(cell, name.removesuffix("_l0"), parameter)
    members = np.argwhere(batch.alive)[:, 1]
    for member in range(batch.alive.shape[1]):
        rows = np.flatnonzero(members == member)
        state = inputs[rows[0], 2:][None]
        for row in rows:
            state = cell(inputs[row, :2][None], state)
            outputs[row] = policy.policy_net.head(state)[0]
    log_prob = policy.distribution.log_prob(
        torch.stack(outputs)[judged], torch.zeros(0), common["actions"]
    )
    assert torch.allclose(log_prob, common["log_prob_old"], atol=1e-5)  # nothing was learned yet
    ratio = torch.exp(log_prob - common["log_prob_old"])
    expected = gradient(-(ratio * common["advantages"]).mean())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(found).max() > 1e-3


def test_minibatches_are_whole_segments_of_about_the_size_asked_for():
    policy, rollout, config, _ = collected()
    learner = Learner(policy, config, Streams.from_seed(0))
    batch = learner._batch(rollout, learner.compare(rollout))
    updater = TorchUpdater(policy, GRPOConfig(**{**config.to_dict(), "batch_size": 40}))
    members, seen = np.argwhere(batch.alive)[:, 1], []
    for part in updater._minibatches(batch, np.random.default_rng(0)):
        assert part.read.shape[1] <= 3
        for column in part.read.T:  # all of a member's steps, in order of time
            own = np.flatnonzero(members == members[column[0]])
            np.testing.assert_array_equal(column[: len(own)], own)
        seen += part.judged.tolist()
    epochs = config.n_epochs
    assert sorted(seen) == sorted(np.flatnonzero(batch.informative).tolist() * epochs)


@pytest.mark.rotated(13)
def test_what_was_shown_once_is_remembered():
    fields = {
        "seed": 1, "group_size": 8, "n_steps": 4, "learning_rate": 3e-3, "start_states": "reset"
    }  # fmt: skip
    blind = GRPO(Cue, policy="MlpPolicy", **fields).learn(16_000)
    mindful = GRPO(Cue, policy="RecurrentPolicy", **fields).learn(16_000)
    assert blind.evaluate(200).mean < 0.65
    assert mindful.evaluate(200).mean > 0.95


@pytest.mark.rotated(13)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_as_if_never_paused(kind, tmp_path):
    env = ENVIRONMENTS[kind]
    went_on = assert_goes_on_as_if_never_paused(
        tmp_path, env, seed=3, policy="RecurrentPolicy", policy_kwargs=SMALL, n_steps=8,
        group_size=3, batch_size=16, n_epochs=2, total_timesteps=360, bootstrap=True, kl_coef=0.1,
    )  # fmt: skip
    assert went_on.policy.spec.reads.n_state == N_STATE


@pytest.mark.rotated(13)
def test_any_number_of_workers_gives_the_same_bits():
    none, two = (model_of(Cue, env_workers=workers).learn(300) for workers in (0, 2))
    np.testing.assert_array_equal(none.policy.flat, two.policy.flat)
    two.get_env().close()


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_side_by_side_are_those_that_predict_plays(kind):
    env = ENVIRONMENTS[kind]
    model = model_of(env).learn(200)
    found = model.evaluate(20)  # more than are played at once
    assert isinstance(model.policy, RecurrentPolicy)
    one = env()
    for seed, expected in zip(found.seeds[[0, 7, 18]], found.returns[[0, 7, 18]], strict=True):
        observation, info = one.reset(seed=int(seed))
        state, total, done = None, 0.0, False
        while not done:
            action, state = model.predict(observation, True, info.get("action_mask"), state=state)
            observation, reward, terminated, truncated, info = one.step(action)
            total, done = total + float(reward), terminated or truncated
        assert total == expected


def test_a_batch_of_observations_has_a_state_each():
    model = model_of(HiddenVelocity).learn(100)
    observations = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
    actions, states = model.predict(observations, True)
    assert actions.shape == (3,)
    assert states.shape == (3, N_STATE)
    assert states.dtype == np.float32
    _, again = model.predict(observations, True, state=states, episode_start=[True, False, True])
    np.testing.assert_allclose(again[[0, 2]], states[[0, 2]], atol=1e-6)
    assert np.abs(again[1] - states[1]).max() > 1e-4
    single, state = model.predict(observations[1], True, state=states[1])
    np.testing.assert_allclose(state, again[1], atol=1e-6)
    assert np.shape(single) == ()
    told = evaluate(model.policy, "<e>", objects={"<e>": HiddenVelocity}, n_episodes=2)
    assert told.mean > 0.0


@pytest.mark.parametrize(
    "state",
    [np.zeros(N_STATE + 1), np.full(N_STATE, 1.5), np.full(N_STATE, np.nan), "abc", [[0.0], []]],
)
def test_a_state_that_is_none_is_refused(state):
    model = model_of(Cue)
    with pytest.raises(IncompatibleError, match="state"):
        model.predict(np.zeros(2, np.float32), state=state)
    starts = [True, False]
    with pytest.raises(IncompatibleError, match="episode_start"):
        model.predict(np.zeros((3, 2)), state=np.zeros((3, N_STATE)), episode_start=starts)
    model.predict(np.zeros(2, np.float32), state=[0] * N_STATE)


def test_the_bootstrap_reads_what_is_remembered_now():
    policy, rollout, config, _ = collected()
    policy.observe(100.0 + rollout.observations)  # the normaliser moved since they were sampled
    learner = Learner(policy, config, Streams.from_seed(0))
    alive = rollout.by_member()
    encoded = policy.recall(policy.encode(rollout.observations), alive)
    last = policy.encode(rollout.last_observations)
    found = learner._recalled_after(alive, encoded, last)
    members = np.argwhere(alive)[:, 1]
    for member in range(alive.shape[1]):
        (final,) = np.flatnonzero(members == member)[-1:]
        with torch.no_grad():
            after = policy.memories(torch.from_numpy(encoded[final : final + 1]))[0].numpy()
        np.testing.assert_allclose(found[member, 2:], after, atol=1e-6)
    np.testing.assert_array_equal(found[:, :2], last[:, :2])
    assert np.abs(found - last).max() > 0.01


def test_one_pass_gives_what_two_give():
    policy, rollout, _, _ = collected()
    encoded = policy.encode(rollout.observations)
    outputs, values = policy.outputs_and_values(encoded)
    np.testing.assert_array_equal(values, policy.values(encoded))
    alone = policy.outputs(encoded)
    found, expected = (each.log_prob(rollout.actions) for each in (outputs, alone))
    np.testing.assert_array_equal(found, expected)


def test_a_policy_without_memory_takes_no_state():
    with pytest.raises(IncompatibleError, match="has no memory"):
        GRPO("CartPole-v1").predict(np.zeros(4), state=np.zeros(3))


@pytest.mark.parametrize("size", [0, -1, 5_000, 2.5, "8", True])
def test_a_memory_of_no_size_is_refused_by_its_field(size):
    with pytest.raises(OutOfRangeError, match="gru_hidden_size") as caught:
        GRPO(Cue, policy="RecurrentPolicy", policy_kwargs={"gru_hidden_size": size})
    assert caught.value.field == "policy_kwargs"


def test_extractor_and_layers_are_chosen_by_the_space_and_by_hand():
    small = {"features_extractor_kwargs": {"cnn_output_dim": 8}, **SMALL}
    parts = GRPO(Parts, policy="RecurrentPolicy", policy_kwargs=small)
    assert parts.policy.policy_net.extractor.features_dim == 8 + 3
    model = GRPO(Cue, policy=RecurrentPolicy, policy_kwargs={"net_arch": [5], **SMALL})
    assert model.config.policy == "RecurrentPolicy"
    assert [layer.out_features for layer in model.policy.policy_net.head[1::2]] == [5, 2]
