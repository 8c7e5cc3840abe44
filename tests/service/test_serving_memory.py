"""A policy with memory over every way out: one episode gives one course of actions."""

import json

import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import onnxruntime
import pytest
import torch
from gymnasium import spaces

from grpo.actions import DiscreteActions
from grpo.observations import ObservationLeaf, ObservationSpec
from grpo.policies import PolicySpec
from grpo.spaces import observation_spec
from grpo_platform.core.errors import InvalidObservationError
from grpo_platform.registry.onnx_export import to_onnx
from grpo_platform.serving import episodes
from grpo_platform.serving.episodes import Episode, Episodes, pack, unpack
from tests.service.api_support import client_of, services_in
from tests.service.registry_support import Bench, random_policy

N_STATE = 5
STEPS = 6


def spec_of(reads: ObservationSpec) -> PolicySpec:
    return PolicySpec(
        observation_shape=reads.shape,
        observation=reads,
        action=DiscreteActions(3),
        net_arch=(16,),
        policy="RecurrentPolicy",
        policy_kwargs={"gru_hidden_size": N_STATE},
    )


NUMBERS = ObservationSpec((ObservationLeaf(shape=(2,), dtype="float32"),), n_state=N_STATE)
TREE = ObservationSpec(
    observation_spec(
        spaces.Dict({"near": spaces.Box(-1, 1, (2,)), "state": spaces.Discrete(3)})
    ).leaves,
    n_mask=3,
    n_state=N_STATE,
)
KINDS = {"numbers": NUMBERS, "tree": TREE}
MASKS = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]] * 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def world(folder):
    """A client, and of each kind: the folder of its model, its policy, and what is seen."""
    bench, found = Bench(folder), {}
    for kind, reads in KINDS.items():
        policy = random_policy(spec_of(reads), seed=2)
        ref, _ = bench.register(kind, policy, rule="always")
        bench.register(kind, random_policy(spec_of(reads), seed=3), rule="never")
        rng = np.random.default_rng(1)
        rows = rng.uniform(-1.0, 1.0, (STEPS, reads.observed)).astype(np.float32)
        if kind == "tree":
            rows[:, 2] = rng.integers(0, 3, STEPS)
        found[kind] = (bench.folder(ref), policy, rows)
    with services_in(folder) as services:
        yield client_of(services), found
        services.serving.close()


def as_json(kind, row):
    return row.tolist() if kind == "numbers" else {"near": row[:2].tolist(), "state": int(row[2])}


def asked(kind, rows, t, **more):
    body = {"model_name": kind, "observation": as_json(kind, rows[t]), **more}
    return body if kind == "numbers" else {**body, "action_mask": MASKS[t].tolist()}


def tensors(kind, rows, t, state):
    row = rows[t : t + 1]
    named = {"policy_state": state}
    if kind == "numbers":
        return {"observation": row, **named}
    parts = {"near": row[:, :2], "state": row[:, 2].astype(np.int64)}
    return {**parts, **named, "action_mask": MASKS[t : t + 1].astype(np.uint8)}


def course(policy, kind, rows):
    """Actions, values and memories, one step after the other."""
    reads, state, found = policy.spec.reads, np.zeros((1, N_STATE), np.float32), []
    for t in range(STEPS):
        end = [] if kind == "numbers" else MASKS[t]
        row = np.concatenate([rows[t], state[0], end])[None]
        told = policy.predict(row)
        state = policy.next_states(row)
        found.append((int(told.actions[0]), float(told.values[0]), state[0]))
    assert reads.size == len(row[0])
    return found


@pytest.mark.rotated(3)
@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_is_the_same_by_the_state_that_is_sent_back(world, kind):
    client, found = world
    _, policy, rows = found[kind]
    state = None
    for t, (action, value, memory) in enumerate(course(policy, kind, rows)):
        body = asked(kind, rows, t) if state is None else asked(kind, rows, t, state=state)
        reply = client.post("/inference", json=body).json()
        assert reply["action"] == action
        assert reply["value"] == pytest.approx(value, rel=1e-4, abs=1e-5)
        state = reply["state"]
        np.testing.assert_allclose(unpack(state).state, memory, atol=1e-5)
        assert unpack(state).version == reply["model_version"] == 1


@pytest.mark.rotated(3)
@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_is_the_same_by_its_name_and_begins_again_when_it_is_said(world, kind):
    client, found = world
    _, policy, rows = found[kind]
    expected = [action for action, _, _ in course(policy, kind, rows)]
    for start in (False, True):  # the second one takes the name over
        actions = []
        for t in range(STEPS):
            body = asked(kind, rows, t, episode_id="robot 7", episode_start=start and t == 0)
            actions.append(client.post("/inference", json=body).json()["action"])
        assert actions == expected


@pytest.mark.parametrize("kind", [pytest.param("numbers", marks=pytest.mark.long), "tree"])
def test_batches_keep_a_state_for_each_episode(world, kind):
    client, found = world
    _, policy, rows = found[kind]
    expected = course(policy, kind, rows)
    states = None
    for t in range(STEPS):
        body = {"model_name": kind, "observations": [as_json(kind, rows[t])] * 2}
        if kind == "tree":
            body["action_masks"] = [MASKS[t].tolist()] * 2
        if states:
            body["states"] = [states[0], None]  # the second begins anew at each step
        reply = client.post("/inference/batch", json=body).json()
        states = reply["states"]
        assert reply["actions"][0] == expected[t][0]
        np.testing.assert_allclose(unpack(states[0]).state, expected[t][2], atol=1e-5)
    assert states[0] != states[1]


@pytest.mark.rotated(6)
@pytest.mark.parametrize("kind", [pytest.param("numbers", marks=pytest.mark.long), "tree"])
def test_files_tensors_and_onnx_take_and_give_the_memory(world, kind):
    client, found = world
    path, policy, rows = found[kind]
    pyfunc = mlflow.pyfunc.load_model(str(path))
    exported = mlflow.pytorch.load_model(str(path))
    session = onnxruntime.InferenceSession(to_onnx(policy))
    states = dict.fromkeys(("pyfunc", "pytorch", "/v2", "onnx"), np.zeros((1, N_STATE), "f4"))
    outputs = [output.name for output in session.get_outputs()]
    for t, (action, _, memory) in enumerate(course(policy, kind, rows)):
        inputs = {way: tensors(kind, rows, t, state) for way, state in states.items()}
        row = np.concatenate(
            [a.reshape(1, -1) for a in inputs["pytorch"].values()], axis=1, dtype=np.float32
        )
        with torch.no_grad():
            torch_reply = {k: v.numpy() for k, v in exported(torch.from_numpy(row)).items()}
        if kind == "tree":  # beside an array of shape (N,), MLflow takes Discrete ones so
            inputs["onnx"]["state"] = inputs["onnx"]["state"].reshape(1)
        v2 = client.post(
            f"/v2/models/{kind}/infer",
            json={
                "inputs": [
                    {"name": n, "shape": a.shape, "data": a.tolist(),
                     "datatype": {"f": "FP32", "i": "INT64", "u": "UINT8"}[a.dtype.kind]}
                    for n, a in inputs["/v2"].items()
                ]
            },
        ).json()  # fmt: skip
        by_name = {
            out["name"]: np.array(out["data"]).reshape(out["shape"]) for out in v2["outputs"]
        }
        replies = {
            "pyfunc": pyfunc.predict(inputs["pyfunc"]),
            "pytorch": torch_reply,
            "/v2": by_name,
            "onnx": dict(zip(outputs, session.run(None, inputs["onnx"]), strict=True)),
        }
        for way, reply in replies.items():
            assert reply["action"].tolist() == [action], way
            state = np.asarray(reply["next_policy_state"], np.float32)
            np.testing.assert_allclose(state[0], memory, atol=1e-5, err_msg=way)
            states[way] = state


def test_an_episode_stays_with_the_version_that_began_it(world, folder):
    client, found = world
    _, policy, rows = found["numbers"]
    expected = course(policy, "numbers", rows)
    state = client.post("/inference", json=asked("numbers", rows, 0)).json()["state"]
    named = asked("numbers", rows, 0, episode_id="a")
    client.post("/inference", json=named)
    assert (
        client.post("/models/numbers/promote", json={"version": 2, "force": True}).status_code
        == 200
    )
    try:
        fresh = client.post("/inference", json=asked("numbers", rows, 0)).json()
        assert fresh["model_version"] == 2
        for more in ({"state": state}, {"episode_id": "a"}):
            reply = client.post("/inference", json=asked("numbers", rows, 1, **more)).json()
            assert (reply["model_version"], reply["action"]) == (1, expected[1][0])
        both = {"states": [state, fresh["state"]], "observations": [[0, 0], [0, 0]]}
        refused = client.post("/inference/batch", json={"model_name": "numbers", **both})
        assert (refused.status_code, "of the versions 1, 2" in refused.text) == (422, True)
        body = asked("numbers", rows, 1, state=state) | {"model_name": "numbers/2"}
        refused = client.post("/inference", json=body)
        assert (refused.status_code, "is of version 1, and numbers/2" in refused.text) == (
            422,
            True,
        )
        body = {"model_name": "numbers@champion", **asked("numbers", rows, 1, state=state)}
        assert client.post("/inference", json=body).json()["model_version"] == 1
    finally:
        client.post("/models/numbers/promote", json={"version": 1, "force": True})


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"state": "nonsense"}, "state"),
        ({"state": "1.0123abcd.AAAA"}, "state"),
        ({"state": pack(Episode(1, "0123abcd", np.zeros(N_STATE + 1, np.float32)))}, "state"),
        ({"state": pack(Episode(1, "0123abcd", np.full(N_STATE, 2.0, np.float32)))}, "state"),
        ({"state": pack(Episode(1, "0123abcd", np.full(N_STATE, np.nan, np.float32)))}, "state"),
        ({"state": "1.a." + "A" * 200_000}, "state"),
        ({"state": "", "episode_id": "a"}, "episode_id"),
        ({"episode_id": ""}, "episode_id"),
        ({"episode_id": "x" * 201}, "episode_id"),
    ],
)
def test_what_no_reply_gave_is_refused_by_its_field(world, more, field):
    client, found = world
    reply = client.post("/inference", json=asked("numbers", found["numbers"][2], 0, **more))
    assert reply.status_code == 422
    assert json.dumps(reply.json()).count(f'"{field}"')


def test_a_state_of_a_version_that_is_not_there_is_not_found(world):
    client, found = world
    state = pack(Episode(99, "0123abcd", np.zeros(N_STATE, np.float32)))
    reply = client.post("/inference", json=asked("numbers", found["numbers"][2], 0, state=state))
    assert reply.status_code == 404


def test_an_episode_does_not_outlive_its_model(world):
    client, found = world
    _, policy, rows = found["numbers"]
    first = course(policy, "numbers", rows[:1].repeat(STEPS, axis=0))[0][0]
    other = Episode(1, "ffffffff", np.full(N_STATE, 0.9, np.float32))
    refused = client.post("/inference", json=asked("numbers", rows, 0, state=pack(other)))
    assert (refused.status_code, "another model that was called" in refused.text) == (422, True)
    client.app.state.episodes.put("numbers", "old", other)
    reply = client.post("/inference", json=asked("numbers", rows, 0, episode_id="old")).json()
    assert reply["action"] == first  # begun anew


def test_a_wrong_tensor_is_named_as_it_was_sent(world):
    client, found = world
    given = tensors("numbers", found["numbers"][2], 0, np.full((1, N_STATE), 2.0, "f4"))
    inputs = [
        {"name": n, "shape": a.shape, "data": a.tolist(), "datatype": "FP32"}
        for n, a in given.items()
    ]
    refused = client.post("/v2/models/numbers/infer", json={"inputs": inputs})
    assert refused.status_code == 422
    assert "from -1 to 1" in refused.json()["error"]
    wrong = client.post(
        "/inference", json={"model_name": "numbers", "observation": [1.0, 2.0, 3.0]}
    )
    assert "2 finite numbers (shape 2)" in wrong.json()["detail"]


def test_metadata_tells_of_the_memory(world):
    client, _ = world
    told = client.get("/v2/models/tree").json()
    assert {"name": "policy_state", "datatype": "FP32", "shape": [-1, N_STATE]} in told["inputs"]
    outputs = {out["name"]: out["shape"] for out in told["outputs"]}
    assert outputs["next_policy_state"] == [-1, N_STATE]


def test_a_model_without_memory_refuses_a_state_and_does_without_an_episode(world, folder):
    client, _ = world
    Bench(folder).register("plain", random_policy(PolicySpec(
        observation_shape=(2,), action=DiscreteActions(2), net_arch=(8,)
    ), seed=1), rule="always")  # fmt: skip
    body = {"model_name": "plain", "observation": [0.0, 0.1]}
    assert "state" not in client.post("/inference", json={**body, "episode_id": "a"}).json()
    state = pack(Episode(1, "0123abcd", np.zeros(3, np.float32)))
    refused = client.post("/inference", json={**body, "state": state})
    assert (refused.status_code, "has no memory" in refused.text) == (422, True)


def test_episodes_are_forgotten_after_a_while_and_beyond_a_number(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(episodes.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(episodes, "MOST_EPISODES", 3)
    kept = Episodes()
    for i in range(5):
        kept.put("m", str(i), Episode(i + 1, "m", np.zeros(1, np.float32)))
    assert [kept.get("m", str(i)) is None for i in range(5)] == [True, True, False, False, False]
    now[0] = episodes.EPISODE_SECONDS + 1.0
    assert kept.get("m", "4") is None
    kept.put("m", "5", Episode(6, "m", np.zeros(1, np.float32)))
    assert len(kept) == 1
    assert kept.get("other", "5") is None


def test_a_state_survives_the_way_as_text_to_the_bit():
    state = np.random.default_rng(0).uniform(-1, 1, 64).astype(np.float32)
    back = unpack(pack(Episode(12, "0123abcd", state)))
    assert back.version == 12
    np.testing.assert_array_equal(back.state, state)
    with pytest.raises(InvalidObservationError):
        unpack("0.a.AAAA")
