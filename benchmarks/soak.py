"""Ten minutes at fifty clients while two jobs train: no error, and no memory that grows.

Each client asks again as soon as it was answered, over a connection of its own: single calls,
batches, a list and a job's status in turn. The server's resident memory is read every second; after
the first minute it may rise by at most 5 percent, taken between the medians of ten seconds at the
start and at the end.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psutil
import requests

from benchmarks.results import write_rows
from benchmarks.server import serving

MODEL = "soak"
OBSERVATION = [0.01, -0.02, 0.03, 0.04]
MOST_GROWTH = 0.05
SETTLED_SECONDS = 60.0
WINDOW = 10  # samples, one a second
LONG = {"total_timesteps": 1_000_000_000, "eval_freq": 0}
TERMINAL = frozenset({"completed", "failed", "stopped"})
SINGLES = 20  # between two calls of each other kind


class Soaked(NamedTuple):
    """What came of it."""

    seconds: float
    answers: Counter[str]
    """By kind of call."""

    errors: Counter[str]
    """By what went wrong."""

    latencies: list[float]
    """Of single calls, in seconds."""

    memory: list[int]
    """Resident bytes of the server process, one a second."""


async def soak(
    url: str, job_id: str, server: psutil.Process, clients: int, seconds: float
) -> Soaked:
    """Ask until the time is over."""
    found = Soaked(seconds, Counter(), Counter(), [], [])
    end = time.monotonic() + seconds
    limit = aiohttp.TCPConnector(limit=clients)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(url, connector=limit, timeout=timeout) as session:
        asking = [ask(session, job_id, end, turn, found) for turn in range(clients)]
        await asyncio.gather(*asking, watch(server, end, found))
    return found


async def ask(
    session: aiohttp.ClientSession, job_id: str, end: float, turn: int, found: Soaked
) -> None:
    """One client."""
    single = {"model_name": MODEL, "observation": OBSERVATION}
    others: list[tuple[str, str, dict[str, Any] | None]] = [
        ("POST", "/inference/batch", {"model_name": MODEL, "observations": [OBSERVATION] * 100}),
        ("GET", "/models", None),
        ("GET", f"/training/{job_id}/status", None),
        ("GET", "/metrics", None),
    ]
    while time.monotonic() < end:
        turn += 1
        which, rest = divmod(turn, SINGLES)
        method, path, body = ("POST", "/inference", single) if rest else others[which % len(others)]
        started = time.monotonic()
        try:
            async with session.request(method, path, json=body) as reply:
                await reply.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            found.errors[f"{path} {type(error).__name__}"] += 1
            continue
        if reply.status != 200:
            found.errors[f"{path} {reply.status}"] += 1
        found.answers["/training/{job_id}/status" if job_id in path else path] += 1
        if rest:
            found.latencies.append(time.monotonic() - started)


async def watch(server: psutil.Process, end: float, found: Soaked) -> None:
    """Note the server's memory once a second."""
    while time.monotonic() < end:
        found.memory.append(server.memory_info().rss)
        await asyncio.sleep(1.0)


def start(url: str, model_name: str, **fields: object) -> str:
    """Submit a job."""
    body = {"model_name": model_name, **fields}
    reply = requests.post(f"{url}/train", json=body, timeout=60)
    reply.raise_for_status()
    return str(reply.json()["job_id"])


def status(url: str, job_id: str) -> str:
    """A job's status."""
    return str(requests.get(f"{url}/training/{job_id}/status", timeout=60).json()["status"])


def server_of(url: str) -> psutil.Process:
    """The process among our children that listens there."""
    port = int(url.rpartition(":")[2])
    for child in psutil.Process().children():
        if any(c.laddr.port == port for c in child.net_connections("tcp") if c.status == "LISTEN"):
            return child
    raise RuntimeError(f"nobody listens on {url}")


def report(found: Soaked, trained: list[str]) -> bool:
    """Print the figures and keep them; True where all is as it should be."""
    settled = found.memory[min(int(SETTLED_SECONDS), len(found.memory) // 2) :]
    before, after = (statistics.median(part) for part in (settled[:WINDOW], settled[-WINDOW:]))
    growth = after / before - 1.0
    cuts = statistics.quantiles(found.latencies, n=100)
    for path, count in sorted(found.answers.items()):
        print(f"{count:9d} {path}")
    print(f"errors: {dict(found.errors) or 'none'}")
    print(f"single calls: p50 {cuts[49] * 1e3:.1f} ms, p99 {cuts[98] * 1e3:.1f} ms")
    print(f"memory: {before / 2**20:.1f} MiB, at the end {after / 2**20:.1f} MiB ({growth:+.2%})")
    print(f"jobs that trained meanwhile: {', '.join(trained)}")
    row = {
        "claim": "soak",
        "seconds": found.seconds,
        "answers": found.answers.total(),
        "errors": found.errors.total(),
        "p50_ms": round(cuts[49] * 1e3, 2),
        "p99_ms": round(cuts[98] * 1e3, 2),
        "memory_mib_after_a_minute": round(before / 2**20, 1),
        "memory_mib_at_the_end": round(after / 2**20, 1),
        "growth": round(growth, 4),
    }
    write_rows("soak", [row])
    return not found.errors and growth <= MOST_GROWTH and set(trained) == {"running"}


def run(clients: int, seconds: float, folder: Path) -> bool:
    """All of it."""
    with serving(folder) as url:
        first = start(url, MODEL, total_timesteps=2000, seed=1)
        while status(url, first) not in TERMINAL:
            time.sleep(0.2)
        jobs = [start(url, f"busy-{seed}", seed=seed, **LONG) for seed in (1, 2)]
        while any(status(url, job_id) != "running" for job_id in jobs):
            time.sleep(0.2)
        found = asyncio.run(soak(url, jobs[0], server_of(url), clients, seconds))
        trained = [status(url, job_id) for job_id in jobs]
        for job_id in jobs:
            requests.post(f"{url}/training/{job_id}/stop", timeout=60)
    return report(found, trained)


def main() -> int:
    """Soak; ends with 1 where something failed or grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=600.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="grpo-soak-") as folder:
        return 0 if run(chosen.clients, chosen.seconds, Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
