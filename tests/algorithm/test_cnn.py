"""Images: the convolution, what is shared with the value, and that it learns to see."""

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from grpo import GRPO, GRPOConfig
from grpo.actions import DiscreteActions
from grpo.errors import IncompatibleError
from grpo.policies import CnnPolicy, MultiInputPolicy, NatureCNN, PolicySpec, default_policy
from grpo.spaces import observation_spec
from grpo.torch_updater import TorchUpdater
from grpo.updates import Batch
from tests.algorithm.builders import assert_goes_on_as_if_never_paused

WIDTHS = {False: "features_dim", True: "cnn_output_dim"}
SHAPES = {"hwc": (12, 10, 3), "chw": (3, 12, 10), "large": (84, 84, 4)}


class Spot(gymnasium.Env[Any, Any]):
    """A bright column on the left or on the right; the action that names its side is right."""

    def __init__(self, layout="hwc", nested=False) -> None:
        self.image = spaces.Box(0, 255, SHAPES[layout], np.uint8)
        self.layout, self.nested = layout, nested
        self.observation_space = self.image
        if nested:
            parts = {"camera": self.image, "speed": spaces.Box(-1, 1, (2,))}
            self.observation_space = spaces.Dict(parts)
        self.action_space = spaces.Discrete(2)

    def look(self) -> Any:
        self.side = int(self.np_random.integers(2))
        image = self.np_random.integers(0, 60, self.image.shape, dtype=np.uint8)
        channels_last = image if self.layout != "chw" else image.transpose(1, 2, 0)
        width = channels_last.shape[1]
        channels_last[:, 1 if self.side == 0 else width - 2] = 255
        return {"camera": image, "speed": np.zeros(2, np.float32)} if self.nested else image

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.look(), {}

    def step(self, action):
        reward = float(action == self.side)
        self.time += 1
        return self.look(), reward, False, self.time > 7, {}


def spec_of(space: spaces.Space[Any], **fields: Any) -> PolicySpec:
    reads = observation_spec(space)
    return PolicySpec(
        observation_shape=reads.shape,
        observation=reads,
        action=DiscreteActions(2),
        policy=default_policy(reads),
        **fields,
    )


@pytest.mark.rotated(3)
@pytest.mark.parametrize("layout", ["hwc", "chw"])
@pytest.mark.parametrize("nested", [False, True])
def test_it_learns_to_see_and_the_right_policy_is_chosen(layout, nested):
    model = GRPO(
        lambda: Spot(layout, nested), seed=0, n_steps=8, group_size=8, learning_rate=1e-3,
        policy_kwargs={"features_extractor_kwargs": {WIDTHS[nested]: 32}},
    )  # fmt: skip
    assert type(model.policy) is (MultiInputPolicy if nested else CnnPolicy)
    model.learn(1_500)
    assert model.evaluate(10).mean > 7.5  # of 8; by chance 4


def test_both_layouts_give_the_same_features():
    last = NatureCNN(spaces.Box(0, 255, (40, 50, 3), np.uint8), 16)
    first = NatureCNN(spaces.Box(0, 255, (3, 40, 50), np.uint8), 16)
    first.load_state_dict(last.state_dict())
    images = torch.rand(5, 40, 50, 3)
    one, two = last(images), first(images.permute(0, 3, 1, 2))
    torch.testing.assert_close(one, two)
    assert [m.kernel_size for m in last.convolutions if hasattr(m, "kernel_size")] == [
        (8, 8), (4, 4), (3, 3)
    ]  # fmt: skip


def test_what_is_no_image_is_refused():
    with pytest.raises(IncompatibleError, match="images"):
        GRPO("CartPole-v1", policy="CnnPolicy")
    floats = spaces.Box(0.0, 1.0, (12, 12, 3))
    assert default_policy(observation_spec(floats)) == "MlpPolicy"


def batch_of(policy: CnnPolicy, n: int = 24) -> Batch:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 255, (n, *policy.spec.observation_shape), dtype=np.uint8)
    encoded, actions = policy.encode(rows), rng.integers(0, 2, n)
    return Batch(
        inputs=encoded,
        actions=actions,
        log_prob_old=policy.outputs(encoded).log_prob(actions),
        log_prob_reference=None,
        advantages=rng.standard_normal(n).astype(np.float32),
        informative=np.ones(n, bool),
        alive=np.ones((n, 1), bool),
        targets=rng.standard_normal(n).astype(np.float32),
    )


def test_the_values_loss_leaves_the_convolution_alone():
    space = spaces.Box(0, 255, SHAPES["hwc"], np.uint8)
    policy = CnnPolicy(spec_of(space), 0, features_extractor_kwargs={"features_dim": 16})
    batch = batch_of(policy)
    silent = Batch(**{
        **{name: getattr(batch, name) for name in batch.__slots__},
        "informative": np.zeros(len(batch.actions), bool),
    })  # fmt: skip
    before = policy.flat.copy()
    values = policy.values(batch.inputs)
    config = GRPOConfig(batch_size=8, n_epochs=2, learning_rate=1e-2)
    TorchUpdater(policy, config).run(silent, *map(np.random.default_rng, (1, 2)))
    part = policy.policy_size
    np.testing.assert_array_equal(policy.flat[:part], before[:part])
    assert (policy.values(batch.inputs) != values).all()


def test_many_images_are_looked_at_in_parts_with_the_same_result():
    space = spaces.Box(0, 255, SHAPES["hwc"], np.uint8)
    policy = CnnPolicy(spec_of(space), 0, features_extractor_kwargs={"features_dim": 16})
    rows = np.random.default_rng(0).integers(0, 255, (1100, *SHAPES["hwc"]), dtype=np.uint8)
    whole, parts = policy.predict(rows), [policy.predict(r) for r in np.split(rows, [300, 900])]
    together = np.concatenate([part.values for part in parts])
    np.testing.assert_allclose(whole.values, together, atol=1e-5)
    encoded = policy.encode(rows)
    with torch.enable_grad():
        features = policy.value_features(torch.from_numpy(encoded))
    assert not features.requires_grad
    values = policy.values_of(features).detach().numpy()
    np.testing.assert_allclose(values, whole.values, atol=1e-5)


def test_images_are_kept_as_bytes_and_scaled_once():
    model = GRPO(lambda: Spot("hwc"), seed=0, n_steps=4)
    envs = model.get_env()
    assert envs.reset(np.array([0]), [1]).dtype == np.uint8
    encoded = model.policy.encode(np.full((1, *SHAPES["hwc"]), 255, np.uint8))
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, 1.0, atol=1e-6)


@pytest.mark.rotated(14)
def test_a_resumed_run_over_images_is_the_same(tmp_path):
    assert_goes_on_as_if_never_paused(
        tmp_path, Spot, seed=3, n_steps=8, total_timesteps=200,
        policy_kwargs={"features_extractor_kwargs": {"features_dim": 16}},
    )  # fmt: skip


@pytest.mark.parametrize("n_mask", [0, 2])
def test_one_pass_gives_what_two_give(n_mask):
    spec = spec_of(spaces.Box(0, 255, SHAPES["hwc"], np.uint8))
    if n_mask:
        reads = dataclasses.replace(spec.reads, n_mask=n_mask)
        spec = dataclasses.replace(spec, observation=reads, observation_shape=reads.shape)
    policy = CnnPolicy(spec, 0, features_extractor_kwargs={"features_dim": 16})
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 2, (600, *policy.spec.observation_shape)).astype(np.uint8)
    encoded, actions = policy.encode(rows), rng.integers(0, 2, 600)
    outputs, values = policy.outputs_and_values(encoded)
    np.testing.assert_array_equal(values, policy.values(encoded))
    alone = policy.outputs(encoded)
    np.testing.assert_array_equal(outputs.log_prob(actions), alone.log_prob(actions))
    np.testing.assert_array_equal(outputs.entropy(), alone.entropy())
