"""The trainer process and its worker's orders, in whatever order these come."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from grpo import Trainer, checkpoint
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.trainer_process import train
from grpo_platform.tracking.reporter import TrackingReporter
from tests.service.jobs_support import assert_as_undisturbed, long_job, platform
from tests.service.tracking_support import request

REQUEST = request(total_timesteps=600, seed=5, n_eval_episodes=2)
START = {"kind": "start", "checkpoint": None, "weights": None, "seconds": 0.0}
STOP = {"kind": "stop"}


@pytest.fixture(autouse=True)
def _own_signals():
    """`train` is for a process of its own, which leaves signals to its worker."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def stored(tmp_path):
    """A checkpoint of an earlier attempt, in the middle of the training."""
    answers = iter([False, False, True])
    reporter = TrackingReporter(REQUEST.config.total_timesteps, REQUEST.max_metric_points)
    trainer = Trainer(REQUEST.config, reporter=reporter, should_stop=lambda: next(answers))
    trainer.train()
    reporter.drain()
    checkpoint.save(tmp_path / "c.npz", trainer.state(), {"reporter": reporter.state_dict()})
    return tmp_path / "c.npz"


def messages_of(folder, *orders, request=REQUEST):
    """What the trainer says to these orders, all of which are there before it looks."""
    ours, theirs = Pipe()
    for order in orders:
        ours.send_bytes(json.dumps(order).encode())
    train(theirs, request, folder)
    theirs.close()
    said = []
    while ours.poll():
        try:
            said.append(json.loads(ours.recv_bytes()))
        except EOFError:
            break
    return said


@pytest.mark.parametrize("orders", ["start stop", "stop start", "stop stop start"])
def test_a_stop_before_start_is_a_stop_that_keeps_what_was_trained(tmp_path, stored, orders):
    start = START | {"checkpoint": str(stored)}
    said = messages_of(tmp_path, *({"start": start, "stop": STOP}[o] for o in orders.split()))
    assert [message["kind"] for message in said if message["kind"] != "points"] == [
        "environment", "done",
    ]  # fmt: skip
    done = said[-1]
    assert done["stopped"]
    earlier, _ = checkpoint.load(stored)
    kept, _ = checkpoint.load(tmp_path / "final.npz")
    assert done["timesteps"] == kept.timesteps == earlier.timesteps > 0
    assert (kept.weights == earlier.weights).all()


def test_a_start_alone_trains_to_the_end(tmp_path, stored):
    done = messages_of(tmp_path, START | {"checkpoint": str(stored)})[-1]
    assert (done["kind"], done["stopped"], done["timesteps"]) == ("done", False, 600)


@pytest.mark.parametrize("orders", ["start checkpoint", "checkpoint checkpoint start"])
def test_a_checkpoint_is_made_once_for_all_who_ask_and_the_bits_are_the_same(tmp_path, orders):
    messages_of(tmp_path, START)
    alone = checkpoint.load(tmp_path / "final.npz")[0].weights
    known = {"start": START, "checkpoint": {"kind": "checkpoint"}}
    said = messages_of(tmp_path, *(known[order] for order in orders.split()))
    made = [message for message in said if message["kind"] == "checkpoint"]
    assert len(made) == 1
    state, _ = checkpoint.load(Path(made[0]["path"]))
    assert 0 < state.timesteps < 600
    assert (checkpoint.load(tmp_path / "final.npz")[0].weights == alone).all()


def test_the_bits_do_not_depend_on_the_cores_of_the_machine(tmp_path):
    # members and minibatches that are large enough for BLAS to share a product among threads
    pendulum = request(
        env_name="Pendulum-v1", total_timesteps=3000, seed=1, n_eval_episodes=2, num_groups=16,
        group_size=8, batch_size=1024, start_states="reset",
    )  # fmt: skip
    weights = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            messages_of(tmp_path, START, request=pendulum)
        weights.append(checkpoint.load(tmp_path / "final.npz")[0].weights)
    assert (weights[0] == weights[1]).all()


# --- a worker that is told to end before its trainer has begun ---------------------------

FIELDS = {"total_timesteps": 60_000, "seed": 8, "n_eval_episodes": 5, "model_name": "early"}
WORKER = """
import json, sys
from grpo_platform.jobs.worker import run_forked
sys.exit(run_forked(json.loads(sys.argv[1]), int(sys.argv[2])))
"""


def run_worker_of(live, job, *, server_lives):
    """A worker in a process of its own, until it ends."""
    lifeline, server = os.pipe()
    if not server_lives:
        os.close(server)
    task = {
        "job_id": job.job_id, "attempt": job.attempt, "request": job.request.to_json(),
        "memory_bytes": 0, "store": dataclasses.asdict(live.place),
    }  # fmt: skip
    command = [sys.executable, "-c", WORKER, json.dumps(task), str(lifeline)]
    done = subprocess.run(command, pass_fds=(lifeline,), timeout=120, check=False)
    os.close(lifeline)
    if server_lives:
        os.close(server)
    assert done.returncode == 0


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with platform(tmp_path_factory.mktemp("trainer"), max_concurrent_jobs=1) as found:
        yield found


@pytest.mark.rotated(10)
@pytest.mark.parametrize("asked", ["leave", "stop"])
def test_an_order_before_the_start_neither_fails_a_job_nor_costs_its_checkpoint(live, asked):
    job = live.submit(**FIELDS | {"model_name": asked})
    live.training(job.job_id, 1000)
    live.runner.stop(job.job_id)
    stopped = live.wait(job.job_id, JobStatus.STOPPED)
    busy = live.submit(**long_job())
    live.training(busy.job_id)
    live.jobs.resume(job.job_id)  # it waits, since this server is busy
    if asked == "stop":
        live.jobs.request_stop(job.job_id)
    run_worker_of(live, live.jobs.get(job.job_id), server_lives=asked == "stop")
    found = live.jobs.get(job.job_id)
    assert found.status is (JobStatus.STOPPED if asked == "stop" else JobStatus.QUEUED)
    assert (found.error_message, found.crashes) == (None, 0)
    assert found.checkpoint == stopped.checkpoint
    assert found.current_timesteps == stopped.current_timesteps
    if asked == "stop":
        live.runner.resume(job.job_id)
    live.runner.stop(busy.job_id)
    assert_as_undisturbed(live, live.wait(job.job_id, JobStatus.COMPLETED))
