"""Reproduce a job: check what differs, train again in a process of its own, compare, write down."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, NoReturn

from grpo_platform.core.errors import ConflictError, InvalidRequestError, UnknownModelError
from grpo_platform.core.names import Tag
from grpo_platform.core.states import JobStatus
from grpo_platform.registry.models import Registry
from grpo_platform.reproduction.sources import SourceTree, check_commit, source_tree
from grpo_platform.reproduction.verdict import (
    Difference,
    Findings,
    Reproduction,
    compare,
    differences,
)
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.provenance import provenance_tags
from grpo_platform.tracking.records import JobRecord

__all__ = ["Plan", "begin_run", "plan_reproduction", "run_plan"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is about to be trained again."""

    record: JobRecord
    """The job."""

    tags: Mapping[str, str]
    """Of its run."""

    fields: Mapping[str, Any]
    """Of the new job's request."""

    commit: str | None
    """Whose code trains; None is the code that runs now."""

    expected: tuple[Difference, ...]
    """What differs already, before the training."""


def plan_reproduction(store: JobStore, run_id: str, seed: int | None = None) -> Plan:
    """Check whether a job can be reproduced here, and what is different from when it was trained.

    Args:
        store: that has it.
        run_id: the job.
        seed: train with another one, to see how far apart seeds are.

    Raises:
        UnknownJobError: no such job.
        ConflictError: it is not completed, or its commit is not available.
        InvalidRequestError: its stored request cannot be trained.
    """
    record = store.get(run_id)
    if record.status is not JobStatus.COMPLETED:
        raise ConflictError(
            f"Job {run_id} is {record.status.value}; only a completed job can be reproduced."
        )
    if record.stopped_by == "max_seconds":
        raise ConflictError(
            f"Job {run_id} was ended by its max_seconds: how far it came depended on the machine, "
            "so it cannot be reproduced. Train it with total_timesteps as its budget instead."
        )
    if record.request_error is not None:
        raise InvalidRequestError(record.request_error)
    tags = store.tags(run_id)
    commit = tags.get(Tag.GIT_COMMIT)
    check_commit(commit)
    # as stored: another commit may not know the fields that this one would add
    fields = json.loads(tags[Tag.REQUEST]) | _own_fields(run_id)
    fields |= {} if seed is None else {"seed": seed}
    # of the machine: it is trained here, and for as long as it takes
    for name in ("num_cpus", "num_gpus", "max_seconds"):
        fields.pop(name, None)
    now = provenance_tags(record.request) | {Tag.SEED: str(fields["seed"])}
    if commit is not None:
        now |= {Tag.GIT_COMMIT: commit, Tag.GIT_DIRTY: "false"}
    return Plan(
        record=record, tags=tags, fields=fields, commit=commit, expected=differences(tags, now)
    )


def begin_run(store: JobStore, plan: Plan) -> str:
    """Make the run that a reproduction is trained in, beside the job's; returns its id."""
    job = plan.record
    tags = {Tag.REPRODUCES: job.job_id}
    return store.begin_run(job.experiment_id, tags, f"reproduction of {job.job_id}")


def run_plan(store: JobStore, registry: Registry, plan: Plan, run_id: str) -> Reproduction:
    """Train again in a run that exists, compare, and write the verdict to it.

    Whatever happens, the run does not stay RUNNING.

    Raises:
        ConflictError: it was not trained to its end; the run says why.
        StoreError: the store refused, or is away.
    """
    original = plan.record.job_id
    try:
        with source_tree(plan.commit) as tree:
            code = _train(tree, store.tracking_uri, run_id, plan.fields)
    finally:
        store.abandon(run_id, "The reproduction ended before its training did.")
    if code != 0:
        raise ConflictError(f"The reproduction of {original} was not completed; see run {run_id}.")
    found = store.get(run_id)
    result = Reproduction(
        original=original,
        run_id=run_id,
        differences=differences(plan.tags, store.tags(run_id)),
        comparison=compare(
            _findings(store, registry, plan.record), _findings(store, registry, found)
        ),
    )
    _write(store, result)
    return result


def _own_fields(run_id: str) -> dict[str, Any]:
    # a name of its own, never promoted: what serves is not touched
    return {"model_name": f"reproduction_of_{run_id}", "promote": "never"}


def _train(tree: SourceTree, tracking_uri: str, run_id: str, fields: Mapping[str, Any]) -> int:
    """Exit code of the training, which ends with this process."""
    given = {name: value for name, value in fields.items() if (name, value) != ("init_from", None)}
    words = [word for name, value in given.items() for word in (f"--{name}", _text(value))]
    inherited = [str(Path(p).absolute()) for p in os.environ.get("PYTHONPATH", "").split(":") if p]
    variables = {
        "MLFLOW_RUN_ID": run_id,
        "MLFLOW_TRACKING_URI": tracking_uri,
        "PYTHONPATH": os.pathsep.join(
            [str(tree.folder / "platform"), str(tree.folder), *inherited]
        ),
    }
    previous = signal.signal(signal.SIGTERM, _leave)
    # in the tree, since Python looks for modules in the working directory first
    child = subprocess.Popen(
        [sys.executable, "-m", tree.module, "train", *words],
        cwd=tree.folder, env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=sys.stderr,
    )  # fmt: skip
    try:
        return child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        signal.signal(signal.SIGTERM, previous)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _text(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def _findings(store: JobStore, registry: Registry, job: JobRecord) -> Findings:
    return Findings(
        histories=store.histories(job.job_id),
        weights_sha256=_weights(registry, job),
        metrics=job.metrics,
    )


def _weights(registry: Registry, job: JobRecord) -> str | None:
    try:
        versions = registry.get(job.model_name).versions
    except UnknownModelError:  # deleted since
        return None
    return next((v.weights_sha256 for v in versions if v.job_id == job.job_id), None)


def _write(store: JobStore, result: Reproduction) -> None:
    with TemporaryDirectory() as scratch:
        for name, text in (
            ("reproduction.json", json.dumps(result.to_dict(), indent=2) + "\n"),
            ("reproduction.md", result.to_markdown()),
        ):
            path = Path(scratch) / name
            path.write_text(text, encoding="utf-8")
            store.upload(result.run_id, path)
    verdict = result.comparison.verdict.value
    store.set_tags(
        result.run_id,
        {Tag.REPRODUCES: result.original, Tag.REPRODUCTION_VERDICT: verdict},
    )
    store.set_tags(result.original, {Tag.REPRODUCED_BY: result.run_id})
