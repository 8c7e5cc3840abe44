"""Inference over HTTP on a real model: fuzzed observations, metrics, and probes that are true."""

import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grpo.actions import BoxActions, DiscreteActions
from grpo.policies import PolicySpec
from grpo_platform.core.errors import UnknownModelError
from tests.service.api_support import client_of, services_in
from tests.service.registry_support import Bench, random_policy
from tests.waiting import until

MODEL = "fuzzed"
EXTREMES = ("NaN", "Infinity", "-Infinity", "1e308", "-1e308", "1e309", "5e-324", "-0.0", "1" * 400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


ONE_ANSWER = {
    "discrete": PolicySpec(observation_shape=(4,), action=DiscreteActions(3)),
    "box": PolicySpec(observation_shape=(3,), action=BoxActions((1,), (-2.0,), (2.0,))),
    "unbounded": PolicySpec(observation_shape=(2,), action=BoxActions((1,), (-math.inf,), (1.0,))),
    "wide": PolicySpec(observation_shape=(4,), action=DiscreteActions(3), net_arch=(160,)),
    "graph": PolicySpec(
        observation_shape=(4,), action=DiscreteActions(3), policy="ActorCriticPolicy"
    ),
}


@pytest.fixture(scope="module")
def bench(folder):
    return Bench(folder)


@pytest.fixture(scope="module")
def client(folder):
    with services_in(folder) as services:
        Bench(folder).register(MODEL, random_policy(), rule="always")
        yield client_of(services)
        services.serving.close()


def written(values):
    """Lists of JSON texts as one JSON text."""
    return values if isinstance(values, str) else f"[{', '.join(map(written, values))}]"


numbers = st.floats(allow_nan=True, allow_infinity=True).map(json.dumps)
whole = st.integers().map(str)
scalars = st.one_of(
    numbers, whole, st.sampled_from(EXTREMES), st.text(max_size=5).map(json.dumps),
    st.sampled_from(("null", "true", "{}")),
)  # fmt: skip
vectors = st.lists(st.one_of(numbers, whole, st.sampled_from(EXTREMES)), min_size=4, max_size=4)
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=5), max_leaves=20)


def post(client, path, field, observation):
    content = f'{{"model_name": "{MODEL}", "{field}": {observation}}}'
    return client.post(path, content=content, headers={"Content-Type": "application/json"})


def check(reply):
    """An answer of finite numbers, or a problem that names what is wrong."""
    assert reply.status_code in (200, 422), reply.text
    body = json.loads(reply.text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    if reply.status_code == 422:
        assert reply.headers["content-type"] == "application/problem+json"
        assert body["detail"]


@pytest.mark.rotated(11)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(observation=st.one_of(vectors, anything))
def test_no_observation_breaks_a_single_call(client, observation):
    check(post(client, "/inference", "observation", written(observation)))


@pytest.mark.rotated(10)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(observations=st.one_of(st.lists(vectors, max_size=4), anything))
def test_no_observation_breaks_a_batch(client, observations):
    check(post(client, "/inference/batch", "observations", written(observations)))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.one_of(st.lists(vectors, max_size=4), anything),
    shape=st.lists(st.integers(-2, 2**70), max_size=4),
    datatype=st.sampled_from(("FP32", "FP64", "INT64", "UINT8", "BOOL", "BYTES")),
)
def test_no_tensor_breaks_the_open_protocol(client, data, shape, datatype):
    tensor = f'"name": "observation", "shape": {json.dumps(shape)}, "datatype": "{datatype}"'
    content = f'{{"inputs": [{{{tensor}, "data": {written(data)}}}]}}'
    reply = client.post(f"/v2/models/{MODEL}/infer", content=content)
    assert reply.status_code in (200, 422), reply.text


@pytest.mark.parametrize("number", EXTREMES)
def test_extreme_numbers_are_answered_or_refused(client, number):
    reply = post(client, "/inference", "observation", f"[{number}, 0, 0, 0]")
    finite = number in ("1e308", "-1e308", "5e-324", "-0.0")
    assert reply.status_code == (200 if finite else 422), reply.text
    check(reply)


def every_way_out(client, name, policy, folder, x):
    """Action and value for observations, shape (N, size) float32, by each way that there is."""
    predicted = policy.predict(x)
    yield "predict", predicted.actions, predicted.values
    yield "act", policy.act(x), predicted.values
    pyfunc = mlflow.pyfunc.load_model(str(folder)).predict(x)
    yield "pyfunc", pyfunc["action"], pyfunc["value"]
    with torch.no_grad():
        exported = mlflow.pytorch.load_model(str(folder))(torch.from_numpy(x))
    yield "pytorch", exported["action"].numpy(), exported["value"].numpy()

    rows = x.astype(np.float64).tolist()
    bodies = [{"model_name": name, "observation": row} for row in rows]
    singles = [client.post("/inference", json=body).json() for body in bodies]
    yield "/inference", [s["action"] for s in singles], [s["value"] for s in singles]
    batch = client.post("/inference/batch", json={"model_name": name, "observations": rows}).json()
    yield "/inference/batch", batch["actions"], batch["values"]
    for datatype in ("FP32", "FP64"):
        tensor = {"name": "observation", "shape": x.shape, "datatype": datatype, "data": rows}
        reply = client.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]}).json()
        outputs = {output["name"]: output["data"] for output in reply["outputs"]}
        yield f"/v2 {datatype}", outputs["action"], outputs["value"]


@pytest.mark.rotated(12)
@pytest.mark.parametrize("kind", ONE_ANSWER)
def test_one_policy_gives_one_answer_whatever_the_observation(client, bench, kind):
    """Huge numbers too: they are clipped once they are normalised, by the same rule everywhere."""
    policy = random_policy(ONE_ANSWER[kind], seed=2)
    with torch.no_grad():  # a component that never changed is divided by 1e-4, far from zero
        policy.observation_mean[0], policy.observation_var[0] = 500.0, 0.0
    ref, _ = bench.register(kind, policy, rule="always")
    sizes = [0.0, 1.0, 1e2, 1e5, 1e8, 1e20, 3.4e38]
    shape = (4 * len(sizes), policy.spec.observation_size)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], shape)
    x = (np.repeat(sizes, 4)[:, None] * signs).astype(np.float32)
    x[:, 0] += 500.0

    (_, actions, values), *others = every_way_out(client, kind, policy, bench.folder(ref), x)
    assert np.isfinite(values).all()
    for way, action, value in others:
        np.testing.assert_allclose(
            np.reshape(action, np.shape(actions)), actions, rtol=1e-4, atol=1e-4, err_msg=way
        )
        np.testing.assert_allclose(value, values, rtol=1e-3, atol=1e-3, err_msg=way)
    huge = {"model_name": kind, "observation": (signs[-1] * 1e308).tolist()}  # no float32 holds it
    reply = client.post("/inference", json=huge).json()
    np.testing.assert_allclose(np.ravel(reply["action"]), np.ravel(actions[-1]), rtol=1e-4)
    np.testing.assert_allclose(reply["value"], values[-1], rtol=1e-3)


@pytest.mark.parametrize("path", ["/inference", "/inference/batch"])
def test_a_million_numbers_are_refused(client, path):
    million = "[" + ",".join(["0.5"] * 1_000_000) + "]"
    field = "observation" if path == "/inference" else "observations"
    reply = post(client, path, field, million if path == "/inference" else f"[{million}]")
    assert reply.status_code == 422
    assert "4 finite numbers" in reply.json()["detail"]
    assert "1000000" in reply.json()["detail"]
    assert len(reply.content) < 2_000


def test_what_is_asked_and_loaded_is_counted(client):
    before = client.get("/metrics").text
    for _ in range(3):
        assert post(client, "/inference", "observation", "[0, 0, 0, 0]").status_code == 200
    assert post(client, "/inference/batch", "observations", "[[0, 0, 0, 0]]").status_code == 200
    after = client.get("/metrics").text
    labels = f'{{model="{MODEL}",version="1"}}'
    route = '{method="POST",route="/inference",status="200"}'
    for line, more in (
        (f"grpo_inference_observations_total{labels}", 4),
        (f"grpo_inference_request_duration_seconds_count{labels}", 4),
        (f"grpo_http_requests_total{route}", 3),
        ("grpo_model_cache_hits_total", 3),
    ):
        assert value(after, line) >= value(before, line) + more, line
    assert value(after, "grpo_model_loads_total") >= 1
    assert value(after, "grpo_model_load_seconds_total") > 0
    assert value(after, "grpo_models_loaded") >= 1
    for status in ("queued", "running"):
        assert value(after, f'grpo_training_jobs{{status="{status}"}}') == 0


def value(text, line):
    found = [float(row.rsplit(" ", 1)[1]) for row in text.splitlines() if row.startswith(line)]
    return found[0] if found else 0.0


@pytest.mark.rotated(10)
@pytest.mark.parametrize("slow", ["/inference/batch", "/v2"])
def test_a_model_that_loads_slowly_holds_no_other_models_batches_back(tmp_path, slow, monkeypatch):
    with services_in(tmp_path) as services, client_of(services) as client:
        Bench(tmp_path).register(MODEL, random_policy(), rule="always")
        resolve, asked, answers = services.registry.resolve, threading.Event(), threading.Event()

        def slowly(reference):
            if reference.startswith("slow"):
                asked.set()
                assert answers.wait(60)
            return resolve(reference)

        monkeypatch.setattr(services.registry, "resolve", slowly)
        tensor = {"name": "observation", "shape": [1, 4], "datatype": "FP32", "data": [0.0] * 4}
        path, body = {
            "/v2": ("/v2/models/slow/infer", {"inputs": [tensor]}),
            "/inference/batch": (slow, {"model_name": "slow", "observations": [[0.0] * 4]}),
        }[slow]
        with ThreadPoolExecutor(1) as other:
            waiting = other.submit(client.post, path, json=body)
            assert asked.wait(60)
            answered = post(client, "/inference/batch", "observations", "[[0, 0, 0, 0]]")
            for i in range(100):  # no two references wait for each other, whatever their names
                other_body = {"model_name": f"other_{i}", "observations": [[0.0] * 4]}
                assert client.post("/inference/batch", json=other_body).status_code == 404
            assert not waiting.done()
            answers.set()
            assert waiting.result(60).status_code == 404
        assert answered.status_code == 200


@pytest.mark.rotated(10)
def test_decisions_that_take_long_leave_threads_to_others(tmp_path, monkeypatch):
    with services_in(tmp_path) as services, client_of(services) as client:
        begun, over = threading.Semaphore(0), threading.Event()

        def long(name, *_):
            begun.release()
            assert over.wait(60)
            raise UnknownModelError(name)

        monkeypatch.setattr(services.promoter, "rollback", long)
        with ThreadPoolExecutor(60) as others:
            asked = [others.submit(client.post, "/models/any/rollback") for _ in range(60)]
            assert begun.acquire(timeout=60)
            assert client.get("/models").status_code == 200
            assert not any(call.done() for call in asked)
            over.set()
            assert {call.result(60).status_code for call in asked} == {404}


@pytest.mark.rotated(6)
def test_ready_is_true_while_the_store_is_there_and_the_runner_lives(tmp_path):
    with services_in(tmp_path) as services, client_of(services) as client:
        probes = ("/health/ready", "/v2/health/ready")
        until(lambda: all(client.get(p).status_code == 200 for p in probes), 30)
        database = tmp_path / "mlflow.db"
        away = database.rename(tmp_path / "away.db")
        until(lambda: all(client.get(p).status_code == 503 for p in probes), 30)
        assert client.get("/health/live").status_code == 200
        away.rename(database)
        until(lambda: all(client.get(p).status_code == 200 for p in probes), 30)
        artifacts = tmp_path / "mlruns"
        away = artifacts.rename(tmp_path / "away")
        until(lambda: all(client.get(p).status_code == 503 for p in probes), 30)
        refused = client.post("/train", json={})
        assert (refused.status_code, "mounted" in refused.json()["detail"]) == (503, True)
        assert not artifacts.exists()
        away.rename(artifacts)
        until(lambda: all(client.get(p).status_code == 200 for p in probes), 30)
    # the client has ended the application, and with it the runner
    stopped = client_of(services)
    for probe in probes:
        assert stopped.get(probe).status_code == 503
    assert stopped.get("/health/live").status_code == 200
