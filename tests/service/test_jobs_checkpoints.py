"""Checkpoints on a real store: a crash at any moment leaves a pointer to a whole one."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from grpo_platform.core.errors import StoreError
from grpo_platform.jobs.run_writer import Checkpoints
from grpo_platform.tracking.files import file_sha256
from tests.service.tracking_support import jobs_of, prepare, request


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def jobs(store):
    return jobs_of(store)


@pytest.fixture
def job_id(jobs):
    return jobs.create(request()).job_id


def written(folder, text):
    path = folder / "local.npz"
    path.write_text(text)
    return path


def test_the_newest_counts_one_earlier_is_kept_and_the_rest_go(jobs, job_id, tmp_path):
    checkpoints = Checkpoints(jobs, job_id, 1)
    for steps in (100, 200, 300):
        checkpoints.save(written(tmp_path, str(steps)), steps)
    assert not (tmp_path / "local.npz").exists()
    kept = jobs.list_artifacts(job_id, "checkpoints")
    assert [path.split("/")[1].split("-")[0] for path in kept] == ["000000000200", "000000000300"]
    pointed = jobs.get(job_id).checkpoint
    assert pointed == kept[1]
    assert checkpoints.fetch(pointed, tmp_path).read_text() == "300"


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(jobs, job_id, tmp_path):
    checkpoints = Checkpoints(jobs, job_id, 1)
    for steps in (100, 200):
        checkpoints.save(written(tmp_path, str(steps)), steps)
    record = jobs.get(job_id)
    stored = record.artifact_uri.removeprefix("file://") + "/" + record.checkpoint
    with open(stored, "w") as file:
        file.write("torn")
    assert checkpoints.fetch(record.checkpoint, tmp_path).read_text() == "100"
    assert record.checkpoint not in jobs.list_artifacts(job_id, "checkpoints")


def test_the_pointer_stays_where_the_upload_fails(jobs, job_id, tmp_path):
    checkpoints = Checkpoints(jobs, job_id, 1)
    checkpoints.save(written(tmp_path, "whole"), 100)
    record = jobs.get(job_id)
    folder = record.artifact_uri.removeprefix("file://") + "/checkpoints"
    os.rename(folder, folder + "-away")
    with open(folder, "w"):  # a file where the folder was: nothing can be stored
        pass
    path = written(tmp_path, "newer")
    with pytest.raises(StoreError):
        checkpoints.save(path, 200)
    assert path.read_text() == "newer"  # so that it can be tried again
    os.unlink(folder)
    os.rename(folder + "-away", folder)
    assert jobs.get(job_id).checkpoint == record.checkpoint
    checkpoints.save(path, 200)
    assert checkpoints.fetch(jobs.get(job_id).checkpoint, tmp_path).read_text() == "newer"


SAVER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from grpo_platform.jobs.run_writer import Checkpoints
    from grpo_platform.tracking.jobs import JobStore
    uri, job_id, folder, first = sys.argv[1:]
    checkpoints = Checkpoints(JobStore(uri), job_id, 1)
    for steps in range(int(first), int(first) + 100_000):
        path = Path(folder) / "local.npz"
        path.write_bytes(str(steps).encode() * 200_000)
        checkpoints.save(path, steps)
        print(steps, flush=True)
    """
)


@pytest.mark.rotated(7)
@pytest.mark.slow
def test_a_kill_between_any_two_steps_leaves_a_pointer_to_a_whole_checkpoint(
    store, jobs, job_id, tmp_path
):
    rng = random.Random(0)
    before = -1
    for turn in range(4):
        process = subprocess.Popen(
            [
                sys.executable, "-c", SAVER, store.tracking_uri, job_id, str(tmp_path),
                str(1000 * turn),
            ],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        last = [int(line) for line in process.communicate()[0].split()]
        pointed = jobs.get(job_id).checkpoint
        steps, _, digest = pointed.split("/")[1].removesuffix(".npz").split("-")
        assert int(steps) > before
        assert int(steps) >= max(last, default=0)  # what was said to be stored is
        before = int(steps)
        fetched = Checkpoints(jobs, job_id, 2).fetch(pointed, tmp_path)
        assert file_sha256(fetched) == digest
        assert fetched.name == pointed.split("/")[1]
