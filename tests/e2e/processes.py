"""Real processes for the end-to-end tests: a server, a guide's code, `mlflow run`."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.databases import put_database

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0


@dataclass(frozen=True)
class Server:
    """A running server and where it is."""

    process: subprocess.Popen[bytes]
    url: str
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without settings that a developer may have, and with `extra`."""
    short_films = {"GRPO_VIDEO_FRAMES": os.environ["GRPO_VIDEO_FRAMES"]}  # see tests/conftest.py
    others = ("GRPO_", "MLFLOW_", "OMP_", "OPENBLAS_", "MKL_")
    ours = {k: v for k, v in os.environ.items() if not k.startswith(others)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{ours.get('PATH', '')}"
    return ours | {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"} | short_films | extra


@contextlib.contextmanager
def server(
    folder: Path,
    *,
    port: int | None = None,
    ui: bool = False,
    prefix: Sequence[str] = (),
    command: Sequence[str | Path] = (sys.executable, ROOT / "run_api.py"),
    **settings_given: str,
) -> Iterator[Server]:
    """`python run_api.py`, started in `folder` and ended in order; `prefix` goes before it."""
    if "MLFLOW_TRACKING_URI" not in settings_given:
        put_database(folder / "mlflow.db", (folder / "mlruns").as_uri())
    port = free_port() if port is None else port
    ports = {"GRPO_PORT": str(port), "GRPO_MLFLOW_UI_PORT": str(free_port() if ui else 0)}
    settings = environment(**ports | settings_given)
    with (folder / "server.log").open("wb") as output:
        process = subprocess.Popen(
            [*prefix, *command],
            cwd=folder, env=settings, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        running = Server(process, f"http://127.0.0.1:{port}", folder)
        try:
            wait_until_answers(f"{running.url}/health/ready", running)
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def failing_start(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    return subprocess.run(
        [sys.executable, str(ROOT / "run_api.py")],
        cwd=folder, env=environment(**settings), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def wait_until_answers(url: str, running: Server) -> None:
    """Wait until an address of the server, or of a child of it, answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert running.process.poll() is None, running.log
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(url, timeout=START_SECONDS).ok:
                return
        time.sleep(0.1)
    raise TimeoutError(running.log)


def train(running: Server, **request: object) -> dict[str, object]:
    """Train to the end over HTTP; returns the job's last status."""
    reply = requests.post(f"{running.url}/train", json=request, timeout=30)
    assert reply.ok, reply.text
    while True:
        status = requests.get(
            f"{running.url}/training/{reply.json()['job_id']}/status", timeout=30
        ).json()
        if status["status"] in ("completed", "failed", "stopped"):
            return dict(status)
        time.sleep(0.2)
