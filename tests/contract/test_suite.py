"""How `make test` runs the tests: rotated ones by parts, and a file's in one process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROTATED = """
import pytest

@pytest.mark.rotated(1)
def test_one(): ...

@pytest.mark.rotated(2)
def test_two(): ...

@pytest.mark.parametrize("n", [pytest.param(3, marks=pytest.mark.rotated(3)), 0])
def test_three(n): ...

def test_always(): ...
"""


SHARING = """
from pathlib import Path
import pytest

@pytest.fixture(scope="module")
def server():
    with Path("started").open("a") as file:
        file.write("x")

@pytest.mark.parametrize("n", range(8))
def test_it(server, n): ...
"""


def run(folder: Path, tests: str, *words: str) -> str:
    """What pytest says of some tests, with our conftest."""
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (folder / "test_some.py").write_text(tests)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def collected(folder: Path, tests: str, *words: str) -> list[str]:
    said = run(folder, tests, "--collect-only", "-q", *words)
    return [line.partition("::")[2] for line in said.splitlines() if "::test" in line]


@pytest.mark.parametrize(
    ("words", "rotated"),
    [
        ([], ["test_one", "test_two", "test_three[3]"]),
        (["--part", "1"], ["test_one"]),
        (["--part", "3"], ["test_three[3]"]),
    ],
)
def test_a_run_has_one_part_or_all_and_what_is_not_rotated(
    tmp_path: Path, words: list[str], rotated: list[str]
) -> None:
    names = collected(tmp_path, ROTATED, *words)
    assert sorted(names) == sorted([*rotated, "test_three[0]", "test_always"])


@pytest.mark.rotated(1)
@pytest.mark.parametrize("arguments", ["", "15"])
def test_a_test_that_no_part_would_run_is_refused(tmp_path: Path, arguments: str) -> None:
    tests = f"import pytest\n@pytest.mark.rotated({arguments})\ndef test_one(): ..."
    assert "say rotated(PART)" in run(tmp_path, tests, "--part", "1")


def test_what_a_file_shares_is_made_once(tmp_path: Path) -> None:
    """Servers take seconds; xdist once ignored our groups, and each process started its own."""
    (options,) = re.findall(r" -m pytest (-n .*)$", (ROOT / "Makefile").read_text(), re.M)
    said = run(tmp_path, SHARING, *options.replace("$(WORKERS)", "2").split())
    assert "8 passed" in said
    assert (tmp_path / "started").read_text() == "x"
