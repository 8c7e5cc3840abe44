"""Bodies: what is refused, and how; nothing a client sends gives a 500."""

import json
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.testclient import TestClient

from grpo_platform.api.dependencies import FastJsonRoute, JsonRoute
from grpo_platform.api.errors import add_error_handlers
from grpo_platform.api.schemas.common import Reply
from grpo_platform.api.schemas.inference import InferenceRequest
from grpo_platform.api.schemas.training import TrainRequest

JSON = {"Content-Type": "application/json"}


class Echo(Reply):
    given: dict[str, Any]


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    add_error_handlers(app)
    app.router.route_class = JsonRoute

    @app.post("/train")
    def train(body: TrainRequest) -> Echo:
        return Echo(given=body.model_dump(exclude_unset=True))

    app.router.route_class = FastJsonRoute

    @app.post("/inference", response_model=Echo)
    async def infer(body: InferenceRequest, request: Request) -> Response:
        return Response(json.dumps(body.model_dump()), media_type="application/json")

    return TestClient(app, raise_server_exceptions=False)


def test_what_was_given_is_told_from_what_was_left_out(client):
    assert client.post("/train", json={}).json() == {"given": {}}
    body = {"env_name": "CartPole-v1", "total_timesteps": 10_000}
    assert client.post("/train", json=body).json() == {"given": body}


def test_whole_numbers_may_be_written_as_floats(client):
    reply = client.post("/train", content=b'{"total_timesteps": 1e5}', headers=JSON)
    assert reply.json() == {"given": {"total_timesteps": 100_000}}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", ""),
        (b"null", ""),
        (b"[]", ""),
        (b'"train"', ""),
        (b"{", ""),
        (b'{"seed": 1,}', ""),
        (b"\xff\xfe{}", ""),
        (b'{"model_name": "\xff"}', ""),
        (b'{"model_name": "\\ud800"}', ""),
        (b"[" * 100_000, ""),
        (b'{"env_kwargs": ' + b'{"a":' * 300 + b"1" + b"}" * 301, ""),
        (b'{"seed": ' + b"9" * 5_000 + b"}", ""),
        (b'{"seed": ' + b"9" * 400 + b"}", "seed"),
        (b'{"seed": -1}', "seed"),
        (b'{"seed": 4294967296}', "seed"),
        (b'{"seed": "1"}', "seed"),
        (b'{"seed": true}', "seed"),
        (b'{"seed": 1.5}', "seed"),
        (b'{"learning_rate": NaN}', "learning_rate"),
        (b'{"learning_rate": 1e400}', "learning_rate"),
        (b'{"learning_rate": -Infinity}', "learning_rate"),
        (b'{"learning_rate": 0}', "learning_rate"),
        (b'{"learning_rate": "3e-4"}', "learning_rate"),
        (b'{"total_timesteps": 0}', "total_timesteps"),
        (b'{"total_timesteps": 1000000001}', "total_timesteps"),
        (b'{"total_timesteps": 1e300}', "total_timesteps"),
        (b'{"total_timesteps": null}', "total_timesteps"),
        (b'{"n_steps": 1000001}', "n_steps"),
        (b'{"group_size": 0}', "group_size"),
        (b'{"bootstrap": 1}', "bootstrap"),
        (b'{"env_name": ""}', "env_name"),
        (b'{"env_name": 7}', "env_name"),
        (b'{"env_kwargs": {"a": NaN}}', "env_kwargs"),
        (b'{"env_kwargs": {"a": "' + b"x" * 4_000 + b'"}}', "env_kwargs"),
        (b'{"env_kwargs": []}', "env_kwargs"),
        (b'{"net_arch": [0]}', "net_arch.0"),
        (b'{"net_arch": [1,1,1,1,1,1,1,1,1]}', "net_arch"),
        (b'{"device": "tpu"}', "device"),
        (b'{"promote": "maybe"}', "promote"),
        (b'{"model_name": "../../etc/passwd"}', "model_name"),
        (b'{"model_name": "a\\n"}', "model_name"),
        (b'{"model_name": ""}', "model_name"),
        (b'{"model_name": "' + b"a" * 129 + b'"}', "model_name"),
        (b'{"init_from": "models:/x/1"}', "init_from"),
        (b'{"max_seconds": 0}', "max_seconds"),
        (b'{"surprise": 1}', "surprise"),
    ],
)
def test_bad_bodies_are_422_and_name_the_field(client, body, field):
    reply = client.post("/train", content=body, headers=JSON)
    problem = reply.json()
    assert reply.status_code == problem["status"] == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert isinstance(problem["detail"], str)
    assert field in [error["field"] for error in problem["errors"]]
    assert len(reply.content) < 10_000


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_other_content_types_are_refused_and_told_which_is_right(client, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type}
    for path in ("/train", "/inference"):
        reply = client.post(path, content=b"{}", headers=headers)
        assert reply.status_code == 422
        assert "Content-Type: application/json" in reply.json()["detail"]


def test_json_content_types_may_have_parameters(client):
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post("/train", content=b"{}", headers=headers).status_code == 200


def test_the_fast_route_parses_alike(client):
    good = {"model_name": "m@champion", "observation": [1, 2.5], "deterministic": False}
    rest = {"action_mask": None, "state": None, "episode_id": None, "episode_start": False}
    assert client.post("/inference", json=good).json() == good | rest
    for body in (b"{}", b"[]", b"", b'{"model_name": "..", "observation": []}'):
        assert client.post("/inference", content=body, headers=JSON).status_code == 422


def test_numbers_that_no_float_holds_reach_the_service_as_infinity(client):
    """The service refuses them, since it knows the shape that it has to name."""
    content = b'{"model_name": "m", "observation": [1e400, NaN, ' + b"9" * 400 + b"]}"
    reply = client.post("/inference", content=content, headers=JSON)
    assert str(json.loads(reply.text)["observation"]) == "[inf, nan, inf]"
