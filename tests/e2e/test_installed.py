"""The wheel beside what it requires, without an extra, served from an empty folder."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
import requests
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.e2e.processes import (
    ROOT,
    Server,
    environment,
    free_port,
    server,
    train,
    wait_until_answers,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.rotated(6)]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOWHERE = {"HOME": os.devnull, "XDG_CACHE_HOME": os.devnull, "MPLCONFIGDIR": ""}
"""Of an account without a home."""


def required(rows: list[str], extras: set[str], found: set[tuple[str, str]]) -> None:
    """Add to `found` every distribution, with each of its extras, that requirements lead to."""
    for requirement in map(Requirement, rows):
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        name = canonicalize_name(requirement.name)
        new = {(name, extra) for extra in ("", *requirement.extras)} - found
        found |= new
        if new:
            required(distribution(name).requires or [], set(requirement.extras), found)


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Commands of an environment that has the wheel and, of what is here, its requirements."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv")
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    found: set[tuple[str, str]] = set()
    required(PROJECT["dependencies"], set(), found)
    here = Path(sysconfig.get_path("purelib"))
    for name, _ in found:
        files = distribution(name).files or ()
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(here / top)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    options = ["--python", str(folder / "venv"), "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, *options, str(wheel)], check=True)
    return folder / "venv" / "bin"


@pytest.fixture(scope="module")
def running(bin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    command = [bin_folder / "grpo-platform", "serve"]
    empty = tmp_path_factory.mktemp("empty")
    with server(empty, ui=True, command=command, PYTHONPATH="", **NOWHERE) as found:
        yield found


@pytest.fixture(scope="module")
def job(running: Server) -> dict[str, object]:
    return train(running, model_name="balance", total_timesteps=3000, seed=1)


def test_it_is_the_wheel_that_runs(bin_folder: Path, tmp_path: Path) -> None:
    program = (
        "import importlib.util as u;"
        "print(*(u.find_spec(name).origin for name in ('grpo', 'grpo_platform')));"
        "extras = ('mujoco', 'Box2D', 'psycopg', 'imageio_ffmpeg', 'minari', 'onnx', 'ray');"
        "print([name for name in extras if u.find_spec(name)])"
    )
    done = subprocess.run(
        [bin_folder / "python", "-c", program], cwd=tmp_path, capture_output=True, text=True,
        env=environment(PYTHONPATH=""), check=True,
    )  # fmt: skip
    files, extras = done.stdout.splitlines()
    assert all(path.startswith(str(bin_folder.parent)) for path in files.split())
    assert extras == "[]"


def test_it_trains_and_acts(running: Server, job: dict[str, object]) -> None:
    assert job["status"] == "completed", job
    body = {"model_name": "balance", "observation": [0.1, 0.0, 0.05, 0.0]}
    assert requests.post(f"{running.url}/inference", json=body, timeout=60).json()["action"] == 1
    made = {path.name for path in running.folder.iterdir()}
    assert {"mlflow.db", "mlruns"} <= made
    ui = requests.get(running.url, timeout=60).json()["mlflow_ui"]
    wait_until_answers(ui, running)


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_the_first_pages_code_ends_with_an_action(
    running: Server, bin_folder: Path, name: str
) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(), re.M | re.S)
    done = subprocess.run(
        [bin_folder / "python", "-c", program], cwd=running.folder, capture_output=True, text=True,
        env=environment(PYTHONPATH="", GRPO_URL=running.url), check=True,
    )  # fmt: skip
    assert done.stdout == "1\n"


def test_every_file_of_the_pages_is_served(running: Server) -> None:
    asked = ["/app", "/docs", "/redoc"]
    for path in asked:
        page = requests.get(running.url + path, headers={"Accept-Language": "ja"}, timeout=60)
        assert page.ok
        named = re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css|svg|png))"', page.text)
        assert named
        for file in named:
            assert requests.get(running.url + file, timeout=60).ok, file


@pytest.mark.parametrize(
    ("env_name", "package", "extra"),
    [
        ("Hopper-v5", "mujoco", "mujoco"),
        ("LunarLander-v3", "Box2D", "box2d"),
        ("ALE/Pong-v5", "ale_py", "environments"),
    ],
)
def test_what_an_extra_brings_says_which(
    running: Server, env_name: str, package: str, extra: str
) -> None:
    reply = requests.post(f"{running.url}/train", json={"env_name": env_name}, timeout=60)
    assert reply.status_code == 400
    said = f"{package}, which is not installed: pip install 'grpo-platform[{extra}]'."
    assert said in reply.json()["detail"]
    if not env_name.startswith("ALE"):
        asked = {"name": env_name, "trainable": "false"}
        listed = requests.get(f"{running.url}/environments", params=asked, timeout=60).json()
        assert [row["reason"] for row in listed["environments"]] == [f"{env_name} needs {said}"]


def test_films_and_onnx_say_which(running: Server, job: dict[str, object]) -> None:
    film = requests.get(f"{running.url}/training/{job['job_id']}/film", timeout=60)
    assert "pip install 'grpo-platform[video]'" in film.json()["detail"]
    version = f"{running.url}/models/balance/versions/1/download?format=onnx"
    assert "'grpo-platform[onnx]'" in requests.get(version, timeout=60).json()["detail"]


def test_a_job_is_reproduced(running: Server, bin_folder: Path, job: dict[str, object]) -> None:
    done = subprocess.run(
        [bin_folder / "grpo-platform", "reproduce", str(job["job_id"])],
        cwd=running.folder, env=environment(PYTHONPATH="", **NOWHERE),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical" in done.stdout


def test_the_doctor_tells_the_extras_and_what_a_store_needs(
    bin_folder: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [bin_folder / "grpo-platform", "doctor", "--json"], cwd=tmp_path,
        env=environment(
            PYTHONPATH="", GRPO_PORT=str(free_port()), **NOWHERE,
            MLFLOW_TRACKING_URI="postgresql://grpo@127.0.0.1:9/grpo",
        ), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    found = {row["what"]: row for row in json.loads(done.stdout)}
    assert found["packages"]["state"] == "ok"
    assert found["store"]["state"] == "problem"
    assert "pip install 'grpo-platform[postgres]'" in found["store"]["found"]
    assert found["MuJoCo"]["found"].endswith("pip install 'grpo-platform[mujoco]'.")
    assert "video" in found["extras"]["found"]
