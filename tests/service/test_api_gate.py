"""The gate: who is let in, what is noted about it, and that no route is forgotten."""

import logging

import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from grpo_platform.api.gate import MAX_BODY_BYTES, PROBES, Gate
from grpo_platform.api.metrics import Metrics
from grpo_platform.serving.service import CacheStats
from grpo_platform.settings import Settings

TOKEN = "t" * 32
LOCAL = "http://127.0.0.1:8000"


def client(base_url: str = LOCAL, **settings) -> TestClient:
    app = FastAPI()

    @app.get("/where")
    async def where() -> str:
        return "inside"

    @app.post("/size")
    async def size(request: Request) -> int:
        return len(await request.body())

    for probe in PROBES:
        app.add_api_route(probe, where)
    app.state.metrics = Metrics(CacheStats)
    app.add_middleware(Gate, settings=Settings(**settings), metrics=app.state.metrics)
    return TestClient(app, base_url=base_url, raise_server_exceptions=False)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "127.9.9.9", "ours.test"],
)
def test_own_names_are_let_in(host):
    reply = client(allowed_hosts="ours.test").get("/where", headers={"Host": host})
    assert reply.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.test", "localhost.evil.test", "192.168.1.7:8000", "127.0.0.1.evil.test", "[", ""]
)
def test_foreign_hosts_are_refused(host):
    reply = client().get("/where", headers={"Host": host})
    assert reply.status_code == 403
    assert "GRPO_ALLOWED_HOSTS" in reply.json()["detail"]


def test_a_server_of_the_network_takes_addresses_but_no_foreign_names():
    network = client(host="0.0.0.0", api_token=TOKEN)
    key = {"X-API-Key": TOKEN}
    assert network.get("/where", headers=key | {"Host": "10.0.0.7:8000"}).status_code == 200
    assert network.get("/where", headers=key | {"Host": "evil.test"}).status_code == 403


@pytest.mark.parametrize(
    "origin",
    ["http://evil.test", "null", "http://127.0.0.1:9999", "http://127.0.0.1:8000.evil.test", "["],
)
def test_pages_of_other_origins_are_refused(origin):
    reply = client().get("/where", headers={"Origin": origin})
    assert reply.status_code == 403
    assert reply.headers["content-type"] == "application/problem+json"


def test_own_pages_and_listed_origins_are_let_in():
    assert client().get("/where", headers={"Origin": LOCAL}).status_code == 200
    listed = client(cors_origins="http://app.test,http://other.test")
    assert listed.get("/where", headers={"Origin": "http://app.test"}).status_code == 200


@pytest.mark.parametrize("name", ["Host", "Origin", "Authorization", "X-API-Key"])
def test_a_header_that_decides_comes_once(name):
    reply = client(LOCAL).get("/where", headers=[(name, "localhost"), (name, "localhost")])
    assert reply.status_code == 400
    assert name in reply.json()["detail"]


@pytest.mark.parametrize(("version", "status"), [("1.1", 400), ("1.0", 200)])
def test_http_1_1_names_its_host(version, status):
    guarded = client()

    async def without_host(scope, receive, send):
        named = [header for header in scope["headers"] if header[0] != b"host"]
        await guarded.app(scope | {"headers": named, "http_version": version}, receive, send)

    reply = TestClient(without_host).get("/where")
    assert reply.status_code == status
    assert status == 200 or "Host" in reply.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"X-API-Key": TOKEN[:-1]},
        {"X-API-Key": ""},
    ],
)
def test_without_the_token_only_probes_answer(headers):
    guarded = client(api_token=TOKEN)
    for path in ("/where", "/nowhere", "/docs", "/openapi.json", "/health/live/", "//health/live"):
        reply = guarded.get(path, headers=headers)
        assert reply.status_code == 401, path
        assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in reply.text
    for probe in PROBES:
        assert guarded.get(probe, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer  {TOKEN}"},
        {"X-API-Key": TOKEN},
    ],
)
def test_the_token_opens(headers):
    assert client(api_token=TOKEN).get("/where", headers=headers).status_code == 200


@pytest.mark.parametrize("settings", [{"api_token": "short"}, {"host": "0.0.0.0"}, {"host": "::"}])
def test_the_network_needs_a_long_token(settings):
    with pytest.raises(ValidationError, match="32 bytes"):
        Settings(**settings)


def test_the_token_is_in_no_text_of_the_settings():
    assert TOKEN not in repr(Settings(api_token=TOKEN))


def test_large_bodies_are_refused_whether_their_length_was_announced_or_not():
    inside = client()
    assert inside.post("/size", content=b"x" * MAX_BODY_BYTES).json() == MAX_BODY_BYTES

    def pieces():
        for _ in range(MAX_BODY_BYTES // 2**20 + 1):
            yield b"x" * 2**20

    for content in (b"x" * (MAX_BODY_BYTES + 1), pieces()):
        assert inside.post("/size", content=content).status_code == 413


@pytest.mark.parametrize("length", ["-1", "1e9", "9" * 30, "ten"])
def test_lengths_that_are_none_are_refused(length):
    headers = {"Content-Length": length}
    assert client().post("/size", headers=headers, content=b"").status_code == 413


def test_request_ids_are_kept_or_made():
    inside = client()
    mine = inside.get("/where", headers={"X-Request-ID": "my-id.1"})
    assert mine.headers["X-Request-ID"] == "my-id.1"
    for odd in ("a b", "x" * 129, ""):
        made = inside.get("/where", headers={"X-Request-ID": odd}).headers["X-Request-ID"]
        assert made != odd
        assert len(made) == 16


def test_the_log_has_one_line_a_request_and_no_secrets(caplog):
    caplog.set_level(logging.INFO, logger="grpo_platform.access")
    client(api_token=TOKEN).get("/where%0Alevel=ERROR?q=secret", headers={"X-API-Key": TOKEN})
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert "path=/where\\nlevel=ERROR status=404" in record.getMessage()
    assert TOKEN not in record.getMessage()
    assert "secret" not in record.getMessage()


def test_requests_are_counted_by_route_and_paths_make_no_series():
    inside = client()
    for path in ("/where", "/a", "/b"):
        inside.get(path)
    text = inside.app.state.metrics.render({"queued": 2}, 1).decode()
    assert 'grpo_http_requests_total{method="GET",route="/where",status="200"} 1.0' in text
    assert 'grpo_http_requests_total{method="any",route="unmatched",status="404"} 2.0' in text
    assert 'grpo_training_jobs{status="queued"} 2.0' in text


def test_websockets_are_closed():
    with pytest.raises(WebSocketDisconnect), client().websocket_connect("/where"):
        pass
