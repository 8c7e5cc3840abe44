"""`make demo`: the guide's journey in one command, against a real server on its own ports."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from grpo_platform.client import ApiError, GRPOClient, Job, TrainFields
from grpo_platform.core.messages import escape_unprintable
from grpo_platform.core.settings import Settings, in_sentences

__all__ = ["GUIDE_STEP_2", "OBSERVATION", "DemoError", "main"]

GUIDE_STEP_2: Final[TrainFields] = {
    "env_name": "CartPole-v1",
    "total_timesteps": 5000,
    "learning_rate": 3e-4,
    "n_steps": 32,
    "batch_size": 64,
    "n_epochs": 10,
    "reward_function_type": "optimized_cartpole",
    "model_name": "my_cartpole_model",
}
"""What the users' guide trains in its second step."""

_SERVE: Final = """
import signal, sys
from grpo_platform.core.process import die_with_parent
from grpo_platform.server import main
die_with_parent(int(sys.argv[1]), signal.SIGTERM)
main()
"""
"""Serves no longer than the demo lives, however that ends."""

OBSERVATION: Final = [0.1, 0.0, 0.05, 0.0]
"""Cart position, cart velocity, pole angle, pole velocity: the pole leans to the right."""

_START_SECONDS: Final = 300.0
"""Of a start at which nothing is compiled yet, on a machine that others use."""
_STOP_SECONDS: Final = 30.0


class DemoError(Exception):
    """The demo cannot go on; the message says what to do."""


def main() -> int:
    """Run the demo; `DEMO_EXIT=1` ends it after the inference. Returns the exit code."""
    escape_unprintable()
    console = Console()
    try:
        settings = Settings()
        with _server(settings) as server:
            demo = _Demo(settings, server, console)
            demo.run()
            if os.environ.get("DEMO_EXIT") != "1":
                console.print("\nThe server stays up. [bold]Ctrl-C[/bold] stops it.")
                server.wait()
                raise DemoError(
                    "The server has ended. What it stored is kept: `make serve` starts it again."
                )
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 0
    except ValidationError as error:
        console.print(
            in_sentences(error), style="red", highlight=False, markup=False, soft_wrap=True
        )
        return 1
    except (ApiError, ConnectionError, DemoError, TimeoutError, ValueError) as error:
        console.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        return 1
    return 0


class _Demo:
    """The steps, in order."""

    def __init__(
        self, settings: Settings, server: subprocess.Popen[bytes], console: Console
    ) -> None:
        self._url = f"http://{settings.host}:{settings.port}"
        self._client = GRPOClient(self._url, token=settings.api_token)
        self._server = server
        self._console = console

    def run(self) -> None:
        # the spinner is one that every terminal has the letters for
        with self._console.status("Starting the API and the MLflow UI ...", spinner="line"):
            self._wait_until_ready()
        job_id = self._client.start_training(**GUIDE_STEP_2)["job_id"]
        self._console.print(f"Training job [bold]{job_id}[/bold]", highlight=False)
        self._show_evaluation(self._watch(job_id))
        self._show_inference()
        self._show_addresses(job_id)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._server.poll() is not None:
                raise DemoError("The server did not start.")
            with contextlib.suppress(ConnectionError, TimeoutError):
                self._client.health()
                return
            time.sleep(0.1)
        raise DemoError(f"The server did not answer within {_START_SECONDS:.0f} s.")

    def _watch(self, job_id: str) -> Job:
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.completed:.0f} of {task.total:.0f} steps"), TimeElapsedColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self._console) as progress:
            bar = progress.add_task("queued", total=GUIDE_STEP_2["total_timesteps"])
            job = self._client.wait(
                job_id,
                on_progress=lambda job: progress.update(
                    bar, completed=job["current_timesteps"], description=job["status"]
                ),
            )
        if job["status"] != "completed":
            raise DemoError(f"The job {job['status']}: {job['error_message']}")
        return job

    def _show_evaluation(self, job: Job) -> None:
        metrics = job["metrics"]
        self._console.print("Greedy evaluation on the environment's own reward, 500 at most:")
        table = Table()
        for name in ("mean", "95 % interval", "model", "version"):
            table.add_column(name, justify="right")
        table.add_row(
            f"{metrics['eval/mean_reward']:.1f}",
            f"{metrics['eval/ci_low']:.1f} to {metrics['eval/ci_high']:.1f}",
            job["model_name"],
            str(job["model_version"]),
        )
        self._console.print(table)
        if job["verdict"] is not None:
            self._console.print(job["verdict"]["sentence"], highlight=False, soft_wrap=True)

    def _show_inference(self) -> None:
        reply = self._client.predict(str(GUIDE_STEP_2["model_name"]), OBSERVATION)
        chances = " and ".join(f"{chance:.1%}" for chance in reply["action_probs"] or ())
        self._console.print(
            f"Observation {OBSERVATION}: action {reply['action']} "
            f"({'right' if reply['action'] == 1 else 'left'}), "
            f"left and right have {chances}, value {reply['value']:.1f}",
            highlight=False,
            soft_wrap=True,
        )

    def _show_addresses(self, job_id: str) -> None:
        addresses = {
            "Control room": f"{self._url}/app/jobs/{job_id}",
            "API": f"{self._url}/docs",
        }
        links = self._client.about()["mlflow_links"]
        if links is not None:
            with self._console.status("Waiting for the MLflow UI ...", spinner="line"):
                _wait_until_listening(links["runs"])
            run = links["run"] + job_id + links["suffix"]
            addresses |= {"This run": run, "MLflow UI": links["runs"]}
        for name, address in addresses.items():
            self._console.print(f"{name:<12} {address}", highlight=False, soft_wrap=True)


def _wait_until_listening(url: str) -> None:
    parts = urlsplit(url)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((parts.hostname, parts.port), _START_SECONDS),
        ):
            return
        time.sleep(0.2)
    raise DemoError(f"The MLflow UI at {url} does not answer.")


@contextlib.contextmanager
def _server(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, ended in order; on failure its output is shown."""
    _require_free(settings.host, settings.port)
    with tempfile.NamedTemporaryFile(prefix="grpo-demo-", suffix=".log") as output:
        # a session of its own: Ctrl-C reaches the demo alone, which then ends the server in order
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        except (ApiError, ConnectionError, DemoError, TimeoutError) as error:
            tail = "\n".join(Path(output.name).read_text("utf-8", "replace").splitlines()[-20:])
            raise DemoError(f"{error}\nIts last output:\n{tail}") from error
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    # a second Ctrl-C must not leave the server behind
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    finally:
        signal.signal(signal.SIGINT, previous)


def _require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise DemoError(
                f"Port {port} is in use. Stop what listens there, or take another port: "
                f"GRPO_PORT={port + 1} make demo"
            ) from error


if __name__ == "__main__":
    sys.exit(main())
