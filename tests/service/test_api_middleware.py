"""The gate: who is let in, what is noted about it, and that no route is forgotten."""

import gzip
import logging
import zlib

import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from grpo_platform.api.errors import add_error_handlers
from grpo_platform.api.metrics import Metrics
from grpo_platform.api.middleware import MAX_BODY_BYTES, RequestMiddleware
from grpo_platform.core.settings import Settings
from grpo_platform.serving.service import CacheStats

TOKEN = "t" * 32
PROBES = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
LOCAL = "http://127.0.0.1:8000"


def client(base_url: str = LOCAL, **settings) -> TestClient:
    app = FastAPI(redirect_slashes=False)

    @app.get("/where")
    async def where() -> str:
        return "inside"

    @app.post("/size")
    async def size(request: Request) -> int:
        return len(await request.body())

    for probe in PROBES:
        app.add_api_route(probe, where)
    add_error_handlers(app)
    app.state.metrics = Metrics(CacheStats)
    registry = app.state.metrics.registry
    app.add_middleware(RequestMiddleware, settings=Settings(**settings), registry=registry)
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
def test_without_the_token_only_probes_and_documentation_answer(headers):
    guarded = client(api_token=TOKEN)
    for path in ("/where", "/nowhere", "/docs/x", "//health/live", "/static", "/health/live%2F"):
        reply = guarded.get(path, headers=headers)
        assert reply.status_code == 401, path
        assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in reply.text
    for path in (*PROBES, "/health/live/", "/docs", "/redoc", "/openapi.json"):
        assert guarded.get(path, headers=headers).status_code == 200


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
    text = inside.app.state.metrics.render({"queued": 2}, 1)[0].decode()
    assert 'grpo_http_requests_total{method="GET",route="/where",status="200"} 1.0' in text
    assert 'grpo_http_requests_total{method="any",route="unmatched",status="404"} 2.0' in text
    assert 'grpo_training_jobs{status="queued"} 2.0' in text


def test_a_slash_at_the_end_changes_nothing_but_an_encoded_one_does():
    inside = client()
    assert inside.get("/where/").text == inside.get("/where").text
    assert inside.post("/size/", content=b"abc").json() == 3
    for path in ("/where//", "/where%2F", "/where/%2F"):
        assert inside.get(path).status_code == 404, path


def test_head_is_get_without_its_body_and_noted_as_head():
    inside = client()
    for path in ("/where", "/docs", "/nowhere"):
        asked, told = inside.get(path), inside.head(path)
        assert told.status_code == asked.status_code
        assert told.headers["content-length"] == asked.headers["content-length"]
        assert told.content == b""
    assert inside.head("/size").status_code == 405
    text = inside.app.state.metrics.render({}, 0)[0].decode()
    assert 'grpo_http_requests_total{method="HEAD",route="/where",status="200"} 1.0' in text


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "deflate"])
def test_compressed_bodies_are_read(coding):
    compress = zlib.compress if coding == "deflate" else gzip.compress
    headers = {"Content-Encoding": coding}
    inside = client()
    assert inside.post("/size", content=compress(b"x" * 70_000), headers=headers).json() == 70_000
    pieces = (compress(b"x" * 70_000)[i : i + 7] for i in range(0, 10**4, 7))
    assert inside.post("/size", content=pieces, headers=headers).json() == 70_000
    assert inside.post("/size", headers=headers).json() == 0
    assert (
        inside.post("/size", content=b"abc", headers={"Content-Encoding": "identity"}).json() == 3
    )


def test_a_body_that_is_small_only_while_compressed_is_refused():
    bomb = gzip.compress(b"0" * (MAX_BODY_BYTES + 1))
    assert len(bomb) < 10_000
    reply = client().post("/size", content=bomb, headers={"Content-Encoding": "gzip"})
    assert reply.status_code == 413
    whole = gzip.compress(b"0" * MAX_BODY_BYTES)
    reply = client().post("/size", content=whole, headers={"Content-Encoding": "gzip"})
    assert reply.json() == MAX_BODY_BYTES


@pytest.mark.parametrize(
    "content", [b"{}", gzip.compress(b"{}", mtime=0)[:-3], gzip.compress(b"{}", mtime=0) + b"more"]
)
def test_what_is_not_compressed_as_it_says_is_told(content):
    reply = client().post("/size", content=content, headers={"Content-Encoding": "gzip"})
    assert reply.status_code == 422
    assert "gzip" in reply.json()["detail"]
    assert reply.json()["errors"][0]["field"] == "Content-Encoding"


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "", "gzip;q=1"])
def test_other_codings_are_refused_and_told_which_are_read(coding):
    reply = client().post("/size", content=b"{}", headers={"Content-Encoding": coding})
    assert reply.status_code == 415
    assert reply.headers["Accept-Encoding"] == "gzip, deflate"
    assert "gzip" in reply.json()["detail"]


def test_websockets_are_closed():
    with pytest.raises(WebSocketDisconnect), client().websocket_connect("/where"):
        pass
