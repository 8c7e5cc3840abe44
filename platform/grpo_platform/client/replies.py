"""What the API answers, typed."""

from typing import Any, Literal, NotRequired, TypedDict

__all__ = ["Baseline", "Job", "JobFilters", "Prediction", "StatusWord", "Verdict"]

StatusWord = Literal["queued", "running", "completed", "failed", "stopped"]


class JobFilters(TypedDict, total=False):
    """Which jobs a list has."""

    status: StatusWord | None
    env_name: str | None
    model_name: str | None


class Baseline(TypedDict):
    """A policy that the trained one is compared with."""

    episodes: int
    mean: float
    difference: float
    ci_low: float
    ci_high: float


class Verdict(TypedDict):
    """Whether a training learned anything."""

    better: bool
    sentence: str
    random: Baseline
    start: Baseline


class Job(TypedDict):
    """A job's status, as the API gives it."""

    job_id: str
    status: StatusWord
    progress: float
    current_timesteps: int
    total_timesteps: int
    start_time: str
    end_time: str | None
    error_message: str | None
    metrics: dict[str, float]
    model_name: str
    model_version: int | None
    promoted: bool | None
    promotion_reason: str | None
    decision: dict[str, Any] | None
    verdict: Verdict | None
    hints: dict[str, str]
    eta_seconds: float | None
    attempt: int
    env_name: str
    status_message: str | None
    branching: str | None
    branching_reason: str | None
    stopped_by: Literal["max_seconds", "target_return"] | None
    experiment_id: str | None


class Prediction(TypedDict):
    """A model's answer to one observation."""

    action: Any
    """A number, or nested lists and objects of them."""

    action_probs: list[float] | list[list[float]] | None
    value: float | None
    model_version: int

    state: NotRequired[str]
    """Of a model with memory: what to send with the next observation."""
