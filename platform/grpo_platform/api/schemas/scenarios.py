"""Calls about scenarios: what they take and what they give."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue

from grpo.scenarios import results
from grpo_platform.api.schemas.common import WHOLE, Reply, RequestBody, example, reply_from
from grpo_platform.registry.suites import ResultRecord, SuiteRecord
from grpo_platform.scenarios.grammar import MOST_CHARACTERS
from grpo_platform.scenarios.keeping import KeptSuite, VersionResult

__all__ = [
    "DeletedSuite",
    "RunBody",
    "ScenarioResult",
    "Suite",
    "SuiteBody",
    "SuiteResult",
    "SuiteResultSummary",
    "VersionResults",
    "result_reply",
    "suite_reply",
]


def _text_or_object(value: object) -> object:
    """One finding for what takes two kinds, in place of one for each."""
    if isinstance(value, str) and len(value) > MOST_CHARACTERS:
        raise ValueError(f"It may have at most {MOST_CHARACTERS} characters")
    if not isinstance(value, str | dict):
        raise ValueError("It must be a text in YAML or JSON, or an object")
    return value


class SuiteBody(RequestBody):
    """What a model's versions must pass."""

    model_config = example(
        suite={
            "scenarios": [
                {"name": "resets", "assert": ["return >= 9 in 95% of 20 episodes"]},
                {"name": "tilted", "start": {"state": {"theta": 0.1}}, "assert": ["never |x| > 2"]},
            ]
        }
    )

    suite: Annotated[str | dict[str, JsonValue], BeforeValidator(_text_or_object)]
    """A text in YAML, which is kept as it is, or the values that it holds; docs/scenarios.md is the
    reference."""


@reply_from(SuiteRecord, without=("action", "artifact"))
class Suite(Reply):
    """A model's suite."""

    suite: dict[str, Any]
    """As it was understood."""

    source: str
    """As it was written."""


class DeletedSuite(Reply):
    """The suite is gone."""

    message: str


class RunBody(RequestBody):
    """Which version is put through the suite; the one that serves the bare name when left out."""

    model_config = example()

    version: Annotated[int, Field(ge=1, le=999_999_999), WHOLE] | None = None
    alias: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """Instead of a version."""


@reply_from(results.FailedEpisode)
class FailedAssertion(Reply):
    """An episode in which an assertion does not hold, with all that plays it again."""


@reply_from(results.AssertionResult)
class AssertionResult(Reply):
    """What an assertion came to."""

    failures: list[FailedAssertion]
    """The first episodes in which it does not hold, where it failed."""


@reply_from(results.ScenarioResult)
class ScenarioResult(Reply):
    """What a scenario came to."""

    passed: bool
    """Whether all of its assertions hold."""

    assertions: list[AssertionResult]
    """In the suite's order."""


@reply_from(ResultRecord, without=("artifact",))
class SuiteResultSummary(Reply):
    """What a version came to."""


@reply_from(ResultRecord, without=("artifact",))
class SuiteResult(Reply):
    """What a version came to, with all figures."""

    scenarios: list[ScenarioResult]
    """In the suite's order."""


class VersionResults(Reply):
    """What a version came to, each time that it was put through a suite."""

    results: list[SuiteResultSummary]
    """Newest first."""

    latest: SuiteResult | None
    """The newest one, with all figures; null where there is none."""


def suite_reply(kept: KeptSuite) -> Suite:
    """The reply that shows a suite."""
    return Suite.model_validate(
        {
            **{name: getattr(kept.record, name) for name in SUITE_FIELDS},
            "suite": kept.suite.to_dict(),
            "source": kept.source,
        }
    )


def result_reply(found: VersionResult) -> SuiteResult:
    """The reply that shows a result."""
    return SuiteResult.model_validate(
        {
            **{name: getattr(found.record, name) for name in SuiteResultSummary.model_fields},
            "scenarios": found.result.scenarios,
        },
        from_attributes=True,
    )


SUITE_FIELDS = [name for name in Suite.model_fields if name not in ("suite", "source")]
