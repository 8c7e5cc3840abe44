"""What people look at in a completed job's run: curve, video, description."""

import logging
from pathlib import Path
from typing import Final

from grpo.evaluation import evaluation_seeds
from grpo_platform.core.errors import PlatformError
from grpo_platform.core.names import Tag
from grpo_platform.tracking.curve import CURVE_KEYS, draw_learning_curve
from grpo_platform.tracking.description import CURVE_FILE, VIDEO_FILE, describe
from grpo_platform.tracking.records import JobRecord
from grpo_platform.tracking.runs import RunStore
from grpo_platform.tracking.video import Actor, record_episodes

__all__ = ["illustrate"]

_log = logging.getLogger(__name__)

_EPISODES: Final = 3
_CURVE_POINTS: Final = 1_000


def illustrate(runs: RunStore, job_id: str, policy: Actor, folder: Path) -> None:
    """Give a completed job's run its figure, its video and its description.

    A part that cannot be made is left out; the description names those that are there.

    Args:
        runs: the store.
        job_id: the job, its evaluation and version recorded.
        policy: what it trained.
        folder: local directory for the files on their way.

    Raises:
        StoreError: the store refused, or is away.
    """
    record = runs.get(job_id)
    files = [_add_curve(runs, record, folder)]
    try:
        files.append(_add_video(runs, record, policy, folder))
    except PlatformError as error:
        _log.warning("The run has no video: %s", error)
    runs.set_tags(job_id, {Tag.NOTE: describe(record, files=files)})


def _add_curve(runs: RunStore, record: JobRecord, folder: Path) -> str:
    histories = {key: runs.history(record.job_id, key, _CURVE_POINTS) for key in CURVE_KEYS}
    config = record.request.config
    path = folder / CURVE_FILE
    draw_learning_curve(histories, f"{config.env_name}, seed {config.seed}", path)
    return runs.upload(record.job_id, path)


def _add_video(runs: RunStore, record: JobRecord, policy: Actor, folder: Path) -> str:
    """Film the first episodes of the evaluation."""
    config = record.request.config
    path = folder / VIDEO_FILE
    seeds = [int(seed) for seed in evaluation_seeds(_EPISODES)]
    record_episodes(policy, config.env_name, config.env_kwargs, seeds, path)
    return runs.upload(record.job_id, path)
