"""The MLflow UI: a child process on loopback that lives exactly as long as the server.

Run as a program (`python -m grpo_platform.tracking.ui PARENT COMMAND…`) this module is the first
step of the child itself: it asks the kernel to end it when its parent dies, then becomes COMMAND.
It imports neither MLflow nor torch, so that this takes no time.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Final

from grpo_platform.core.access import TOKEN_DIGEST, token_digest
from grpo_platform.core.messages import without_credentials
from grpo_platform.core.process import die_with_parent, lower_priority

__all__ = ["CHILD_ENVIRONMENT", "UI_PROCESS", "VIEW_KEY", "MlflowUI", "free_port"]

_log = logging.getLogger(__name__)

_HOST: Final = "127.0.0.1"
_PORTS_TRIED: Final = 100
_STOP_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_HEALTHY_SECONDS: Final = 60.0
_NICE: Final = 5
_PAGES: Final = "workflowType=machine_learning"  # else they are those for language models

UI_PROCESS: Final = "_GRPO_UI_PROCESS"
"""Variable that holds the id of our child, for the server that MLflow starts below it."""

VIEW_KEY: Final = "grpo"
"""Under which the jobs' experiment keeps its view, see `ui_view`."""

CHILD_ENVIRONMENT: Final = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}
"""What MLflow's own server must not offer."""


class MlflowUI:
    """Starts the UI, restarts it when it dies, and ends it.

    Args:
        tracking_uri: the store that it shows, absolute.
        experiment_id: of the jobs' experiment, where its links lead.
        port: where to listen, moved up when busy; 0 turns the UI off.
        token: that the UI asks for; None asks for none.
    """

    def __init__(
        self, tracking_uri: str, experiment_id: str, port: int, token: str | None = None
    ) -> None:
        self._tracking_uri = tracking_uri
        self._experiment_id = experiment_id
        self._digest = None if token is None else token_digest(token).hex()
        self._remote = tracking_uri.startswith(("http://", "https://"))
        self._first_port = port
        self._port: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str | None:
        """Where the UI is (it answers some seconds after the start); None when it is off."""
        if self._remote:
            return without_credentials(self._tracking_uri)
        return None if self._port is None else f"http://{_HOST}:{self._port}"

    @property
    def links(self) -> dict[str, str] | None:
        """Ways into its machine-learning pages; None when it is off.

        `runs` is the table of our runs with their results as columns; `run` and `model` are such
        a page's address up to an id or name, to which `suffix` is added.
        """
        url = self.url
        if url is None:
            return None
        runs, suffix = f"{url}/#/experiments/{self._experiment_id}/runs", f"?{_PAGES}"
        return {
            "runs": f"{runs}{suffix}&viewStateShareKey={VIEW_KEY}",
            "run": f"{runs}/",
            "model": f"{url}/#/models/",
            "suffix": suffix,
        }

    @property
    def asks_for_token(self) -> bool:
        """Whether this is our child, and the token its password."""
        return self._port is not None and self._digest is not None

    @property
    def process_id(self) -> int | None:
        """Id of the child that runs now."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def start(self) -> None:
        """Choose a port and start the child; does not wait for it."""
        if self._remote or self._first_port == 0:
            return
        try:
            self._port = free_port(self._first_port)
        except OSError as error:
            _log.warning("%s", error)
            return
        # the kernel's death signal is bound to the thread that starts the child, so one thread
        # does all starts and lives until the end
        self._thread = threading.Thread(target=self._keep_running, name="mlflow-ui", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the child."""
        self._closing.set()
        child = self._child
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        if self._thread is not None:
            self._thread.join()

    def _keep_running(self) -> None:
        pause = 1.0
        while not self._closing.is_set():
            if not self._has_store():
                self._closing.wait(1.0)
                continue
            started = time.monotonic()
            try:
                ended = self._run_once()
            except OSError as error:  # no port, or no room for its output or for a process
                ended = str(error)
            if self._closing.is_set():
                return
            if time.monotonic() - started > _HEALTHY_SECONDS:
                pause = 1.0
            _log.warning("The MLflow UI ended (%s); it starts again in %.0f s.", ended, pause)
            self._closing.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _run_once(self) -> str:
        """Run the child to its end; returns how it ended, and the last line that it wrote.

        Raises:
            OSError: it cannot be started now.
        """
        self._port = free_port(self._port or self._first_port)
        # without a name: nothing is left behind, however this process ends
        with tempfile.TemporaryFile() as output:
            code = self._run_child(output.fileno())
            output.seek(0)
            last = output.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"code {code}, {last[0] if last else 'no output'}"

    def _has_store(self) -> bool:
        """Whether the database is there: MLflow's server would make another, empty one."""
        from grpo_platform.core.errors import StoreUnavailableError
        from grpo_platform.tracking.locations import require_database

        try:
            require_database(self._tracking_uri)
        except StoreUnavailableError as error:
            _log.warning("The MLflow UI waits: %s", error)
            return False
        return True

    def _run_child(self, output: int) -> int:
        from grpo_platform.core.settings import child_environment

        environment = child_environment() | CHILD_ENVIRONMENT
        environment.pop("MLFLOW_TRACKING_URI", None)
        # in the environment, since everyone on the machine can read a command line
        environment["MLFLOW_BACKEND_STORE_URI"] = self._tracking_uri
        if self._digest is not None:
            environment[TOKEN_DIGEST] = self._digest
        self._child = child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(os.getpid()), *self._command()],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=environment, start_new_session=True,
        )  # fmt: skip
        while child.poll() is None:
            if self._closing.wait(0.5):
                return _end(child)
        return child.returncode

    def _command(self) -> list[str]:
        return [
            sys.executable, "-m", "mlflow", "server", "--app-name", "grpo",
            "--no-serve-artifacts", "--host", _HOST, "--port", str(self._port), "--workers", "1",
        ]  # fmt: skip


def free_port(first: int) -> int:
    """The first port from `first` on that nobody on loopback listens on.

    Raises:
        OSError: none of a hundred is free.
    """
    for port in range(first, min(first + _PORTS_TRIED, 65_536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((_HOST, port))
                return port
    raise OSError(f"No free port from {first} on for the MLflow UI; set GRPO_MLFLOW_UI_PORT.")


def _end(child: subprocess.Popen[bytes]) -> int:
    child.terminate()
    try:
        return child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        # the child leads a process group of its own: nothing of it stays
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        return child.wait()


def _become(parent: int, command: list[str]) -> None:
    """End with the parent, however it dies, and go on as `command`, whose server ends with it."""
    die_with_parent(parent, signal.SIGTERM)
    os.environ[UI_PROCESS] = str(os.getpid())
    lower_priority(_NICE)  # training and answers come first
    os.execv(command[0], command)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
