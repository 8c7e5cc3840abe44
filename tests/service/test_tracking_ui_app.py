"""The filter around MLflow's web application: who is let in, with and without a token."""

import hashlib

import pytest
from pydantic import ValidationError
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from grpo_platform.tracking.ui_app import guarded

LOCAL = "http://127.0.0.1:5000"
TOKEN = "t" * 32
DIGEST = {"GRPO_API_TOKEN_SHA256": hashlib.sha256(TOKEN.encode()).hexdigest()}
RUNS = "/ajax-api/2.0/mlflow/runs/create"


def client(**environment: str) -> TestClient:
    return TestClient(guarded(PlainTextResponse("inside"), environment), base_url=LOCAL)


@pytest.mark.parametrize("path", ["/", "/static-files/main.js", RUNS, "/get-artifact", "//health"])
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Basic"}, {"Authorization": "Basic %"}, {"X-API-Key": "t"}]
)
def test_without_the_token_nothing_is_shown(path, headers):
    for method in ("GET", "POST"):
        reply = client(**DIGEST).request(method, path, headers=headers)
        assert reply.status_code == 401
        assert reply.headers["WWW-Authenticate"].startswith("Basic ")
        assert reply.json()["error_code"] == "UNAUTHENTICATED"
        assert TOKEN not in reply.text


def test_the_token_opens_in_each_way_that_browsers_and_clients_send_it():
    inside = client(**DIGEST)
    assert inside.get("/", auth=("anybody", TOKEN)).text == "inside"
    for headers in ({"Authorization": f"Bearer {TOKEN}"}, {"X-API-Key": TOKEN}):
        assert inside.post(RUNS, headers=headers).text == "inside"
    assert inside.get("/", auth=(TOKEN, "")).status_code == 401


def test_whether_it_lives_is_told_to_everybody():
    assert client(**DIGEST).get("/health").text == "inside"


def test_a_server_started_by_hand_takes_the_token_itself(monkeypatch):
    monkeypatch.setenv("GRPO_API_TOKEN", TOKEN)
    assert client().get("/").status_code == 401
    assert client().get("/", auth=("me", TOKEN)).status_code == 200
    monkeypatch.setenv("GRPO_API_TOKEN", "short")
    with pytest.raises(ValidationError, match="32 bytes"):
        client()


def test_without_a_token_it_is_open_on_this_machine():
    assert client().post(RUNS, headers={"Origin": LOCAL}).text == "inside"


@pytest.mark.parametrize("settings", [{}, DIGEST], ids=["open", "token"])
@pytest.mark.parametrize("origin", ["http://127.0.0.1:9", "http://localhost:5000", "null"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_pages_of_this_machine_are_refused(settings, origin, method):
    headers = {"Origin": origin, "X-API-Key": TOKEN}
    reply = client(**settings).request(method, RUNS, headers=headers)
    assert reply.status_code == 403
    assert "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS" in reply.json()["message"]


@pytest.mark.parametrize("host", ["evil.test", "192.168.evil.test", "10.evil.test:5000"])
def test_foreign_names_are_refused(host):
    reply = client().get("/", headers={"Host": host})
    assert reply.status_code == 403
    assert "MLFLOW_SERVER_ALLOWED_HOSTS" in reply.json()["message"]


def test_mlflows_own_lists_are_heeded():
    listed = client(
        MLFLOW_SERVER_ALLOWED_HOSTS="localhost:5000, ours.test:5000",
        MLFLOW_SERVER_CORS_ALLOWED_ORIGINS="http://app.test",
    )
    headers = {"Host": "ours.test:5000", "Origin": "http://app.test"}
    assert listed.post(RUNS, headers=headers).text == "inside"


def test_websockets_are_closed():
    with pytest.raises(WebSocketDisconnect), client().websocket_connect("/"):
        pass
