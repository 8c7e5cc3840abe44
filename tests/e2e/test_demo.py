"""`make demo`, as a person sees it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.processes import environment, free_port

DEMO = [sys.executable, "-m", "grpo_platform.demo"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480), pytest.mark.rotated(11)]


def ports() -> dict[str, str]:
    return {"GRPO_PORT": str(free_port()), "GRPO_MLFLOW_UI_PORT": str(free_port())}


def test_it_trains_evaluates_and_asks(tmp_path: Path) -> None:
    chosen = ports()
    done = subprocess.run(
        DEMO, cwd=tmp_path, capture_output=True, text=True, timeout=440, check=False,
        env=environment(DEMO_EXIT="1", COLUMNS="120", PYTHONIOENCODING="ascii", **chosen),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    mean = re.search(r"\|\s+(\d+\.\d) \|\s+\d+\.\d to \d+\.\d \| my_cartpole_model", done.stdout)
    assert mean, done.stdout
    assert float(mean[1]) >= 450
    assert "Observation [0.1, 0.0, 0.05, 0.0]: action 1 (right)" in done.stdout
    assert f"http://127.0.0.1:{chosen['GRPO_PORT']}/docs" in done.stdout
    assert re.search(
        rf"http://127.0.0.1:{chosen['GRPO_MLFLOW_UI_PORT']}/#/experiments/\d+/runs/[0-9a-f]{{32}}"
        r"\?workflowType=machine_learning",
        done.stdout,
    )
    assert re.search(rf":{chosen['GRPO_PORT']}/app/jobs/[0-9a-f]{{32}}", done.stdout)
    assert (tmp_path / "mlflow.db").exists()


def test_a_busy_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = subprocess.run(
            DEMO, cwd=tmp_path, env=environment(GRPO_PORT=str(port), COLUMNS="200"),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"Port {port} is in use." in done.stdout
    assert f"GRPO_PORT={port + 1} make demo" in done.stdout
    assert not (tmp_path / "mlflow.db").exists()


def test_a_setting_that_cannot_be_is_told_as_by_the_server(tmp_path: Path) -> None:
    done = subprocess.run(
        DEMO, cwd=tmp_path, env=environment(GRPO_PORT="abc", COLUMNS="200"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.startswith("GRPO_PORT: Input should be a valid integer")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_however_it_ends_it_leaves_no_process(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with (tmp_path / "output").open("wb") as output:
        demo = subprocess.Popen(
            DEMO, cwd=tmp_path, env=environment(COLUMNS="120", **ports()), stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(tmp_path / "output", "Ctrl-C stops it", demo)
            family = psutil.Process(demo.pid).children(recursive=True)
            assert len(family) > 2, "the server, its forkserver, the MLflow UI"
            os.killpg(demo.pid, number)
            assert demo.wait(60) == code
        finally:
            demo.kill()
    printed = (tmp_path / "output").read_text()
    assert printed.rstrip().endswith("Stopped.") == (number == signal.SIGINT)
    assert "Traceback" not in printed
    _, alive = psutil.wait_procs(family, timeout=15)
    assert alive == []


def wait_for(path: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    while text not in path.read_text():
        assert process.poll() is None, path.read_text()
        time.sleep(0.2)
