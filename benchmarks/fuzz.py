"""Schemathesis over the whole OpenAPI schema of a real server that trains real jobs.

At least 20,000 requests, good and bad ones, through four phases (examples, coverage, fuzzing,
stateful), each answer held against five checks: no server error; status, content type and body as
documented; bad data refused. Models and jobs exist, are trained and deleted meanwhile.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import requests

from benchmarks.results import write_rows
from benchmarks.server import environment, serving

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_schema_conformance", "negative_data_rejection",
)  # fmt: skip
HOOKS = Path(__file__).with_name("fuzz_hooks.py")
MODELS = ("fuzz-1", "fuzz-2", "fuzz-3", "fuzz-4")
REFERENCES = (*MODELS, "fuzz-1@champion", "fuzz-2/1", "fuzz-3/9", "fuzz-4@nobody")
ENVIRONMENTS = ("CartPole-v1", "Pendulum-v1", "Acrobot-v1")
WHERE_KNOWN_NAMES_GO = {
    "path.job_id": "jobs",
    "path.sweep_id": "sweeps",
    "path.name": "models",
    "body.model_name": "references",
    "body.env_name": "environments",
}
SETTINGS = {
    "GRPO_MAX_TIMESTEPS": "64",
    "GRPO_MAX_QUEUED_JOBS": "5",
    "GRPO_MAX_CONCURRENT_JOBS": "1",
}
ANSWER_SECONDS = 120.0
LEAST_EACH = 20
LEAST_KEPT = 20_000  # cases of a run whose summary goes into results/


def train(url: str, model_name: str) -> str:
    """A finished job that made a version of a model; its id."""
    body = {"model_name": model_name, "total_timesteps": 64, "n_eval_episodes": 1}
    reply = requests.post(f"{url}/train", json=body, timeout=ANSWER_SECONDS)
    reply.raise_for_status()
    job_id: str = reply.json()["job_id"]
    while True:
        job = requests.get(f"{url}/training/{job_id}/status", timeout=ANSWER_SECONDS).json()
        if job["status"] == "completed":
            return job_id
        if job["status"] in ("failed", "stopped"):
            raise RuntimeError(job)
        time.sleep(0.1)


def sweep(url: str) -> str:
    """A sweep of two short trials; its id."""
    space = {"gamma": {"type": "float", "low": 0.9, "high": 0.99}}
    body = {"search_space": space, "n_trials": 2, "config": {"n_eval_episodes": 1}}
    reply = requests.post(f"{url}/sweeps", json=body, timeout=ANSWER_SECONDS)
    reply.raise_for_status()
    sweep_id: str = reply.json()["sweep_id"]
    return sweep_id


def configuration(jobs: list[str], sweeps: list[str]) -> str:
    """Schemathesis's configuration: names that exist are tried as often as invented ones."""
    known = {
        "jobs": jobs, "sweeps": sweeps, "models": MODELS, "references": REFERENCES,
        "environments": ENVIRONMENTS,
    }  # fmt: skip
    lines = [f'hooks = "{HOOKS}"']
    for name, values in known.items():
        lines += [f"[dictionaries.{name}]", f"values = {list(values)}"]
    lines.append("[parameters]")
    for place, name in WHERE_KNOWN_NAMES_GO.items():
        lines.append(f'"{place}" = {{ dictionary = "{name}", probability = 0.5 }}')
    return "\n".join(lines) + "\n"


def fuzz(url: str, folder: Path, each: int, seed: int) -> tuple[int, int]:
    """One run with at most `each` cases an operation; how many cases, and its exit status."""
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"),
            "--config-file", str(folder / "schemathesis.toml"), "run", f"{url}/openapi.json",
            "--checks", ",".join(CHECKS), "--max-examples", str(each), "--seed", str(seed),
            # two workers would compile side by side, which CPython 3.11's `ast` does not bear
            "--workers", "1", "--request-timeout", f"{ANSWER_SECONDS:g}", "--continue-on-failure",
            "--generation-database", "none", "--no-color",
        ],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    print(done.stdout, flush=True)
    counted = re.search(r"Test cases:\s+(\d+) generated", done.stdout)
    return int(counted[1]) if counted else 0, done.returncode


def answers(url: str) -> Counter[tuple[str, str]]:
    """How many requests got which status, by method and route as documented."""
    text = requests.get(f"{url}/metrics", timeout=ANSWER_SECONDS).text
    found: Counter[tuple[str, str]] = Counter()
    for method, route, status, count in re.findall(
        r'grpo_http_requests_total\{method="(\w+)",route="([^"]*)",status="(\d+)"\} ([\d.e+]+)',
        text,
    ):
        found[f"{method} {route}", status] += int(float(count))
    return found


def by_status(answered: Counter[tuple[str, str]]) -> list[tuple[str, int]]:
    """How many requests got each status."""
    found: Counter[str] = Counter()
    for (_, status), count in answered.items():
        found[status] += count
    return list(found.items())


def run(cases: int, seed: int, folder: Path) -> bool:
    """All of it; True where nothing was found."""
    total = 0
    with serving(folder, **SETTINGS) as url:
        jobs = [train(url, name) for name in MODELS]
        (folder / "schemathesis.toml").write_text(configuration(jobs, [sweep(url)]))
        paths = requests.get(f"{url}/openapi.json", timeout=ANSWER_SECONDS).json()["paths"]
        operations = sum(len(methods) for methods in paths.values())
        while total < cases:
            made, status = fuzz(url, folder, max(LEAST_EACH, (cases - total) // operations), seed)
            total += made
            if status or not made:
                return False
            seed += 1
        answered = answers(url)
        listed = requests.get(f"{url}/training/jobs?limit=1000", timeout=ANSWER_SECONDS).json()
        ends = Counter(job["status"] for job in listed["jobs"])
    log = (folder / "server.log").read_text(errors="replace")
    print(f"{total} cases over {operations} operations, 0 failures")
    rows = [
        ("cases", total),
        ("operations", operations),
        # the lists lack what was deleted meanwhile
        ("jobs accepted", answered["POST /train", "200"]),
        ("sweeps accepted", answered["POST /sweeps", "200"]),
        *((f"newest jobs, {status}", count) for status, count in sorted(ends.items())),
        *((f"answers with {status}", count) for status, count in sorted(by_status(answered))),
        ("tracebacks in the server's log", log.count("Traceback")),
    ]
    for what, count in rows:
        print(f"{what}: {count}")
    if total >= LEAST_KEPT:
        write_rows("fuzz", [{"claim": what, "value": count} for what, count in rows])
    if "Traceback" in log:
        print(log)
        return False
    return True


def main() -> int:
    """Fuzz; ends with 1 where an answer is not what the schema promises."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000, help="at least so many")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="grpo-fuzz-") as folder:
        return 0 if run(chosen.cases, chosen.seed, Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
