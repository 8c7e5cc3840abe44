"""A clone of the project: run from its git URL, and a job of it trained again from its commit."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from grpo_platform.registry.models import Registry
from tests.e2e.processes import ROOT, environment, free_port, server, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.rotated(8)]

WRONG_COMMIT = """

def _refuse(*_args: object, **_kwargs: object) -> None:
    raise RuntimeError("the wrong commit trains")


Trainer.train = _refuse
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def checkout(folder: Path) -> Path:
    """This working tree, whatever is committed of it, as a repository with one commit."""
    names = git(ROOT, "ls-files", "-co", "--exclude-standard", "-z").split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")
    return folder


def state(folder: Path) -> list[str]:
    """What a user of the checkout would see change."""
    questions = ("rev-parse HEAD", "branch --show-current", "status --porcelain", "worktree list")
    return [git(folder, *question.split()) for question in questions]


@contextlib.contextmanager
def git_daemon(folder: Path) -> Iterator[str]:
    """Serves the repositories in a folder on loopback; gives its URL."""
    port = free_port()
    process = subprocess.Popen(
        ["git", "daemon", "--export-all", f"--base-path={folder}", f"--port={port}",
         "--listen=127.0.0.1", "--reuseaddr", str(folder)],
    )  # fmt: skip
    url = f"git://127.0.0.1:{port}"
    (name,) = (path.name for path in folder.iterdir())
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(["git", "ls-remote", f"{url}/{name}"], capture_output=True).returncode:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def newest(client: MlflowClient) -> Run:
    (run,) = client.search_runs(["0"], max_results=1, order_by=["attributes.start_time DESC"])
    return run


def mlflow_run(folder: Path, project: str, *arguments: str) -> None:
    done = subprocess.run(
        ["mlflow", "run", project, "--env-manager=local", *arguments],
        cwd=folder, env=environment(MLFLOW_TRACKING_URI=uri(folder)),
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_git_url_is_cloned_and_run(tmp_path: Path) -> None:
    repository = checkout(tmp_path / "served" / "grpo")
    with git_daemon(repository.parent) as url:
        mlflow_run(tmp_path, f"{url}/grpo", "-P", "total_timesteps=300")
    run = newest(MlflowClient(tracking_uri=uri(tmp_path)))
    assert run.info.status == "FINISHED"
    assert run.data.metrics["time/total_timesteps"] == 300
    assert run.data.tags["mlflow.source.git.commit"] == git(repository, "rev-parse", "HEAD")
    assert run.data.tags["mlflow.source.git.repoURL"] == f"{url}/grpo"


def test_a_job_is_trained_again_from_its_own_commit(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "clone")
    commit = git(folder, "rev-parse", "HEAD")
    mlflow_run(tmp_path, str(folder), "-P", "total_timesteps=2000", "-P", "model_name=m")
    client = MlflowClient(tracking_uri=uri(tmp_path))
    original = newest(client)

    with (folder / "grpo/trainer.py").open("a") as trainer:
        trainer.write(WRONG_COMMIT)
    git(folder, "commit", "-qam", "a commit that cannot train")
    (folder / "README.md").write_text("not committed")
    before = state(folder)
    done = subprocess.run(
        [sys.executable, "-m", "grpo_platform", "reproduce", original.info.run_id, "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False,
        env=environment(
            MLFLOW_TRACKING_URI=uri(tmp_path),
            PYTHONPATH=os.pathsep.join([str(folder / "platform"), str(folder)]),
        ),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert state(folder) == before

    result = json.loads(done.stdout)
    assert result["verdict"] == "identical"
    assert result["differences"] == []
    assert result["metrics_compared"] >= 15
    again = client.get_run(result["reproduction"])
    assert again.info.status == "FINISHED"
    assert again.data.tags["mlflow.source.git.commit"] == commit
    assert again.data.tags["grpo.reproduces"] == original.info.run_id
    assert again.data.tags["grpo.reproduction_verdict"] == "identical"
    linked = client.get_run(original.info.run_id).data.tags
    assert linked.pop("grpo.reproduced_by") == again.info.run_id
    assert linked == original.data.tags
    files = {item.path for item in client.list_artifacts(again.info.run_id)}
    assert {"reproduction.json", "reproduction.md"} <= files
    registry = Registry(uri(tmp_path))
    assert registry.get("m").champion == 1
    assert registry.get(f"reproduction_of_{original.info.run_id}").champion is None


def installed(plugin: Path, target: Path) -> str:
    """The plug-in as pip installs it, in a folder of its own; returns the folder."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([*pip, *options, str(plugin)], check=True, timeout=200)
    return str(target)


def test_another_release_of_the_environment_makes_a_difference(tmp_path: Path) -> None:
    plugin = shutil.copytree(ROOT / "examples/plugin", tmp_path / "plugin")
    with server(tmp_path, PYTHONPATH=installed(plugin, tmp_path / "old")) as running:
        job = train(running, env_name="example/Docking-v0", total_timesteps=4000, seed=1)
    assert job["status"] == "completed", job["error_message"]

    for name, before, after in (
        ("pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"'),
        ("grpo_example/docking.py", "_SECONDS = 0.1", "_SECONDS = 0.3"),
    ):
        text = (plugin / name).read_text()
        assert before in text
        (plugin / name).write_text(text.replace(before, after))
    done = subprocess.run(
        [sys.executable, "-m", "grpo_platform", "reproduce", str(job["job_id"]), "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False,
        env=environment(
            MLFLOW_TRACKING_URI=uri(tmp_path), PYTHONPATH=installed(plugin, tmp_path / "new")
        ),
    )  # fmt: skip
    assert done.returncode == 4, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["verdict"] == "different"
    assert {"what": "grpo-example", "then": "0.1.0", "now": "0.2.0"} in result["differences"]
    print(done.stdout)
