"""The page about comparisons, run as a reader would, against a real server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from grpo_platform.client import ApiError, GRPOClient
from tests.e2e.processes import ROOT, environment, server, train
from tests.e2e.test_guide import run_blocks

pytestmark = [pytest.mark.slow, pytest.mark.rotated(3)]


def command(folder: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "grpo_platform", "--url", url, "compare", *words],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False,
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
        done = command(tmp_path, running.url, job_id, "my_model/2", "--episodes", "20", "--json")
        assert json.loads(done.stdout)["sides"][0]["label"] == "my_model/1", done.stderr
        refused = command(tmp_path, running.url, job_id, "my_model/1")
        assert refused.returncode == 1
        assert "are both my_model/1" in refused.stderr
