"""What a viewer costs: training speed with one and without, and inference likewise.

One long CartPole job trains on a server at its default settings. By turns, a viewer watches it for
a while over the WebSocket, as the page does (frames of its newest checkpoint, and checkpoints made
for it), or nobody does; who begins changes with the round. A turn's speed is the timesteps and the
seconds that the trainer itself counts between the first and the last report within it. Then the
job is stopped, and the same calls of `POST /inference` are made while a session of one's own plays
a model at its natural speed and while it is paused, in many turns of a quarter of a second: what
the machine's host does changes a call's time by half from one second to the next. Medians and
spreads of the rounds' ratios are told; claims:

- a viewer takes at most 1 % of the trainer's time;
- the p50 of inference is at most 1.05 times the one without a viewer.

The first is held to the causes that a viewer has, since a machine that others share changes its
speed by tens of percents between two turns, whoever watches: the seconds in checkpoints that are
made for viewers, and the seconds that the trainer is ready to run and has no processor, by the
kernel's own account (`schedstat`), more than without a viewer. How much slower it was is told
beside it. In a third turn, of inference too, nobody watches, and a process of the lowest priority
that has nothing to do with us takes as much of the processor as the viewer's does: what a
machine's cores take from each other.
"""

import argparse
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil
import requests
from mlflow.tracking import MlflowClient
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from benchmarks.results import write_rows
from benchmarks.server import serving
from grpo import GRPOConfig, checkpoint
from grpo.trainer import Trainer
from grpo_platform.core.names import Tag

MOST_TAKEN = 0.01
MOST_OF_P50 = 1.05
MODEL = "viewed"
OBSERVATION = [0.01, -0.02, 0.03, 0.04]
CALL_SECONDS, BETWEEN_SECONDS = 0.25, 0.1
SETTLE_SECONDS = 4.0
"""For a session that begins or ends, and a heartbeat."""

BUSY = """
import os, sys, time
os.nice(19)
share = float(sys.argv[1])
while True:
    begun = time.process_time()
    while time.process_time() - begun < share / 17:
        sum(range(300))
    time.sleep((1 - share) / 17)
"""
"""A process that takes a share of a processor, seventeen times a second, as one that plays does."""


class Speed(NamedTuple):
    """What a trainer did in one turn."""

    rate: float
    """Timesteps a second."""

    waits: float
    """Share of the time in which it is ready to run and has no processor."""

    checkpoints: int
    """Made within the turn, those that are the job's own among them."""


class Viewer(threading.Thread):
    """Takes every frame, as the page does, until it is closed."""

    def __init__(self, url: str, body: dict[str, object]) -> None:
        super().__init__(daemon=True)
        reply = requests.post(f"{url}/play", json=body, timeout=180)
        reply.raise_for_status()
        self._url, self.session_id = url, reply.json()["session_id"]
        path = f"{url.replace('http', 'ws', 1)}/play/{self.session_id}/ws"
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(path, max_size=None, open_timeout=60))
        self.frames = 0

    def run(self) -> None:
        """Count frames."""
        try:
            for message in self._socket:
                self.frames += isinstance(message, bytes)
        except ConnectionClosed:
            return

    def play(self) -> None:
        """Let an episode pass, at its natural speed, in a session of one's own."""
        self._socket.send(json.dumps({"command": "reset"}))
        self._socket.send(json.dumps({"command": "play", "speed": 1.0}))

    def pause(self) -> None:
        """Let no time pass."""
        self._socket.send(json.dumps({"command": "pause"}))

    def close(self) -> None:
        """Leave."""
        self._open.close()
        self.join()
        requests.delete(f"{self._url}/play/{self.session_id}", timeout=60)


class Job:
    """A job that trains until it is stopped."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        body = {"total_timesteps": 1_000_000_000, "seed": 1, "n_eval_episodes": 1}
        self.id: str = requests.post(f"{url}/train", json=body, timeout=60).json()["job_id"]
        while self._done()[0] == 0:
            time.sleep(0.2)
        worker = self._client.get_run(self.id).data.tags[Tag.WORKER]
        (self._trainer,) = psutil.Process(int(worker.split(":")[1])).children()

    def _done(self) -> tuple[int, float, int]:
        """Timesteps, seconds trained, and timesteps of the newest checkpoint, as reported last."""
        tags = self._client.get_run(self.id).data.tags
        name = tags.get(Tag.CHECKPOINT, "").rpartition("/")[2].partition("-")[0]
        return int(tags.get(Tag.TIMESTEPS, 0)), float(tags.get(Tag.SECONDS, 0)), int(name or 0)

    def _report(self) -> tuple[int, float]:
        """The next report, as it comes."""
        before = self._done()
        while (now := self._done())[0] == before[0]:
            time.sleep(0.05)
        return now[:2]

    def speed(self, seconds: float) -> Speed:
        """How fast it trains now."""
        waited, begun = self._waited(), time.monotonic()
        first, seen = self._report(), set()
        while time.monotonic() < begun + seconds:
            time.sleep(0.25)
            seen.add(self._done()[2])
        last = self._report()
        waits = (self._waited() - waited) / (time.monotonic() - begun)
        return Speed((last[0] - first[0]) / (last[1] - first[1]), waits, len(seen) - 1)

    def _waited(self) -> float:
        """Seconds that its threads have waited for a processor; see proc(5), `schedstat`."""
        tasks = Path(f"/proc/{self._trainer.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text("ascii").split()[1]) for task in tasks) / 1e9

    def stop(self) -> None:
        """End it."""
        requests.post(f"{self._url}/training/{self.id}/stop", timeout=60)
        status = ""
        while status != "stopped":
            time.sleep(0.2)
            path = f"{self._url}/training/{self.id}/status"
            status = requests.get(path, timeout=60).json()["status"]


@contextmanager
def watching(url: str, body: dict[str, object]) -> Iterator[Viewer]:
    """Let one watch."""
    viewer = Viewer(url, body)
    viewer.start()
    time.sleep(SETTLE_SECONDS)
    try:
        yield viewer
    finally:
        viewer.close()
        time.sleep(SETTLE_SECONDS)


@contextmanager
def busy(share: float) -> Iterator[psutil.Process]:
    """A process that takes this share of a processor."""
    process = psutil.Popen([sys.executable, "-c", BUSY, str(share)])
    time.sleep(SETTLE_SECONDS)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def call_in_turns(url: str, body: str, turns: Connection) -> None:
    """Make one call after the other for as many seconds as it is told, and tell their p50 in ms."""
    where = urlsplit(url)
    head = f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json"
    request = f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    with socket.create_connection((where.hostname, where.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while seconds := turns.recv():
            taken, end = [], time.perf_counter() + seconds
            while (begun := time.perf_counter()) < end:
                connection.sendall(request)
                reply = connection.recv(65_536)
                while not reply.endswith(b"}"):
                    reply += connection.recv(65_536)
                taken.append(time.perf_counter() - begun)
                if not reply.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(reply)
            turns.send(1000 * statistics.median(taken))


@contextmanager
def calling(url: str, body: str) -> Iterator[Callable[[float], float]]:
    """Calls from a process of their own; gives what takes a turn's seconds and returns its p50."""
    ours, theirs = Pipe()
    process = get_context("spawn").Process(
        target=call_in_turns, args=(url, body, theirs), daemon=True
    )
    process.start()
    theirs.close()

    def turn(seconds: float) -> float:
        ours.send(seconds)
        return float(ours.recv())

    try:
        turn(1.0)
        yield turn
        ours.send(0.0)
    finally:
        ours.close()
        process.join()


def players() -> float:
    """Processor seconds of the processes that play, so far."""
    times = [
        process.cpu_times()
        for process in psutil.Process().children(recursive=True)
        if "grpo_platform.play.process" in process.cmdline()
    ]
    return sum(each.user + each.system for each in times)


def rotated(turns: list[str], number: int) -> list[str]:
    """Who comes first changes with the round."""
    return turns[number % len(turns) :] + turns[: number % len(turns)]


def checkpoint_seconds(scratch: Path) -> float:
    """What a checkpoint of such a job takes from its training, the median of many."""
    trainer = Trainer(GRPOConfig(total_timesteps=4_096, n_eval_episodes=1))
    trainer.train()
    taken = []
    for _ in range(101):
        begun = time.perf_counter()
        checkpoint.save(scratch / "checkpoint.npz", trainer.state(), {})
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def bench_training(url: str, folder: Path, options: argparse.Namespace) -> list[dict[str, object]]:
    """Training speed by turns, and what takes time from it."""
    each = checkpoint_seconds(folder)
    print(f"a checkpoint takes {1000 * each:.1f} ms", flush=True)
    job = Job(url, folder)
    ratios, taken, beside = [], [], []
    share = 0.3  # of a processor; what was measured, from the first turn with a viewer on
    for number in range(options.rounds):
        found: dict[str, Speed] = {}
        for turn in rotated(["without", "with"], number):
            if turn == "without":
                found[turn] = job.speed(options.seconds)
                continue
            with watching(url, {"job_id": job.id, "watch": True}) as viewer:
                before, used, begun = viewer.frames, players(), time.monotonic()
                found[turn] = job.speed(options.seconds)
                share = (players() - used) / (time.monotonic() - begun)
                if viewer.frames == before:
                    raise RuntimeError("the viewer saw nothing")
        with busy(share):
            found["beside"] = job.speed(options.seconds)
        without, one = found["without"], found["with"]
        ratios.append(without.rate / one.rate)
        beside.append(without.rate / found["beside"].rate)
        checkpoints = (one.checkpoints - without.checkpoints) * each / options.seconds
        taken.append(checkpoints + one.waits - without.waits)
        print(
            f"round {number + 1}: without {without.rate:,.0f} timesteps/s, with {one.rate:,.0f} "
            f"({ratios[-1]:.4f}), beside another that takes {share:.2f} of a processor "
            f"({beside[-1]:.4f}); waits {without.waits:.4f} and {one.waits:.4f} of the time; "
            f"checkpoints {without.checkpoints} and {one.checkpoints}; taken {taken[-1]:.4f}",
            flush=True,
        )
    job.stop()
    return [
        row_of("training, times slower", ratios, None),
        row_of("training, share of its time taken", taken, MOST_TAKEN),
        row_of("training, times slower beside any such process", beside, None),
    ]


def bench_inference(url: str, rounds: int) -> list[dict[str, object]]:
    """The p50 of single calls by turns: nobody, a viewer, a process as busy."""
    body = json.dumps({"model_name": MODEL, "observation": OBSERVATION})
    with watching(url, {"model": MODEL}) as viewer, calling(f"{url}/inference", body) as p50_of:
        viewer.play()
        used, begun = players(), time.monotonic()
        time.sleep(SETTLE_SECONDS)
        share = (players() - used) / (time.monotonic() - begun)
        viewer.pause()
        with busy(share) as process:
            process.suspend()
            turns: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
                "without": (int, int),
                "with": (viewer.play, viewer.pause),
                "beside": (process.resume, process.suspend),
            }
            found: dict[str, list[float]] = {turn: [] for turn in turns}
            for number in range(rounds):
                for turn in rotated(list(turns), number):
                    begin, end = turns[turn]
                    begin()
                    time.sleep(BETWEEN_SECONDS)
                    frames = viewer.frames
                    found[turn].append(p50_of(CALL_SECONDS))
                    if (turn == "with") != (viewer.frames > frames + 1):
                        raise RuntimeError(f"{viewer.frames - frames} frames in a turn {turn}")
                    end()
                    time.sleep(BETWEEN_SECONDS)
    p50 = ", ".join(f"{turn} {statistics.median(each):.4f} ms" for turn, each in found.items())
    print(f"p50 of calls: {p50}; the viewer's process takes {share:.2f} of a processor")
    ratios = {
        turn: [one / other for one, other in zip(found[turn], found["without"], strict=True)]
        for turn in ("with", "beside")
    }
    return [
        row_of("inference, times the p50", ratios["with"], MOST_OF_P50),
        row_of("inference, times the p50 beside any such process", ratios["beside"], None),
    ]


def row_of(claim: str, ratios: list[float], most: float | None) -> dict[str, object]:
    """A claim's row, which is printed; one without a bound is for comparison."""
    median = statistics.median(ratios)
    holds = most is None or median <= most
    bound = "" if most is None else f" (at most {most:g})"
    print(
        f"{'ok  ' if holds else 'FAIL'} {claim}: {median:.4f}, {min(ratios):.4f} to "
        f"{max(ratios):.4f} in {len(ratios)} rounds{bound}",
        flush=True,
    )
    return {
        "claim": claim, "median": round(median, 4), "least": round(min(ratios), 4),
        "greatest": round(max(ratios), 4), "rounds": len(ratios), "bound": most,
        "holds": holds,
    }  # fmt: skip


def trained(url: str) -> None:
    """Make the model that is played, whose episodes last longer than a turn."""
    body = {
        "total_timesteps": 5_000, "model_name": MODEL, "n_eval_episodes": 2, "seed": 1,
        "reward_function_type": "optimized_cartpole",
    }  # fmt: skip
    job_id = requests.post(f"{url}/train", json=body, timeout=60).json()["job_id"]
    while True:
        status = requests.get(f"{url}/training/{job_id}/status", timeout=60).json()
        if status["status"] == "completed":
            return
        if status["status"] in ("failed", "stopped"):
            raise RuntimeError(status)
        time.sleep(0.2)


def main() -> int:
    """Print every figure; the exit status says whether all claims hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a turn")
    parser.add_argument("--calls", type=int, default=300, help="rounds of inference")
    parser.add_argument("--keep", action="store_true", help="write the rows into results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with serving(folder) as url:
            trained(url)
            rows = [
                *bench_training(url, folder, options),
                *bench_inference(url, options.calls),
            ]
    if options.keep:
        write_rows("viewer_cost", rows)
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
