"""Dicts, Tuples and categories over every way out: one policy gives one answer."""

import base64
import dataclasses
import io
import json

import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image

from grpo.actions import choices
from grpo.policies import PolicySpec, default_policy, make_policy
from grpo.spaces import action_spec, observation_spec
from grpo_platform.api.tensors import HEADER_LENGTH
from tests.algorithm.test_spaces import ACTION_SPACES, OBSERVATIONS, THING, plain
from tests.service.api_support import client_of, services_in
from tests.service.registry_support import Bench, random_policy


def spec_of(observation: str, action: str, policy: str = "MlpPolicy") -> PolicySpec:
    reads = observation_spec(OBSERVATIONS[observation])
    return PolicySpec(
        observation_shape=reads.shape,
        observation=None if reads.is_plain else reads,
        action=action_spec(ACTION_SPACES[action]),
        net_arch=(16,),
        policy=policy,
    )


KINDS = {
    **{name: spec_of(name, "discrete") for name in OBSERVATIONS},
    **{f"to_{name}": spec_of("dict", name) for name in ACTION_SPACES},
    "torch": spec_of("dict", "dict", "ActorCriticPolicy"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def bench(folder):
    return Bench(folder)


@pytest.fixture(scope="module")
def client(folder, bench):
    with services_in(folder) as services:
        yield client_of(services)
        services.serving.close()


def tensors_of(spec: PolicySpec, rows: np.ndarray) -> dict[str, np.ndarray]:
    found, first = {}, 0
    for leaf in spec.reads.leaves:
        part = rows[:, first : first + leaf.size].reshape(-1, *leaf.shape)
        first += leaf.size
        found[leaf.name] = part.astype(leaf.tensor_dtype)
    return found


def every_way_out(client, name, policy, folder, seen):
    """Rows of actions, and values, of observations by each way that there is."""
    spec = policy.spec
    rows = np.stack([spec.reads.row(one) for one in seen]).astype(np.float64)
    predicted = policy.predict(rows)
    yield "predict", predicted.actions, predicted.values
    flat = rows.reshape(len(rows), -1)
    tensors = tensors_of(spec, flat)
    loaded = mlflow.pyfunc.load_model(str(folder))
    given = tensors if spec.reads.is_tree else tensors["observation"]
    pyfunc = loaded.predict(given)
    yield "pyfunc", pyfunc["action"], pyfunc["value"]
    with torch.no_grad():
        exported = mlflow.pytorch.load_model(str(folder))(torch.from_numpy(rows.astype("float32")))
    yield "pytorch", exported["action"].numpy(), exported["value"].numpy()

    for way, bodies in (("nested", list(map(plain, seen))), ("flat", flat.tolist())):
        asked = [{"model_name": name, "observation": body} for body in bodies]
        singles = [client.post("/inference", json=body).json() for body in asked]
        actions = [flattened(s["action"]) for s in singles]
        yield f"/inference {way}", actions, [s["value"] for s in singles]
        body = {"model_name": name, "observations": bodies}
        batch = client.post("/inference/batch", json=body).json()
        yield f"/inference/batch {way}", list(map(flattened, batch["actions"])), batch["values"]
        told = [flattened(s["action_probs"] or []) for s in singles]
        np.testing.assert_allclose(
            told, [flattened(each) for each in batch["action_probs"] or [[]] * len(told)], atol=1e-6
        )
    one = {"name": "observation", "shape": flat.shape, "datatype": "FP64", "data": flat.tolist()}
    each = [
        {"name": key, "shape": a.shape, "datatype": "INT64", "data": a.tolist()}
        if a.dtype.kind == "i"
        else {"name": key, "shape": a.shape, "datatype": "FP32", "data": a.tolist()}
        for key, a in tensors.items()
    ]
    for way, inputs in (("one", [one]), ("each", each)):
        reply = client.post(f"/v2/models/{name}/infer", json={"inputs": inputs}).json()
        outputs = {output["name"]: output["data"] for output in reply["outputs"]}
        yield f"/v2 {way}", outputs["action"], outputs["value"]


def flattened(action) -> list[float]:
    if isinstance(action, dict):
        action = list(action.values())
    if isinstance(action, list):
        return [number for part in action for number in flattened(part)]
    return [action]


SHORT = ("discrete", "dict", "scalar", "to_multi_discrete", "to_tuple", "to_dict", "torch")


@pytest.mark.rotated(13)
@pytest.mark.parametrize(
    "kind", [k if k in SHORT else pytest.param(k, marks=pytest.mark.long) for k in KINDS]
)
def test_one_policy_gives_one_answer_whatever_its_spaces(client, bench, kind):
    policy = random_policy(KINDS[kind], seed=1)
    name = f"spaces-{kind}"
    ref, _ = bench.register(name, policy, rule="always")
    space = OBSERVATIONS["dict" if kind.startswith("to_") or kind == "torch" else kind]
    space.seed(1)
    seen = [space.sample() for _ in range(5)]
    first = None
    for way, actions, values in every_way_out(client, name, policy, bench.folder(ref), seen):
        found = np.array(actions, np.float64).ravel(), np.array(values, np.float64)
        first = first or found
        np.testing.assert_allclose(found[0], first[0], atol=1e-4, err_msg=way)
        np.testing.assert_allclose(found[1], first[1], rtol=1e-4, err_msg=way)


@pytest.fixture(scope="module")
def world(client, bench):
    bench.register("world", random_policy(KINDS["to_dict"], seed=3), rule="always")
    return "world"


def ask(client, name, observation):
    body = {"model_name": name, "observation": observation}
    return client.post("/inference", json=body)


@pytest.mark.rotated(13)
def test_actions_come_as_their_space_is_nested_and_probabilities_by_choice(client, world):
    reply = ask(client, world, plain(THING)).json()
    action, probabilities = reply["action"], reply["action_probs"]
    assert set(action) == {"a", "b"}
    assert set(action["b"]) == {"c", "d"}
    assert action["a"] in (5, 6)
    assert isinstance(action["b"]["d"][0], int)
    assert [len(choice) for choice in probabilities] == [2, 2, 2]
    assert [sum(choice) for choice in probabilities] == pytest.approx([1.0] * 3)
    samples = {
        json.dumps(
            client.post(
                "/inference",
                json={"model_name": world, "observation": plain(THING), "deterministic": False},
            ).json()["action"]
        )
        for _ in range(30)
    }
    assert len(samples) > 1


WRONG = [
    (lambda o: o.pop("tool"), "observation", "keys"),
    (lambda o: o.update(other=1), "observation", "keys"),
    (lambda o: o.update(bag=[1]), "observation.bag", "list of 2"),
    (lambda o: o.update(bag={"0": 1}), "observation.bag", "list of 2"),
    (lambda o: o.update(place=[1.0]), "observation.place", "shape"),
    (lambda o: o.update(place=["a", 1.0]), "observation.place", "numbers only"),
    (lambda o: o.update(place=[[1.0], 2.0]), "observation.place", "numbers only"),
    (lambda o: o.update(place=[1.0, None]), "observation.place", "numbers only"),
    (lambda o: o.update(tool=4), "observation.tool", "from 5 to 7"),
    (lambda o: o.update(tool=5.5), "observation.tool", "from 5 to 7"),
    (lambda o: o["bag"].__setitem__(1, [0, 3]), "observation.bag.1", "from 0 to 2"),
]


@pytest.mark.rotated(13)
@pytest.mark.parametrize(("change", "field", "says"), WRONG)
def test_what_does_not_fit_is_refused_by_the_name_of_its_part(client, world, change, field, says):
    observation = plain(THING)
    change(observation)
    reply = ask(client, world, observation)
    assert reply.status_code == 422
    problem = reply.json()
    assert problem["errors"][0]["field"] == field
    assert says in problem["detail"]
    body = {"model_name": world, "observations": [plain(THING), observation]}
    reply = client.post("/inference/batch", json=body)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["field"] == field.replace("observation", "observations.1", 1)


@pytest.mark.parametrize("observation", [[1, 2], 7, "x", None, True, [[[1]]], {}, [1.0] * 9])
def test_whatever_else_is_sent_is_refused(client, world, observation):
    assert ask(client, world, observation).status_code == 422


def test_a_flat_row_with_no_such_category_is_refused_too(client, world):
    row = observation_spec(OBSERVATIONS["dict"]).row(THING)
    assert ask(client, world, row.tolist()).status_code == 200
    row[-1] = 9
    reply = ask(client, world, row.tolist())
    assert reply.json()["errors"][0]["field"] == "observation.tool"
    tensor = {"name": "observation", "shape": [1, 8], "datatype": "FP64", "data": row.tolist()}
    reply = client.post(f"/v2/models/{world}/infer", json={"inputs": [tensor]})
    assert reply.status_code == 422


def test_the_protocol_names_one_tensor_for_each_part(client, world):
    metadata = client.get(f"/v2/models/{world}").json()
    assert metadata["inputs"] == [
        {"name": "bag.0", "datatype": "INT64", "shape": [-1, 2]},
        {"name": "bag.1", "datatype": "INT64", "shape": [-1, 2]},
        {"name": "light", "datatype": "UINT8", "shape": [-1, 1]},
        {"name": "place", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "tool", "datatype": "INT64", "shape": [-1]},
    ]
    spec = KINDS["to_dict"]
    tensors = tensors_of(spec, spec.reads.row(THING)[None])
    names = {"int64": "INT64", "uint8": "UINT8", "float32": "FP32"}
    head = {
        "inputs": [
            {
                "name": name, "shape": a.shape, "datatype": names[a.dtype.name],
                "parameters": {"binary_data_size": a.nbytes},
            }
            for name, a in tensors.items()
        ]
    }  # fmt: skip
    text = json.dumps(head).encode()
    content = text + b"".join(a.tobytes() for a in tensors.values())
    url = f"/v2/models/{world}/infer"
    reply = client.post(url, content=content, headers={HEADER_LENGTH: str(len(text))}).json()
    outputs = {output["name"]: output["data"] for output in reply["outputs"]}
    assert outputs["action"] == flattened(ask(client, world, plain(THING)).json()["action"])
    others = {"inputs": [i | {"parameters": None, "data": [5]} for i in head["inputs"][-1:]]}
    reply = client.post(url, json=others)
    assert reply.status_code == 422
    assert "the tensors are bag.0, bag.1" in reply.json()["detail"]


def test_pyfunc_refuses_other_names_and_what_is_no_category(bench):
    ref = bench.register("apart", random_policy(KINDS["dict"], seed=3))
    model = mlflow.pyfunc.load_model(str(bench.folder(ref)))
    spec = KINDS["dict"]
    tensors = tensors_of(spec, spec.reads.row(THING)[None])
    assert model.predict(tensors)["action"].shape == (1,)
    with pytest.raises(Exception, match="tool"):
        model.predict(tensors | {"tool": np.array([9])})
    with pytest.raises(Exception, match="tool"):
        model.predict({name: array for name, array in tensors.items() if name != "tool"})


CAMERA = spaces.Box(0, 255, (12, 10, 3), np.uint8)


def image_policy(space: spaces.Space, width: str) -> PolicySpec:
    reads = observation_spec(space)
    spec = PolicySpec(
        observation_shape=reads.shape,
        observation=reads,
        action=action_spec(ACTION_SPACES["discrete"]),
        policy=default_policy(reads),
        policy_kwargs={"features_extractor_kwargs": {width: 8}},
    )
    return make_policy(spec, 0)


def png(image: np.ndarray) -> str:
    written = io.BytesIO()
    Image.fromarray(image).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


@pytest.mark.rotated(7)
@pytest.mark.parametrize("nested", [False, True])
def test_images_are_answered_as_arrays_and_as_png(client, bench, nested):
    space = spaces.Dict({"eye": CAMERA, "speed": spaces.Box(-1, 1, (2,))}) if nested else CAMERA
    policy = image_policy(space, "cnn_output_dim" if nested else "features_dim")
    name = f"images-{nested}"
    ref, _ = bench.register(name, policy, rule="always")
    space.seed(0)
    seen = space.sample()
    told = policy.predict(policy.spec.reads.row(seen)[None].astype(np.float64))
    image = seen["eye"] if nested else seen
    for written in (image.tolist(), png(image), f"data:image/png;base64,{png(image)}"):
        observation = {"eye": written, "speed": seen["speed"].tolist()} if nested else written
        reply = ask(client, name, observation).json()
        assert reply["action_probs"] == pytest.approx(told.action_probs[0].tolist(), abs=1e-5)
        body = {"model_name": name, "observations": [observation, observation]}
        batch = client.post("/inference/batch", json=body).json()
        assert batch["values"] == pytest.approx([reply["value"]] * 2, abs=1e-4)
    tensors = tensors_of(policy.spec, policy.spec.reads.row(seen).reshape(1, -1))
    loaded = mlflow.pyfunc.load_model(str(bench.folder(ref)))
    found = loaded.predict(tensors if nested else tensors["observation"])
    np.testing.assert_allclose(found["action_probs"], told.action_probs, atol=1e-5)
    field = "observation.eye" if nested else "observation"
    other = np.zeros((10, 12, 3), np.uint8)
    for wrong in (png(other), png(image)[:-9], "x", "", base64.b64encode(b"GIF89a").decode()):
        observation = {"eye": wrong, "speed": [0.0, 0.0]} if nested else wrong
        reply = ask(client, name, observation)
        assert reply.status_code == 422
        assert reply.json()["errors"][0]["field"] == field
        assert "PNG of 10 x 12 pixels" in reply.json()["detail"]


def masked(action: str) -> PolicySpec:
    own, space = action_spec(ACTION_SPACES[action]), OBSERVATIONS["tuple"]
    reads = observation_spec(space)
    reads = dataclasses.replace(reads, n_mask=sum(choices(own)))
    return PolicySpec(observation_shape=reads.shape, observation=reads, action=own)


@pytest.mark.rotated(3)
@pytest.mark.parametrize("policy", ["MlpPolicy", "ActorCriticPolicy"])
def test_masked_actions_are_never_answered(client, bench, policy):
    spec = dataclasses.replace(masked("multi_discrete"), policy=policy)
    ref, _ = bench.register(f"masked-{policy}", random_policy(spec, seed=5), rule="always")
    name, seen = f"masked-{policy}", [1, [0.5, -0.5]]

    def asked(mask, **more):
        body = {"model_name": name, "observation": seen, "action_mask": mask, **more}
        return client.post("/inference", json=body)

    free = ask(client, name, seen).json()
    assert asked([1] * 9).json() == free
    only = [[0, 1, 0], [1, 0], [0, 1], [True, False]]
    for deterministic in (True, False):
        reply = asked(only, deterministic=deterministic).json()
        assert reply["action"] == [[1, 0], [1, 0]]
        assert reply["action_probs"] == [[0, 1, 0], [1, 0], [0, 1], [1, 0]]
    flat = [0, 1, 0, 1, 0, 0, 1, 1, 0]
    assert asked(flat).json()["action"] == [[1, 0], [1, 0]]
    body = {"model_name": name, "observations": [seen] * 2, "action_masks": [flat, None]}
    batch = client.post("/inference/batch", json=body).json()
    assert batch["actions"] == [[[1, 0], [1, 0]], free["action"]]
    tensors = [
        {"name": "0", "shape": [1], "datatype": "INT64", "data": [1]},
        {"name": "1", "shape": [1, 2], "datatype": "FP32", "data": [0.5, -0.5]},
        {"name": "action_mask", "shape": [1, 9], "datatype": "UINT8", "data": flat},
    ]
    url = f"/v2/models/{name}/infer"
    reply = client.post(url, json={"inputs": tensors}).json()
    assert {o["name"]: o["data"] for o in reply["outputs"]}["action"] == [1, 0, 1, 0]
    assert client.post(url, json={"inputs": tensors[:2]}).status_code == 200
    named = [each["name"] for each in client.get(f"/v2/models/{name}").json()["inputs"]]
    assert named == ["0", "1", "action_mask"]
    for wrong, says in (
        ([1] * 8, "9 zeros and ones"),
        ([2] * 9, "9 zeros and ones"),
        (["a"] * 9, "zeros and ones"),
        ([0, 0, 0, 1, 1, 1, 1, 1, 1], "forbids every action"),
    ):
        reply = asked(wrong)
        assert reply.status_code == 422
        assert reply.json()["errors"][0]["field"] == "action_mask"
        assert says in reply.json()["detail"]
    closed = [*tensors[:2], tensors[2] | {"data": [0] * 9}]
    assert client.post(url, json={"inputs": closed}).status_code == 422
    loaded = mlflow.pyfunc.load_model(str(bench.folder(ref)))
    rows = {"0": np.array([1]), "1": np.array([[0.5, -0.5]], np.float32)}
    mask = np.array([flat], np.uint8)
    assert loaded.predict(rows | {"action_mask": mask})["action"].tolist() == [[[1, 0], [1, 0]]]
    with pytest.raises(Exception, match="forbids every action"):
        loaded.predict(rows | {"action_mask": mask * 0})


def test_a_model_without_masks_takes_none(client, world):
    body = {"model_name": world, "observation": plain(THING), "action_mask": [1]}
    reply = client.post("/inference", json=body)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["field"] == "action_mask"


@pytest.mark.rotated(13)
def test_a_batch_of_nothing_is_answered_with_nothing(client, bench):
    for name, spec in (("none-torch", KINDS["torch"]), ("none-masked", masked("discrete"))):
        bench.register(name, random_policy(spec, seed=1), rule="always")
        tensors = [
            {"name": leaf.name, "shape": [0, *leaf.shape], "datatype": "FP32", "data": []}
            for leaf in spec.reads.leaves
        ]
        reply = client.post(f"/v2/models/{name}/infer", json={"inputs": tensors})
        assert reply.status_code == 200, reply.text
        assert {o["name"]: o["shape"][0] for o in reply.json()["outputs"]}["action"] == 0


@pytest.mark.rotated(13)
@pytest.mark.parametrize("key", ["action_mask", "observation"])
def test_a_part_may_have_any_name(client, bench, key):
    space = spaces.Dict({key: spaces.Box(0, 1, (2, 3), np.int8)})
    reads = observation_spec(space)
    spec = PolicySpec(
        observation_shape=reads.shape, observation=reads,
        action=action_spec(ACTION_SPACES["discrete"]),
    )  # fmt: skip
    policy = random_policy(spec, seed=1)
    ref, _ = bench.register(f"named-{key}", policy, rule="always")
    seen = {key: [[0, 1, 0], [1, 1, 0]]}
    told = ask(client, f"named-{key}", seen).json()
    (given,) = client.get(f"/v2/models/named-{key}").json()["inputs"]
    assert given["shape"] == [-1, 2, 3]
    tensor = {"name": given["name"], "shape": [1, 2, 3], "datatype": "INT64", "data": seen[key]}
    reply = client.post(f"/v2/models/named-{key}/infer", json={"inputs": [tensor]})
    assert reply.status_code == 200, reply.text
    outputs = {o["name"]: o["data"] for o in reply.json()["outputs"]}
    assert outputs["action"] == [told["action"]]
    loaded = mlflow.pyfunc.load_model(str(bench.folder(ref)))
    array = np.array([seen[key]], np.int64)
    assert loaded.predict({given["name"]: array})["action"].tolist() == [told["action"]]


def test_what_lies_out_of_bounds_is_refused_where_bounds_scale(client, world):
    for light in ([256], [-1], [0.5e300]):
        reply = ask(client, world, plain(THING) | {"light": light})
        assert reply.status_code == 422
        assert reply.json()["errors"][0]["field"] == "observation.light"
    row = observation_spec(OBSERVATIONS["dict"]).row(THING).tolist()
    row[4] = 1e300
    assert ask(client, world, row).status_code == 422
