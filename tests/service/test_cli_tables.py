"""What commands show in a terminal of 80 columns: no line is longer, and nothing of it is lost."""

import contextlib
import io
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from rich.console import Console
from typer.testing import CliRunner

from grpo_platform.cli import _space, app, output
from grpo_platform.client.progress import line_of_job, progress_bar

ID = "0123456789abcdef" * 2
MODEL = "lunar-lander-continuous-with-wind-2026"
ENV = "LunarLanderContinuous-v3"
AGO = (datetime.now(UTC) - timedelta(days=3)).isoformat()

JOB = {
    "job_id": ID, "status": "running", "progress": 0.45, "current_timesteps": 450_000,
    "total_timesteps": 1_000_000, "start_time": AGO, "metrics": {
        "rollout/ep_rew_mean": -1234.5, "eval/mean_reward": 2718.28,
    },
    "model_name": MODEL, "env_name": ENV, "status_message": None, "hints": {}, "verdict": None,
    "error_message": None,
}  # fmt: skip
EXPERIMENT = {
    "experiment_id": ID, "status": "completed", "env_name": ENV, "model_name": MODEL,
    "counts": {"completed": 9, "failed": 1}, "n_seeds": 10, "progress": 1.0, "iqm": 2441.25,
    "ci_low": 2380.0, "ci_high": 2440.0, "start_time": AGO,
}  # fmt: skip
SWEEP = {
    "sweep_id": ID, "status": "running", "progress": 0.5, "env_name": ENV, "model_name": MODEL,
    "started_trials": 512, "n_trials": 1000, "best_value": -1487.25, "metric": "eval/mean_reward",
    "start_time": AGO,
}  # fmt: skip
COMPARISON = {
    "comparison_id": ID, "labels": [f"{MODEL}/1", f"{MODEL}/2"], "created_at": AGO,
    "sentence": f"{MODEL}/1 beats {MODEL}/2: by 12.",
}  # fmt: skip
ITEM = {
    "name": MODEL, "status": "loaded", "champion": 12, "latest_version": 14, "env_name": ENV,
    "eval_return_mean": -1234.5,
}  # fmt: skip
VERSION = {
    "version": 14, "aliases": ["champion", "canary"], "evaluation": {
        "mean": 1234.5, "ci_low": 1200.0, "ci_high": 1300.0, "interval_of": "iqm",
    },
    "scenarios": {"passed": True}, "seed": 4294967295, "job_id": ID, "created_at": AGO,
}  # fmt: skip
DECISION = {
    "number": 3, "action": "promote", "version": 14, "verdict": "promoted", "decided_at": AGO,
    "reason": "It returns 1,234.5, and the champion 1,100.0, on the same 100 seeds.",
}  # fmt: skip
SERVED = {
    "name": MODEL, "version": 14, "requests": 1_234_567, "requests_per_second": 2345.6,
    "latency_p50_ms": 0.61, "latency_p95_ms": 1.92, "latency_p99_ms": 12.75, "latest": AGO,
}  # fmt: skip
FAILURE = {
    "number": 1, "return": -1234.5, "length": 1000, "ended": "terminated", "seed": 4294967295,
    "cluster": 2, "collapse": {"step": 998}, "snapshot": "failures/01/snapshot.json",
}  # fmt: skip
RESULT = {
    "number": 3, "passed": False, "reason": "2 of 12 assertions do not hold.", "digest": "9" * 64,
    "run_at": AGO,
}  # fmt: skip
ENVIRONMENT = {
    "env_name": "gymnasium_robotics/AdroitHandRelocateSparse-v1", "reason": "It needs the package "
    "gymnasium-robotics: pip install gymnasium-robotics.", "observation_space":
    "Box(-inf, inf, (39,), float64)", "action_space": "Box(-1.0, 1.0, (30,), float32)",
    "policy": "MlpPolicy",
}  # fmt: skip

LISTS = {
    ("jobs", "list"): (
        {"jobs": [JOB, JOB]},
        {"id", "status", "environment", "model", "train", "eval", "started"},
        {ID[:8], "running 45%", "-1,234.5", "2,718.3", "3d ago"},
    ),
    ("experiments", "list"): (
        {"experiments": [EXPERIMENT]},
        {"id", "status", "environment", "model", "seeds", "IQM", "95 %", "started"},
        {ID[:8], "completed", "9/10", "2,441.2", "2,380.0", "3d ago"},
    ),
    ("sweep", "list"): (
        {"sweeps": [SWEEP]},
        {"id", "status", "environment", "model", "trials", "best", "started"},
        {ID[:8], "running 50%", "512/1000", "-1,487.2", "3d ago"},
    ),
    ("comparisons", "list"): (
        {"comparisons": [COMPARISON]},
        {"id", "sides", "the first pair", "made"},
        {ID[:8], "3d ago"},
    ),
    ("models", "list"): (
        {"models": [ITEM]},
        {"model", "environment", "champion", "latest", "eval", "status"},
        {"12", "14", "-1,234.5", "loaded"},
    ),
    ("models", "show", MODEL): (
        {"versions": [VERSION], "decisions": [DECISION]},
        {"version", "aliases", "return", "95 %", "scenarios", "seed", "job", "made", "decision"},
        {ID[:8], "1,234.5", "passed", "4294967295", "promoted"},
    ),
    ("models", "served"): (
        {"models": [SERVED]},
        {"model", "version", "requests", "per second", "p50 ms", "p95 ms", "p99 ms", "latest"},
        {"1234567", "2,345.60", "0.61", "12.75"},
    ),
    ("failures", ID): (
        {"failures": [FAILURE], "notes": [], "page": None},
        {"number", "return", "length", "ended", "seed", "cluster", "collapse", "snapshot"},
        {"-1,234.5", "terminated", "4294967295", "998"},
    ),
    ("scenarios", "results", MODEL, "3"): (
        {"results": [RESULT], "latest": None},
        {"result", "reason", "suite", "when"},
        {"failed", "3d ago"},
    ),
    ("environments",): (
        {"environments": [ENVIRONMENT]},
        {"environment", "observation", "action", "policy"},
        {"MlpPolicy"},
    ),
    ("envs", "--refused"): ({"environments": [ENVIRONMENT]}, {"environment", "reason"}, set()),
    ("rewards",): (
        {"rewards": [{"name": "optimized_cartpole", "environments": "CartPole-v0, CartPole-v1",
                      "description": "Upright, centred, still: " * 5}]},
        {"reward", "environments", "what it is"},
        {"optimized"},
    ),
}  # fmt: skip


@contextlib.contextmanager
def answering(reply: object, status: int = 200) -> Iterator[str]:
    """A server that answers every call with the same; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def shown(
    words: tuple[str, ...], reply: object, monkeypatch: pytest.MonkeyPatch, width: int
) -> str:
    monkeypatch.setattr(output.console, "width", width)
    page = reply | {"next_page_token": None} if isinstance(reply, dict) else reply
    with answering(page) as url, output.console.capture() as said:
        done = CliRunner().invoke(app, ["--url", url, *words])
    assert done.exit_code == 0, done.output
    return said.get()


@pytest.mark.rotated(6)
@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_a_list_fits_eighty_columns_and_loses_nothing(words, monkeypatch):
    reply, columns, cells = LISTS[words]
    text = shown(words, reply, monkeypatch, 80)
    assert max(map(len, text.splitlines())) <= 80, text
    assert "…" not in text
    for word in columns | cells:
        assert word in text, (word, text)


@pytest.mark.rotated(6)
@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_a_row_is_one_line_for_another_program(words, monkeypatch):
    text = shown(words, LISTS[words][0], monkeypatch, output._PIPE_WIDTH)
    rows = [line for line in text.splitlines() if "  " in line.strip()]
    assert len(rows) in (2, 3, 4), text  # a head and a row, of one or two tables; jobs has two
    assert "ago" not in text
    if ID[:8] in text:
        assert ID in text


def test_what_is_too_wide_for_a_table_is_shown_one_below_the_other(monkeypatch):
    monkeypatch.setattr(output.console, "width", 80)
    columns = [f"observation[{i}]" for i in range(30)]
    with output.console.capture() as said:
        output.table(("step", *columns), [(7, *(i / 7 for i in range(30)))])
    lines = said.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines if line.strip()] == [
        ["step", "7"], *([name, f"{i / 7:,.2f}"] for i, name in enumerate(columns))
    ]  # fmt: skip


@pytest.mark.parametrize(("width", "lines"), [(80, 2), (output._PIPE_WIDTH, 1)])
def test_no_rows_are_said_to_people(width, lines, monkeypatch):
    monkeypatch.setattr(output.console, "width", width)
    with output.console.capture() as said:
        output.table(("id", "status"), [])
    assert len(said.get().splitlines()) == lines


@pytest.mark.parametrize("width", [80, 200])
def test_a_line_of_progress_loses_nothing(width):
    drawn, shown = (Console(width=width, file=io.StringIO()) for _ in range(2))
    with progress_bar(drawn) as bar:
        bar.show(line_of_job(JOB))
        shown.print(bar._progress.get_renderable())
    line = shown.file.getvalue().strip()
    assert len(line) <= width
    assert line.startswith("running ")
    assert " 45 % 450,000 of 1,000,000 steps, train -1,234.5, eval 2,718.3 " in line
    assert line.endswith("--:--")
    assert ("━" in line) == (width > 110)


def test_a_space_of_many_bounds_is_told_by_its_shape():
    bounds = "[-3.14 -5.  ... 0.]"
    long = f"Dict('a': Box({bounds}, {bounds}, (24,), float32), 'b': Box(-1.0, 1.0, (2,), float32))"
    assert _space(long) == "Dict('a': Box(24,) float32, 'b': Box(-1.0, 1.0, (2,), float32))"
