"""A real PostgreSQL server for tests: on loopback, on a free port, its data gone afterwards."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

MISSING = "PostgreSQL is not installed: apt-get install postgresql"


def _run(*command: object) -> None:
    # PostgreSQL refuses to run as root
    user = {"user": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    subprocess.run(
        [str(word) for word in command], check=True, timeout=120, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, cwd="/", **user,
    )  # fmt: skip


class PostgreSQL:
    """A server with an empty database; it may be stopped and started again."""

    def __init__(self, programs: Path, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.uri = f"postgresql://grpo@127.0.0.1:{port}/postgres"
        self._control = [programs / "pg_ctl", "-D", folder / "data", "-w"]
        self._options = f"-h 127.0.0.1 -p {port} -k {folder} -F"
        self._log = folder / "log"
        _run(
            programs / "initdb", "-D", folder / "data", "-U", "grpo", "-A", "trust", "-N",
            "-E", "UTF8", "--no-locale",
        )  # fmt: skip

    def start(self) -> None:
        _run(*self._control, "-l", self._log, "-o", self._options, "start")

    def stop(self) -> None:
        """End it and all of its connections at once."""
        _run(*self._control, "-m", "immediate", "stop")


@contextlib.contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """A started server; stop it only to start it again."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    assert found, MISSING
    # not below pytest's folder, which other users cannot enter
    folder = Path(tempfile.mkdtemp(prefix="grpo-postgresql-"))
    try:
        if os.getuid() == 0:
            os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
        server = PostgreSQL(found[-1].parent, folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
