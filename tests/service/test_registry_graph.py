"""Policies of any network: packaged as a graph of operations, served without their code."""

import copy
import io
import json

import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import pytest
import torch
from torch import nn

from grpo import ActorCriticPolicy, PolicySpec
from grpo.actions import BoxActions, DiscreteActions
from grpo.errors import IncompatibleError, UnsupportedPolicyError
from grpo_platform.registry.graph import policy_graph
from grpo_platform.registry.integrity import PolicyFiles
from grpo_platform.registry.loader import GraphPredictor, operation, read_policy
from grpo_platform.registry.packaging import save_policy
from grpo_platform.registry.policy_files import policy_from_files

torch.set_num_threads(1)


class Convolution(nn.Module):
    def __init__(self, observation_space):
        super().__init__()
        channels, _, _ = observation_space.shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.LayerNorm(16)
        )
        self.features_dim = 16

    def forward(self, observations):
        return self.layers(observations)


class Attention(nn.Module):
    def __init__(self, observation_space):
        super().__init__()
        self.features_dim = 8
        self.embed = nn.Linear(1, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, observations):
        tokens = self.embed(observations.unsqueeze(-1))
        return self.attention(tokens, tokens, tokens)[0].mean(dim=1)


class Branching(nn.Module):
    """What cannot be traced: a result decides what Python does."""

    features_dim = 4

    def __init__(self, observation_space):
        super().__init__()

    def forward(self, observations):
        return observations if observations.sum() > 0 else -observations


DISCRETE, BOX = DiscreteActions(3, start=4), BoxActions((2,), (-1.0, -2.0), (1.0, np.inf))
POLICIES = {
    "convolution": ((2, 6, 6), DISCRETE, Convolution),
    "attention": ((4,), BOX, Attention),
    "plain": ((4,), DISCRETE, None),
}


def make(shape, action, extractor):
    name = "ActorCriticPolicy"
    kwargs = {} if extractor is None else {"features_extractor_class": extractor}
    named = {key: f"<{value.__name__}>" for key, value in kwargs.items()}
    spec = PolicySpec(
        observation_shape=shape, action=action, net_arch=(8,), policy=name, policy_kwargs=named
    )
    policy = ActorCriticPolicy(spec, 1, **kwargs)
    policy.flat *= 3.0  # an opinion
    policy.observe(np.random.default_rng(0).normal(1, 2, (50, *shape)))
    policy.rescale_values(np.array([10.0, 30.0]))
    return policy


@pytest.fixture(scope="module", params=list(POLICIES))
def model(request, tmp_path_factory):
    policy = make(*POLICIES[request.param])
    folder = tmp_path_factory.mktemp(request.param) / "model"
    save_policy(policy, folder)
    shape = (64, *policy.spec.observation_shape)
    observations = np.random.default_rng(1).normal(1, 2, shape).astype(np.float32)
    return policy, folder, observations


def files(folder):
    return PolicyFiles(
        (folder / "policy" / "spec.json").read_bytes(),
        (folder / "policy" / "weights.pt").read_bytes(),
    )


@pytest.mark.rotated(2)
def test_every_way_out_gives_the_policys_answers(model):
    policy, folder, observations = model
    expected = policy.predict(observations)
    predictor = read_policy(*files(folder))
    pyfunc = mlflow.pyfunc.load_model(str(folder))
    exported = mlflow.pytorch.load_model(str(folder))
    for n in (1, 2, 64):
        x = observations[:n]
        one = predictor.predict_batch(x)
        outputs = {k: v.detach().numpy() for k, v in exported(torch.from_numpy(x)).items()}
        for answers in (one, pyfunc.predict(x), outputs):
            np.testing.assert_allclose(answers["action"], expected.actions[:n], atol=1e-5)
            np.testing.assert_allclose(answers["value"], expected.values[:n], atol=1e-4)
            if expected.action_probs is not None:
                probabilities = answers["action_probs"]
                np.testing.assert_allclose(probabilities, expected.action_probs[:n], atol=1e-5)
    single = predictor.predict_one(observations[0].ravel().tolist())
    np.testing.assert_allclose(single.action, expected.actions[0], atol=1e-5)


@pytest.mark.rotated(9)
def test_samples_follow_the_distribution(model):
    policy, folder, observations = model
    predictor = read_policy(*files(folder))
    batch = np.repeat(observations[:1], 20_000, axis=0)
    drawn = predictor.predict_batch(batch, False, np.random.default_rng(0))["action"]
    again = predictor.predict_batch(batch, False, np.random.default_rng(0))["action"]
    np.testing.assert_array_equal(drawn, again)
    own = policy.predict(batch, False, np.random.default_rng(1))
    if own.action_probs is None:
        np.testing.assert_allclose(drawn.mean(axis=0), own.actions.mean(axis=0), atol=0.05)
        assert drawn.min() >= -2.0
    else:
        share = np.bincount(drawn - policy.spec.action.start, minlength=3) / len(drawn)
        np.testing.assert_allclose(share, own.action_probs[0], atol=0.02)


def test_a_policy_whose_class_is_known_can_be_trained_on(model):
    policy, folder, observations = model
    if policy.spec.policy_kwargs:
        with pytest.raises(IncompatibleError, match="was handed in"):
            policy_from_files(files(folder), "m/1")
        return
    again = policy_from_files(files(folder), "m/1")
    np.testing.assert_array_equal(again.flat, policy.flat)
    np.testing.assert_array_equal(again.act(observations), policy.act(observations))


def test_code_that_cannot_be_traced_is_refused_with_what_would_do(tmp_path):
    policy = make((4,), DISCRETE, Branching)
    with pytest.raises(UnsupportedPolicyError, match="decide no Python branch"):
        save_policy(policy, tmp_path / "model")


@pytest.mark.parametrize(
    "target",
    ["aten.from_file.default", "aten.copy_.default", "os.system", "aten.nothing.default",
     "prims.add.default", "getattr", "aten.add", "aten.__class__.default", ""],
)  # fmt: skip
def test_a_graph_calls_tensor_operations_and_nothing_else(target):
    with pytest.raises(ValueError, match="may not call"):
        operation(target)


def spec_and_tensors():
    policy = make(*POLICIES["plain"])
    graph, tensors = policy_graph(policy.export())
    return {"format": 2, **policy.spec.to_dict(), "graph": graph}, tensors


def drop_value(spec, tensors):
    del spec["graph"]["outputs"]["value"]


def call_file(spec, tensors):
    spec["graph"]["nodes"][0][1] = "aten.from_file.default"


def name_a_function(spec, tensors):
    spec["graph"]["nodes"][-1][3] = {"dtype": {"torch": "load"}}


def lose_a_tensor(spec, tensors):
    tensors.pop(next(name for name in tensors if name.endswith("weight")))


def make_nan(spec, tensors):
    next(iter(tensors.values())).fill_(float("nan"))


def invent_a_node(spec, tensors):
    spec["graph"]["outputs"]["action"] = {"node": "nobody"}


@pytest.mark.rotated(2)
@pytest.mark.parametrize(
    "break_", [drop_value, call_file, name_a_function, lose_a_tensor, make_nan, invent_a_node]
)
def test_files_that_were_tampered_with_hold_no_policy(break_):
    spec, tensors = spec_and_tensors()
    assert GraphPredictor(spec, tensors).discrete
    spec, tensors = copy.deepcopy(spec), {k: v.clone() for k, v in tensors.items()}
    break_(spec, tensors)
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        read_policy(json.dumps(spec).encode(), buffer.getvalue())
