"""The server as HTTP clients meet it: connections that idle, methods, watchers, examples."""

import contextlib
import socket
import statistics
import time
from collections.abc import Iterator

import pytest
import requests

from grpo_platform.api.middleware import LATER_SECONDS
from grpo_platform.client import GRPOClient
from tests.e2e.processes import Server, server

pytestmark = pytest.mark.slow

KEEP_ALIVE_SECONDS = 1


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"GRPO_KEEP_ALIVE_SECONDS": str(KEEP_ALIVE_SECONDS)}
    with server(tmp_path_factory.mktemp("http"), **settings) as found:
        yield found


def connected(running: Server) -> socket.socket:
    host, _, port = running.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


# --- idle connections --------------------------------------------------------------------------

LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.rotated(4)
def test_a_session_that_polls_as_often_as_idle_connections_end_meets_no_reset(running):
    with requests.Session() as session:
        for _ in range(4):
            reply = session.get(f"{running.url}/health/live", timeout=30)
            assert reply.headers["Keep-Alive"] == f"timeout={KEEP_ALIVE_SECONDS}"
            time.sleep(KEEP_ALIVE_SECONDS)


@pytest.mark.rotated(3)
def test_an_idle_connection_ends_after_it_was_told_to_and_a_request_that_crosses_meets_no_reset(
    running,
):
    with connected(running) as client:
        client.sendall(LIVE)
        answer = b""
        while not answer.endswith(b'{"status":"live"}'):  # head and body may come apart
            answer += client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")
        answered = time.monotonic()
        assert client.recv(65536) == b""  # the server's half-close
        idle = time.monotonic() - answered
        assert KEEP_ALIVE_SECONDS + LATER_SECONDS - 0.1 < idle < 20
        for _ in range(3):  # sent before the client noticed
            client.sendall(LIVE)
            time.sleep(0.1)
            assert client.recv(65536) == b""


# --- methods -----------------------------------------------------------------------------------


def test_head_of_a_stream_ends_and_keeps_the_connection(running):
    body = {"total_timesteps": 10**7, "model_name": "asked_by_head"}
    job_id = requests.post(f"{running.url}/train", json=body, timeout=30).json()["job_id"]
    with requests.Session() as session:
        for path in (f"/training/{job_id}/events", "/health", "/", "/metrics", "/health/ready"):
            reply = session.head(running.url + path, timeout=30)
            assert (reply.status_code, reply.content) == (200, b""), path
        assert session.get(f"{running.url}/health/live/", timeout=30).json() == {"status": "live"}
    requests.post(f"{running.url}/training/{job_id}/stop", timeout=30)


@pytest.mark.parametrize("target", [b"*", b"/train", b"http://localhost/train"])
def test_options_of_anything_are_answered(running, target):
    with connected(running) as client:
        client.sendall(b"OPTIONS %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
        answer = client.recv(65536).split(b"\r\n")
        assert answer[0].split()[1] in (b"204", b"400", b"404"), answer
        assert b"500" not in answer[0]


# --- examples ----------------------------------------------------------------------------------

IN_ORDER = (
    # each goes on from where the ones before it came to; a word after it is what is waited for, or
    # what is answered, in a sentence, where nothing failed or runs any more
    "get_failures", "failure_to_scenario", "get_film", "get_failure_film",
    "get_welcome", "get_health", "get_live", "get_ready", "list_environments", "list_rewards",
    "get_environment_picture 202",
    "start_training completed", "start_training completed",
    "get_job", "get_job_config", "list_jobs", "get_metric_history", "get_job_logs", "watch_job",
    "get_metrics",
    "infer", "infer_batch", "list_models", "get_model", "download_version", "promote_model",
    "rollback_model", "play", "get_play", "steer_play", "explain_play", "keep_play", "film_play",
    "end_play",
    "put_scenarios", "get_scenarios", "run_scenarios", "get_scenario_results", "delete_scenarios",
    "start_comparison", "get_comparison", "get_comparison_report", "list_comparisons",
    "delete_comparison",
    "v2_server_metadata", "v2_live", "v2_ready", "v2_model_metadata", "v2_version_metadata",
    "v2_model_ready", "v2_version_ready", "v2_infer", "v2_version_infer",
    "list_served", "get_served",
    "start_training", "stop_job stopped", "resume_job", "stop_job stopped", "delete_job",
    "list_experiments", "get_experiment", "get_experiment_history", "retry_experiment 409",
    "stop_experiment 409", "resume_experiment 409", "delete_experiment",
    "start_sweep", "get_sweep", "list_sweeps", "stop_sweep stopped", "resume_sweep completed",
    "delete_model",
)  # fmt: skip


class Examples:
    """Sends what the schema gives as examples, with ids from the replies that it links."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.schema = requests.get(f"{url}/openapi.json", timeout=30).json()
        self.operations = {
            operation["operationId"]: (method, path, operation)
            for path, operations in self.schema["paths"].items()
            for method, operation in operations.items()
        }
        self.ids: dict[str, str] = {}

    def run(self, name: str) -> requests.Response:
        method, path, operation = self.operations[name]
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                examples = parameter["schema"].get("examples")
                if method == "delete" and examples == ["latest"]:  # refused: say which
                    examples = None
                value = examples[0] if examples else self.linked(parameter["name"], name)
                path = path.replace(f"{{{parameter['name']}}}", str(value))
            else:  # what Swagger's form sends without a word from its user
                assert not parameter["required"]
        body = None
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]["schema"]
            schema = self.schema["components"]["schemas"][content["$ref"].rpartition("/")[2]]
            body = schema["examples"][0]
        reply = requests.request(method, self.url + path, json=body, timeout=120)
        if links := operation["responses"]["200"].get("links"):
            for link in links.values():
                for parameter, pointer in link["parameters"].items():
                    field = pointer.removeprefix("$response.body#/")
                    if field in reply.json():  # POST /train gives a job, or an experiment
                        self.ids[link["operationId"] + parameter] = reply.json()[field]
        return reply

    def linked(self, parameter: str, operation: str) -> str:
        return self.ids[operation + parameter]

    def wait(self, status: str) -> None:
        reader = "get_sweep" if self.last.endswith("_sweep") else "get_job"
        deadline = time.monotonic() + 120
        while (found := self.run(reader).json())["status"] != status:
            assert time.monotonic() < deadline, found
            assert found["status"] != "failed", found
            time.sleep(0.2)

    last = ""


def an_experiment_and_a_job_that_fails(running: Server) -> dict[str, str]:
    """What no example of a first call gives: their ids, by the operations that take them."""
    client = GRPOClient(running.url)
    experiment = client.start_experiment(2, total_timesteps=64, model_name="two_seeds")
    job = client.train_model("fails", timesteps=64, learning_rate=1e-7, seed=1)
    client.wait_for_experiment(experiment["experiment_id"])
    deadline = time.monotonic() + 60
    while not client.failures(job["job_id"])["failures"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    of_experiment = ("get_experiment", "get_experiment_history", "stop_experiment",
                     "resume_experiment", "retry_experiment", "delete_experiment")  # fmt: skip
    of_job = ("get_failures", "failure_to_scenario", "get_film", "get_failure_film")
    ids = {f"{name}experiment_id": experiment["experiment_id"] for name in of_experiment}
    return ids | {f"{name}job_id": job["job_id"] for name in of_job}


def test_every_operation_has_an_example_that_runs(running):
    examples = Examples(running.url)
    examples.ids |= an_experiment_and_a_job_that_fails(running)
    assert {line.partition(" ")[0] for line in IN_ORDER} == examples.operations.keys()
    for line in IN_ORDER:
        examples.last, _, status = line.partition(" ")
        reply = examples.run(examples.last)
        expected = int(status) if status.isdecimal() else 200
        assert reply.status_code == expected, f"{line}: {reply.text}"
        if status and not status.isdecimal():
            examples.wait(status)


# --- watchers ----------------------------------------------------------------------------------

WATCHERS = 500


@pytest.mark.rotated(4)
def test_many_watchers_of_a_job_do_not_hold_up_other_calls(running):
    """Each used to poll for itself: 500 made `/health/ready` take 1.6 s, 1,000 took 6 s."""
    body = {"total_timesteps": 10**7, "model_name": "watched"}
    job_id = requests.post(f"{running.url}/train", json=body, timeout=30).json()["job_id"]
    with contextlib.ExitStack() as stack:
        watchers = [stack.enter_context(connected(running)) for _ in range(WATCHERS)]
        for watcher in watchers:
            watcher.sendall(
                f"GET /training/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
        for watcher in watchers:
            text = b""
            while b"event: progress" not in text:
                text += watcher.recv(65536)
        waited = []
        for _ in range(20):
            asked = time.monotonic()
            assert requests.get(f"{running.url}/health/ready", timeout=30).ok
            waited.append(time.monotonic() - asked)
        requests.post(f"{running.url}/training/{job_id}/stop", timeout=30)
        for watcher in watchers:
            text = b""
            while b"event: end" not in text:
                text += watcher.recv(65536)
    assert statistics.median(waited) < 0.3  # on a busy machine; 0.01 on a quiet one
