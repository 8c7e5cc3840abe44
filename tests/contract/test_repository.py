"""What no committed file may hold."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRACKED = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    if name
]

# Written apart, so that this file does not hold them either.
REGISTRY_HOSTS = [
    "pypi" + ".org", "files.python" + "hosted", "npm" + "js.", "deb.debian" + ".org",
    "download.pytorch" + ".org", "conda.anaconda" + ".org",
]  # fmt: skip
MACHINE_PATHS = [f"{ROOT}/", f"{ROOT.parent}/", f"{Path.home()}/", "/opt" + "/"]


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return "" if b"\0" in data[:8000] else data.decode()


@pytest.mark.parametrize("needle", REGISTRY_HOSTS + MACHINE_PATHS)
def test_no_registry_and_no_path_of_this_machine(needle: str) -> None:
    assert [str(path) for path in TRACKED if path.exists() and needle in text_of(path)] == []


def test_the_store_is_not_committed() -> None:
    names = {str(path.relative_to(ROOT)) for path in TRACKED}
    assert "mlruns/.gitkeep" in names
    assert not {name for name in names if name.startswith("mlflow.db")}
    assert {name for name in names if name.startswith("mlruns/")} == {"mlruns/.gitkeep"}


def test_the_files_are_few_enough_to_read() -> None:
    sources = [path for path in TRACKED if path.suffix == ".py" and "tests" not in path.parts]
    written = [path.read_text() for path in sources]
    texts = [text for text in written if "Written by `scripts/" not in text]
    long = {text.splitlines()[0]: n for text in texts if (n := len(text.splitlines())) > 500}
    assert long == {}


def test_modules_that_programs_in_texts_import_exist() -> None:
    """What is run by another process is a string here, which neither ruff nor mypy reads."""
    own = re.compile(r"^\s*(?:from|import) ((?:grpo|grpo_platform|tests|benchmarks)\b[\w.]*)", re.M)
    missing = set()
    for path in TRACKED:
        if path.suffix in (".py", ".md", ".toml", ".yaml") and path.exists():
            for name in own.findall(text_of(path)):
                root = ROOT / "platform" if name.startswith("grpo_platform") else ROOT
                file = root / name.replace(".", "/")
                if not (file.is_dir() or file.with_suffix(".py").exists()):
                    missing.add(f"{path.relative_to(ROOT)}: {name}")
    assert missing == set()
