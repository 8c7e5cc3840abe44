"""Who may import whom, and the folder names that break Python; read from the sources."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALGORITHM = sorted((ROOT / "grpo").rglob("*.py"))
PLATFORM = sorted((ROOT / "platform/grpo_platform").rglob("*.py"))
MODULES = ALGORITHM + PLATFORM

ALGORITHM_MAY_IMPORT = {"grpo", "gymnasium", "numpy", "threadpoolctl", "torch"}
NAMED = {"gymnasium", "mlflow", "numpy", "pandas", "scipy", "threadpoolctl", "torch"}
MAY_IMPORT_MLFLOW = {"tracking", "registry", "serving"}
LAYERS = (
    "core", "tracking", "registry", "serving", "jobs", "experiments", "sweeps", "comparisons",
    "scenarios", "reproduction", "play", "services", "web", "api", "server", "client", "cli",
    "mlproject", "demo", "__main__",
)  # fmt: skip
"""Of the platform: each imports only itself and what stands before it."""


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", ALGORITHM, ids=name_of)
def test_the_algorithm_stands_alone(path: Path) -> None:
    foreign = {name.partition(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    assert foreign <= ALGORITHM_MAY_IMPORT


def module_of(path: Path) -> str:
    """Dotted name under which a file is imported."""
    root = ROOT if path.is_relative_to(ROOT / "grpo") else ROOT / "platform"
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


IMPORTED = {module_of(path): path for path in MODULES}


def imported_modules(path: Path) -> set[str]:
    """Modules of ours that a file imports, under whatever condition, for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                part = f"{node.module}.{alias.name}"
                found.add(part if part in IMPORTED else node.module or "")
    return found & IMPORTED.keys()


def test_every_part_of_the_platform_has_its_layer() -> None:
    root = ROOT / "platform/grpo_platform"
    parts = {path.relative_to(root).parts[0].removesuffix(".py") for path in PLATFORM}
    assert parts == {*LAYERS, "__init__"}


@pytest.mark.parametrize("path", PLATFORM, ids=name_of)
def test_each_layer_imports_only_what_stands_before_it(path: Path) -> None:
    own = [*module_of(path).split("."), "core"][1]
    theirs = {
        name.split(".")[1] for name in imported_modules(path) if name.startswith("grpo_platform.")
    }
    assert {part for part in theirs if LAYERS.index(part) > LAYERS.index(own)} == set()


@pytest.mark.parametrize("part", ["cli", "client", "mlproject"])
def test_commands_call_services_and_no_store(part: str) -> None:
    files = sorted((ROOT / "platform/grpo_platform" / part).glob("*.py"))
    assert files
    behind = ("tracking", "registry", "serving", "jobs")
    called = {name for path in files for name in imported_modules(path)}
    reached = {name for name in called if name.removeprefix("grpo_platform.").startswith(behind)}
    assert reached <= {"grpo_platform.tracking.records"}  # which says how a param is read


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: imported_modules(path) - {name} for name, path in IMPORTED.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("name", ["README.md", "README.ja.md", "CONTRIBUTING.md"])
def test_the_documents_say_what_the_algorithm_needs(name: str) -> None:
    (said,) = re.findall(r"`grpo/`[^.。]*gymnasium[^.。]*", (ROOT / name).read_text())
    packages = {word.lower() for word in re.findall(r"[A-Za-z]+", said)} & NAMED
    assert packages == ALGORITHM_MAY_IMPORT - {"grpo"}


@pytest.mark.parametrize("path", PLATFORM, ids=name_of)
def test_mlflow_is_known_in_three_places_only(path: Path) -> None:
    part = path.relative_to(ROOT / "platform/grpo_platform").parts[0]
    if part not in MAY_IMPORT_MLFLOW:
        assert "mlflow" not in {name.partition(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", PLATFORM, ids=name_of)
def test_the_process_global_tracking_uri_is_never_set(path: Path) -> None:
    called = {
        node.func.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert not called & {"set_tracking_uri", "set_registry_uri", "set_experiment", "start_run"}


@pytest.mark.parametrize("path", sorted(ROOT.glob("platform/grpo_platform/*/*.py")), ids=name_of)
def test_only_api_and_pages_know_http(path: Path) -> None:
    # ui_app.py goes around MLflow's own web application
    if path.parent.name not in ("api", "web") and path.name != "ui_app.py":
        assert not {name.partition(".")[0] for name in imports(path)} & {"fastapi", "starlette"}


def test_platform_is_a_folder_and_never_a_package() -> None:
    assert not (ROOT / "platform/__init__.py").exists()


@pytest.mark.parametrize("folder", ["algorithm", "contract", "e2e", "service"])
def test_each_test_level_is_a_package_with_a_harmless_name(folder: str) -> None:
    assert (ROOT / "tests" / folder / "__init__.py").exists()


def test_no_test_folder_shadows_a_module() -> None:
    folders = {path.name for path in (ROOT / "tests").rglob("*") if path.is_dir()}
    assert not folders & {"platform", "grpo"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_exports_are_declared(path: Path) -> None:  # and ruff's RUF022 keeps them sorted
    tree = ast.parse(path.read_text())
    declared = "__all__" in {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    defines = any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)
    assert declared or not defines, "defines names but has no __all__"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_first_line_says_what_the_file_is_about(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert docstring.splitlines()[0].endswith(".")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_ever_unpickled(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports(path)} & {
        "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve",
    }  # fmt: skip
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "np.load"}:
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert keywords.get("weights_only") == "True" or keywords.get("allow_pickle") == "False"
