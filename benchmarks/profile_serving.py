"""Where the time of an inference call goes: py-spy samples the server while wrk loads it.

A sample belongs to the innermost of its frames that the table below knows; threads that wait are
not counted. The share of the samples times the server's processor time for one request gives the
microseconds. Parts that a sampler cannot tell apart are timed alone, in this process: HTTP
parsing, MLflow's pyfunc wrapper, making tensors, the forward pass.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import h11
import mlflow.pyfunc
import numpy as np
import psutil
from httptools import HttpRequestParser
from mlflow.tracking import MlflowClient
from pydantic_core import to_json

from benchmarks.load import Target, in_turn
from benchmarks.server import machine, serving
from benchmarks.serving import (
    BATCH,
    MODEL,
    OBSERVATION,
    batch_body,
    best_of,
    single_body,
    train,
)
from grpo_platform.api.schemas.inference import BatchRequest, InferenceReply, InferenceRequest
from grpo_platform.registry.loader import read_policy
from grpo_platform.registry.models import Registry
from grpo_platform.serving.service import ServingService

PARTS: Final = (
    ("prediction", r"registry/loader\.py|/numpy/"),
    ("model lookup, checks of observations", r"grpo_platform/serving/"),
    ("reading and validating the body", r"api/dependencies\.py|starlette/requests\.py"),
    ("writing the reply's JSON", r"_reply \(|infer\w* \(.*inference\.py"),
    ("HTTP parsing", r"(data_received|on_\w+|_start_asgi_task) \(.*httptools_impl\.py"),
    ("HTTP writing, sending", r"(send|\w*write\w*|on_response_complete) \(.*httptools_impl\.py"),
    ("connections, gate and metrics", r"api/(middleware|metrics)\.py|prometheus_client/"),
    ("routing and middleware", r"starlette/|fastapi/|uvicorn/|grpo_platform/api/"),
    ("handing batches to a thread", r"anyio/|threading\.py|queue\.py"),
    ("event loop, receiving", r"asyncio/"),
)  # fmt: skip
"""A part of the work, and its frames as py-spy writes them; the first match counts."""

BACKGROUND: Final = "other threads (jobs, lookups)"
WAITING: Final = re.compile(r"(wait|poll|select|get|_worker) \([^;]*$")
SAMPLES_A_SECOND: Final = 200


def part_of(stack: str) -> str | None:
    """Which part of the work a stack is busy with; None if it waits."""
    thread, _, frames = stack.partition(";")
    if "MainThread" not in thread:
        if WAITING.search(frames):
            return None
        if "AnyIO" not in thread:
            return BACKGROUND
    for frame in reversed(frames.split(";")):
        for part, pattern in PARTS:
            if re.search(pattern, frame):
                return part
    return "other"


def profile(pid: int, target: Target, connections: int, seconds: float) -> None:
    """Load the server, sample it meanwhile, and print what a request costs."""
    server = psutil.Process(pid)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        targets = {"server": target}
        in_turn(targets, connections, 1, 1.0, folder)
        before = server.cpu_times()
        load = in_turn(targets, connections, 1, seconds, folder)["server"][0]
        after = server.cpu_times()
        spent = sum(after[:2]) - sum(before[:2])
        spy = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "py-spy"), "record", "--pid", str(pid),
                "--format", "raw", "--threads", "--rate", str(SAMPLES_A_SECOND),
                "--duration", f"{seconds:g}", "--output", str(folder / "raw"),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        in_turn(targets, connections, 1, seconds, folder)
        said, _ = spy.communicate(timeout=seconds + 60)
        if spy.returncode:
            raise RuntimeError(said)
        samples = counted((folder / "raw").read_text())
    micros = spent / (load.rate * seconds) * 1e6
    total = sum(samples.values())
    print(
        f"\n{urlsplit(target.url).path}, {connections} clients, without the sampler: "
        f"{load.rate:.0f} requests/s, p50 {load.p50} ms, {micros:.0f} µs of processor time each; "
        f"{total} samples\n\n| part | share | µs |\n|---|---|---|"
    )
    for part, count in samples.most_common():
        share = count / total
        print(f"| {part} | {share:.0%} | {share * micros:.1f} |")


def counted(raw: str) -> Counter[str]:
    """Samples of each part, from py-spy's lines."""
    found: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        part = part_of(stack)
        if part is not None:
            found[part] += int(count)
    return found


def request_bytes(target: Target) -> bytes:
    """What wrk sends."""
    return (
        f"POST {urlsplit(target.url).path} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(target.body)}\r\n\r\n{target.body}"
    ).encode()


class Sink:
    """Takes what httptools finds, as uvicorn's protocol does, and does nothing with it."""

    def on_url(self, url: bytes) -> None:
        """The target."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""

    def on_body(self, body: bytes) -> None:
        """A part of the body."""


def with_h11(data: bytes) -> None:
    """Parse one request as uvicorn does without httptools."""
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(data)
    while parser.next_event() not in (h11.NEED_DATA, h11.PAUSED):
        pass


def time_alone(uri: str, targets: dict[str, Target]) -> None:
    """What each part takes by itself, the least of several means."""
    registry = Registry(uri)
    service = ServingService(registry, 8)
    model = service.load(MODEL)
    predictor = read_policy(*registry.read(model.ref))
    location = MlflowClient(uri, uri).get_logged_model(model.ref.model_id).artifact_location
    pyfunc = mlflow.pyfunc.load_model(urlsplit(location).path)
    single, batch = (targets[name].body for name in ("single", "batch"))
    lists = json.loads(batch)["observations"]
    many = np.array(lists)
    one = np.array([OBSERVATION], np.float32)
    float32 = many.astype(np.float32)
    outputs = model.predict_batch(many)
    reply = InferenceReply(action=1, action_probs=[0.25, 0.75], value=21.5, model_version=1)
    written = {name: array.tolist() for name, array in outputs.items()}
    asked = request_bytes(targets["single"])
    print("\n| alone, one observation | µs |\n|---|---|")
    for text, call in {
        "HTTP parsing by httptools": lambda: HttpRequestParser(Sink()).feed_data(asked),
        "HTTP parsing by h11": lambda: with_h11(asked),
        "validation": lambda: InferenceRequest.model_validate_json(single),
        "model lookup": lambda: service.ready(MODEL),
        "checks, tensor creation and forward": lambda: model.predict_one(OBSERVATION),
        "tensor creation": lambda: np.array(OBSERVATION, np.float64),
        "serialisation": lambda: to_json(reply.model_dump(), inf_nan_mode="null"),
        "MLflow's pyfunc": lambda: pyfunc.predict(one),
        "the same without MLflow's wrapper": lambda: predictor.predict(one),
    }.items():
        print(f"| {text} | {best_of(call, 10, 1000) * 1e6:.1f} |")
    print(f"\n| alone, {BATCH:,} observations | µs |\n|---|---|")
    for text, call in {
        "validation": lambda: BatchRequest.model_validate_json(batch),
        "checks, tensor creation and forward": lambda: model.predict_batch(lists),
        "tensor creation": lambda: np.array(lists),
        "forward": lambda: predictor.predict_batch(many),
        "arrays to lists": lambda: [array.tolist() for array in outputs.values()],
        "serialisation": lambda: to_json(written, inf_nan_mode="null"),
        "MLflow's pyfunc": lambda: pyfunc.predict(float32),
        "the same without MLflow's wrapper": lambda: predictor.predict(float32),
    }.items():
        print(f"| {text} | {best_of(call, 10, 50) * 1e6:.0f} |")
    service.close()


def main() -> int:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each profile")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with serving(folder) as url:
            train(url, 512, model_name=MODEL)
            pid = next(
                child.pid
                for child in psutil.Process().children()
                if "run_api.py" in " ".join(child.cmdline())
            )
            targets = {
                "single": Target(f"{url}/inference", single_body()),
                "batch": Target(f"{url}/inference/batch", batch_body()),
            }
            for name, connections in (("single", 1), ("single", 50), ("batch", 10)):
                profile(pid, targets[name], connections, options.seconds)
        time_alone(f"sqlite:///{folder / 'mlflow.db'}", targets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
