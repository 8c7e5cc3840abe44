"""The world that chaos happens in: servers on one store, their processes, and their jobs."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import requests

from grpo_platform.core.states import JobStatus
from grpo_platform.tracking.jobs import JobStore

ROOT: Final = Path(__file__).resolve().parents[2]
_READY_SECONDS: Final = 180.0
_DISK_MEGABYTES: Final = 800
_CLOCK: Final = Path(__file__).parent / "clock"
_FROM_VERSION: Final = 0.3
"""Share of the jobs that start from a version's weights, where there is one."""

_TASKS: Final[tuple[dict[str, Any], ...]] = (
    {"env_name": "CartPole-v1", "reward_function_type": "optimized_cartpole"},
    {"env_name": "CartPole-v1", "eval_freq": 7_000, "n_eval_episodes": 20},
    {"env_name": "Acrobot-v1", "n_eval_episodes": 10},
    {"env_name": "Pendulum-v1", "n_eval_episodes": 20},
)


@dataclass
class Server:
    """One `run_api.py`, started again and again on the same port."""

    number: int
    port: int
    ui_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None

    def is_ready(self) -> bool:
        """Whether it takes jobs."""
        try:
            return requests.get(f"{self.url}/health/ready", timeout=5).ok
        except requests.RequestException:
            return False

    def is_settled(self) -> bool:
        """Whether nothing of it is still starting: it is ready, and its UI, if any, answers."""
        try:
            ui = not self.ui_port or requests.get(
                f"http://127.0.0.1:{self.ui_port}/health", timeout=5
            )
        except requests.RequestException:
            return False
        return bool(ui) and self.is_ready()


@dataclass
class World:
    """Folders, servers and the jobs that were accepted."""

    folder: Path
    servers: list[Server]
    has_small_disk: bool
    seed: int
    most_timesteps: int
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Body of each accepted job, by id."""
    deleted: set[str] = field(default_factory=set)
    """Jobs whose run was deleted on purpose."""
    failed: dict[str, str] = field(default_factory=dict)
    """Messages of jobs that failed, though nothing that was done to them may fail a job."""

    @property
    def database(self) -> Path:
        """The store's file."""
        return self.folder / "store" / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """Root of the artifacts."""
        return self.folder / "work" / "mlruns"

    @property
    def clock(self) -> Path:
        """Says by how many seconds the servers' clock is off."""
        return self.folder / "clock"

    @property
    def tracking_uri(self) -> str:
        """Of the store."""
        return f"sqlite:///{self.database}"

    def store(self) -> JobStore:
        """The jobs, as this process reads them."""
        return JobStore(self.tracking_uri)

    def start(self, server: Server) -> None:
        """Start a server; does not wait for it."""
        ours = {k: v for k, v in os.environ.items() if not k.startswith(("GRPO_", "MLFLOW_"))}
        settings = {
            "GRPO_PORT": str(server.port),
            "GRPO_MLFLOW_UI_PORT": str(server.ui_port),
            "GRPO_MAX_CONCURRENT_JOBS": "2",
            "GRPO_LOG_LEVEL": "warning",
            "GRPO_VIDEO_FRAMES": "20",  # films cost more than all else, and come after the job
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "TMPDIR": str(self.folder / "tmp"),
            "PYTHONPATH": os.pathsep.join([str(_CLOCK), os.environ.get("PYTHONPATH", "")]),
            "CHAOS_CLOCK_FILE": str(self.clock),
        }
        with (self.folder / "logs" / f"server-{server.number}.log").open("ab") as log:
            server.process = subprocess.Popen(
                [sys.executable, str(ROOT / "run_api.py")], cwd=self.folder / "work",
                env=ours | settings, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def submit(self) -> str:
        """Have one more job accepted; a POST whose answer is lost is sent again with its key."""
        number = len(self.jobs)
        rng = random.Random(f"{self.seed}/job {number}")
        body = dict(rng.choice(_TASKS)) | {
            "total_timesteps": rng.randint(1_000, self.most_timesteps),
            "seed": number,
            "checkpoint_seconds": rng.choice((0.2, 0.5, 1.0)),
            "max_attempts": 100,
            "model_name": f"chaos-{number}",
        }
        if rng.random() < _FROM_VERSION:
            body |= self._weights_for(body["env_name"])
        key = {"Idempotency-Key": str(number)}
        reply = self.call("POST", "/train", json=body, headers=key)
        reply.raise_for_status()
        job_id: str = reply.json()["job_id"]
        self.jobs[job_id] = body
        return job_id

    def _weights_for(self, env_name: str) -> dict[str, str]:
        done = self.store().list(status=JobStatus.COMPLETED, env_name=env_name, limit=1).items
        return {"init_from": f"{done[0].model_name}/{done[0].model_version}"} if done else {}

    def keep_alive(self) -> None:
        """Start the servers that could not start, as a supervisor does."""
        for server in self.servers:
            if not server.alive:
                self.start(server)

    def wait_until_ready(self, server: Server) -> None:
        """Wait for a server that was started.

        Raises:
            RuntimeError: it ended or stays away.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while not server.is_ready():
            if not server.alive:
                log = self.folder / "logs" / f"server-{server.number}.log"
                raise RuntimeError(f"Server {server.number} ended:\n{log.read_text()[-3000:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"Server {server.number} does not answer.")
            time.sleep(0.1)

    def forkserver_of(self, server: Server) -> psutil.Process | None:
        """The process that forks a server's workers."""
        for child in self._children(server):
            with contextlib.suppress(psutil.Error):
                if "grpo_platform.jobs.forkserver" in child.cmdline():
                    return child
        return None

    def ui_of(self, server: Server) -> psutil.Process | None:
        """The server's MLflow UI."""
        for child in self._children(server):
            with contextlib.suppress(psutil.Error):
                if "server" in child.cmdline() and "mlflow" in child.cmdline():
                    return child
        return None

    def workers(self) -> list[psutil.Process]:
        """Workers of running jobs, by what their runs say."""
        found = []
        for record in self.store().running():
            with contextlib.suppress(psutil.Error, ValueError, IndexError):
                found.append(psutil.Process(int((record.worker or "").split(":")[1])))
        return found

    def call(self, method: str, path: str, **arguments: object) -> requests.Response:
        """Call the first server that answers, until one does."""
        while True:
            for server in self.servers:
                with contextlib.suppress(requests.RequestException):
                    reply = requests.request(method, f"{server.url}{path}", timeout=30, **arguments)
                    if reply.status_code != 503:
                        return reply
            time.sleep(0.2)

    def _children(self, server: Server) -> list[psutil.Process]:
        if server.process is None:
            return []
        with contextlib.suppress(psutil.Error):
            return psutil.Process(server.process.pid).children()
        return []


@contextlib.contextmanager
def world(folder: Path, servers: int, seed: int, most_timesteps: int) -> Iterator[World]:
    """Folders, on a small disk of their own where this user may mount one, and servers."""
    mounted = _mount(folder)
    for name in ("work", "store", "tmp", "logs"):
        (folder / name).mkdir()
    found = [Server(i, _free_port(), 0) for i in range(servers)]
    made = World(folder, found, mounted, seed, most_timesteps)
    made.servers[0].ui_port = _free_port()
    try:
        for server in made.servers:
            made.start(server)
            made.wait_until_ready(server)
        yield made
    finally:
        for server in made.servers:
            if server.process is not None and server.alive:
                server.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.process.wait(30)
                server.process.kill()
                server.process.wait()
        if mounted:
            time.sleep(1)
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _mount(folder: Path) -> bool:
    size = f"size={_DISK_MEGABYTES}m"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
