"""What must hold after chaos: every job ended once, nothing lost, doubled, missing or changed."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from mlflow.tracking import MlflowClient

from benchmarks.chaos.world import World
from grpo.policies import BasePolicy
from grpo.trainer import Trainer
from grpo_platform.core.names import CLOCK_METRICS, SYSTEM_METRICS_PREFIX
from grpo_platform.core.request import JobRequest
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.run_writer import read_log
from grpo_platform.registry.models import Registry
from grpo_platform.tracking.reporter import TrackingReporter

Histories = Mapping[str, list[tuple[int, float]]]


@dataclass
class Verdict:
    """Figures; all but `completed` and `twins` must be 0, and `findings` empty."""

    completed: int = 0
    twins: int = 0
    lost: int = 0
    failed: int = 0
    doubled: int = 0
    missing: int = 0
    changed: int = 0
    versions: int = 0
    deaf: int = 0
    findings: list[str] = field(default_factory=list)

    def note(self, figure: str, job_id: str, what: object) -> None:
        """Count a finding."""
        setattr(self, figure, getattr(self, figure) + 1)
        self.findings.append(f"{job_id} {figure}: {what}")


def verify(world: World, seed: int, most_twins: int) -> Verdict:
    """Look at every accepted job, and train a sample of them again, undisturbed.

    Args:
        world: all its jobs ended.
        seed: of the sample.
        most_twins: size of the sample.
    """
    verdict = Verdict()
    client = MlflowClient(tracking_uri=world.tracking_uri)
    store, registry = world.store(), Registry(world.tracking_uri)
    kept = [job_id for job_id in world.jobs if job_id not in world.deleted]
    sample = set(random.Random(seed).sample(kept, min(most_twins, len(kept))))
    for job_id, message in world.failed.items():
        verdict.note("failed", job_id, message)
    for job_id in kept:
        record = store.get(job_id)
        if record.status is not JobStatus.COMPLETED:
            verdict.note("lost", job_id, f"{record.status}: {record.error_message}")
            continue
        verdict.completed += 1
        versions = client.search_model_versions(f"run_id = '{job_id}'")
        if len(versions) != 1:
            made = [f"v{v.version} at {v.creation_timestamp}" for v in versions]
            verdict.note("versions", job_id, f"{made}; {read_log(store, job_id).decode()}")
            continue
        _check_prediction(world, registry, record.model_name, verdict, job_id)
        found = _histories(client, job_id)
        _check_doubles(verdict, job_id, found)
        if job_id in sample:
            verdict.twins += 1
            policy = registry.load_policy(f"{record.model_name}/{record.model_version}")
            expected, twin = _train_undisturbed(record.request, registry)
            _compare(verdict, job_id, found, expected)
            if not _equal(policy, twin):
                verdict.note("changed", job_id, f"other weights; {world.jobs[job_id]}")
    return verdict


def _check_prediction(
    world: World, registry: Registry, name: str, verdict: Verdict, job_id: str
) -> None:
    shape = registry.load_policy(name).spec.observation_shape
    body = {"model_name": name, "observation": [0.01] * math.prod(shape)}
    reply = world.call("POST", "/inference", json=body)
    if reply.status_code != 200:
        verdict.note("deaf", job_id, reply.text)


def _histories(client: MlflowClient, job_id: str) -> Histories:
    keys = client.get_run(job_id).data.metrics
    return {
        # the store has them in order of their timestamps, and clocks are set
        key: sorted((m.step, m.value) for m in client.get_metric_history(job_id, key))
        for key in keys
        if _is_reproducible(key)
    }


def _train_undisturbed(request: JobRequest, registry: Registry) -> tuple[Histories, BasePolicy]:
    reporter = TrackingReporter(request.config.total_timesteps, request.max_metric_points)
    begun = None if request.init_from is None else registry.load_policy(request.init_from)
    with Trainer(request.config, reporter=reporter, initial_policy=begun) as trainer:
        result = trainer.train()
        if result.evaluation is not None:
            reporter.on_verdict(trainer.verdict(result.evaluation))
    expected: dict[str, list[tuple[int, float]]] = {}
    for point in [*reporter.drain(), *reporter.finish()]:
        if _is_reproducible(point.key):
            expected.setdefault(point.key, []).append((point.step, point.value))
    return expected, result.policy


def _check_doubles(verdict: Verdict, job_id: str, found: Histories) -> None:
    for key, points in found.items():
        if len(points) != len({step for step, _ in points}):
            verdict.note("doubled", job_id, key)


def _compare(verdict: Verdict, job_id: str, found: Histories, expected: Histories) -> None:
    for key in expected.keys() | found.keys():
        points, wanted = found.get(key, []), expected.get(key, [])
        if absent := {step for step, _ in wanted} - {step for step, _ in points}:
            verdict.note("missing", job_id, f"{key} at {sorted(absent)[:5]}")
        elif points != wanted:
            unlike = next((a, b) for a, b in zip_longest(points, wanted) if a != b)
            verdict.note("changed", job_id, f"{key}: (step, value) {unlike[0]}, not {unlike[1]}")


def _is_reproducible(key: str) -> bool:
    return key not in CLOCK_METRICS and not key.startswith(SYSTEM_METRICS_PREFIX)


def _equal(one: BasePolicy, other: BasePolicy) -> bool:
    pairs: list[tuple[Any, Any]] = list(
        zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )
    return all(bool((a == b).all()) for a, b in pairs)
