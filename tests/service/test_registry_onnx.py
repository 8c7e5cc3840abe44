"""ONNX: one file, any runtime, the same answers; or a sentence that says why not."""

import dataclasses
import json

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from grpo.errors import UnsupportedPolicyError
from grpo_platform.cli import app
from grpo_platform.registry import onnx_export
from grpo_platform.registry.onnx_export import to_onnx
from grpo_platform.registry.policy_files import policy_to_files, predictor_from_files
from tests.service.registry_support import CARTPOLE, PENDULUM, Bench, random_policy
from tests.service.test_serving_spaces import (
    CAMERA,
    KINDS,
    image_policy,
    masked,
    tensors_of,
)

POLICIES = {
    "cartpole": CARTPOLE,
    "pendulum": PENDULUM,
    "torch": dataclasses.replace(CARTPOLE, policy="ActorCriticPolicy"),
    "dict": KINDS["to_dict"],
    "multi": KINDS["to_multi_discrete"],
    "scalar": KINDS["scalar"],
    "discrete": KINDS["discrete"],
    "bytes": KINDS["bytes"],
    "masked": masked("multi_discrete"),
}


SHORT = ("cartpole", "pendulum", "dict", "masked")


@pytest.mark.rotated(7)
@pytest.mark.parametrize(
    "kind", [k if k in SHORT else pytest.param(k, marks=pytest.mark.long) for k in POLICIES]
)
def test_onnxruntime_answers_as_the_server_does(kind):
    policy = random_policy(POLICIES[kind], seed=4)
    session = onnxruntime.InferenceSession(to_onnx(policy))
    reads = policy.spec.reads
    names = list(reads.names or ["observation"])
    assert [given.name for given in session.get_inputs()] == names
    assert all(given.shape[0] == "batch" for given in session.get_inputs())
    rows = onnx_export._observations(policy, 7)
    told = predictor_from_files(policy_to_files(policy), "m").predict_batch(
        rows.reshape(7, *policy.spec.observation_shape)
    )
    tensors = tensors_of(policy.spec, rows[:, : reads.size - reads.n_mask])
    if reads.n_mask:
        tensors["action_mask"] = rows[:, -reads.n_mask :].astype(np.uint8)
    outputs = [output.name for output in session.get_outputs()]
    found = dict(zip(outputs, session.run(None, tensors), strict=True))
    assert found.keys() == told.keys()
    for name, array in told.items():
        scale = max(1.0, np.abs(array).max())
        rounds = kind == "dict" and name == "action"  # one of its numbers, to a neighbour
        atol = 1.0 if rounds else 2e-5
        np.testing.assert_allclose(found[name] / scale, array / scale, atol=atol, err_msg=name)
    one = session.run(None, {name: array[:1] for name, array in tensors.items()})
    np.testing.assert_allclose(one[0], found[outputs[0]][:1], atol=1e-6)


@pytest.mark.rotated(7)
def test_images_go_in_as_bytes():
    policy = image_policy(CAMERA, "features_dim")
    session = onnxruntime.InferenceSession(to_onnx(policy))
    (given,) = session.get_inputs()
    assert (given.type, given.shape) == ("tensor(uint8)", ["batch", 12, 10, 3])


def test_one_that_answers_otherwise_is_not_given(monkeypatch):
    policy = random_policy(seed=1)
    predict = type(policy).predict

    def other(self, observations, *more):
        told = predict(self, observations, *more)
        return dataclasses.replace(told, values=told.values + 0.01 * np.abs(told.values).max())

    monkeypatch.setattr(type(policy), "predict", other)
    with pytest.raises(UnsupportedPolicyError, match=r"value differs by 0\.0"):
        to_onnx(policy)


def test_without_the_extra_it_says_what_to_install(monkeypatch, tmp_path):
    Bench(tmp_path).register("m")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx_export, "_PACKAGES", ("onnx", "no_such_package"))
    done = CliRunner().invoke(app, ["models", "export", "m"])
    assert done.exit_code == 1
    assert "pip install 'grpo-platform[onnx]'" in done.stderr


@pytest.mark.rotated(7)
def test_the_command_writes_a_file_once(monkeypatch, tmp_path):
    Bench(tmp_path).register("m")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["models", "export", "m", "--format", "onnx", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told == {"model": "m", "version": 1, "path": "m-1.onnx"}
    session = onnxruntime.InferenceSession((tmp_path / "m-1.onnx").read_bytes())
    assert session.run(["action"], {"observation": np.zeros((3, 4), np.float32)})[0].shape == (3,)
    again = CliRunner().invoke(app, ["models", "export", "m", "m-1.onnx"])
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    missing = CliRunner().invoke(app, ["models", "export", "nothing"])
    assert missing.exit_code == 1
    assert "nothing" in missing.stderr
