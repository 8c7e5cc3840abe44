"""Training calls: what they take and what they give."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from grpo.envs import Branching
from grpo_platform.api.schemas.common import (
    MODEL_EXAMPLE,
    WHOLE,
    JsonObject,
    ModelName,
    ModelReference,
    Reply,
    RequestBody,
    bounded,
    example,
)
from grpo_platform.core.names import Metric
from grpo_platform.core.states import JobStatus
from grpo_platform.tracking.records import JobRecord

__all__ = [
    "DeletedJob",
    "Job",
    "JobList",
    "JobLogs",
    "MetricHistory",
    "MetricPoint",
    "ResumedJob",
    "StoppedJob",
    "TrainReply",
    "TrainRequest",
    "job_reply",
]

_Width = Annotated[int, Field(ge=1, le=4_096), WHOLE]


class TrainRequest(RequestBody):
    """What to train, and how. Every field may be left out; the environment's preset fills it in."""

    model_config = example(
        env_name="CartPole-v1", total_timesteps=5000, seed=7, model_name=MODEL_EXAMPLE
    )

    env_name: Annotated[str, Field(min_length=1, max_length=200)] = "CartPole-v1"
    """Gymnasium id of the environment; GET /environments lists those known."""

    env_kwargs: JsonObject = Field(default_factory=dict)
    """Keyword arguments of the environment."""

    reward_function_type: Annotated[str, Field(min_length=1, max_length=200)] = "optimized_cartpole"
    """Reward that is trained on; GET /rewards lists them. Other environments than CartPole default
    to `environment`, their own."""

    total_timesteps: Annotated[int, bounded("total_timesteps"), WHOLE] = 10_000
    """Budget in environment steps, branches included; never exceeded."""

    learning_rate: Annotated[float, bounded("learning_rate")] = 3e-4
    """Adam's step size."""

    learning_rate_schedule: Literal["constant", "cooldown", "linear"] = "cooldown"
    """`linear` lowers the step size to 0 as the budget is used up; `cooldown` does so over its
    last three tenths."""

    n_steps: Annotated[int, bounded("n_steps"), WHOLE] = 32
    """Longest segment, in steps, that a member runs in one iteration."""

    batch_size: Annotated[int, bounded("batch_size"), WHOLE] = 64
    """Minibatch size, in transitions."""

    n_epochs: Annotated[int, bounded("n_epochs"), WHOLE] = 10
    """Passes over the transitions of an iteration."""

    seed: Annotated[int, bounded("seed"), WHOLE] | None = None
    """Seeds every random generator; drawn at random, and shown in the reply, when left out."""

    gamma: Annotated[float, bounded("gamma")] = 0.99
    """Discount per step."""

    num_groups: Annotated[int, bounded("num_groups"), WHOLE] = 1
    """Groups, each with a start state of its own, collected per iteration."""

    group_size: Annotated[int, bounded("group_size"), WHOLE] = 2
    """Members that start from the same state and are compared with each other."""

    clip_range: Annotated[float, bounded("clip_range")] = 0.3
    """ε of the clipped surrogate."""

    clip_range_high: Annotated[float, bounded("clip_range_high")] | None = None
    """Upper ε, where it differs from the lower one."""

    ent_coef: Annotated[float, bounded("ent_coef")] = 0.0
    """Weight of the entropy bonus."""

    kl_coef: Annotated[float, bounded("kl_coef")] = 0.0
    """Weight of the divergence from the reference policy."""

    reference_iterations: Annotated[int, bounded("reference_iterations"), WHOLE] = 8
    """Iterations after which the present policy becomes the reference of the KL term."""

    max_grad_norm: Annotated[float, bounded("max_grad_norm")] = 0.5
    """Largest norm of the policy's gradient."""

    advantage: Annotated[str, Field(min_length=1, max_length=200)] = "loo_time"
    """How members of a group are compared."""

    start_states: Literal["branch", "branch_worst", "reset"] = "branch"
    """`branch_worst` goes on from where the survivor with the lowest return came to, `branch`
    from where a random one did, `reset` starts each group at a seeded reset."""

    branch_probability: Annotated[float, bounded("branch_probability")] = 0.9
    """When branching: chance that a group goes on from a survivor's last state."""

    bootstrap: bool = False
    """Add the value of the last state to the return of a segment that was cut."""

    normalize_observations: bool = True
    """Standardise observations by their running mean and variance."""

    net_arch: Annotated[list[_Width], Field(max_length=8)] = Field(default_factory=lambda: [64, 64])
    """Widths of the hidden layers."""

    policy: Annotated[str, Field(min_length=1, max_length=200)] = "MlpPolicy"
    """Class of the policy, by its registered name."""

    policy_kwargs: JsonObject = Field(default_factory=dict)
    """What the policy is built with beside `net_arch`: JSON values, classes by registered name."""

    eval_freq: Annotated[int, bounded("eval_freq"), WHOLE] = 0
    """Evaluate each time this many timesteps have passed; 0 evaluates only at the end."""

    n_eval_episodes: Annotated[int, bounded("n_eval_episodes"), WHOLE] = 100
    """Episodes of an evaluation."""

    target_return: Annotated[float, bounded("target_return")] | None = None
    """Stop early once an evaluation's mean return reaches this; needs `eval_freq`."""

    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """`cpu`, `cuda`, or `auto` (CUDA where there is one)."""

    model_name: ModelName | None = None
    """Registered model that receives the version; `grpo_model_<job_id>` when left out."""

    promote: Literal["always", "if_better", "never"] = "if_better"
    """When the new version becomes the one that serves under the model's name."""

    init_from: ModelReference | None = None
    """Model version whose weights training starts from."""

    max_seconds: Annotated[float, Field(ge=1, le=1e8, allow_inf_nan=False)] | None = None
    """Budget of time, in seconds: when it is used, the job is completed with the policy so far."""

    checkpoint_seconds: Annotated[float, Field(ge=0.1, le=1e6, allow_inf_nan=False)] = 30.0
    """Time between two checkpoints, in seconds."""

    max_attempts: Annotated[int, Field(ge=1, le=100), WHOLE] = 3
    """Workers that may be lost before the job fails."""

    max_metric_points: Annotated[int, Field(ge=10, le=100_000), WHOLE] = 1000
    """Most points that one metric's history holds, however long the run."""

    num_cpus: Annotated[float, Field(ge=0.01, le=1024, allow_inf_nan=False)] = Field(
        1.0, examples=[1.0, 4.0]
    )
    """CPUs that a Ray cluster keeps for the job; training itself uses one."""

    num_gpus: Annotated[float, Field(ge=0, le=64, allow_inf_nan=False)] | None = Field(
        None, examples=[None, 1.0, 0.5]
    )
    """GPUs that a Ray cluster keeps for the job, a share of one or a whole number; when left out,
    1 where `device` is `cuda`, else 0."""


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
