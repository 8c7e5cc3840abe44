"""Resolve pyproject.toml anew and write the exact pins: requirements*.txt and conda.yaml."""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Held back from their newest release, each for the reason beside it.
HELD = {
    "torch": "2.13.0",  # the release whose wheels are plain CPU builds where we test
}
NOT_PINNED = {"pip"}  # comes with the virtual environment
GUIDES = ("box2d", "mujoco", "postgres", "video")  # extras that the guides use
TESTS = ("minari", "onnx", "ray")  # and those that only tests do


def resolve(requirements: list[str], constraints: dict[str, str]) -> dict[str, str]:
    """Install into a scratch environment and return name -> version of all that came with it."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check"]
        pinned = Path(folder, "constraints.txt")
        pinned.write_text("".join(f"{name}=={version}\n" for name, version in constraints.items()))
        subprocess.run([*pip, "install", "-q", "-c", pinned, *requirements], check=True)
        subprocess.run([*pip, "check"], check=True)
        listed = subprocess.run(
            [*pip, "list", "--format=freeze"], check=True, capture_output=True, text=True
        ).stdout
    pairs = (line.split("==") for line in listed.split())
    return {
        re.sub(r"[-_.]+", "-", name).lower(): version.partition("+")[0]
        for name, version in pairs
        if name not in NOT_PINNED
    }


def pins(versions: dict[str, str]) -> list[str]:
    """`name==version`, those that are held back first, then by name."""
    order = sorted(versions, key=lambda name: (name not in HELD, name))
    return [f"{name}=={versions[name]}" for name in order]


def main() -> None:
    """Write the three files; review the difference before it is committed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    base = project["project"]["dependencies"] + [row for name in GUIDES for row in extras[name]]
    runtime = resolve(base, HELD)
    tests = project["dependency-groups"]["dev"] + [row for name in TESTS for row in extras[name]]
    development = resolve(base + tests, runtime)
    note = "# Written by `make lock` from pyproject.toml: the exact set that is tested.\n"
    only_dev = {name: version for name, version in development.items() if name not in runtime}
    (ROOT / "requirements.txt").write_text(note + "\n".join([*pins(runtime), "-e ."]) + "\n")
    (ROOT / "requirements-dev.txt").write_text(
        note + "\n".join(["-r requirements.txt", *pins(only_dev)]) + "\n"
    )
    (ROOT / "conda.yaml").write_text(
        note
        + "# The project itself is not in it: MLflow caches this environment by the file's hash,\n"
        + "# and two checkouts would share it. MLproject sets PYTHONPATH instead.\n"
        + "name: grpo-platform\nchannels:\n  - conda-forge\n"
        + "dependencies:\n  - python=3.11\n  - pip\n  - pip:\n"
        + "".join(f"      - {pin}\n" for pin in pins(runtime))
    )


if __name__ == "__main__":
    main()
