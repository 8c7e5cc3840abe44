"""The files that say what is installed agree with each other and with what is installed."""

import platform
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from grpo_platform.mlproject.__main__ import ENTRY_POINTS
from grpo_platform.mlproject.entry_points import EvaluateParameters

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text().splitlines()
    return [line for line in text if line and not line.startswith("#")]


def pins(rows: list[str]) -> dict[str, str]:
    """name -> version of the rows that are `name==version`; anything else fails the test."""
    matches = [re.fullmatch(r"([a-z0-9][a-z0-9-]*)==([0-9][0-9A-Za-z.]*)", row) for row in rows]
    assert all(matches), [row for row, match in zip(rows, matches, strict=True) if not match]
    return {match[1]: match[2] for match in matches if match}


RUNTIME = pins(lines("requirements.txt")[:-1])
DEVELOPMENT = pins(lines("requirements-dev.txt")[1:])


def test_requirements_begin_with_torch_and_end_with_the_project() -> None:
    # torch first: pip then takes the CPU build that this release is, before others ask for torch
    assert lines("requirements.txt")[0].startswith("torch==")
    assert lines("requirements.txt")[-1] == "-e ."


def test_development_pins_come_on_top_of_the_runtime_ones() -> None:
    assert lines("requirements-dev.txt")[0] == "-r requirements.txt"
    assert not DEVELOPMENT.keys() & RUNTIME.keys()


def test_conda_pins_equal_the_requirements() -> None:
    *conda, pip = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert pins(pip["pip"]) == RUNTIME
    assert "-e ." not in pip["pip"]


@pytest.mark.parametrize("dependency", PROJECT["project"]["dependencies"])
def test_the_ranges_admit_the_pin(dependency: str) -> None:
    requirement = Requirement(dependency)
    assert RUNTIME[canonicalize_name(requirement.name)] in requirement.specifier
    operators = {specifier.operator for specifier in requirement.specifier}
    assert operators in ({">=", "<"}, {"=="}), "a floor and a ceiling, or one release"


@pytest.mark.parametrize("dependency", PROJECT["dependency-groups"]["dev"])
def test_each_development_tool_is_pinned(dependency: str) -> None:
    name = canonicalize_name(Requirement(dependency).name)
    assert name in DEVELOPMENT or name in RUNTIME


@pytest.mark.parametrize("name", sorted(RUNTIME | DEVELOPMENT))
def test_what_is_installed_is_what_is_pinned(name: str) -> None:
    assert version(name).partition("+")[0] == (RUNTIME | DEVELOPMENT)[name]


def test_the_wheel_holds_both_packages_and_their_types(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "grpo/__init__.py", "grpo/py.typed",
        "grpo_platform/__init__.py", "grpo_platform/py.typed",
    } <= names  # fmt: skip
    pages = (ROOT / "platform/grpo_platform/web").rglob("*")
    files = {path for path in pages if path.is_file() and path.suffix != ".pyc"}
    assert {str(path.relative_to(ROOT / "platform")) for path in files} <= names
    folders = {name.partition("/")[0] for name in names}
    assert folders == {
        "grpo", "grpo_platform", f"grpo_platform-{PROJECT['project']['version']}.dist-info",
    }  # fmt: skip


def test_mlproject_and_conda_yaml_belong_together() -> None:
    project = yaml.safe_load((ROOT / "MLproject").read_text())
    assert project["conda_env"] == "conda.yaml"
    called = {}
    for name, entry in project["entry_points"].items():
        words = entry["command"].split()
        assert words[:4] == ["PYTHONPATH=platform:.", "python", "-m", "grpo_platform.mlproject"]
        called[name] = words[4]
    assert called.pop("main") == "train"
    assert {"train", *called.values()} == ENTRY_POINTS.keys()
    assert all(name == word for name, word in called.items())


def test_mlproject_declares_the_defaults_that_are_in_force() -> None:
    project = yaml.safe_load((ROOT / "MLproject").read_text())
    declared = project["entry_points"]["evaluate"]["parameters"]
    fields = EvaluateParameters.model_fields
    assert declared.keys() == fields.keys()
    assert fields["model"].is_required()


def test_the_interpreter_is_one_that_we_admit() -> None:
    admitted = Requirement(f"python{PROJECT['project']['requires-python']}").specifier
    assert platform.python_version() in admitted
