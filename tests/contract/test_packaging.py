"""The files that say what is installed agree with each other and with what is installed."""

import json
import os
import platform
import re
import runpy
import subprocess
import sys
import tarfile
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
from tests.contract.test_repository import TRACKED

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCK = runpy.run_path(str(ROOT / "scripts/lock.py"))


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


RANGES = [row for name in (*LOCK["GUIDES"], *LOCK["TESTS"]) for row in EXTRAS[name]]


@pytest.mark.parametrize("dependency", [*PROJECT["project"]["dependencies"], *RANGES])
def test_the_ranges_admit_the_pin(dependency: str) -> None:
    requirement = Requirement(dependency)
    assert (RUNTIME | DEVELOPMENT)[canonicalize_name(requirement.name)] in requirement.specifier
    operators = {specifier.operator for specifier in requirement.specifier}
    assert operators in ({">=", "<"}, {"=="}), "a floor and a ceiling, or one release"


@pytest.mark.parametrize("dependency", PROJECT["dependency-groups"]["dev"])
def test_each_development_tool_is_pinned(dependency: str) -> None:
    name = canonicalize_name(Requirement(dependency).name)
    assert name in DEVELOPMENT or name in RUNTIME


@pytest.mark.parametrize("name", sorted(RUNTIME | DEVELOPMENT))
def test_what_is_installed_is_what_is_pinned(name: str) -> None:
    assert version(name).partition("+")[0] == (RUNTIME | DEVELOPMENT)[name]


def build(source: Path, target: Path) -> Path:
    """A folder with the wheel and the source distribution of a tree."""
    words = [sys.executable, "-m", "hatchling", "build", "-d", str(target)]
    subprocess.run(words, cwd=source, check=True, capture_output=True)
    return target


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def test_the_wheel_holds_all_files_of_both_packages_and_nothing_else(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = set(content(wheel))
    own = {
        str(path.relative_to(parent))
        for parent, name in ((ROOT, "grpo"), (ROOT / "platform", "grpo_platform"))
        for path in (parent / name).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    info = f"grpo_platform-{PROJECT['project']['version']}.dist-info/"
    assert {name for name in names if not name.startswith(info)} == own
    assert {"grpo/py.typed", "grpo_platform/web/static/vendor/vendor.json"} <= own


def test_licences_of_what_is_vendored_are_told_by_the_wheel(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    licences = {
        name.partition("/licenses/")[2]: text
        for name, text in content(wheel).items()
        if "/licenses/" in name
    }
    assert licences["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    vendored = json.loads(
        (ROOT / "platform/grpo_platform/web/static/vendor/vendor.json").read_text()
    )
    wanted = {file: name for row in vendored.values() for file, name in row["licences"].items()}
    swagger = "swagger-ui-bundle.js.LICENSE.txt"
    files = [*wanted, "LICENSE.redoc", "LICENSE.swagger-ui", "NOTICE.swagger-ui", swagger]
    for name in files:
        assert any(path.endswith(f"/{name}") and licences[path] for path in licences), name
    told = set(PROJECT["project"]["license"].split(" AND "))
    assert told >= {"Apache-2.0", *wanted.values()}


@pytest.mark.rotated(10)
def test_the_source_distribution_builds_the_same_wheel(distributions: Path, tmp_path: Path) -> None:
    (source,) = distributions.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    for name in ("tests/conftest.py", "docs/guide.md", "MLproject", "conda.yaml", "run_api.py"):
        assert (tree / name).is_file()
    assert not any((tree / name).exists() for name in (".git", ".venv", "mlflow.db"))
    again = build(tree, tmp_path / "dist")
    (first,), (second,) = distributions.glob("*.whl"), again.glob("*.whl")
    assert content(first) == content(second)


def test_extras_that_anything_names_exist_and_all_are_explained() -> None:
    named = set()
    for path in TRACKED:
        if path.suffix in (".py", ".md", ".json") and path.exists():
            found = re.findall(r"(?:grpo-platform|'\.)\[([a-z0-9,]+)\]", path.read_text())
            named |= {name for names in found for name in names.split(",")}
    assert named <= EXTRAS.keys()
    page = (ROOT / "docs/operations.md").read_text()
    assert set(re.findall(r"^\| `([a-z0-9]+)` \|", page, re.MULTILINE)) == EXTRAS.keys()


def test_all_is_every_extra_but_the_environments_of_others() -> None:
    (everything,) = EXTRAS["all"]
    assert Requirement(everything).extras == EXTRAS.keys() - {"all", "environments"}
    assert {*LOCK["GUIDES"], *LOCK["TESTS"]} == Requirement(everything).extras


def test_where_pip_looks_uv_looks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install = runpy.run_path(str(ROOT / "scripts/install.py"))
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = file:///global\nextra-index-url = file:///a\n  file:///b\n"
        "find-links = /wheels\n[install]\nindex-url = file:///install\n"
    )
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_FIND_LINKS", "/my /wheels")
    told = install["pip_told_uv"]()
    assert told["UV_DEFAULT_INDEX"] == "file:///install"
    assert told["UV_FIND_LINKS"] == "/my,/wheels"
    assert told["UV_INDEX"].split()[-2:] == ["file:///a", "file:///b"]


def test_what_make_installs_are_the_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    install = runpy.run_path(str(ROOT / "scripts/install.py"))
    rows = list(install["requirements"](["requirements-dev.txt"]))
    assert pins(rows) == RUNTIME | DEVELOPMENT


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
