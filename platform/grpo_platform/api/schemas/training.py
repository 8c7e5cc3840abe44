"""Training calls: what they take and what they give."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from grpo import GRPOConfig, resolve_config
from grpo.envs import Branching
from grpo_platform.api.schemas.common import (
    MODEL_EXAMPLE,
    WHOLE,
    Reply,
    RequestBody,
    Verdict,
    bounded,
    example,
    fields_from,
    reply_of,
)
from grpo_platform.api.schemas.models import Decision
from grpo_platform.core.names import Metric
from grpo_platform.core.request import JobRequest
from grpo_platform.core.states import JobStatus
from grpo_platform.registry.decisions import decision_from_json
from grpo_platform.tracking.records import JobRecord

__all__ = [
    "DeletedJob",
    "Job",
    "JobConfig",
    "JobList",
    "JobLogs",
    "MetricHistory",
    "MetricPoint",
    "ResumedJob",
    "StoppedJob",
    "TrainReply",
    "TrainRequest",
    "config_of",
    "job_reply",
]


@fields_from(
    GRPOConfig,
    JobRequest,
    defaults=resolve_config().to_dict(),
    notes={
        "env_name": "GET /environments lists those known.",
        "reward_function_type": "GET /rewards lists them.",
    },
)
class TrainRequest(RequestBody):
    """What to train, and how. Every field may be left out; the environment's preset fills it in."""

    model_config = example(
        env_name="CartPole-v1", total_timesteps=5000, seed=7, model_name=MODEL_EXAMPLE
    )

    seed: Annotated[int, bounded("seed"), WHOLE] | None = None
    """Seeds every random generator; drawn at random, and shown in the reply, when left out."""

    wrappers: list[JsonValue] | None = None
    """Wrappers around the environment, the first one innermost: names, or objects with `name` and
    `kwargs`. They are kept in `env_kwargs`."""


class TrainReply(Reply):
    """A job was accepted."""

    job_id: str
    """Names the job in every other call; it is the MLflow run id."""

    message: str
    config: TrainRequest
    """All values in force."""


class Job(Reply):
    """One training job at this moment."""

    job_id: str
    status: JobStatus
    """`completed`, `failed` and `stopped` are final."""

    progress: float = Field(ge=0, le=1)
    """Share of the budget that is spent."""

    current_timesteps: int
    total_timesteps: int
    start_time: datetime
    """When it was submitted, UTC."""

    end_time: datetime | None
    """When it ended; null until then."""

    error_message: str | None
    """Why it failed, and what can be done."""

    metrics: dict[str, float]
    """Latest value of each metric."""

    model_name: str
    model_version: int | None
    """Version that the job made; null until it completed."""

    promoted: bool | None
    """Whether that version became the champion, which serves under the model's name; null until
    decided."""

    promotion_reason: str | None
    """Why it did or did not, with what was compared, and which version stays champion; null until
    decided, and in jobs of earlier releases."""

    decision: Decision | None
    """The same with its figures; null until decided, and in jobs of earlier releases."""

    verdict: Verdict | None
    """Whether its policy is better than random actions and than the policy that it started from;
    null until it completed, and in jobs of earlier releases."""

    hints: dict[str, str]
    """What goes wrong in the training, and what to try, by what it is: `groups_degenerate`,
    `no_gradient`, `policy_unchanged`, `entropy_gone`, `values_exploding`. Mostly empty."""

    eta_seconds: float | None
    """Expected time to the end, in seconds; null when it cannot be told."""

    attempt: int
    """1, and one more each time the job was taken up again."""

    env_name: str

    status_message: str | None
    """What a queued job waits for, beside its turn; null where there is nothing to say."""

    branching: Branching | None
    """How groups get into visited states: these are set (`exact`), their episodes are played
    again, whose steps count (`replay`), or every group starts at a reset (`none`). Null before."""

    branching_reason: str | None
    """Why so."""

    stopped_by: Literal["max_seconds", "target_return"] | None
    """What completed the job before its `total_timesteps` were used; null otherwise."""

    experiment_id: str | None
    """Experiment whose seed the job trains; null where it stands alone."""


class JobConfig(Reply):
    """What a job trains with."""

    job_id: str
    config: TrainRequest
    """All values in force."""

    preset: dict[str, JsonValue]
    """What the environment's preset gives, by field that has another value in `config`; a seed has
    no preset."""

    threshold: float | None
    """Return that counts as solved: the job's `target_return`, else what the environment says."""


class JobList(Reply):
    """A page of jobs, newest first."""

    jobs: list[Job]
    next_page_token: str | None
    """Leads to the next page; null on the last one."""


class StoppedJob(Reply):
    """The job was asked to stop."""

    message: str
    job_id: str


class ResumedJob(Reply):
    """The job goes on from its checkpoint."""

    message: str
    job_id: str


class DeletedJob(Reply):
    """The job is gone."""

    message: str
    job_id: str


class MetricPoint(Reply):
    """One point of a metric's history."""

    step: int
    """Environment timesteps of the run."""

    value: float
    timestamp: datetime


class MetricHistory(Reply):
    """A metric's history, downsampled."""

    job_id: str
    key: str
    points: list[MetricPoint]


class JobLogs(Reply):
    """The last lines of a job's log."""

    job_id: str
    lines: list[str]


def config_of(record: JobRecord) -> TrainRequest:
    """All values that are in force for this job."""
    given = record.request.to_dict() | {"model_name": record.model_name}
    return TrainRequest.model_validate(given, strict=False)


def job_reply(record: JobRecord) -> Job:
    """The reply that describes this job."""
    return reply_of(
        Job,
        record,
        eta_seconds=_eta_seconds(record),
        env_name=record.request.config.env_name,
        experiment_id=record.experiment,
        decision=record.decision and decision_from_json(record.decision),
    )


def _eta_seconds(record: JobRecord) -> float | None:
    speed = record.metrics.get(Metric.FPS, 0.0)
    if record.status is not JobStatus.RUNNING or speed <= 0:
        return None
    return max(0, record.total_timesteps - record.current_timesteps) / speed
