"""The short form of `make fuzz`: the long one sends 20,000 requests."""

import re
import subprocess
import sys

import pytest

from tests.e2e.processes import ROOT, environment

CASES = 1_000


@pytest.mark.rotated(2)
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_answers_are_what_the_schema_promises() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", "--cases", str(CASES), "--seed", "1"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"^(\d+) cases over \d+ operations, 0 failures$", done.stdout, re.MULTILINE)
    assert counted is not None, done.stdout
    assert int(counted[1]) >= CASES
