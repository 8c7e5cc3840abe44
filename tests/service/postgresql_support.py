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


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """URI of an empty database."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    assert found, MISSING
    programs = found[-1].parent
    # not below pytest's folder, which other users cannot enter
    folder = Path(tempfile.mkdtemp(prefix="grpo-postgresql-"))
    try:
        if os.getuid() == 0:
            os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = folder / "data"
        _run(programs / "initdb", "-D", data, "-U", "grpo", "-A", "trust", "-N")
        options = f"-h 127.0.0.1 -p {port} -k {folder} -F"
        _run(programs / "pg_ctl", "-D", data, "-l", folder / "log", "-o", options, "-w", "start")
        try:
            yield f"postgresql://grpo@127.0.0.1:{port}/postgres"
        finally:
            _run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)
