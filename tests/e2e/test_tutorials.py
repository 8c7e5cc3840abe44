"""The tutorials and the notebooks of docs/, run as a reader would, against real servers."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.e2e.processes import ROOT, Server, server
from tests.e2e.test_guide import run_blocks
from tests.service.postgresql_support import postgresql
from tests.service.ray_support import ray_cluster

TUTORIALS = ROOT / "docs" / "tutorials"
NOTEBOOKS = ROOT / "docs" / "notebooks"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all that need one, in the folder that holds the tutorial's environment."""
    folder = tmp_path_factory.mktemp("tutorials")
    text = (TUTORIALS / "own-environment.md").read_text()
    (module,) = re.findall(r"```python\n(# heating\.py\n.*?)```", text, re.DOTALL)
    (folder / "heating.py").write_text(module)
    (settings,) = re.findall(r"^(GRPO_\w+)=(\w+) python run_api\.py$", text, re.MULTILINE)
    with server(folder, GRPO_VIDEO_FRAMES="0", **dict([settings])) as found:
        yield found


def number(pattern: str, printed: str) -> float:
    (found,) = re.findall(pattern, printed, re.MULTILINE)
    return float(found)


@pytest.mark.rotated(13)
def test_a_first_policy(running: Server) -> None:
    printed = run_blocks(TUTORIALS / "first-policy.md", running.folder, running.url)
    assert number(r"^by chance (\d+)$", printed) < 60
    assert number(r"^return (\d+\.\d)$", printed) >= 300
    assert re.search(r"^[12] serves$", printed, re.MULTILINE)


@pytest.mark.rotated(10)
def test_your_own_environment(running: Server) -> None:
    printed = run_blocks(TUTORIALS / "own-environment.md", running.folder, running.url)
    policy, thermostat = re.findall(r"^policy (-\d+), thermostat (-\d+)$", printed, re.MULTILINE)[0]
    assert float(policy) > float(thermostat)
    assert "exact" in printed


@pytest.mark.rotated(4)
def test_ten_seeds(running: Server) -> None:
    printed = run_blocks(TUTORIALS / "ten-seeds.md", running.folder, running.url)
    (seeds,) = re.findall(r"^\[(.+,.+)\]$", printed, re.MULTILINE)
    assert len(seeds.split(",")) == 10
    assert "10 pairs of equal seeds" in printed
    assert (running.folder / "branching.md").read_text().startswith("#")


@pytest.mark.rotated(5)
def test_coming_from_stable_baselines3(running: Server) -> None:
    printed = run_blocks(TUTORIALS / "stable-baselines3.md", running.folder, running.url)
    assert re.search(r"^\d+ True$", printed, re.MULTILINE)
    assert "moved" in printed


def settings(section: str) -> dict[str, str]:
    """The variables that a section's commands set."""
    return dict(re.findall(r"^(?:export )?((?:GRPO|RAY|MLFLOW)_\w+)=(\S+)", section, re.MULTILINE))


@pytest.mark.rotated(10)
def test_from_a_laptop_to_a_cluster(tmp_path: Path) -> None:
    """Sections 2 and 3 on two servers, section 4 on a server in a Ray cluster, on one database."""
    text = (TUTORIALS / "cluster.md").read_text()
    sections = dict(enumerate(re.split(r"^## ", text, flags=re.MULTILINE)))
    named = settings(sections[2])
    assert named.keys() == {"MLFLOW_TRACKING_URI", "GRPO_ARTIFACT_ROOT"}
    ray = settings(sections[4])
    pages = {}
    for number in (3, 4):
        pages[number] = tmp_path / f"{number}.md"
        pages[number].write_text(f"## {sections[number]}")
    with postgresql() as database:
        assert named["MLFLOW_TRACKING_URI"].partition(":")[0] == database.uri.partition(":")[0]
        store = {
            "MLFLOW_TRACKING_URI": database.uri,
            "GRPO_ARTIFACT_ROOT": str(tmp_path / "artifacts"),
            "GRPO_VIDEO_FRAMES": "0",
        }
        for folder in ("one", "two", "three"):
            (tmp_path / folder).mkdir()
        with server(tmp_path / "one", **store) as one, server(tmp_path / "two", **store) as two:
            printed = run_blocks(pages[3], tmp_path, one.url, two.url)
            assert "['completed', 'completed', 'completed']" in printed
        with ray_cluster() as cluster:
            cluster.add()
            ray["RAY_ADDRESS"] = cluster.address
            with server(tmp_path / "three", **store, **ray) as three:
                assert "completed 1" in run_blocks(pages[4], tmp_path, three.url)


@pytest.mark.rotated(12)
@pytest.mark.parametrize("name", sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")))
def test_notebooks(name: str, running: Server) -> None:
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("http://localhost:8000", running.url)
    done = NotebookClient(
        notebook, timeout=120, kernel_name="python3",
        resources={"metadata": {"path": str(running.folder)}},
    ).execute()  # fmt: skip
    shown = {
        kind for cell in done.cells for o in cell.get("outputs", ()) for kind in o.get("data", ())
    }
    assert {"text/plain", "image/png"} <= shown
    assert {"text/html", "image/gif"} & shown
