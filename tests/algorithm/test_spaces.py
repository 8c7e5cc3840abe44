"""Spaces: what a policy reads of an observation, and what it may do, however they are nested."""

import copy
import itertools
import json
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from grpo import GRPO
from grpo.actions import DictActions, MultiDiscreteActions, action_spec_from_dict
from grpo.distributions import default_distribution
from grpo.encoding import ObservationEncoder, encode
from grpo.envs import check_environment
from grpo.envs.branching import Replay
from grpo.envs.sync_vec_env import SyncVecEnv
from grpo.errors import IncompatibleError, UnsupportedEnvironmentError
from grpo.observations import ObservationSpec
from grpo.policies import MlpPolicy, PolicySpec, make_policy
from grpo.spaces import action_spec, environment_actions, observation_spec
from tests.algorithm.builders import CHOICES, MULTI, NESTED, assert_goes_on_as_if_never_paused

WORLD = spaces.Dict(
    {
        "place": spaces.Box(-np.inf, np.inf, (2,), np.float64),
        "tool": spaces.Discrete(3, start=5),
        "bag": spaces.Tuple([spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3])]),
        "light": spaces.Box(0, 255, (1,), np.uint8),
    }
)
THING = {
    "place": np.array([0.5, -7.0]),
    "tool": np.int64(6),
    "bag": (np.array([1, 0], np.int8), np.array([1, 2])),
    "light": np.array([51], np.uint8),
}

OBSERVATIONS = {
    "discrete": spaces.Discrete(5, start=2),
    "multi_discrete": spaces.MultiDiscrete([[3, 4], [2, 2]]),
    "multi_binary": spaces.MultiBinary([2, 3]),
    "tuple": spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]),
    "dict": WORLD,
    "bytes": spaces.Box(0, 255, (2, 3), np.uint8),
    "scalar": spaces.Box(-np.inf, np.inf, (), np.float32),
}
ACTION_SPACES = {
    "discrete": spaces.Discrete(3, start=-1),
    "multi_discrete": spaces.MultiDiscrete([[3, 2], [2, 2]]),
    "multi_binary": spaces.MultiBinary([3]),
    "box": spaces.Box(np.array([-1.0, -np.inf], np.float32), np.array([2.0, 3.0], np.float32)),
    "tuple": spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2, 1))]),
    "dict": spaces.Dict(
        {
            "a": spaces.Discrete(2, start=5),
            "b": spaces.Dict({"c": spaces.MultiBinary(2), "d": spaces.Box(0, 9, (1,), np.int64)}),
        }
    ),
    "choices": spaces.Dict({"a": spaces.Discrete(2), "b": spaces.MultiDiscrete([3, 2])}),
}


class Anything(gymnasium.Env[Any, Any]):
    """Shows samples of a space, takes actions of another, and says when one is not of it."""

    def __init__(self, observation: str, action: str) -> None:
        self.observation_space = copy.deepcopy(OBSERVATIONS[observation])
        self.action_space = copy.deepcopy(ACTION_SPACES[action])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**30)))
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.time += 1
        return self.observation_space.sample(), self.np_random.random(), False, self.time > 9, {}


PAIRS = [
    *((observation, "discrete") for observation in OBSERVATIONS),
    *(("dict", action) for action in ACTION_SPACES),
]


@pytest.mark.rotated(9)
@pytest.mark.parametrize("policy", ["MlpPolicy", "ActorCriticPolicy"])
@pytest.mark.parametrize(("observation", "action"), PAIRS)
def test_every_space_is_trained_on_and_what_is_exported_does_the_same(observation, action, policy):
    model = GRPO(lambda: Anything(observation, action), policy=policy, seed=1, n_steps=8)
    model.learn(120)
    assert model.evaluate(2).lengths.tolist() == [10, 10]
    space, spec = OBSERVATIONS[observation], model.policy.spec
    space.seed(0)
    seen = [space.sample() for _ in range(7)]
    chosen = [model.predict(one, deterministic=True)[0] for one in seen]
    assert PolicySpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    rows = np.stack([spec.reads.row(one) for one in seen])
    here = model.policy.predict(rows.astype(np.float64))
    for row, one in zip(here.actions, chosen, strict=True):
        (taken,) = environment_actions(ACTION_SPACES[action], row[None])
        assert taken in ACTION_SPACES[action]
        if isinstance(spec.action, DictActions):
            assert rounded(spec.action.to_json(row)) == rounded(plain(one))
    served = model.policy.export()
    with torch.inference_mode():
        noise = torch.full((7, served.distribution.n_noise), 0.3)
        there = served(torch.from_numpy(rows.astype(np.float32)), noise)
    np.testing.assert_allclose(there["action"].numpy(), here.actions, atol=1e-5)
    np.testing.assert_allclose(there["value"].numpy(), here.values, atol=1e-4)
    if here.action_probs is not None:
        np.testing.assert_allclose(there["action_probs"].numpy(), here.action_probs, atol=1e-5)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    return value.tolist()


def rounded(value: Any) -> str:
    text = json.dumps(value)
    return json.dumps(json.loads(text, parse_float=lambda number: round(float(number), 5)))


def test_an_observation_is_a_row_and_its_categories_are_one_hot():
    spec = observation_spec(WORLD)
    assert [leaf.name for leaf in spec.leaves] == ["bag.0", "bag.1", "light", "place", "tool"]
    row = spec.row(THING)
    np.testing.assert_array_equal(row, [1, 0, 1, 2, 51, 0.5, -7, 6])
    encoded = [1, 0, 0, 1, 0, 0, 1, 51, 0.5, -7, 0, 1, 0]
    np.testing.assert_array_equal(encode(spec, row[None]), [encoded])
    rows = np.stack([row, row])
    in_torch = ObservationEncoder(spec)(torch.from_numpy(rows)).numpy()
    np.testing.assert_array_equal(in_torch, encode(spec, rows))
    assert ObservationSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_only_numbers_are_standardised_by_what_was_seen():
    reads = observation_spec(WORLD)
    policy = MlpPolicy(
        PolicySpec(observation_shape=reads.shape, observation=reads, action=MULTI), seed=0
    )
    rows = np.stack([reads.row(THING)] * 3)
    rows[:, 5] = 1.0, 2.0, 6.0
    policy.observe(rows)
    mean, var = policy.observation_mean.numpy(), policy.observation_var.numpy()
    np.testing.assert_allclose(mean, [0, 0, 0, 0, 0, 0, 0, 0, 3, -7, 0, 0, 0])
    np.testing.assert_allclose(var[7], 255.0**2)
    np.testing.assert_allclose(var[8], 14 / 3)
    columns = policy.encode(rows)
    np.testing.assert_allclose(columns[:8, 0], [1, 0, 0, 1, 0, 0, 1, 0.2], atol=1e-7)
    np.testing.assert_allclose(columns[10:, 0], [0, 1, 0, 1], atol=1e-7)
    other = make_policy(policy.spec.__class__.from_dict(policy.spec.to_dict()), 1)
    other.load_state_dict(policy.state_dict())
    np.testing.assert_array_equal(other.encode(rows), columns)


def test_bytes_are_divided_by_their_range_with_or_without_normalisation():
    reads = observation_spec(spaces.Box(-5, 250, (2,), np.int16))
    for normalize in (True, False):
        policy = MlpPolicy(
            PolicySpec(
                observation_shape=(2,),
                observation=reads,
                action=MULTI,
                normalize_observations=normalize,
            )
        )
        policy.observe(np.array([[3, 4]]))
        np.testing.assert_allclose(policy.encode(np.array([[-5, 250]]))[:2, 0], [0, 1], atol=1e-7)
    assert observation_spec(spaces.Box(0, 1000, (2,), np.int64)).is_plain
    assert observation_spec(spaces.Box(-1.0, 1.0, (2,))).is_plain


def alternatives(action: MultiDiscreteActions | DictActions) -> torch.Tensor:
    parts = [action] if isinstance(action, MultiDiscreteActions) else [p for _, p in action.parts]
    counts = itertools.chain(*(p.nvec if hasattr(p, "nvec") else (p.n,) for p in parts))
    return torch.tensor(list(itertools.product(*map(range, counts))))


@pytest.mark.parametrize("action", [MULTI, CHOICES])
def test_independent_choices_are_what_enumeration_says(action):
    made = default_distribution(action)(action)
    every = alternatives(action)
    logits = torch.randn(made.n_outputs, generator=torch.Generator().manual_seed(1)).double()
    outputs, nothing = logits.expand(len(every), -1), torch.zeros(0)
    log_p = made.log_prob(outputs, nothing, every)
    p = log_p.exp()
    torch.testing.assert_close(p.sum().item(), 1.0)
    entropy = made.entropy(outputs, nothing)
    torch.testing.assert_close(entropy[0].item(), -(p * log_p).sum().item())
    assert torch.equal(made.mode(outputs[:1])[0], every[p.argmax()])
    other = torch.randn(made.n_outputs, generator=torch.Generator().manual_seed(2)).double()
    log_q = made.log_prob(other.expand(len(every), -1), nothing, every)
    kl = (p * (log_p - log_q)).sum()
    by_choice, first = torch.zeros(()).double(), 0
    for n in made.describe(outputs[:1], nothing)["action_probs"].new_tensor(counts(action)).int():
        one, two = (torch.log_softmax(z[first : first + n], 0) for z in (logits, other))
        by_choice = by_choice + (one.exp() * (one - two)).sum()
        first += int(n)
    torch.testing.assert_close(kl, by_choice)
    n = 100_000
    uniform = torch.rand((n, made.n_noise), generator=torch.Generator().manual_seed(3))
    drawn = made.sample(logits.float().expand(n, -1), nothing, uniform.clamp(1e-7, 1 - 1e-7))
    place = {tuple(row): i for i, row in enumerate(every.tolist())}
    share = np.bincount([place[tuple(row)] for row in drawn.tolist()], minlength=len(every)) / n
    assert np.abs(share - p.numpy()).max() < 5 * np.sqrt(0.25 / n)


def counts(action: MultiDiscreteActions | DictActions) -> list[int]:
    parts = [action] if isinstance(action, MultiDiscreteActions) else [p for _, p in action.parts]
    return [n for p in parts for n in (p.nvec if hasattr(p, "nvec") else (p.n,))]


def test_samples_in_numpy_follow_the_probabilities_that_are_told():
    policy = make_policy_with(MULTI)
    actions = policy.actor(np.random.default_rng(0)).sample(np.zeros((40_000, 4)))
    told = policy.predict(np.zeros((1, 4))).action_probs[0]
    for choice, first, n in ((0, 0, 3), (1, 3, 2), (2, 5, 2)):
        share = np.bincount(actions[:, choice], minlength=n) / len(actions)
        np.testing.assert_allclose(share, told[first : first + n], atol=0.012)


def make_policy_with(action: Any) -> MlpPolicy:
    policy = MlpPolicy(PolicySpec(observation_shape=(4,), action=action))
    nn.init.normal_(policy.policy_net[-1].bias)
    return policy


def test_rows_of_actions_are_the_environments_in_every_part():
    rows = np.array([[2.0, 0.5, -9.0, 0.3, 1.0, 0.0]])
    np.testing.assert_allclose(NESTED.to_env(rows), [[1.0, 0.5, -2.0, 6.0, 1.0, 0.0]])
    assert NESTED.to_json(NESTED.to_env(rows)[0]) == {
        "gear": 1, "arm": {"force": [0.5, -2.0], "count": [6]}, "lights": [1, 0]
    }  # fmt: skip
    np.testing.assert_array_equal(MULTI.to_env(np.array([[2, 1, 0]])), [[2, 6, -1]])
    for action in (MULTI, NESTED, CHOICES):
        assert action_spec_from_dict(json.loads(json.dumps(action.to_dict()))) == action
        assert action.random(np.random.default_rng(0), 0).shape == (0, *action.shape)


def test_replayed_episodes_take_nested_actions_again():
    spec = check_environment("<anything>", objects={"<anything>": lambda: Anything("dict", "dict")})
    envs = SyncVecEnv(spec, 2, Replay())
    one, two = np.array([0]), np.array([1])
    envs.reset(one, [3])
    for action in spec.action.random(np.random.default_rng(0), 4):
        before = envs.step(one, action[None]).observations
    snapshot = envs.snapshot(0)
    assert all(isinstance(value, np.ndarray | int) for value in snapshot.values())
    np.testing.assert_array_equal(envs.restore(two, snapshot), before)
    envs.close()


@pytest.mark.rotated(9)
def test_resumed_training_on_nested_spaces_is_the_same(tmp_path):
    fields = {"seed": 3, "n_steps": 8, "total_timesteps": 400, "start_states": "reset"}
    assert_goes_on_as_if_never_paused(tmp_path, lambda: Anything("dict", "dict"), **fields)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda o: o.pop("tool"), "no tool"),
        (lambda o: o.update(place=np.zeros(3)), r"place of an observation has shape \(3,\)"),
        (lambda o: o.update(tool=8), "tool is 8, but its space has the whole numbers from 5 to 7"),
        (lambda o: o.update(tool=5.5), "tool is 5.5"),
        (lambda o: o.update(bag=(np.zeros(2), np.array([0, 3]))), "bag.1 is 3"),
        (lambda o: o.update(bag=np.zeros(2)), r"bag.0 of an observation has shape \(\)"),
        (lambda o: o.update(place=np.array([np.nan, 0.0])), "NaN or infinity"),
    ],
)
def test_what_is_wrong_with_an_observation_is_said_by_its_name(change, says):
    model = GRPO(lambda: Anything("dict", "discrete"), seed=1)
    wrong = dict(THING)
    change(wrong)
    with pytest.raises(IncompatibleError, match=says):
        model.predict(wrong)
    with pytest.raises(IncompatibleError):
        model.predict(3.0)


def test_a_batch_of_observations_has_one_dimension_more_in_every_part():
    model = GRPO(lambda: Anything("dict", "dict"), seed=1)
    batch = {
        "place": np.stack([THING["place"]] * 2),
        "tool": np.array([5, 6]),
        "bag": (np.zeros((2, 2)), np.zeros((2, 2))),
        "light": np.zeros((2, 1)),
    }
    actions, _ = model.predict(batch, deterministic=True)
    assert len(actions) == 2
    assert all(action in ACTION_SPACES["dict"] for action in actions)
    with pytest.raises(IncompatibleError, match=r"tool holds 3 observations, not 2"):
        model.predict(batch | {"tool": np.array([5, 6, 7])})


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (spaces.Text(5), "Text observations"),
        (spaces.Sequence(spaces.Discrete(2)), "Sequence observations"),
        (spaces.Graph(spaces.Discrete(2), None), "Graph observations"),
        (spaces.Dict({"x": spaces.Text(3)}), "Text observations at x"),
        (spaces.Dict({}), "no observations at all"),
        (spaces.Box(0, 1, (0, 3)), "empty Box observations"),
        (spaces.Dict({"a.b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(2)})}),
         "both called 'a.b'"),
    ],
)  # fmt: skip
def test_observations_that_nothing_reads_are_refused_by_name(space, says):
    with pytest.raises(ValueError, match=says):
        observation_spec(space)


def test_actions_that_no_policy_chooses_are_refused():
    with pytest.raises(ValueError, match="Text actions at x"):
        action_spec(spaces.Dict({"x": spaces.Text(3)}))


class Liar(Anything):
    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(seed=seed, options=options)
        return observation | {"tool": 9}, info


def test_an_environment_that_leaves_its_space_is_refused_before_the_first_step():
    with pytest.raises(UnsupportedEnvironmentError, match="tool is 9"):
        GRPO(lambda: Liar("dict", "discrete"))


def test_bytes_that_are_none_are_kept_or_refused_and_never_cut():
    flat = observation_spec(spaces.Box(0, 255, (3,), np.uint8))
    assert flat.dtype == np.float64
    np.testing.assert_array_equal(flat.row([0.2, 0.5, 300.0]), [0.2, 0.5, 300.0])
    image = observation_spec(spaces.Box(0, 255, (2, 2, 3), np.uint8))
    assert image.row(np.full((2, 2, 3), 255.0)).dtype == np.uint8
    for wrong in (0.5, 300.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="whole numbers from 0 to 255"):
            image.row(np.full((2, 2, 3), wrong))


@pytest.mark.parametrize("policy", ["MlpPolicy", "ActorCriticPolicy"])
def test_absurd_numbers_get_a_finite_answer_also_where_nothing_is_learned(policy):
    reads = observation_spec(spaces.MultiBinary(3))
    spec = PolicySpec(observation_shape=(3,), observation=reads, action=MULTI, policy=policy)
    made = make_policy(spec)
    told = made.predict(np.array([[1e300, -1e300, 1.0]]))
    assert np.isfinite(told.values).all()
    assert np.isfinite(told.action_probs).all()
    with torch.no_grad():
        served = made.export()(torch.tensor([[1e38, -1e38, 1.0]]))
    assert all(torch.isfinite(value).all() for value in served.values())


def test_a_mirrored_image_is_looked_at_like_any_other():
    model = GRPO(lambda: Anything("dict", "discrete"), policy="ActorCriticPolicy", seed=1)
    rows = np.stack([model.policy.spec.reads.row(THING)] * 2)
    np.testing.assert_array_equal(model.policy.act(rows[::-1]), model.policy.act(rows))


def test_categories_that_float32_cannot_tell_apart_are_refused():
    with pytest.raises(ValueError, match="categories beyond 16,777,216"):
        observation_spec(spaces.Discrete(3, start=2**24))
