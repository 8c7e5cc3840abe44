"""Actions that may not be taken: never taken, and learned around, by every policy and updater."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from grpo import GRPO, GRPOConfig
from grpo.actions import choices
from grpo.envs import check_environment
from grpo.errors import EnvironmentFaultError, IncompatibleError, UnsupportedEnvironmentError
from grpo.evaluation import evaluate
from grpo.numpy_updater import NumpyUpdater
from grpo.observations import ObservationLeaf, ObservationSpec
from grpo.policies import MlpPolicy, PolicySpec
from grpo.spaces import action_spec
from grpo.torch_updater import TorchUpdater
from grpo.updates import Batch
from grpo.verdict import RandomPolicy
from tests.algorithm.builders import assert_goes_on_as_if_never_paused

ACTIONS = {
    "discrete": spaces.Discrete(4, start=3),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(2),
}
OBSERVATIONS = {
    "box": spaces.Box(-1, 1, (3,)),
    "discrete": spaces.Discrete(5),
    "dict": spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-1, 1, (2,))}),
    "bytes": spaces.Box(0, 255, (2, 2), np.uint8),
}


class Strict(gymnasium.Env[Any, Any]):
    """Forbids some actions at each step, says which, and breaks when one of them is taken.

    Reward: the number of the action, so that the best one is the last that is allowed.
    """

    def __init__(self, observation="box", action="discrete", how="info", density=0.5) -> None:
        self.observation_space = copy.deepcopy(OBSERVATIONS[observation])
        self.action_space = copy.deepcopy(ACTIONS[action])
        self.how, self.density = how, density
        self.counts = choices(action_spec(self.action_space))
        if how == "method":
            self.action_masks = lambda: self.mask

    def draw(self) -> dict[str, Any]:
        parts = [self.np_random.random(n) < self.density for n in self.counts]
        for part in parts:
            part[self.np_random.integers(len(part))] = True
        self.mask = np.concatenate(parts).astype(np.int8)
        return {"action_mask": self.mask} if self.how == "info" else {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**30)))
        self.time = 0
        return self.observation_space.sample(), self.draw()

    def step(self, action):
        assert self.action_space.contains(action)
        start = getattr(self.action_space, "start", 0)
        chosen = np.ravel(action) - np.ravel(start)
        first = 0
        for n, index in zip(self.counts, chosen, strict=True):
            if not self.mask[first + int(index)]:
                raise ValueError(f"{action} is forbidden now")
            first += n
        self.time += 1
        info = self.draw() if self.time < 10 else {}  # an ended episode tells no mask
        return self.observation_space.sample(), float(chosen.sum()), self.time > 9, False, info


@pytest.mark.rotated(10)
@pytest.mark.parametrize("policy", ["MlpPolicy", "ActorCriticPolicy"])
@pytest.mark.parametrize(
    ("observation", "action", "how"),
    [
        ("box", "discrete", "info"),
        ("discrete", "multi_discrete", "method"),
        ("dict", "multi_binary", "info"),
        pytest.param("box", "discrete", "method", marks=pytest.mark.long),
        pytest.param("box", "multi_discrete", "info", marks=pytest.mark.long),
        pytest.param("bytes", "discrete", "info", marks=pytest.mark.long),
    ],
)
def test_a_forbidden_action_is_never_taken(observation, action, how, policy):
    model = GRPO(
        lambda: Strict(observation, action, how),
        policy=policy, seed=1, n_steps=16, ent_coef=0.01, kl_coef=0.1, bootstrap=True,
    )  # fmt: skip
    spec = model.get_env().spec
    assert (spec.masks, spec.observation.n_mask) == (how, sum(choices(spec.action)))
    model.learn(600)
    assert np.isfinite(model.policy.flat).all()
    for deterministic in (True, False):
        assert model.evaluate(4, deterministic=deterministic).lengths.tolist() == [10] * 4


def masked_policy(dtype=np.float64, n=4) -> MlpPolicy:
    reads = ObservationSpec((ObservationLeaf(shape=(3,)),), n)
    action = action_spec(spaces.Discrete(n))
    spec = PolicySpec(observation_shape=reads.shape, observation=reads, action=action)
    policy = MlpPolicy(spec, 0, dtype)
    policy.flat += 0.3 * np.random.default_rng(0).standard_normal(policy.flat.shape).astype(dtype)
    return policy


def masked_rows(n: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.standard_normal((n, 3)), rng.random((n, 4)) < 0.5], axis=1)
    rows[np.arange(n), 3 + rng.integers(0, 4, n)] = 1.0
    return rows


def test_what_is_left_shares_the_probability():
    policy, rows = masked_policy(), masked_rows(50)
    free = rows.copy()
    free[:, 3:] = 1.0
    allowed = rows[:, 3:] > 0
    every = policy.predict(free).action_probs
    told = policy.predict(rows).action_probs
    expected = np.where(allowed, every, 0.0)
    np.testing.assert_allclose(told, expected / expected.sum(axis=1, keepdims=True), atol=1e-12)
    assert (told[~allowed] == 0.0).all()
    encoded = policy.encode(rows)
    outputs = policy.outputs(encoded)
    safe = np.where(told > 0, told, 1.0)
    np.testing.assert_allclose(outputs.entropy(), -(told * np.log(safe)).sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(
        outputs.log_prob(told.argmax(axis=1)), np.log(told.max(axis=1)), atol=1e-12
    )
    with torch.no_grad():
        served = policy.export()(torch.from_numpy(rows), torch.full((50, 1), 1.0 - 1e-7))
    np.testing.assert_allclose(served["action_probs"].numpy(), told, atol=1e-6)
    assert allowed[np.arange(50), served["sample"].numpy()].all()
    sampled = policy.actor(np.random.default_rng(0)).sample(np.tile(rows, (200, 1)))
    assert np.tile(allowed, (200, 1))[np.arange(10_000), sampled].all()


@pytest.mark.parametrize("fields", [{}, {"ent_coef": 0.05, "kl_coef": 0.2}])
def test_the_closed_form_learns_around_masks_as_autograd_does(fields):
    closed, rows = masked_policy(), masked_rows(60)
    plain = copy.deepcopy(closed)
    rng = np.random.default_rng(2)
    encoded = closed.encode(rows)
    actions = closed.actor(rng).sample(rows)
    log_prob = closed.outputs(encoded).log_prob(actions)
    batch = Batch(
        inputs=encoded,
        actions=actions,
        log_prob_old=log_prob + 0.1 * rng.standard_normal(60),
        log_prob_reference=log_prob + 0.1 * rng.standard_normal(60) if fields else None,
        advantages=rng.standard_normal(60),
        informative=rng.random(60) < 0.9,
        alive=np.ones((60, 1), bool),
        targets=rng.standard_normal(60),
    )
    config = GRPOConfig(batch_size=16, n_epochs=3, learning_rate=1e-2, **fields)
    for policy, updater in ((closed, NumpyUpdater), (plain, TorchUpdater)):
        one = updater(policy, config)
        one.run(batch, np.random.default_rng(1), np.random.default_rng(2))
    np.testing.assert_allclose(closed.flat, plain.flat, rtol=0, atol=1e-10)


@pytest.mark.rotated(10)
def test_the_best_allowed_action_is_learned():
    model = GRPO(Strict, seed=0, n_steps=10, group_size=8, learning_rate=3e-3)
    before = model.evaluate(20).mean
    model.learn(8_000)
    best = np.mean([best_return(seed) for seed in range(20)])
    assert model.evaluate(20).mean > best - 2.0 > before


def best_return(seed: int) -> float:
    env = Strict()
    env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        _, reward, ended, _, _ = env.step(env.action_space.start + np.flatnonzero(env.mask)[-1])
        total += reward
    return total


def test_an_environment_that_breaks_where_a_mask_is_ignored_is_branched_all_the_same():
    assert GRPO(Strict, seed=0).get_env().branching == "exact"
    many = GRPO(lambda: Strict("box", "multi_discrete", "method"), seed=0)
    assert many.get_env().branching != "none"


def test_gymnasiums_own_masks_are_followed():
    spec = check_environment("Taxi-v3") if "Taxi-v3" in gymnasium.registry else None
    spec = spec or check_environment("Taxi-v4")
    assert spec.masks == "info"
    assert spec.observation_shape == (7,)


def test_masks_go_on_in_a_resumed_run(tmp_path):
    fields = {"seed": 3, "n_steps": 8, "total_timesteps": 400, "start_states": "reset"}
    assert_goes_on_as_if_never_paused(tmp_path, Strict, **fields)


def test_a_prediction_takes_a_mask_as_sb3_contribs_does():
    model = GRPO(Strict, seed=0)
    seen = np.zeros(3, np.float32)
    for only in range(4):
        mask = np.eye(4, dtype=bool)[only]
        assert model.predict(seen, action_masks=mask)[0] == 3 + only
    actions, _ = model.predict(np.zeros((4, 3)), action_masks=np.eye(4))
    assert actions.tolist() == [3, 4, 5, 6]
    for wrong in (np.ones(3), np.full(4, 2), "all", [[1, 0], [1]], ["1", "0", "0", "0"], [0] * 4):
        with pytest.raises(IncompatibleError, match="action_mask"):
            model.predict(seen, action_masks=wrong)
    with pytest.raises(IncompatibleError, match="action_mask holds 1 masks, not 2"):
        model.predict(np.zeros((2, 3)), action_masks=[[1, 1, 1, 1]])


class Forgetful(Strict):
    def draw(self) -> dict[str, Any]:
        info = super().draw()
        return info if self.time < 3 else {}


class Closed(Strict):
    def draw(self) -> dict[str, Any]:
        info = super().draw()
        return info if self.time < 3 else {"action_mask": np.zeros(4)}


class Odd(Strict):
    def draw(self) -> dict[str, Any]:
        super().draw()
        return {"action_mask": np.ones(5)}


@pytest.mark.parametrize(
    ("make", "says"), [(Forgetful, "no action_mask"), (Closed, "forbids every action")]
)
def test_an_environment_that_leaves_no_action_is_told_so(make, says):
    with pytest.raises(EnvironmentFaultError, match=says):
        GRPO(make, seed=0, start_states="reset").learn(200)


def test_a_mask_of_another_length_is_refused_before_the_first_step():
    with pytest.raises(UnsupportedEnvironmentError, match="4 zeros and ones, not 5"):
        GRPO(Odd, seed=0)


def test_box_actions_have_no_masks():
    env = Strict()
    env.action_space = spaces.Box(-1, 1, (4,))
    spec = check_environment("<box>", objects={"<box>": lambda: env})
    assert spec.masks == "none"


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", ["box", "dict"])
def test_random_actions_are_among_those_that_may_be_taken(observation, action):
    objects = {"<strict>": lambda: Strict(observation, action)}
    spec = check_environment("<strict>", {}, objects)
    found, again = (
        evaluate(RandomPolicy(spec), "<strict>", objects=objects, n_episodes=20) for _ in range(2)
    )
    assert found.lengths.tolist() == [10] * 20
    assert found.returns.tolist() == again.returns.tolist()
