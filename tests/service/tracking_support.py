"""Real stores for tests: a sqlite file, and an MLflow server in front of one."""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import requests

from grpo import GRPOConfig
from grpo_platform.core.access import Signer
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import Settings
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.store import Store, prepare_store
from tests.databases import put_database


def processes(module: str) -> ForkServerContext:
    """Makes processes that share nothing with this one, and have imported a module once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


@contextlib.contextmanager
def working_in(folder, **environment):
    """Working directory and environment variables for a while; None unsets one."""
    before = {name: os.environ.get(name) for name in environment}
    with contextlib.chdir(folder):
        _set(environment)
        try:
            yield
        finally:
            _set(before)


def _set(environment):
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def prepare(folder, uri=None, **settings) -> Store:
    """What a server that is started in `folder` finds: a database at least."""
    if uri is None:
        put_database(folder / "mlflow.db", (folder / "mlruns").as_uri())
    return prepare_new(folder, uri, **settings)


def prepare_new(folder, uri=None, **settings) -> Store:
    """What a server that is started in `folder` finds or makes."""
    with working_in(folder, MLFLOW_TRACKING_URI=uri):
        return prepare_store(Settings(**settings))


def jobs_of(store: Store, token: str | None = None) -> JobStore:
    return JobStore(store.tracking_uri, store.experiment_id, Signer(token))


def request(**fields) -> JobRequest:
    own = {name: fields.pop(name) for name in list(fields) if name in JobRequest.__slots__}
    return JobRequest(config=GRPOConfig(**fields), **own)


class TrackingServer:
    """A real `mlflow server` on a free port, its files in a folder.

    With a password, MLflow's basic authentication is on, and knows the user `admin`.
    """

    def __init__(self, folder: Path, password: str | None = None) -> None:
        self.folder = folder
        self.password = password
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        put_database(self.folder / "server.db", "mlflow-artifacts:")
        command = [
            sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        environment = os.environ | {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        if self.password is not None:
            command += ["--app-name", "basic-auth", "--serve-artifacts"]
            environment |= {
                "MLFLOW_AUTH_CONFIG_PATH": str(self._authentication()),
                "MLFLOW_AUTH_ADMIN_PASSWORD": self.password,
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "of this test",
            }
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.uri}/health", timeout=2).ok:
                    return
            time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text())

    def add_user(self, name: str, password: str) -> None:
        """Add one who is no administrator; kept over a restart."""
        requests.post(
            f"{self.uri}/api/2.0/mlflow/users/create",
            json={"username": name, "password": password},
            auth=("admin", self.password),
            timeout=60,
        ).raise_for_status()

    def _authentication(self) -> Path:
        path = self.folder / "basic_auth.ini"
        path.write_text(
            "[mlflow]\n"
            "default_permission = READ\n"
            f"database_uri = sqlite:///{self.folder / 'basic_auth.db'}\n"
            "admin_username = admin\n"
            # without it the password is hashed anew for each request
            "auth_cache_ttl_seconds = 60\n"
        )
        return path

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, number)
            self.process.wait(30)
            self.process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)
