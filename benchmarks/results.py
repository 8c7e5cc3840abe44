"""Files of what was measured: rows as CSV, and beside them the machine that they come from."""

import csv
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "describe_machine", "write_machine", "write_rows"]

FOLDER = Path(__file__).parent / "results"
_PACKAGES = ("torch", "numpy", "gymnasium", "mlflow", "fastapi", "stable-baselines3")


def describe_machine() -> dict[str, Any]:
    """What a reader needs in order to compare figures: processor, memory, versions."""
    return {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": _field_of("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory": _field_of("/proc/meminfo", "MemTotal"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def write_machine(name: str) -> None:
    """Describe this machine in `results/<name>.machine.json`, beside `results/<name>.csv`."""
    text = json.dumps(describe_machine(), indent=2) + "\n"
    (FOLDER / f"{name}.machine.json").write_text(text)


def write_rows(name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Put rows into `results/<name>.csv`, all with the same columns, the first names the claim.

    Rows of other claims stay, so that one claim can be measured anew by itself.
    """
    path = FOLDER / f"{name}.csv"
    columns = list(rows[0])
    fresh = {row[columns[0]] for row in rows}
    kept: list[Mapping[str, object]] = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row[columns[0]] not in fresh]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])
    write_machine(name)


def _field_of(path: str, name: str) -> str:
    """The first value of a `name : value` line; empty where the system has no such file."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
