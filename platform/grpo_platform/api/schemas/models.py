"""Model calls: what they take and what they give."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue

from grpo_platform.api.schemas.common import WHOLE, Reply, RequestBody, example

__all__ = [
    "Comparison",
    "Decision",
    "DeletedModel",
    "Evaluation",
    "Model",
    "ModelItem",
    "ModelList",
    "ModelVersion",
    "PromoteRequest",
]


class _Read(Reply):
    """A reply that is read from a record of the registry."""

    model_config = ConfigDict(from_attributes=True)


class ModelItem(_Read):
    """One model in the list."""

    name: str
    status: Literal["loaded", "saved"]
    """`loaded`: in memory, answers at once; `saved`: loaded by the first call."""

    champion: int | None
    """Version that serves under the bare name, where one was promoted."""

    latest_version: int | None
    env_name: str
    eval_return_mean: float | None
    """Mean return of the evaluation, on the environment's own reward."""


class ModelList(Reply):
    """A page of models, by name."""

    models: list[ModelItem]
    next_page_token: str | None
    """Leads to the next page; null on the last one."""


class DeletedModel(Reply):
    """The model is gone."""

    message: str


class Evaluation(_Read):
    """Greedy evaluation on the environment's own reward and fixed seeds."""

    episodes: int
    mean: float
    std: float
    iqm: float
    """Interquartile mean of the returns."""

    ci_low: float
    """Lower end of the 95 % interval of what `interval_of` names."""

    ci_high: float
    """Upper end of it."""

    interval_of: Literal["mean", "iqm"]
    """`iqm` in versions made before the interval was the mean's."""


class ModelVersion(Reply):
    """One version with its card."""

    version: int
    job_id: str
    """Job, and MLflow run, that trained it."""

    created_at: datetime
    aliases: list[str]
    weights_sha256: str
    env_name: str
    env_kwargs: dict[str, JsonValue]
    observation_shape: list[int]
    action: dict[str, JsonValue]
    """Action space of its environment."""

    config: dict[str, JsonValue]
    """All hyperparameters that were in force."""

    seed: int
    timesteps: int
    """Environment steps trained."""

    git_commit: str | None
    """Commit of the code that trained it."""

    evaluation: Evaluation | None
    verdict: str | None
    """Verdict of the latest decision about it."""


class Comparison(_Read):
    """Two versions on the same evaluation seeds; difference = candidate - champion."""

    champion: int
    """Version that was champion."""

    episodes: int
    seed: int
    """Both played the episode seeds that are drawn from it; another one for each decision."""

    candidate_mean: float
    champion_mean: float
    difference: float
    """Mean of the paired differences of returns."""

    ci_low: float
    """Lower end of the mean difference's 95 % interval, which allows for looking repeatedly."""

    ci_high: float
    """Upper end of it."""

    equal: bool
    """Whether every single difference is zero."""

    ended: Literal["evidence", "episodes", "seconds"] | None
    """Why no more episodes were played: the evidence sufficed, or the limit of episodes or of time
    was reached; null in comparisons of 100 fixed seeds, as they were made before."""


class Decision(_Read):
    """One promotion, refusal or rollback."""

    number: int
    """Position in the name's history, from 1."""

    action: str
    """`train` (a job ended), `promote` or `rollback` (by hand)."""

    version: int
    """Version that was decided about."""

    rule: str
    verdict: str
    """`promoted`, `kept` (the champion stays) or `rolled_back`."""

    reason: str
    """A sentence with the figures."""

    promoted: bool
    champion_before: int | None
    champion_after: int | None
    forced: bool
    actor: str
    """Who decided: a job, or who called."""

    decided_at: str
    comparison: Comparison | None


class Model(Reply):
    """One model with its versions, newest first, and its decisions, oldest first."""

    name: str
    status: Literal["loaded", "saved"]
    env_name: str
    env_kwargs: dict[str, JsonValue]
    champion: int | None
    latest_version: int | None
    versions: list[ModelVersion]
    decisions: list[Decision]


class PromoteRequest(RequestBody):
    """Which version shall serve under the model's name."""

    model_config = example(version=1)

    version: Annotated[int, Field(ge=1, le=999_999_999), WHOLE]
    force: bool = False
    """Promote it whatever the comparison says; recorded as such."""
