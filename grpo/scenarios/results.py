"""What playing a suite showed: figures, and the episodes in which something did not hold."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from grpo.scenarios.assertions import Assertion
from grpo.statistics import performance_profile

__all__ = [
    "AssertionResult",
    "FailedEpisode",
    "Latency",
    "ScenarioResult",
    "SuiteResult",
    "latency_result",
    "mean_result",
    "share_result",
]


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of answers, in seconds."""

    median: float
    p99: float
    answers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedEpisode:
    """An episode in which an assertion does not hold, with all that is needed to play it again."""

    scenario: str
    """Name of its scenario."""

    episode: int
    """Its number in the scenario, from 0."""

    start: int | None
    """Which of the scenario's start states it began in, from 0; null at a reset."""

    seed: int
    """Seed of its reset."""

    step: int
    """Steps before the observation that is wrong; of a return or a length, all of them."""

    value: float
    """What was compared."""

    steps: int
    """Length of the episode."""

    actions: list[Any]
    """That the environment took, one a step."""

    trace_sha256: str
    """Of every observation and reward: an episode that has it too is equal to the last bit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AssertionResult:
    """What an assertion came to."""

    text: str
    """The assertion."""

    passed: bool
    """Whether it holds."""

    figures: Mapping[str, float]
    """Of a share: `episodes`, `held`, `share`, `low` and `high`, the ends of its 95 % interval
    (Wilson's); of a mean: `mean`, `std`, `episodes`; of a latency: `median_us`, `p99_us`,
    `answers`."""

    failures: tuple[FailedEpisode, ...] = ()
    """The first episodes in which it does not hold, where it failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenarioResult:
    """What a scenario came to."""

    name: str
    episodes: int
    mean_return: float
    mean_length: float
    seconds: float
    """That it took."""

    assertions: tuple[AssertionResult, ...]
    """In the suite's order."""

    @property
    def passed(self) -> bool:
        """Whether all assertions hold."""
        return all(each.passed for each in self.assertions)


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteResult:
    """What a suite came to."""

    digest: str
    """Of the suite."""

    scenarios: tuple[ScenarioResult, ...]
    """In the suite's order."""

    seconds: float
    """That it took."""

    @property
    def passed(self) -> bool:
        """Whether all scenarios passed."""
        return all(each.passed for each in self.scenarios)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the scenarios that did not pass."""
        return tuple(each.name for each in self.scenarios if not each.passed)

    def in_words(self) -> str:
        """What failed, in a sentence with the figures."""
        if self.passed:
            return f"All {len(self.scenarios)} scenarios passed."
        first = next(each for each in self.scenarios if not each.passed)
        wrong = next(each for each in first.assertions if not each.passed)
        more = len(self.failed) - 1
        others = f" So did {more} more." if more else ""
        return f"Scenario {first.name!r} failed: {wrong.text!r}, {_told(wrong.figures)}.{others}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SuiteResult":
        """Inverse of `to_dict`."""
        scenarios = [
            ScenarioResult(
                **{**scenario, "assertions": tuple(map(_assertion, scenario["assertions"]))}
            )
            for scenario in values["scenarios"]
        ]
        return cls(**{**values, "scenarios": tuple(scenarios)})


def share_result(
    assertion: Assertion, held: int, episodes: int, failures: Sequence[FailedEpisode]
) -> AssertionResult:
    """Judge by the share that was observed; the interval says how well that is known."""
    profile = performance_profile(np.arange(episodes) < held, [0.5])
    passed = held >= assertion.share * episodes - 1e-9  # 0.95 of 100 is 95, whatever floats say
    figures = {
        "episodes": episodes,
        "held": held,
        "share": float(profile.shares[0]),
        "low": float(profile.low[0]),
        "high": float(profile.high[0]),
    }
    return AssertionResult(
        text=assertion.text,
        passed=passed,
        figures=figures,
        failures=() if passed else tuple(failures),
    )


def mean_result(
    assertion: Assertion, values: Sequence[float], failures: Sequence[FailedEpisode]
) -> AssertionResult:
    """Judge by the mean."""
    mean = float(np.mean(values))
    passed = bool(assertion.holds(mean))
    return AssertionResult(
        text=assertion.text,
        passed=passed,
        figures={"mean": mean, "std": float(np.std(values)), "episodes": len(values)},
        failures=() if passed else tuple(failures),
    )


def latency_result(assertion: Assertion, latency: Latency) -> AssertionResult:
    """Judge by the median or the 99th percentile."""
    value = latency.p99 if assertion.statistic == "p99" else latency.median
    return AssertionResult(
        text=assertion.text,
        passed=bool(assertion.holds(value)),
        figures={
            "median_us": 1e6 * latency.median,
            "p99_us": 1e6 * latency.p99,
            "answers": latency.answers,
        },
    )


def _assertion(values: Mapping[str, Any]) -> AssertionResult:
    failures = tuple(FailedEpisode(**each) for each in values["failures"])
    return AssertionResult(**{**values, "failures": failures})


def _told(figures: Mapping[str, float]) -> str:
    if "share" in figures:
        return (
            f"held in {figures['held']:.0f} of {figures['episodes']:.0f} episodes "
            f"({100 * figures['share']:.1f} %, 95 % interval {100 * figures['low']:.1f} to "
            f"{100 * figures['high']:.1f} %)"
        )
    if "mean" in figures:
        return f"the mean is {figures['mean']:.2f}"
    return f"median {figures['median_us']:.1f} us, 99th percentile {figures['p99_us']:.1f} us"
