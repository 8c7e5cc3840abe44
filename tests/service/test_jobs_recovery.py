import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import PIPE

import pytest

from grpo import GRPOConfig
from grpo_platform.core import process
from grpo_platform.core.process import Liveness
from grpo_platform.core.request import JobRequest
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs import resources
from grpo_platform.jobs.failures import explain, lost
from grpo_platform.jobs.recovery import CONFIRM_SECONDS, SILENT_SECONDS, Observer
from grpo_platform.jobs.runner import JobQueue
from grpo_platform.tracking.records import JobRecord
from tests.waiting import until

START = datetime(2026, 1, 1, tzinfo=UTC)


def record(number=0, **fields):
    values = {
        "job_id": f"{number:032x}", "experiment_id": "1", "status": JobStatus.RUNNING,
        "request": JobRequest(config=GRPOConfig()), "start_time": START + timedelta(seconds=number),
        "metrics": {}, "model_name": "m", "worker": "elsewhere:1:1", "heartbeat_ms": 1000,
    }  # fmt: skip
    return JobRecord(**values | fields)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class World:
    """An observer, and what it can find out."""

    def __init__(self):
        self.clock = Clock()
        self.liveness = Liveness.UNKNOWN
        self.writable = True
        self.observer = Observer(
            lambda worker: self.liveness, lambda job_id: self.writable, self.clock
        )

    def lost_after(self, seconds, *records):
        self.clock.now += seconds
        return self.observer.lost(records)


@pytest.fixture
def seen():
    return World()


def test_a_worker_known_to_be_dead_is_lost_at_once(seen):
    seen.liveness = Liveness.DEAD
    assert seen.lost_after(0, record()) == [record()]


def test_a_worker_elsewhere_is_lost_when_its_heartbeat_stands_still(seen):
    assert seen.lost_after(0, record()) == []
    assert seen.lost_after(SILENT_SECONDS - 1, record()) == []
    assert seen.lost_after(2, record()) == []  # suspected
    assert seen.lost_after(CONFIRM_SECONDS + 1, record()) == [record()]


def test_a_heartbeat_clears_all_suspicion(seen):
    seen.lost_after(0, record())
    seen.lost_after(SILENT_SECONDS + 1, record())
    assert seen.lost_after(CONFIRM_SECONDS + 1, record(heartbeat_ms=2000)) == []
    assert seen.lost_after(SILENT_SECONDS - 1, record(heartbeat_ms=2000)) == []


def test_no_heartbeat_is_expected_while_the_store_takes_no_writes(seen):
    seen.lost_after(0, record())
    seen.writable = False
    assert seen.lost_after(10 * SILENT_SECONDS, record()) == []
    seen.writable = True
    assert seen.lost_after(1, record()) == []  # the worker gets its chance
    assert seen.lost_after(CONFIRM_SECONDS + 1, record(heartbeat_ms=5000)) == []


def test_a_store_that_was_away_begins_a_new_observation(seen):
    seen.lost_after(0, record())
    seen.observer.store_was_away()
    assert seen.lost_after(10 * SILENT_SECONDS, record()) == []


def test_a_new_attempt_with_an_old_heartbeat_is_observed_anew(seen):
    seen.lost_after(0, record())
    assert seen.lost_after(SILENT_SECONDS + 1, record(attempt=2)) == []
    assert seen.lost_after(CONFIRM_SECONDS + 1, record(attempt=2)) == []


def test_waiting_jobs_are_taken_in_the_order_of_their_submission():
    waiting = JobQueue()
    for number in (2, 0, 1):
        waiting.put(record(number))
    assert [waiting.take().job_id for _ in range(3)] == [record(n).job_id for n in range(3)]
    assert waiting.take() is None


def test_a_job_that_lost_its_worker_waits_longer_each_time_and_holds_nobody_up():
    clock = Clock()
    waiting = JobQueue(clock)
    for crashes, pause in ((1, 1), (2, 5), (3, 25), (4, 60), (99, 60)):
        lost_often = record(0, attempt=1 + crashes, crashes=crashes)
        waiting.put(lost_often)
        waiting.put(record(1))
        assert waiting.take().job_id == record(1).job_id
        clock.now += pause - 0.5
        # what the store says again and again does not begin the pause anew
        waiting.reconcile(waiting.snapshot(), [lost_often], [lost_often], complete=True)
        assert waiting.take() is None
        assert waiting.seconds_until_ready() == 0.5
        clock.now += 0.5
        assert waiting.take() == lost_often
        assert waiting.seconds_until_ready() == float("inf")


def test_waiting_jobs_follow_the_store_as_far_as_it_was_read():
    waiting = JobQueue()
    for number in (0, 1, 5):
        waiting.put(record(number))
    known = waiting.snapshot()
    waiting.put(record(9))  # came while the store was read
    read = [record(1), record(2), record(3, claimed_by="x")]
    waiting.reconcile(known, read, read[:2], complete=False)
    assert [waiting.take().job_id for _ in range(4)] == [record(n).job_id for n in (1, 2, 5, 9)]


def test_waiting_jobs_that_a_complete_read_does_not_find_are_gone():
    waiting = JobQueue()
    waiting.put(record(0))
    waiting.reconcile(waiting.snapshot(), [], [], complete=True)
    assert len(waiting) == 0


def test_a_process_is_known_by_more_than_its_number():
    own = process.worker_name(os.getpid())
    assert process.liveness(own) is Liveness.ALIVE
    host, pid, started = own.split(":")
    assert process.liveness(f"{host}:{pid}:{int(started) + 1}") is Liveness.DEAD
    assert process.liveness(f"other-{host}:{pid}:{started}") is Liveness.UNKNOWN
    assert process.liveness("nonsense") is Liveness.UNKNOWN
    assert process.liveness(f"{host}:x:y") is Liveness.DEAD


def test_a_zombie_is_dead():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process.worker_name(child.pid)
    assert process.liveness(name) is Liveness.ALIVE
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.liveness(name) is Liveness.DEAD
    child.communicate()
    assert process.liveness(name) is Liveness.DEAD


def test_the_end_of_a_process_is_told_in_words():
    assert process.ending(0) is None
    assert process.ending(9) == "was killed by signal 9 (out of memory?)"
    assert process.ending(7 << 8) == "ended with exit code 7"


HOLD = """
import os, sys, tempfile
tempfile.tempdir = sys.argv[1]
from grpo_platform.jobs.resources import make_workdir
print(make_workdir(), flush=True)
if os.fork():
    os._exit(0)  # as a worker that is killed while its trainer lives
os.close(1)
sys.stdin.read()
"""
LOOK = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from grpo_platform.jobs.resources import remove_abandoned
remove_abandoned()
"""
UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


def can_unshare():
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0
    )


@pytest.mark.rotated(11)
def test_scratch_folders_that_nobody_holds_any_more_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = resources.make_workdir()
    earlier = own.with_name("1-unleased")  # of a release without leases: perhaps a living job's
    earlier.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=PIPE, stdout=PIPE, text=True
    )
    theirs = Path(holder.stdout.readline().strip())
    holder.wait(60)
    resources.remove_abandoned()
    assert own.exists()
    assert theirs.exists()
    assert earlier.exists()
    look = os.open(own, os.O_RDONLY)  # as systemd-tmpfiles does with what is old
    with pytest.raises(BlockingIOError):
        fcntl.flock(look, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(look)
    holder.communicate()  # the last that holds it ends
    os.utime(earlier, (0, 0))
    until(lambda: resources.remove_abandoned() or not theirs.exists())
    assert own.exists()
    assert not earlier.exists()


def test_a_process_s_temporary_files_lie_in_a_folder_that_goes_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with resources.own_temporary_folder() as own:
        made = Path(tempfile.mkdtemp(prefix="grpo-play-"))
        assert made.parent == own
        assert own.is_relative_to(tmp_path)
    assert not own.exists()
    assert tempfile.gettempdir() == str(tmp_path)


@pytest.mark.rotated(11)
@pytest.mark.skipif(not can_unshare(), reason="needs unshare(1) and user namespaces")
def test_a_server_that_counts_processes_anew_removes_nothing_that_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = resources.make_workdir()
    command = [*UNSHARE, sys.executable, "-c", LOOK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert own.exists()


def test_a_scratch_folder_of_someone_else_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"grpo-jobs-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="TMPDIR"):
        resources.make_workdir()


def test_failures_say_what_to_do():
    assert "batch_size" in explain(MemoryError())
    assert "Free some space" in explain(OSError(28, "No space left on device"))
    assert "ZeroDivisionError: by zero" in explain(ZeroDivisionError("by zero"))
    assert lost("worker", "was killed by signal 9", 1).startswith(
        "The job lost its worker, which was killed by signal 9."
    )
    assert "3 times" in lost("worker", "was killed by signal 9", 3)


def test_what_comes_last_comes_after_other_sessions_too():
    # the session has a weight of its own, which `nice` does not change
    code = """
import os
from pathlib import Path
from grpo_platform.core.process import lower_priority
lower_priority(7)
group = Path("/proc/self/autogroup")
print(os.nice(0), group.read_text().split()[-1] if group.exists() else "none")
"""

    def said(command: list[str]) -> list[str]:
        """Niceness of a process that leads a session or is in it, and of the session."""
        return subprocess.run(
            command, capture_output=True, text=True, check=True, start_new_session=True
        ).stdout.split()

    of_process, of_session = said([sys.executable, "-c", code])
    assert of_process == "7"
    assert of_session in {"7", "none"}
    # one that only is in a session leaves it as it is, for the others' sake
    of_process, of_session = said(["sh", "-c", '"$0" -c "$1"; true', sys.executable, code])
    assert of_process == "7"
    assert of_session in {"0", "none"}
