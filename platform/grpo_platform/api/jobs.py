"""A job's record as the API shows it."""

from grpo_platform.api.schemas.training import Job
from grpo_platform.jobs.states import JobStatus
from grpo_platform.tracking.names import Metric
from grpo_platform.tracking.records import JobRecord

__all__ = ["job_reply"]


def job_reply(record: JobRecord) -> Job:
    """The reply that describes this job."""
    return Job(
        job_id=record.job_id,
        status=record.status,
        progress=record.progress,
        current_timesteps=record.current_timesteps,
        total_timesteps=record.total_timesteps,
        start_time=record.start_time,
        end_time=record.end_time,
        error_message=record.error_message,
        metrics=dict(record.metrics),
        model_name=record.model_name,
        model_version=None if record.model_version is None else int(record.model_version),
        promoted=record.promoted,
        promotion_reason=record.promotion_reason,
        eta_seconds=_eta_seconds(record),
        attempt=record.attempt,
        env_name=record.request.config.env_name,
        status_message=record.status_message,
        branching=record.branching,
        branching_reason=record.branching_reason,
        stopped_by=record.stopped_by,
    )


def _eta_seconds(record: JobRecord) -> float | None:
    speed = record.metrics.get(Metric.FPS, 0.0)
    if record.status is not JobStatus.RUNNING or speed <= 0:
        return None
    return max(0, record.total_timesteps - record.current_timesteps) / speed
