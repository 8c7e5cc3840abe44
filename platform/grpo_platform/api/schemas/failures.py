"""Calls about the worst episodes of a job: what they give."""

from typing import Annotated, Any, Literal

from pydantic import Field

from grpo_platform.api.schemas.common import Reply, RequestBody, example
from grpo_platform.jobs.failure_gallery import Failure
from grpo_platform.scenarios.grammar import SCENARIO_NAME
from grpo_platform.services.failures import JobFailures
from grpo_platform.tracking.artifacts import PAGE_FILE

__all__ = [
    "FailedEpisode", "FailureList", "FailureScenario", "ScenarioBody", "ValueCollapse",
    "failures_reply",
]  # fmt: skip


class ValueCollapse(Reply):
    """Where an episode's value estimate fell most."""

    step: int
    """The last step, from 0, before which the value was still high."""

    before: float
    """Value there."""

    after: float
    """Value at the end of the fall."""

    window: int
    """Steps between the two."""


class FailedEpisode(Reply):
    """One of the worst episodes of a job's evaluation."""

    number: int
    """From 1, the lowest return first."""

    seed: int
    """That it was reset with."""

    total: float = Field(alias="return")
    """Undiscounted sum of its rewards."""

    length: int
    """Its steps."""

    ended: Literal["terminated", "truncated", "cut"]
    collapse: ValueCollapse
    cluster: int
    """Group of failures that are alike, from 1."""

    trace: str
    """Artifact of the run: a row a step, with its reward, value, action and observation."""

    snapshot: str | None
    """Artifact of the run: the state before the collapse. Null where states cannot be set exactly:
    the seed and the actions of the trace lead there."""

    clip: str | None
    """Artifact of the run; null where the environment cannot be filmed."""


class FailureList(Reply):
    """The worst episodes of a job's evaluation, each below its median return."""

    job_id: str
    env_name: str
    env_kwargs: dict[str, Any]
    episodes: int
    """Of the evaluation; 0 where there are no failures."""

    median: float | None
    """Return of its median episode."""

    failures: list[FailedEpisode]
    page: str | None
    """Artifact of the run that shows them all, clips included."""

    notes: list[str]
    """What is missing, and why."""


class ScenarioBody(RequestBody):
    """Where the failure belongs, and what must hold; all of it may be left out."""

    model_config = example()

    scenario: Annotated[str, Field(pattern=SCENARIO_NAME)] | None = None
    """Scenario that gets the start state, and is made where there is none; one of its own by
    default."""

    assertions: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=20)] = (
        Field(default_factory=list)
    )
    """What must hold, where the scenario is made; by default, that the return from there on is
    higher than it was."""


class FailureScenario(Reply):
    """The failure is a scenario of the model now."""

    model_name: str
    scenario: str
    suite: dict[str, Any]
    """The model's whole suite."""


def failures_reply(found: JobFailures) -> FailureList:
    """The reply that describes them."""
    gallery, config = found.gallery, found.job.request.config
    if gallery is None:
        return FailureList(
            job_id=found.job.job_id, env_name=config.env_name, env_kwargs=dict(config.env_kwargs),
            episodes=0, median=None, failures=[], page=None, notes=[found.message],
        )  # fmt: skip
    return FailureList(
        job_id=found.job.job_id,
        env_name=gallery.env_name,
        env_kwargs=gallery.env_kwargs,
        episodes=gallery.episodes,
        median=gallery.median,
        failures=[_episode(failure) for failure in gallery.failures],
        page=PAGE_FILE,
        notes=list(gallery.notes),
    )


def _episode(failure: Failure) -> FailedEpisode:
    return FailedEpisode.model_validate(failure.to_dict())
