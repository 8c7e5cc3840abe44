"""Model calls: what they take and what they give."""

from typing import Annotated, Literal

from pydantic import Field

from grpo_platform.api.schemas.common import (
    WHOLE,
    Reply,
    RequestBody,
    Verdict,
    example,
    reply_from,
)
from grpo_platform.api.schemas.scenarios import SuiteResultSummary
from grpo_platform.registry import records
from grpo_platform.registry.card import EvaluationCard, ModelCard

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


_Status = Literal["loaded", "saved"]


@reply_from(records.ModelSummary)
class ModelItem(Reply):
    """One model in the list."""

    status: _Status
    """`loaded`: in memory, answers at once; `saved`: loaded by the first call."""


class ModelList(Reply):
    """A page of models, by name."""

    models: list[ModelItem]
    next_page_token: str | None
    """Leads to the next page; null on the last one."""


class DeletedModel(Reply):
    """The model is gone."""

    message: str


@reply_from(EvaluationCard)
class Evaluation(Reply):
    """Greedy evaluation on the environment's own reward and fixed seeds."""


@reply_from(records.VersionInfo, ModelCard, without=("card", "environment_sha256", "model_id"))
class ModelVersion(Reply):
    """One version with its card."""

    evaluation: Evaluation | None
    baselines: Verdict | None
    scenarios: SuiteResultSummary | None
    """What it came to in the suite that the model has now, the latest time; null where it has none,
    or was not put through it."""


@reply_from(records.Comparison)
class Comparison(Reply):
    """Two versions on the same evaluation seeds; difference = candidate - champion."""


@reply_from(records.Decision)
class Decision(Reply):
    """One promotion, refusal or rollback."""

    promoted: bool
    comparison: Comparison | None


@reply_from(records.ModelInfo, records.ModelEnvironment, without=("environment", "scenarios"))
class Model(Reply):
    """One model with its versions, newest first, and its decisions, oldest first."""

    status: _Status
    versions: list[ModelVersion]
    decisions: list[Decision]


class PromoteRequest(RequestBody):
    """Which version shall serve under the model's name."""

    model_config = example(version=1)

    version: Annotated[int, Field(ge=1, le=999_999_999), WHOLE]
    force: bool = False
    """Promote it whatever the comparison says; recorded as such."""

    note: Annotated[str, Field(max_length=500)] = ""
    """Why, in your words; kept at the beginning of the decision's `reason`."""
