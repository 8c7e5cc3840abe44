"""A server process for the benchmarks, and what machine they ran on."""

import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import requests

SERVER = Path(__file__).resolve().parent.parent / "run_api.py"
START_SECONDS = 120.0


def machine() -> str:
    """One line: processor, cores, and the versions that speed depends on."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    releases = ", ".join(f"{n} {version(n)}" for n in ("mlflow", "torch", "numpy", "fastapi"))
    return (
        f"{model or platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {releases}"
    )


def environment() -> dict[str, str]:
    """This process's environment without the settings that a developer may have."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("GRPO_", "MLFLOW_"))}


@contextlib.contextmanager
def serving(folder: Path, **given: str) -> Iterator[str]:
    """`python run_api.py` in a folder, without the UI, with the settings given; gives its URL."""
    with started(folder, **given) as (url, _):
        yield url


@contextlib.contextmanager
def started(folder: Path, **given: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """As `serving`; gives the process too, for those that kill it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"GRPO_PORT": str(port), "GRPO_MLFLOW_UI_PORT": "0", "GRPO_LOG_LEVEL": "warning"}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(SERVER)],
            cwd=folder,
            env=environment() | settings | given,
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while not ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text(errors="replace"))
            time.sleep(0.2)
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ready(url: str) -> bool:
    """Whether the server takes jobs."""
    try:
        return requests.get(f"{url}/health/ready", timeout=5).ok
    except requests.RequestException:
        return False
