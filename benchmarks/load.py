"""Load on HTTP servers by wrk, from another process: several servers in turn, with the spread."""

import re
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Load", "Target", "in_turn", "median_of", "spread_of"]

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class Load(NamedTuple):
    """What wrk measured: latencies in milliseconds."""

    p50: float
    p99: float
    rate: float


class Target(NamedTuple):
    """Something to ask."""

    url: str
    body: str


def _wrk(target: Target, connections: int, seconds: float, folder: Path) -> Load:
    """Load a target."""
    script = folder / "post.lua"
    script.write_text(
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        f"wrk.body = [==[{target.body}]==]\n"
    )
    done = subprocess.run(
        [
            "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "--latency",
            "-s", str(script), target.url,
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(done.stdout)
    percentiles = dict(re.findall(r"^\s+(50|99)%\s+(\S+)\s*$", done.stdout, re.M))
    rate = re.findall(r"Requests/sec:\s+([\d.]+)", done.stdout)[0]
    return Load(_milliseconds(percentiles["50"]), _milliseconds(percentiles["99"]), float(rate))


def _milliseconds(text: str) -> float:
    """A latency as wrk writes it."""
    [(number, unit)] = re.findall(r"^([\d.]+)(us|ms|s)$", text)
    return float(number) * _UNITS[unit]


def in_turn(
    targets: dict[str, Target], connections: int, rounds: int, seconds: float, folder: Path
) -> dict[str, list[Load]]:
    """Every target is loaded once a round."""
    loads: dict[str, list[Load]] = {name: [] for name in targets}
    for _ in range(rounds):
        for name, target in targets.items():
            loads[name].append(_wrk(target, connections, seconds, folder))
    return loads


def median_of(loads: Sequence[Load]) -> Load:
    """Each figure's median by itself."""
    return Load(*(statistics.median(column) for column in zip(*loads, strict=True)))


def spread_of(loads: Sequence[Load]) -> dict[str, str]:
    """Each figure as a row's columns: median, least and most."""
    row: dict[str, str] = {}
    for name in Load._fields:
        values = [getattr(load, name) for load in loads]
        for suffix, value in (
            ("", statistics.median(values)),
            ("_min", min(values)),
            ("_max", max(values)),
        ):
            row[name + suffix] = f"{value:.4g}"
    return row
