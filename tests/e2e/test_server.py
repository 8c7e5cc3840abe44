"""The server as a process: the guide's journey, its client and command line, its start and end."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import mlflow.pyfunc
import numpy as np
import psutil
import pytest
import requests
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from grpo_platform.client import ApiError, GRPOClient, ServerNotFoundError
from grpo_platform.demo import GUIDE_STEP_2
from tests.e2e.processes import (
    Server,
    environment,
    failing_start,
    free_port,
    server,
    wait_until_answers,
)
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.rotated(5)]

STEP_2 = GUIDE_STEP_2 | {"seed": 1}
LEANS_RIGHT = [0.1, 0.0, 0.05, 0.0]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Server) -> Iterator[GRPOClient]:
    with GRPOClient(running.url) as found:
        yield found


@pytest.fixture(scope="module")
def trained(client: GRPOClient) -> dict[str, object]:
    """The guide's second step, done."""
    seen: list[float] = []
    accepted = client.start_training(**STEP_2)
    job = client.wait(accepted["job_id"], on_progress=lambda job: seen.append(job["progress"]))
    assert job["status"] == "completed", job["error_message"]
    assert seen == sorted(seen)
    return dict(job)


def test_the_job_tells_what_it_did(trained):
    assert trained["progress"] == 1.0
    assert trained["current_timesteps"] == trained["total_timesteps"] == 5000
    assert trained["model_version"] == 1
    assert trained["promoted"] is True
    assert trained["end_time"] > trained["start_time"]
    assert trained["metrics"]["eval/mean_reward"] > 400


def test_the_model_answers(running, client, trained):
    body = {"model_name": "my_cartpole_model", "observation": LEANS_RIGHT, "deterministic": True}
    reply = requests.post(f"{running.url}/inference", json=body, timeout=30)
    assert set(reply.json()) == {"action", "action_probs", "value", "model_version"}
    assert reply.json()["action"] == 1
    assert sum(reply.json()["action_probs"]) == pytest.approx(1.0)
    left = client.predict("my_cartpole_model/1", [-x for x in LEANS_RIGHT])
    assert left["action"] == 0
    batch = client.predict_batch("my_cartpole_model@champion", [LEANS_RIGHT, [0.0] * 4])
    assert batch["actions"][0] == 1
    assert len(batch["values"]) == len(batch["action_probs"]) == 2


@pytest.mark.parametrize(
    "observation",
    [
        "[1, 2, 3]",
        "[]",
        "[0, 0, 0, 0, 0]",
        "[0, 0, 0, NaN]",
        "[1e400, 0, 0, 0]",
        "[0, 0, 0, -Infinity]",
    ],
)
def test_observations_that_do_not_fit_are_told_the_shape(running, trained, observation):
    for path, field, value in (
        ("/inference", "observation", observation),
        ("/inference/batch", "observations", f"[{observation}]"),
    ):
        content = f'{{"model_name": "my_cartpole_model", "{field}": {value}}}'
        headers = {"Content-Type": "application/json"}
        reply = requests.post(running.url + path, data=content, headers=headers, timeout=30)
        assert reply.status_code == 422, reply.text
        assert "4 finite numbers" in reply.json()["detail"]
        is_short = len(observation.split(",")) != 4  # then the one that is so is named
        item = ".0" if is_short and field == "observations" else ""
        assert reply.json()["errors"][0]["field"] == f"{field}{item}"


def test_the_model_is_listed_with_its_card(client, trained):
    (item,) = [m for m in client.iter_models() if m["name"] == "my_cartpole_model"]
    assert item["status"] == "loaded"
    assert item["champion"] == item["latest_version"] == 1
    card = client.model("my_cartpole_model")["versions"][0]
    assert card["job_id"] == trained["job_id"]
    assert card["seed"] == 1
    assert card["aliases"] == ["champion"]
    figures = card["evaluation"]
    assert figures["ci_low"] <= figures["mean"] <= figures["ci_high"]


def test_histories_and_lists_are_tables(client, trained):
    history = client.history(str(trained["job_id"]), "rollout/reward")
    assert history.index.is_monotonic_increasing
    assert history.index[-1] <= 5000
    assert len(history) > 100
    jobs = client.jobs(status="completed")
    assert trained["job_id"] in set(jobs["job_id"])
    assert "metrics.eval/mean_reward" in jobs.columns
    assert "my_cartpole_model" in set(client.models()["name"])
    assert any("Registered" in line for line in client.logs(str(trained["job_id"])))


def test_events_end_and_can_be_taken_up_again(running, trained):
    url = f"{running.url}/training/{trained['job_id']}/events"
    events = requests.get(url, timeout=30)
    assert events.headers["content-type"].startswith("text/event-stream")
    steps = [int(s) for s in re.findall(r"^id: (\d+)\nevent: metrics$", events.text, re.MULTILINE)]
    assert steps == sorted(set(steps))
    assert events.text.count("event: end") == 1
    assert '"status":"completed"' in events.text.rstrip().splitlines()[-1]
    middle = steps[len(steps) // 2]
    rest = requests.get(url, headers={"Last-Event-ID": str(middle)}, timeout=30).text
    missed = [int(s) for s in re.findall(r"^id: (\d+)\nevent: metrics$", rest, re.MULTILINE)]
    assert missed == [step for step in steps if step > middle]
    assert requests.get(url, headers={"Last-Event-ID": "end-5000"}, timeout=30).status_code == 204


def test_a_running_job_stops_within_two_seconds_and_resumes(client):
    job_id = client.start_training(total_timesteps=10**7, model_name="long")["job_id"]
    until(lambda: client.job(job_id)["current_timesteps"] > 0)
    asked = time.monotonic()
    client.stop(job_id)
    stopped = client.wait(job_id, timeout_seconds=30)
    assert stopped["status"] == "stopped"
    assert time.monotonic() - asked < 4  # 2 s, and what a busy test machine adds
    said = client.resume(job_id)["message"]
    assert f"{stopped['current_timesteps']:,} of 10,000,000 timesteps were done" in said
    assert client.job(job_id)["current_timesteps"] >= stopped["current_timesteps"]
    until(lambda: client.job(job_id)["current_timesteps"] > stopped["current_timesteps"])
    with pytest.raises(ApiError) as error:
        client.delete_job(job_id)
    assert error.value.status == 409
    client.stop(job_id)
    assert client.wait(job_id, timeout_seconds=30)["attempt"] == 2
    client.delete_job(job_id)
    with pytest.raises(ApiError, match="GET /training/jobs"):
        client.job(job_id)


def test_a_model_in_use_is_not_deleted_and_an_unused_one_is(client):
    job = client.train_model("short", timesteps=64, seed=1, n_eval_episodes=1)
    assert job["status"] == "completed", job["error_message"]
    assert client.predict("short", LEANS_RIGHT)["model_version"] == 1
    assert "short" in client.delete_model("short")["message"]
    with pytest.raises(ApiError) as error:
        client.predict("short", LEANS_RIGHT)
    assert error.value.status == 404


@pytest.mark.parametrize("path", ["/models/..%252F..%252Fetc%252Fpasswd", "/models/%2e%2e%252f"])
def test_encoded_tricks_are_refused(running, path):
    """Sent as it is: HTTP libraries would tidy it up."""
    host, _, port = running.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(
            f"DELETE {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        reply = b"".join(iter(lambda: raw.recv(65536), b""))
    assert reply.startswith(b"HTTP/1.1 422")


@pytest.mark.parametrize("request_line", [b"GET /\xff\xfe HTTP/1.1", b"\x00\x01", b"GET / HTTP/9"])
def test_broken_requests_do_not_break_the_server(running, request_line):
    host, _, port = running.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(request_line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        raw.settimeout(10)
        reply = b"".join(iter(lambda: raw.recv(65536), b""))
    assert b" 500 " not in reply.split(b"\r\n")[0]
    assert requests.get(f"{running.url}/health/live", timeout=30).ok


@pytest.mark.parametrize("binary", [True, False])
def test_clients_of_triton_work(running, trained, binary):
    with triton.InferenceServerClient(running.url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("my_cartpole_model", "1")
        assert client.get_model_metadata("my_cartpole_model")["versions"] == ["1"]
        observations = triton.InferInput("observation", [2, 4], "FP32")
        rows = np.array([LEANS_RIGHT, [-x for x in LEANS_RIGHT]], np.float32)
        observations.set_data_from_numpy(rows, binary_data=binary)
        wanted = [triton.InferRequestedOutput("action", binary_data=binary)]
        found = client.infer("my_cartpole_model", [observations], outputs=wanted)
        assert found.as_numpy("action").tolist() == [1, 0]
        with pytest.raises(InferenceServerException, match="No model"):
            client.infer("nothing", [observations])


def command(running: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "grpo_platform", "--url", running.url, *arguments],
        capture_output=True, text=True, timeout=120, cwd=running.folder,
        env=environment(COLUMNS="250"),
    )  # fmt: skip


def test_the_command_line_does_the_journey(running, trained):
    listed = json.loads(command(running, "jobs", "list", "--json").stdout)
    assert trained["job_id"] in [job["job_id"] for job in listed]
    assert "completed" in command(running, "jobs", "list").stdout
    shown = json.loads(command(running, "jobs", "show", str(trained["job_id"]), "--json").stdout)
    assert shown == trained
    assert "Registered" in command(running, "jobs", "logs", str(trained["job_id"])).stdout
    models = json.loads(command(running, "models", "list", "--json").stdout)
    assert "my_cartpole_model" in [model["name"] for model in models]
    assert "champion" in command(running, "models", "show", "my_cartpole_model").stdout
    numbers = [str(number) for number in LEANS_RIGHT]
    answer = json.loads(
        command(running, "predict", "my_cartpole_model", "--json", "--", *numbers).stdout
    )
    assert answer["action"] == 1
    result = command(running, "evaluate", "my_cartpole_model", "--episodes", "5", "--json")
    assert json.loads(result.stdout)["mean"] > 400


@pytest.mark.rotated(9)
def test_a_downloaded_model_is_an_mlflow_model(running, client, trained, tmp_path):
    target = tmp_path / "taken"
    done = command(running, "models", "download", "my_cartpole_model@champion", str(target))
    assert done.returncode == 0, done.stderr
    assert str(target) in done.stdout
    taken = mlflow.pyfunc.load_model(str(target))
    action = taken.predict(np.array([LEANS_RIGHT], np.float32))["action"][0]
    assert action == client.predict("my_cartpole_model", LEANS_RIGHT)["action"]
    again = command(running, "models", "download", "my_cartpole_model", str(target))
    assert again.returncode == 1
    assert "exists already" in again.stderr
    unknown = command(running, "models", "download", "nothing/3", str(tmp_path / "other"))
    assert unknown.returncode == 1
    assert not (tmp_path / "other").exists()


def test_the_command_line_trains_and_says_what_is_wrong(running):
    done = command(
        running, "train", "from_cli", "--timesteps", "64", "--num-cpus", "0.5", "-s",
        "n_eval_episodes=1", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "completed"
    for arguments, said in (
        (("train", "--env", "Nope-v0"), "CartPole-v1"),
        (("train", "--num-gpus", "64"), "jobs run on this machine"),
        (("jobs", "show", "x"), "No training job"),
        (("models", "show", "nothing"), "`grpo-platform models list` lists them"),
        (("train", "-s", "n_steps"), "name=value"),
    ):
        refused = command(running, *arguments)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr


def test_negative_numbers_need_no_dashes(running, trained):
    done = command(running, "predict", "my_cartpole_model", "0", "-1", "-0.1", "0", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model_version"] == trained["model_version"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--url", "nowhere", "jobs", "list"), "http://localhost:8000"),
        (("--url", f"http://127.0.0.1:{free_port()}", "models", "list"), "grpo-platform serve"),
        (("predict", "my_cartpole_model", "nan", "0", "0", "0"), "NaN or infinity"),
        (("models", "promote", "my_cartpole_model", "99"), "my_cartpole_model/99"),
        (("models", "rollback", "my_cartpole_model"), "no earlier champion"),
    ],
)
def test_the_command_line_refuses_in_a_sentence(running, trained, arguments, said):
    refused = command(running, *arguments)
    assert refused.returncode == 1
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_client_without_a_server_says_how_to_start_one():
    with pytest.raises(ServerNotFoundError, match=r"run_api\.py"):
        GRPOClient(f"http://127.0.0.1:{free_port()}").health()


# --- start and end ---------------------------------------------------------------------------


def test_a_busy_port_is_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        failed = failing_start(tmp_path, GRPO_PORT=port)
    assert failed.returncode == 1
    assert port in failed.stderr
    assert "GRPO_PORT" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"GRPO_PORT": "http"}, "GRPO_PORT"),
        ({"GRPO_MAX_CONCURENT_JOBS": "2"}, "did you mean GRPO_MAX_CONCURRENT_JOBS?"),
        ({"GRPO_EXPERIMENT": "7", "GRPO_API_TOKN": "x"}, "did you mean GRPO_API_TOKEN?"),
        (
            {"GRPO_EXPERIMENT": "7", "GRPO_PORT": "0", "MLFLOW_TRACKING_URI": "sqlite:mlflow.db"},
            "There is no setting GRPO_EXPERIMENT; it is ignored",
        ),
        ({"GRPO_HOST": "0.0.0.0"}, "GRPO_API_TOKEN"),
        ({"GRPO_API_TOKEN": "short"}, "32 bytes"),
        ({"GRPO_MAX_TIMESTEPS": "0"}, "GRPO_MAX_TIMESTEPS"),
        ({"GRPO_PORT": "0", "MLFLOW_TRACKING_URI": "mysql://me:SECRET@db"}, "'mysql://db'"),
        ({"GRPO_PORT": "0", "MLFLOW_TRACKING_URI": "mysql://db?password=SECRET"}, "mysql://db"),
        ({"GRPO_PORT": "0", "MLFLOW_TRACKING_URI": "postgresql://me:SECRET@db:x"}, "supported"),
        ({"GRPO_PORT": "0", "MLFLOW_TRACKING_URI": "sqlite:mlflow.db"}, "sqlite:///file"),
        (
            {"GRPO_PORT": "0", "MLFLOW_TRACKING_URI": f"http://me:SECRET@127.0.0.1:{free_port()}"},
            "cannot be reached",
        ),
    ],
)
def test_settings_that_cannot_be_are_explained(tmp_path, settings, said):
    failed = failing_start(tmp_path, **settings)
    assert failed.returncode == 1
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "SECRET" not in failed.stderr


def children_of(running: Server) -> list[psutil.Process]:
    return psutil.Process(running.process.pid).children(recursive=True)


def ui_address(running: Server) -> str:
    url = requests.get(running.url, timeout=30).json()["mlflow_ui"]
    assert url.startswith("http://127.0.0.1:")
    return str(url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_in_order_and_takes_everything_with_it(tmp_path, number):
    with server(tmp_path, ui=True) as running:
        assert running.url in running.log
        assert ui_address(running) in running.log
        left = children_of(running)
        assert left
        running.process.send_signal(number)
        assert running.process.wait(30) == (0 if number == signal.SIGTERM else 130)
        assert "Traceback" not in running.log
        _, alive = psutil.wait_procs(left, timeout=10)
        assert not alive


@pytest.mark.rotated(8)
def test_the_mlflow_ui_is_there_again_when_it_dies_and_ends_with_a_killed_server(tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with server(tmp_path, ui=True, TMPDIR=str(temporary)) as running:
        url = ui_address(running)
        wait_until_answers(url, running)
        closed = "/ajax-api/3.0/mlflow/gateway/secrets/list"
        assert requests.get(url + closed, timeout=30).status_code == 404
        (ui,) = [
            p for p in children_of(running) if "mlflow" in p.cmdline() and "server" in p.cmdline()
        ]
        below = ui.children(recursive=True)
        ui.kill()
        assert psutil.wait_procs(below, timeout=20)[1] == []
        time.sleep(3)
        wait_until_answers(ui_address(running), running)
        left = children_of(running)
        running.process.kill()
        running.process.wait()
        _, alive = psutil.wait_procs(left, timeout=20)
        assert not alive
    assert list(temporary.glob("grpo-mlflow-ui-*")) == []


def test_a_busy_ui_port_moves_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with server(tmp_path, GRPO_MLFLOW_UI_PORT=str(port)) as running:
            assert int(ui_address(running).rpartition(":")[2]) > port


@pytest.mark.rotated(10)
def test_jobs_go_on_after_a_restart(tmp_path):
    with server(tmp_path) as running:
        client = GRPOClient(running.url)
        job_id = client.start_training(total_timesteps=60_000, n_eval_episodes=1)["job_id"]
        while client.job(job_id)["current_timesteps"] == 0:
            time.sleep(0.1)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
    with server(tmp_path) as running:
        job = GRPOClient(running.url).wait(job_id, timeout_seconds=120)
    assert job["status"] == "completed"
    assert job["current_timesteps"] == 60_000
