"""A client that a public generator makes of the schema: it trains, waits, and acts."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, environment, server

pytestmark = [pytest.mark.slow, pytest.mark.rotated(9)]

GENERATOR = ROOT / ".venv/generator/bin"
"""openapi-python-client in an environment of its own, with its own versions; see the Makefile."""

CONTENT = {
    "content_type_overrides": dict.fromkeys(
        ("image/webp", "text/event-stream", "text/markdown", "video/mp4"),
        "application/octet-stream",
    )
}
"""What the generator does not know, and gives as bytes."""

PROGRAM = """
import sys
import time

from grpo_platform_client import Client
from grpo_platform_client.api.catalog import list_rewards
from grpo_platform_client.api.inference import infer
from grpo_platform_client.api.training import get_job, list_jobs, start_training
from grpo_platform_client.models import InferenceRequest, JobStatus, Problem, TrainBody

client = Client(base_url=sys.argv[1], timeout=60)
body = TrainBody(env_name="CartPole-v1", total_timesteps=2000, seed=7, model_name="generated")
accepted = start_training.sync(client=client, body=body)
assert not isinstance(accepted, Problem), accepted
assert accepted.config.seed == 7
deadline = time.monotonic() + 120
while (job := get_job.sync(accepted.job_id, client=client)).status is not JobStatus.COMPLETED:
    assert job.status in (JobStatus.QUEUED, JobStatus.RUNNING), job
    assert time.monotonic() < deadline, job
    time.sleep(0.2)
assert job.metrics["eval/mean_reward"] > 0
assert [one.job_id for one in list_jobs.sync(client=client).jobs] == [job.job_id]
assert "optimized_cartpole" in [one.name for one in list_rewards.sync(client=client).rewards]
asked = InferenceRequest(model_name="generated", observation=[0.1, 0.0, 0.05, 0.0])
answer = infer.sync(client=client, body=asked)
assert answer.action in (0, 1) and len(answer.action_probs) == 2
unknown = get_job.sync("0" * 32, client=client)
assert isinstance(unknown, Problem) and unknown.status == 404
print("acts:", answer.action)
"""


def test_a_generated_client_trains_waits_and_acts(tmp_path: Path) -> None:
    assert GENERATOR.exists(), "`rm .venv/.installed-dev` and `make test` install the generator"
    path = f"{GENERATOR}{os.pathsep}{os.environ['PATH']}"  # its formatter is found there
    (tmp_path / "config.json").write_text(json.dumps(CONTENT))
    with server(tmp_path) as running:
        made = subprocess.run(
            [GENERATOR / "openapi-python-client", "generate", "--url",
             f"{running.url}/openapi.json", "--meta", "none", "--output-path",
             tmp_path / "grpo_platform_client", "--fail-on-warning",
             "--config", tmp_path / "config.json"],
            capture_output=True, text=True, env=environment(PATH=path), timeout=250, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        done = subprocess.run(
            [GENERATOR / "python", "-c", PROGRAM, running.url],
            cwd=tmp_path, capture_output=True, text=True, env=environment(PATH=path), timeout=250,
            check=False,
        )  # fmt: skip
    assert done.stdout.startswith("acts:"), done.stdout + done.stderr
