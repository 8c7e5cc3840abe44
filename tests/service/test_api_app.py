"""The whole application over a real, empty store: what it is, refuses, documents and guards."""

import dataclasses
import json
import re
import time

import gymnasium
import pytest
from starlette.routing import compile_path

from grpo_platform.api.middleware import is_open
from grpo_platform.core.settings import Settings
from grpo_platform.jobs.local import LocalBackend
from grpo_platform.jobs.runner import Runner
from grpo_platform.tracking.store import prepare_store
from tests.service.api_support import all_routes, client_of, services_in

TOKEN = "k" * 40
JOB = "0" * 32
CONTRACT = {
    "GET /", "GET /health", "POST /train", "GET /training/{job_id}/status", "GET /training/jobs",
    "POST /training/{job_id}/stop", "POST /inference", "GET /models", "DELETE /models/{name}",
    "POST /inference/batch", "GET /training/{job_id}/metrics", "GET /training/{job_id}/events",
    "GET /training/{job_id}/logs", "POST /training/{job_id}/resume", "DELETE /training/{job_id}",
    "GET /models/{name}", "POST /models/{name}/promote", "POST /models/{name}/rollback",
    "GET /environments", "GET /rewards", "GET /health/live", "GET /health/ready", "GET /metrics",
}  # fmt: skip


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with services_in(tmp_path_factory.mktemp("store")) as services:
        yield services


@pytest.fixture(scope="module")
def client(services):
    return client_of(services)


@pytest.fixture(scope="module")
def schema(client):
    return client.get("/openapi.json").json()


def test_welcome(client):
    reply = client.get("/").json()
    assert set(reply) == {"message", "version", "endpoints", "mlflow_ui", "mlflow_links"}
    assert set(reply["endpoints"]) >= CONTRACT
    assert reply["mlflow_ui"] is reply["mlflow_links"] is None


def test_health_and_probes(client):
    reply = client.get("/health").json()
    assert set(reply) == {"status", "timestamp", "active_jobs", "loaded_models"}
    assert (reply["status"], reply["active_jobs"], reply["loaded_models"]) == ("healthy", 0, 0)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", reply["timestamp"])
    assert client.get("/health/live").json() == {"status": "live"}
    # the runner was not started: jobs are not taken
    ready = client.get("/health/ready")
    assert ready.status_code == 503
    assert ready.headers["Retry-After"]


def test_empty_lists(client):
    assert client.get("/training/jobs").json() == {"jobs": [], "next_page_token": None}
    assert client.get("/models").json() == {"models": [], "next_page_token": None}
    rewards = [r["name"] for r in client.get("/rewards").json()["rewards"]]
    assert {"environment", "optimized_cartpole", "simple_cartpole"} <= set(rewards)


def environments(client, **query):
    """All pages of the list, once everything in it was tried."""
    found, token = {}, None
    while True:
        follows = {} if token is None else {"page_token": token}
        reply = client.get("/environments", params={**query, **follows, "limit": 7})
        assert reply.status_code == 200, reply.text
        page = reply.json()
        assert len(page["environments"]) <= 7
        if any(record["trainable"] is None for record in page["environments"]):
            time.sleep(0.1)
            continue
        found |= {record["env_name"]: record for record in page["environments"]}
        if (token := page["next_page_token"]) is None:
            return found


@pytest.mark.rotated(10)
def test_the_list_of_environments_has_what_a_job_may_name_and_why_others_may_not(client):
    yes, no = environments(client), environments(client, trainable=False)
    assert set(yes) | set(no) == set(gymnasium.registry)
    assert not set(yes) & set(no)
    assert yes["CartPole-v1"]["reason"] is None
    assert yes["CartPole-v1"]["preset"] == {"reward_function_type": "optimized_cartpole"}
    assert {"Taxi-v4", "CarRacing-v3", "Blackjack-v1"} <= set(yes)
    taxi, racing = yes["Taxi-v4"], yes["CarRacing-v3"]
    assert taxi["observation_space"] == "Discrete(500)"
    assert taxi["action_space"] == "Discrete(6), masked"
    assert (taxi["policy"], racing["policy"]) == ("MlpPolicy", "CnnPolicy")
    assert racing["observation_space"] == "Box(0, 255, (96, 96, 3), uint8)"
    assert no["HalfCheetah-v3"]["observation_space"] is None
    assert "gymnasium-robotics" in no["HalfCheetah-v3"]["reason"]
    for name in ("phys2d/CartPole-v0", "HalfCheetah-v3"):
        refused = client.post("/train", json={"env_name": name})
        assert (refused.status_code, refused.json()["detail"]) == (400, no[name]["reason"])
    assert set(environments(client, name="lunar")) == {
        "LunarLander-v3", "LunarLanderContinuous-v3",
    }  # fmt: skip
    assert environments(client, name="nothing of that name") == {}
    for query in ({"page_token": "x"}, {"limit": 0}, {"trainable": "perhaps"}):
        assert client.get("/environments", params=query).status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/training/{JOB}/status", 404),
        ("GET", f"/training/{JOB}/metrics", 404),
        ("GET", f"/training/{JOB}/events", 404),
        ("GET", f"/training/{JOB}/logs", 404),
        ("POST", f"/training/{JOB}/stop", 404),
        ("POST", f"/training/{JOB}/resume", 404),
        ("DELETE", f"/training/{JOB}", 404),
        ("GET", "/training/not-an-id/status", 404),
        ("GET", "/training/%00/status", 404),
        ("GET", "/training/%FF/status", 404),
        ("GET", "/training/..%2f..%2fetc%2fpasswd/status", 404),
        ("GET", "/training/..%252f..%252fetc%252fpasswd/status", 404),
        ("GET", "/training/'%20OR%201=1/status", 404),
        ("GET", "/training/jobs?limit=0", 422),
        ("GET", "/training/jobs?limit=1001", 422),
        ("GET", "/training/jobs?limit=ten", 422),
        ("GET", "/training/jobs?limit=1e2", 422),
        ("GET", "/training/jobs?status=done", 422),
        ("GET", "/training/jobs?page_token=x", 422),
        ("GET", "/training/jobs?page_token=" + "A" * 2000, 422),
        ("GET", "/models?limit=-1", 422),
        ("GET", "/models?limit=1&limt=1", 422),
        ("GET", "/training/jobs?stauts=running", 422),
        ("POST", "/train?seed=1", 422),
        ("GET", "/models?page_token=%00", 422),
        ("GET", "/models/nothing", 404),
        ("DELETE", "/models/nothing", 404),
        ("DELETE", "/models/..%2f..%2fetc", 404),
        ("DELETE", "/models/a%0a", 422),
        ("DELETE", "/models/" + "a" * 129, 422),
        ("DELETE", "/models/", 405),
        ("DELETE", "/models/nothing/", 404),
        ("DELETE", "/models/nothing%2F", 404),
        ("POST", "/models/nothing/rollback", 404),
        ("PUT", "/train", 405),
        ("GET", "/train", 405),
        ("OPTIONS", "/nowhere", 404),
        ("GET", "/health//", 404),
        ("GET", "/static/%00", 404),
        ("GET", "/static/..%2fapp.py", 404),
        ("GET", "/static/" + "a" * 4000, 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
    ],
)
def test_refusals(client, method, path, status):
    reply = client.request(method, path, follow_redirects=False)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert isinstance(reply.json()["detail"], str)
    assert reply.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"env_name": "Nope-v0"}, 400, "env_name"),
        ({"env_name": "os:system"}, 400, "env_name"),
        ({"env_name": "../../etc/passwd"}, 400, "env_name"),
        ({"env_name": "\x00"}, 400, "env_name"),
        ({"env_name": "HalfCheetah-v3"}, 400, "env_name"),
        ({"wrappers": ["RecordVideo"]}, 400, "wrappers"),
        ({"wrappers": [{"name": "TimeLimit"}]}, 400, "wrappers"),
        ({"wrappers": [], "env_kwargs": {"wrappers": []}}, 422, "wrappers"),
        ({"reward_function_type": "nope"}, 400, "reward_function_type"),
        ({"reward_function_type": "os:system"}, 400, "reward_function_type"),
        ({"env_name": "Acrobot-v1", "reward_function_type": "simple_cartpole"}, 400,
         "reward_function_type"),
        ({"advantage": "nope"}, 400, "advantage"),
        ({"target_return": 10.0}, 400, "target_return"),
        ({"init_from": "nothing"}, 404, None),
        ({"env_kwargs": {"no_such_argument": 1}}, 400, None),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_said_at_once(client, body, status, field):
    reply = client.post("/train", json=body)
    assert reply.status_code == status, reply.text
    if field is not None:
        assert reply.json()["errors"][0]["field"] == field


def test_unknown_names_come_with_those_that_exist(client):
    assert "CartPole-v1" in client.post("/train", json={"env_name": "Nope-v0"}).json()["detail"]


def test_misspelled_parameters_and_metrics_are_told_the_nearest(client):
    """They gave everything, or nothing, and 200."""
    problem = client.get("/training/jobs?stauts=running").json()
    assert "Did you mean 'status'?" in problem["detail"]
    assert problem["errors"][0]["field"] == "stauts"
    job_id = client.post("/train", json={"total_timesteps": 64}).json()["job_id"]
    url = f"/training/{job_id}/metrics"
    unknown = client.get(url, params={"key": "eval/mean_rewrd"})
    assert unknown.status_code == 400
    assert "Did you mean 'eval/mean_reward'?" in unknown.json()["detail"]
    assert unknown.json()["errors"][0]["field"] == "key"
    for key in ("eval/mean_reward", "system/cpu_utilization_percentage"):  # nothing yet
        assert client.get(url, params={"key": key}).json()["points"] == []
    client.post(f"/training/{job_id}/stop")


def test_the_ceiling_of_the_server(services):
    small = dataclasses.replace(services, settings=Settings(mlflow_ui_port=0, max_timesteps=500))
    client = client_of(small)
    reply = client.post("/train", json={"total_timesteps": 501})
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["field"] == "total_timesteps"
    assert "500" in reply.json()["detail"]
    # a budget that was left out follows the ceiling
    config = client.post("/train", json={"seed": 1}).json()["config"]
    assert (config["total_timesteps"], config["seed"]) == (500, 1)


def test_a_queued_job_is_shown_and_stops_at_once(client):
    accepted = client.post("/train", json={"model_name": "later", "env_name": "Acrobot-v1"}).json()
    assert set(accepted) == {"job_id", "message", "config"}
    assert accepted["message"] == "Training started"
    assert 0 <= accepted["config"]["seed"] < 2**32
    assert accepted["config"]["reward_function_type"] == "environment"
    url = f"/training/{accepted['job_id']}"
    status = client.get(f"{url}/status").json()
    assert set(status) >= {
        "job_id", "status", "progress", "current_timesteps", "total_timesteps", "start_time",
        "end_time", "error_message", "metrics", "model_name", "model_version", "promoted",
        "eta_seconds", "attempt",
    }  # fmt: skip
    assert (status["status"], status["progress"], status["end_time"]) == ("queued", 0.0, None)
    assert client.get("/training/jobs?limit=1").json()["jobs"] == [status]
    assert client.get("/health").json()["active_jobs"] >= 1
    # the name belongs to the environment of the job that waits, and cannot be deleted
    assert client.post("/train", json={"model_name": "later"}).status_code == 409
    assert client.delete("/models/later").status_code in (404, 409)
    assert client.delete(url).status_code == 409
    assert client.post(f"{url}/resume").status_code == 409
    assert client.post(f"{url}/stop").json()["job_id"] == accepted["job_id"]
    stopped = client.get(f"{url}/status").json()
    assert stopped["status"] == "stopped"
    assert stopped["end_time"] is not None
    assert client.post(f"{url}/stop").status_code == 409
    events = client.get(f"{url}/events").text
    assert events.count("event: end") == 1
    end = re.search(r"id: (end-\S+)", events)[1]
    assert client.get(f"{url}/events", headers={"Last-Event-ID": end}).status_code == 204
    assert client.delete(url).status_code == 200
    assert client.get(f"{url}/status").status_code == 404


def test_an_idempotency_key_makes_one_job(client):
    key = {"Idempotency-Key": "once"}
    first = client.post("/train", json={"total_timesteps": 64}, headers=key).json()
    again = client.post("/train", json={"total_timesteps": 64}, headers=key).json()
    assert again == first
    other = client.post("/train", json={"total_timesteps": 65}, headers=key)
    assert other.status_code == 422
    assert client.post("/train", json={}, headers={"Idempotency-Key": "a b"}).status_code == 422
    client.post(f"/training/{first['job_id']}/stop")


def test_a_full_queue_is_429(services):
    settings = Settings(mlflow_ui_port=0, max_queued_jobs=0, max_concurrent_jobs=1)
    jobs = Runner(services.store, LocalBackend(prepare_store(settings)), settings)
    full = client_of(dataclasses.replace(services, settings=settings, jobs=jobs))
    first = full.post("/train", json={})
    assert first.status_code == 200
    reply = full.post("/train", json={})
    assert reply.status_code == 429
    assert int(reply.headers["Retry-After"]) > 0
    full.post(f"/training/{first.json()['job_id']}/stop")


@pytest.mark.parametrize("path", ["/inference", "/inference/batch"])
def test_inference_of_a_model_that_does_not_exist(client, path):
    observations = {"observation": [0.0]} if path == "/inference" else {"observations": [[0.0]]}
    for name, status in (
        ("nothing", 404), ("nothing@champion", 404), ("nothing/7", 404), ("../x", 422), ("", 422),
        ("nothing/0", 422), ("nothing/-1", 422), ("nothing@", 422), ("models:/x/1", 422),
    ):  # fmt: skip
        assert client.post(path, json={"model_name": name} | observations).status_code == status


def test_every_route_but_probes_and_documentation_needs_the_token(services):
    settings = Settings(mlflow_ui_port=0, api_token=TOKEN)
    guarded = client_of(services, settings)
    routes = all_routes(guarded.app)
    assert len(routes) > len(CONTRACT)
    for method, path in routes:
        concrete = re.sub(r"\{[^}]*\}", "x", path)
        reply = guarded.request(method, concrete)
        assert (reply.status_code == 401) == (not is_open(path)), (method, path)
    allowed = guarded.get("/environments", headers={"Authorization": f"Bearer {TOKEN}"})
    assert allowed.status_code == 200
    security = guarded.get("/openapi.json").json()["security"]
    assert security == [{"bearer": []}, {"api_key": []}]


@pytest.mark.rotated(10)
def test_every_path_answers_head_where_it_answers_get_and_names_its_methods(client):
    routes = all_routes(client.app)
    for path in sorted({re.sub(r"\{[^}]*\}", "x", path) for _, path in routes}):
        methods = {m for m, template in routes if compile_path(template)[0].match(path)}
        methods |= {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        allowed = ", ".join(sorted(methods))
        told = client.options(path)
        assert (told.status_code, told.headers["Allow"]) == (204, allowed), path
        refused = client.request("PROPFIND", path)
        assert (refused.status_code, refused.headers["Allow"]) == (405, allowed), path
        assert allowed in refused.json()["detail"]
        if "GET" in methods:
            asked, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (asked.status_code, b""), path
            assert head.headers["Content-Type"] == asked.headers["Content-Type"]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("text/plain;version=\u00e9", "text/plain"),
        ("application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.5", "application/openm"),
        ("application/openmetrics-text;version=a\\b", "application/openmetrics-text"),
    ],
)
def test_metrics_are_open_metrics_for_who_reads_them(client, accept, media_type):
    reply = client.get("/metrics", headers={"Accept": accept.encode("latin-1")})
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith(media_type)
    assert ("# EOF" in reply.text) == media_type.startswith("application")


def test_origins_are_closed_unless_listed(services, client):
    preflight = {"Origin": "http://app.test", "Access-Control-Request-Method": "POST"}
    assert client.options("/train", headers=preflight).status_code == 403
    settings = Settings(mlflow_ui_port=0, cors_origins="http://app.test", api_token=TOKEN)
    listed = client_of(services, settings)
    reply = listed.options("/train", headers=preflight)
    assert reply.headers["Access-Control-Allow-Origin"] == "http://app.test"
    reply = listed.get("/models", headers={"Origin": "http://app.test", "X-API-Key": TOKEN})
    assert reply.headers["Access-Control-Allow-Origin"] == "http://app.test"
    foreign = listed.options("/train", headers=preflight | {"Origin": "http://evil.test"})
    assert "Access-Control-Allow-Origin" not in foreign.headers


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_documentation_loads_nothing_from_elsewhere(client, page):
    reply = client.get(page)
    assert reply.status_code == 200
    assert "http://" not in reply.text
    assert "https://" not in reply.text
    assert "default-src 'self'" in reply.headers["Content-Security-Policy"]
    loaded = re.findall(r'(?:src|href|from)[= ]"([^"]+)"', reply.text)
    assert loaded
    for url in loaded:
        assert url.startswith("/static/")
        assert client.get(url).status_code == 200


def test_documented_calls_are_the_contracts(schema):
    documented = {
        f"{method.upper()} {path}"
        for path, operations in schema["paths"].items()
        for method in operations
    }
    assert documented >= CONTRACT


def test_operations_are_named_and_described(schema):
    ids = []
    for operations in schema["paths"].values():
        for operation in operations.values():
            ids.append(operation["operationId"])
            assert operation["tags"]
            assert operation["description"]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) for name in ids)


def test_errors_are_documented_as_what_they_are(schema):
    text = json.dumps(schema)
    assert "HTTPValidationError" not in text
    for operations in schema["paths"].values():
        for operation in operations.values():
            assert {"401", "403"} <= set(operation["responses"])
            if "requestBody" in operation:
                assert {"413", "415", "422"} <= set(operation["responses"])
            for status, reply in operation["responses"].items():
                if status >= "400":
                    assert list(reply["content"]) == ["application/problem+json"]


def test_metrics_are_text_for_prometheus(client):
    reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    assert "grpo_http_requests_total" in reply.text
    assert 'grpo_training_jobs{status="running"} 0.0' in reply.text
    assert re.search(r"^grpo_model_cache_misses_total \d", reply.text, re.MULTILINE)
    assert "# TYPE grpo_model_load_seconds_total counter" in reply.text
