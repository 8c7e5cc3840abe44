"""The short form of `make chaos`: the long one takes half an hour and more."""

import subprocess
import sys

import pytest

from tests.e2e.processes import ROOT, environment


@pytest.mark.rotated(1)
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_few_faults_lose_nothing() -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.chaos", "--faults", "8", "--jobs", "4",
            "--timesteps", "6000", "--seed", "3868",
        ],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 faults" in done.stdout
