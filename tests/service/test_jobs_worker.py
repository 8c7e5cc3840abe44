"""The worker's process and its end of the pipe: a test is the trainer at the other end."""

import contextlib
import json
import logging
import os
import signal
import threading
from multiprocessing import Pipe

import pytest

from grpo_platform.core.errors import StoreUnavailableError
from grpo_platform.core.settings import TOKEN_VARIABLE
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs import worker
from grpo_platform.jobs.run_writer import read_log
from grpo_platform.jobs.trainer_process import TrainerProcess
from tests.service.tracking_support import jobs_of, prepare, request
from tests.waiting import until

REQUEST = request(total_timesteps=600)
FAILED = {"kind": "failed", "message": "The floor gave way.", "traceback": "of the floor"}


class OtherEnd:
    """A process that sleeps or ends as told, and the trainer's end of the pipe, for a test."""

    def __init__(self, command="sleep 60") -> None:
        ours, self.pipe = Pipe()
        self.pid = os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ)
        self.handle = TrainerProcess(self.pid, ours)

    def say(self, message) -> None:
        self.pipe.send_bytes(json.dumps(message).encode())

    def next_order(self):
        assert self.pipe.poll(30), "no order came"
        return json.loads(self.pipe.recv_bytes())

    def is_gone(self) -> bool:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return False
        return True


@pytest.fixture
def end():
    made = OtherEnd()
    yield made
    made.pipe.close()
    assert list(made.handle.messages())[-1]["kind"] == "ended"
    assert made.is_gone()


def test_orders_arrive_as_they_were_given(end, tmp_path):
    end.handle.begin(checkpoint=tmp_path / "c.npz", weights=tmp_path / "w", seconds=2.5)
    end.handle.stop()
    assert end.next_order() == {
        "kind": "start", "checkpoint": str(tmp_path / "c.npz"), "weights": str(tmp_path / "w"),
        "seconds": 2.5,
    }  # fmt: skip
    assert end.next_order() == {"kind": "stop"}


def test_orders_of_several_threads_arrive_whole(end, tmp_path):
    def give() -> None:
        for _ in range(50):
            end.handle.begin(checkpoint=tmp_path / ("c" * 200))
            end.handle.stop()

    threads = [threading.Thread(target=give) for _ in range(8)]
    for thread in threads:
        thread.start()
    kinds = [end.next_order()["kind"] for _ in range(8 * 100)]
    for thread in threads:
        thread.join()
    assert kinds.count("start") == kinds.count("stop") == 400


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("exit 0", "ended without a word"),
        ("exit 3", "ended with exit code 3"),
        ("kill -SEGV $$", "was killed by signal 11 (a crash in native code)"),
        ("sleep 60", "was killed by signal 9 (out of memory?)"),  # it closes its pipe and lives on
    ],
)
def test_what_ended_it_is_its_last_message_and_it_is_reaped(command, reason):
    end = OtherEnd(command)
    if command != "sleep 60":
        os.waitid(os.P_PID, end.pid, os.WEXITED | os.WNOWAIT)
    end.say({"kind": "points", "points": []})
    end.pipe.close()
    heard = list(end.handle.messages())
    assert [message["kind"] for message in heard] == ["points", "ended"]
    assert heard[1]["reason"] == reason
    assert end.is_gone()
    end.handle.kill()  # its number may be another process's by now
    end.handle.begin()  # nobody hears it
    end.handle.stop()


def test_a_kill_ends_it_at_once():
    end = OtherEnd()
    heard = []
    reader = threading.Thread(target=lambda: heard.extend(end.handle.messages()))
    reader.start()
    end.handle.kill()
    os.waitid(os.P_PID, end.pid, os.WEXITED | os.WNOWAIT)
    end.pipe.close()  # as the kernel does for a process that has its end
    reader.join(30)
    assert heard == [{"kind": "ended", "reason": "was killed by signal 9 (out of memory?)"}]


# --- run_worker, in the foreground -----------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("worker"))


@pytest.fixture(autouse=True)
def _as_before():
    """A worker has its process for itself: it takes signals and log records."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    loggers = [logging.getLogger(name) for name in ("grpo", "grpo_platform")]
    records = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for number, handler in signals.items():
        signal.signal(number, handler)
    for logger, (handlers, level, propagate) in zip(loggers, records, strict=True):
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def trainer(monkeypatch):
    """What the worker has in place of a fork of itself."""
    end = OtherEnd()
    monkeypatch.setattr(TrainerProcess, "fork", lambda _request, _folder: end.handle)
    yield end
    end.pipe.close()
    until(end.is_gone)


@pytest.fixture
def job(store):
    return jobs_of(store).create(REQUEST)


def run(store, job, play) -> int:
    """The worker's exit code; the trainer's part is played meanwhile."""
    player = threading.Thread(target=play)
    player.start()
    code = worker.run_worker(store, job.job_id, 1, REQUEST)
    player.join()
    return code


def test_a_trainer_that_fails_fails_the_job_with_its_words(store, job, trainer):
    def play() -> None:
        assert trainer.next_order()["kind"] == "start"
        trainer.say(FAILED)
        trainer.pipe.close()

    assert run(store, job, play) == 1
    record = jobs_of(store).get(job.job_id)
    assert (record.status, record.error_message) == (JobStatus.FAILED, "The floor gave way.")
    assert "of the floor" in read_log(jobs_of(store), job.job_id).decode()


def test_a_lost_trainer_fails_a_job_in_the_foreground(store, job, trainer):
    assert run(store, job, trainer.pipe.close) == 1
    record = jobs_of(store).get(job.job_id)
    assert record.status is JobStatus.FAILED
    assert "killed by signal 9" in record.error_message


def test_ctrl_c_stops_the_trainer_and_then_the_job(store, job, trainer):
    def play() -> None:
        trainer.next_order()
        until(lambda: jobs_of(store).get(job.job_id).status is JobStatus.RUNNING)
        os.kill(os.getpid(), signal.SIGINT)
        assert trainer.next_order() == {"kind": "stop"}
        trainer.pipe.close()

    assert run(store, job, play) == 1
    assert jobs_of(store).get(job.job_id).status is JobStatus.STOPPED


@pytest.mark.usefixtures("trainer")
def test_a_job_of_another_worker_is_left_alone(store, job):
    assert jobs_of(store).claim(job.job_id, 1, "elsewhere:1:1")
    assert worker.run_worker(store, job.job_id, 1, REQUEST) == 1
    assert jobs_of(store).get(job.job_id).status is JobStatus.QUEUED


def test_the_token_is_gone_before_a_trainer_is_there(store, monkeypatch):
    seen = []

    def fork(_request, folder):
        seen.extend([os.environ.get(TOKEN_VARIABLE), folder])
        raise StoreUnavailableError("far enough")

    monkeypatch.setenv(TOKEN_VARIABLE, "t" * 32)
    monkeypatch.setattr(TrainerProcess, "fork", fork)
    with pytest.raises(StoreUnavailableError, match="far enough"):
        worker.run_worker(store, "0" * 32, 1, REQUEST)
    token, folder = seen
    assert token is None
    assert not folder.exists()
