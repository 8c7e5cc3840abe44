"""The page about comparisons, run as a reader would, against a real server."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grpo_platform.client import ApiError, GRPOClient
from tests.e2e.processes import ROOT, environment, server, train
from tests.e2e.test_guide import run_blocks

pytestmark = [pytest.mark.slow, pytest.mark.rotated(6)]


def command(folder: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "grpo_platform", "--url", url, *words],
        cwd=folder, env=environment(COLUMNS="200"), timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_page_about_comparisons_runs(tmp_path: Path) -> None:
    with server(tmp_path) as running:
        jobs = [
            train(running, total_timesteps=steps, model_name="my_model", promote="never", seed=1)
            for steps in (300, 4000)
        ]
        printed = run_blocks(ROOT / "docs" / "comparisons.md", tmp_path, running.url)
        assert "50 pairs of equal seeds" in printed
        assert "Note: The budgets differ (my_model/1 300, my_model/2 4,000" in printed
        assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")
        assert "100 pairs of equal seeds" in printed
        assert "my\\_model/2" in (tmp_path / "report.md").read_text()
        with GRPOClient(running.url) as client:
            job_id = str(jobs[0]["job_id"])
            assert client.resolve(job_id) == {"job": job_id}
            assert client.resolve("my_model/2") == {"model": "my_model/2"}
            with pytest.raises(ApiError, match="No job, experiment or sweep has the id"):
                client.resolve("0" * 32)
            kept = next(client.iter_comparisons())
            assert client.comparison(kept["comparison_id"])["sides"][1]["label"] == "my_model/2"
        done = command(
            tmp_path, running.url, "compare", job_id, "my_model/2", "--episodes", "20", "--json"
        )
        assert json.loads(done.stdout)["sides"][0]["label"] == "my_model/1", done.stderr
        refused = command(tmp_path, running.url, "compare", job_id, "my_model/1")
        assert refused.returncode == 1
        assert "are both my_model/1" in refused.stderr
        assert "name another one" in command(tmp_path, running.url, "compare", job_id).stderr
        kept_ones_are_listed_shown_and_deleted(tmp_path, running.url)
        what_failed_is_shown_and_tested_from_now_on(tmp_path, running.url, job_id)


def kept_ones_are_listed_shown_and_deleted(folder: Path, url: str) -> None:
    listed = json.loads(command(folder, url, "comparisons", "list", "--json").stdout)
    newest = listed[0]["comparison_id"]
    assert newest in command(folder, url, "comparisons", "list").stdout
    shown = command(folder, url, "comparisons", "show", newest).stdout
    assert listed[0]["sentence"] in shown
    assert "deleted" in command(folder, url, "comparisons", "delete", newest).stdout
    gone = command(folder, url, "comparisons", "show", newest)
    assert (gone.returncode, newest in gone.stderr) == (1, True)
    left = json.loads(command(folder, url, "comparisons", "list", "--json").stdout)
    assert left == listed[1:]


def what_failed_is_shown_and_tested_from_now_on(folder: Path, url: str, job_id: str) -> None:
    with GRPOClient(url) as client:
        until = time.monotonic() + 60
        while not client.failures(job_id)["failures"]:  # a process of its own makes them
            assert time.monotonic() < until
            time.sleep(0.2)
    found = json.loads(command(folder, url, "failures", job_id, "--json").stdout)
    worst = found["failures"][0]
    shown = command(folder, url, "failures", job_id).stdout
    assert f"{worst['return']:,.1f}" in shown
    assert f"{found['page']} among the artifacts of run {job_id}" in shown
    tested = command(folder, url, "failures", job_id, "--to-scenario", "1")
    assert "its versions must pass it" in tested.stdout, tested.stderr
    assert "failure" in command(folder, url, "scenarios", "show", "my_model").stdout
    unknown = command(folder, url, "failures", job_id, "--to-scenario", "99")
    assert (unknown.returncode, unknown.stderr[:7]) == (1, "Error: ")
