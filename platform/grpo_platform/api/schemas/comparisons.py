"""Comparison calls: what they take and what they give."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from grpo_platform.api.schemas.common import (
    ID_OR_BEGINNING,
    WHOLE,
    ModelReference,
    Reply,
    RequestBody,
    example,
    fields_from,
    reply_from,
    reply_of,
)
from grpo_platform.comparisons import records
from grpo_platform.comparisons.request import MAX_SIDES, ComparisonRequest
from grpo_platform.comparisons.store import ComparisonItem

__all__ = [
    "ComparisonBody", "ComparisonList", "ComparisonReference", "ComparisonResult",
    "ComparisonSummary", "DeletedComparison", "comparison_reply", "comparison_summary",
]  # fmt: skip

RunId = Annotated[str, Field(pattern=ID_OR_BEGINNING)]


class ComparisonReference(RequestBody):
    """One side; exactly one of these."""

    experiment: RunId | None = None
    """All its evaluated seeds."""

    job: RunId | None = None
    """The version that the job made."""

    model: ModelReference | None = None
    """A version: `name`, `name@alias` or `name/version`."""

    sweep: RunId | None = None
    """The version of the sweep's best trial."""


@fields_from(ComparisonRequest)
class ComparisonBody(RequestBody):
    """What to compare, and how."""

    model_config = example(
        references=[{"model": "my_cartpole_model/1"}, {"model": "my_cartpole_model/2"}],
        episodes=50,
    )

    references: Annotated[list[ComparisonReference], Field(min_length=2, max_length=MAX_SIDES)]
    """Sides, 2 to 8 different ones."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1), WHOLE] | None = None
    """Gives the episodes' seeds; drawn when left out."""


class ComparedEstimate(Reply):
    """A figure with its interval."""

    estimate: float
    low: float
    high: float


@reply_from(records.Profile)
class ComparedProfile(Reply):
    """Shares of a side's returns above each threshold."""


@reply_from(records.Band)
class ComparedCurve(Reply):
    """Returns over timesteps."""


@reply_from(records.Side)
class ComparedSide(Reply):
    """One of those that are compared."""

    reference: dict[str, str]
    """Its kind and its name, as it was given."""

    mean: ComparedEstimate
    iqm: ComparedEstimate
    profile: ComparedProfile
    curve: ComparedCurve | None
    """null where no training's history is there."""


@reply_from(records.Pair)
class ComparedPair(Reply):
    """Two sides, and what they differ by: the first minus the second."""

    mean: ComparedEstimate
    iqm: ComparedEstimate | None
    """null where one side has seeds and the other episodes, as for `probability`."""

    probability: ComparedEstimate | None
    """Chance that a return of the first exceeds one of the second."""


@reply_from(records.Notice)
class ComparedNotice(Reply):
    """What a reader must know before believing a comparison."""


@reply_from(records.Comparison)
class ComparisonResult(Reply):
    """A comparison with all its figures."""

    sides: list[ComparedSide]
    pairs: list[ComparedPair]
    notices: list[ComparedNotice]
    """The warnings again, each by its kind and what it says it of; none in comparisons of earlier
    releases."""


@reply_from(records.ComparisonSummary)
class ComparisonSummary(Reply):
    """A comparison, without its figures."""

    comparison_id: str
    """The MLflow run that keeps it."""

    created_at: datetime
    references: list[dict[str, str]]
    """Each with its kind and its name, as it was given."""


class ComparisonList(Reply):
    """A page of comparisons, newest first."""

    comparisons: list[ComparisonSummary]
    next_page_token: str | None
    """Leads to the next page; null on the last one."""


class DeletedComparison(Reply):
    """The comparison is gone."""

    comparison_id: str
    message: str


def comparison_reply(comparison: records.Comparison) -> ComparisonResult:
    """The reply that shows a comparison."""
    sides = [
        reply_of(ComparedSide, side, reference=side.reference.to_dict())
        for side in comparison.sides
    ]
    return reply_of(ComparisonResult, comparison, sides=sides)


def comparison_summary(item: ComparisonItem) -> ComparisonSummary:
    """The reply that describes a comparison in a list."""
    references = [reference.to_dict() for reference in item.summary.references]
    return reply_of(ComparisonSummary, item, item.summary, references=references)
