"""A comparison as it is kept: sides, pairs, sentences and warnings, as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from grpo.statistics import Curves, Interval
from grpo.statistics import Profile as SharesAbove
from grpo_platform.comparisons.request import Reference
from grpo_platform.core.errors import StoreError

__all__ = [
    "Band",
    "Comparison",
    "ComparisonSummary",
    "Estimate",
    "Notice",
    "Pair",
    "Profile",
    "Side",
    "Unit",
]

Unit = Literal["seed", "episode"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval."""

    estimate: float
    low: float
    high: float

    @classmethod
    def of(cls, interval: Interval) -> "Estimate":
        """As `grpo.statistics` gives it."""
        return cls(*interval)


@dataclass(frozen=True, slots=True)
class Profile:
    """Shares of a side's units that return more than each threshold, with a band."""

    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, profile: SharesAbove) -> "Profile":
        """As `grpo.statistics` gives it."""
        return cls(*(tuple(map(float, values)) for values in profile))


@dataclass(frozen=True, slots=True)
class Band:
    """Returns over timesteps: the interquartile mean of the runs, with a band."""

    steps: tuple[float, ...]
    iqm: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    count: tuple[int, ...]
    """Runs that reach each step."""

    @classmethod
    def of(cls, curves: Curves) -> "Band":
        """As `grpo.statistics` gives it."""
        steps, iqm, low, high = (tuple(map(float, values)) for values in curves[:4])
        return cls(steps, iqm, low, high, tuple(map(int, curves[4])))


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of those that are compared."""

    reference: Reference
    label: str
    """What it is called in sentences and figures."""

    env_name: str
    env_kwargs: Mapping[str, Any]
    reward_function_type: str
    total_timesteps: int
    """Budget of each of its trainings, in environment timesteps."""

    unit: Unit
    """What its returns are of: training seeds, each by its evaluation's mean, or fresh episodes of
    one policy."""

    seeds: tuple[int, ...]
    """Of its units."""

    returns: tuple[float, ...]
    """Of its units; on the scale from 0 to 1 where the comparison is normalised."""

    mean: Estimate
    iqm: Estimate
    chosen: str | None
    """How it was chosen among others, in words; None where it was not."""

    left_out: int
    """Seeds of an experiment that have no evaluation."""

    profile: Profile
    curve: Band | None
    """None where no training's history is there."""

    area: float | None
    """Mean height of its histories up to the smallest budget of all sides: how soon it is good."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two sides, and what they differ by: the first minus the second."""

    first: int
    """Place among the sides, from 0."""

    second: int
    paired: bool
    """Whether units of one seed were set against each other."""

    units: tuple[int, int]
    """Units of either side that count here."""

    confidence: float
    """Of the three intervals; above 95 % where several pairs are corrected for."""

    mean: Estimate
    iqm: Estimate | None
    """None where one side has seeds and the other episodes, as for `probability`."""

    probability: Estimate | None
    """Chance that a return of the first exceeds one of the second."""

    p_value: float
    """Of the difference of means: the least level at which its interval leaves 0 out."""

    adjusted_p_value: float
    """Holm's, for all pairs together."""

    verdict: Literal["first", "second", "none"]
    """Which is better, by the interval of the difference of means."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What a reader must know before believing a comparison."""

    kind: str
    """Which of `wording.WARNINGS`."""

    values: Mapping[str, str | int]
    """What stands for the names in its sentence."""

    @classmethod
    def of(cls, kind: str, **values: str | int) -> "Notice":
        """One of a kind."""
        return cls(kind, values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A comparison with all its figures."""

    comparison_id: str
    """The MLflow run that keeps it."""

    created_at: datetime
    normalized: bool
    seed: int
    """Gave the episodes' seeds, where there were any."""

    curve_metric: str
    """Metric that the histories are of."""

    sides: tuple[Side, ...]
    pairs: tuple[Pair, ...]
    correction: str | None
    """How several pairs are corrected for, in a sentence; None for one pair."""

    warnings: tuple[str, ...]
    """What a reader must know before believing it, in sentences."""

    notices: tuple[Notice, ...] = ()
    """The same, each by its kind and what it says it of; none in those of earlier releases."""

    def to_json(self) -> str:
        """For the artifact."""
        return _STORED.dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Comparison":
        """Inverse of `to_json`.

        Raises:
            StoreError: it is nothing that `to_json` writes.
        """
        try:
            return _STORED.validate_json(text)
        except ValidationError as error:
            raise StoreError("The comparison's file was changed, and cannot be read.") from error

    def summary(self) -> "ComparisonSummary":
        """What lists show."""
        return ComparisonSummary(
            references=tuple(side.reference for side in self.sides),
            labels=tuple(side.label for side in self.sides),
            env_names=tuple(dict.fromkeys(side.env_name for side in self.sides)),
            sentence=self.pairs[0].sentence[:1_000],
            pairs=len(self.pairs),
            warnings=len(self.warnings),
            first_pair=self.pairs[0],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonSummary:
    """A comparison in a list."""

    references: tuple[Reference, ...]
    labels: tuple[str, ...]
    env_names: tuple[str, ...]
    sentence: str
    """Of the first pair."""

    pairs: int
    warnings: int
    first_pair: Pair | None = None
    """With its figures; None in comparisons of earlier releases."""

    def to_json(self) -> str:
        """For the run's tag."""
        return _SUMMARY.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "ComparisonSummary":
        """Inverse of `to_json`; what somebody edited beyond reading is empty."""
        try:
            return _SUMMARY.validate_json(text)
        except ValidationError:
            said = "The comparison's tag was changed, and cannot be read."
            return cls(references=(), labels=(), env_names=(), sentence=said, pairs=0, warnings=0)


_STORED: Final = TypeAdapter(Comparison)
_SUMMARY: Final = TypeAdapter(ComparisonSummary)
