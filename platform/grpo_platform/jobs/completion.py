"""From a finished training to a completed job: evaluation, model, version, description."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grpo import checkpoint
from grpo.envs import EnvironmentSpec, check_environment
from grpo.errors import GRPOError
from grpo.evaluation import Evaluation
from grpo.policies import BasePolicy
from grpo_platform.core.names import Tag
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import WorkerSettings
from grpo_platform.jobs.failure_gallery import make_gallery
from grpo_platform.jobs.serialization import (
    evaluation_from_json,
    policy_of,
    save_policy,
    verdict_from_json,
)
from grpo_platform.registry.card import ModelCard
from grpo_platform.registry.decisions import decision_to_json
from grpo_platform.registry.models import Registry
from grpo_platform.registry.promotion import Promoter
from grpo_platform.registry.reference import record_reference
from grpo_platform.registry.registering import register_policy
from grpo_platform.serving.suites import play_suite_files
from grpo_platform.tracking.artifacts import PAGE_FILE, describe, illustrate
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.provenance import code_version, provenance_tags

__all__ = ["Completion"]

_log = logging.getLogger(__name__)


class Completion:
    """What a worker says about its job beside the metrics.

    Args:
        jobs: the store.
        job_id: the job.
        request: what it trains.
        folder: local directory for files on their way.
    """

    def __init__(self, jobs: JobStore, job_id: str, request: JobRequest, folder: Path) -> None:
        self._jobs = jobs
        self._job_id = job_id
        self._request = request
        self._folder = folder
        self._registry = Registry(jobs.tracking_uri)
        self._policy: BasePolicy | None = None
        self._evaluation: Evaluation | None = None

    def describe_start(self, environment: Mapping[str, Any]) -> None:
        """Tag the run with where it comes from, and what the trainer found out.

        Args:
            environment: the trainer's message.

        Raises:
            ConflictError: the model's name is another environment's, so training is in vain.
            StoreError: the store refused, or is away.
        """
        # early also for this: a registry first opened while its database is away makes a new one
        config = self._request.config
        name = self._request.model_name_for(self._job_id)
        self._registry.check_name(name, config.env_name, config.env_kwargs)
        exact = "true" if environment["resumes_exactly"] else "false"
        tags = provenance_tags(self._request) | {
            Tag.RESUME_EXACT: exact,
            Tag.BRANCHING: environment["branching"],
            Tag.BRANCHING_REASON: environment["branching_reason"],
        }
        self._jobs.set_tags(self._job_id, tags)
        self._jobs.log_environment(self._job_id, self._request)

    def tell_hints(self, hints: Mapping[str, str]) -> None:
        """Tag the run with what goes wrong in it.

        Raises:
            StoreError: the store refused, or is away.
        """
        self._jobs.set_tags(self._job_id, {Tag.HINTS: json.dumps(dict(hints))})

    def fetch_initial_policy(self, reference: str) -> Path:
        """The weights that training starts from, as a local file.

        Raises:
            UnknownModelError: no such version.
            UnsafeModelError: its files are not what was registered.
        """
        path = self._folder / "initial.npz"
        save_policy(self._registry.load_policy(reference), path)
        return path

    def register(self, done: Mapping[str, Any], before_write: Callable[[], None]) -> None:
        """Register the trained policy, once, and decide whether it serves the bare name.

        Args:
            done: the trainer's last message.
            before_write: see `register_policy`.

        Raises:
            ConflictError: the model's name became another environment's.
            StoreError: the store refused, or is away.
        """
        config = self._request.config
        environment = check_environment(config.env_name, config.env_kwargs)
        state, _ = checkpoint.load(Path(done["path"]))
        self._policy = policy_of(state, environment)
        evaluation = self._evaluation = evaluation_from_json(done["evaluation"])
        verdict = done["verdict"] and verdict_from_json(done["verdict"])
        code = code_version()
        card = ModelCard.of_job(
            self._job_id,
            config,
            environment,
            timesteps=done["timesteps"],
            evaluation=evaluation,
            baselines=verdict,
            git_commit=code.commit if code else None,
        )
        name = self._request.model_name_for(self._job_id)
        version = register_policy(
            self._registry, self._job_id, self._policy, name, card, before_write,
            _reference(self._policy, environment, evaluation),
        )  # fmt: skip
        _log.info("Registered %s version %d.", name, version.version)
        decision = Promoter(self._registry, play_suite=play_suite_files).decide_after_training(
            version, self._request.promote, f"job {self._job_id}"
        )
        tags = {
            Tag.STOPPED_BY: done["stopped_by"] or "",
            Tag.MODEL_VERSION: str(version.version),
            Tag.PROMOTED: str(decision.promoted).lower(),
            Tag.PROMOTION_REASON: decision.outcome,
            Tag.DECISION: decision_to_json(decision),
        }
        if verdict is not None:
            tags[Tag.VERDICT] = json.dumps(done["verdict"])
        self._jobs.set_tags(self._job_id, tags)
        _log.info("%s: %s", "Promoted" if decision.promoted else "Not promoted", decision.outcome)

    def illustrate(self) -> None:
        """Give the run its curve, video, worst episodes and description.

        Raises:
            StoreError: the store refused, or is away.
        """
        if self._policy is None:
            return
        frames = WorkerSettings().video_frames
        made = illustrate(self._jobs, self._job_id, self._policy, self._folder, frames)
        if self._collect_failures(self._policy, frames):
            files = [*made, PAGE_FILE]
            note = describe(self._jobs.get(self._job_id), files=files)
            self._jobs.set_tags(self._job_id, {Tag.NOTE: note})

    def _collect_failures(self, policy: BasePolicy, clip_frames: int) -> bool:
        """Whether there were worst episodes, which are with the run now."""
        config, most = self._request.config, self._request.failure_gallery
        if not most or self._evaluation is None:
            return False
        folder = self._folder / "gallery"
        try:
            spec = check_environment(config.env_name, config.env_kwargs)
            if make_gallery(policy, spec, self._evaluation, most, folder, clip_frames) is None:
                return False
        except Exception:  # noqa: BLE001 - foreign code is played, drawn and grouped by
            _log.warning("The run has no gallery of failures.", exc_info=True)
            return False
        self._jobs.upload_folder(self._job_id, folder)
        return True


def _reference(
    policy: BasePolicy, environment: EnvironmentSpec, evaluation: Evaluation
) -> bytes | None:
    """How the policy plays now; nothing where that cannot be had, which is no reason to fail."""
    try:
        return record_reference(policy, environment, evaluation)
    except GRPOError as error:
        _log.warning("The version has no reference episodes: %s", error)
        return None
