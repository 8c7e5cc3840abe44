"""The error table is complete, and every reply is a problem that says what to do."""

import inspect
import json

import pytest
from fastapi import FastAPI, HTTPException
from pydantic import ValidationError
from starlette.testclient import TestClient

from grpo import errors as algorithm
from grpo_platform.api.errors import (
    ERROR_TABLE,
    add_error_handlers,
    problem_of,
    validation_problem,
)
from grpo_platform.api.schemas.sweeps import SweepBody
from grpo_platform.api.schemas.training import TrainRequest
from grpo_platform.core import errors as platform

BASES = {
    algorithm.GRPOError, platform.PlatformError, RuntimeError, Exception,
}  # fmt: skip


def own_errors() -> list[type[Exception]]:
    return [
        kind
        for module in (algorithm, platform)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and kind not in BASES
    ]


@pytest.mark.parametrize("kind", own_errors(), ids=lambda kind: kind.__name__)
def test_every_error_of_ours_is_in_the_table(kind):
    assert kind in ERROR_TABLE
    assert 400 <= ERROR_TABLE[kind].status < 600
    assert ERROR_TABLE[kind].status != 500


def test_kinds_are_told_apart():
    kinds = [row.kind for row in ERROR_TABLE.values()]
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (algorithm.UnknownNameError("env_name", "Nope-v0", ["CartPole-v1"]), 400),
        (algorithm.IncompatibleError("set eval_freq too", field="target_return"), 400),
        (algorithm.OutOfRangeError("at least 1", field="seed"), 422),
        (platform.InvalidPageTokenError(), 422),
        (platform.UnknownJobError("x"), 404),
        (platform.UnknownModelError("x"), 404),
        (platform.ConflictError("it runs"), 409),
        (platform.QueueFullError(3), 429),
        (platform.StoreUnavailableError("away"), 503),
    ],
)
def test_statuses_are_the_contracts(error, status):
    reply = problem_of(error)
    assert reply.status_code == status
    assert str(error) in reply.body.decode() or "CartPole-v1" in reply.body.decode()
    field = getattr(error, "field", None)
    assert (f'"field":"{field}"' in reply.body.decode()) == (field is not None)


def test_a_full_queue_says_when_to_come_back():
    error = platform.QueueFullError(3, retry_after_seconds=7)
    assert problem_of(error).headers["Retry-After"] == "7"


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    add_error_handlers(app)

    @app.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError("secret /path")

    @app.get("/unlisted")
    def unlisted() -> None:
        raise algorithm.GRPOError("a kind that the table does not list")

    @app.get("/teapot")
    def teapot() -> None:
        raise HTTPException(418, "short and stout", headers={"X-Spout": "yes"})

    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/broken", 405),
        ("GET", "/broken", 500),
        ("GET", "/unlisted", 500),
        ("GET", "/teapot", 418),
    ],
)
def test_every_reply_is_a_problem(client, method, path, status):
    reply = client.request(method, path, follow_redirects=False)
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:grpo-platform:problem:")
    assert isinstance(problem["detail"], str)


def test_what_broke_inside_is_not_told(client):
    text = client.get("/broken").text
    assert "secret" not in text
    assert "Traceback" not in text
    assert "ZeroDivisionError" not in text


def test_headers_of_http_errors_stay(client):
    assert client.get("/teapot").headers["X-Spout"] == "yes"
    assert "GET" in client.post("/broken").headers["Allow"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"lerning_rate": 1}, "lerning_rate: There is no such field. Did you mean 'learning_rate'? "
                              "GET /docs"),
        ({"zzz": 1}, "zzz: There is no such field; leave it out. GET /docs"),
        ({"config": {"batchsize": 1}}, "config: There is no such field; leave it out. GET /docs"),
    ],
)  # fmt: skip
def test_a_field_that_does_not_exist_is_answered_with_the_nearest(body, said):
    with pytest.raises(ValidationError) as caught:
        TrainRequest.model_validate(body)
    found = caught.value.errors(include_url=False)
    assert said in json.loads(validation_problem(found, TrainRequest).body)["detail"]


def test_so_is_one_within_another():
    body = {"search_space": {"gamma": {}}, "config": {"batchsize": 1}}
    with pytest.raises(ValidationError) as caught:
        SweepBody.model_validate(body)
    found = caught.value.errors(include_url=False)
    detail = json.loads(validation_problem(found, SweepBody).body)["detail"]
    assert "config.batchsize: There is no such field. Did you mean 'batch_size'?" in detail
