"""From the returns of all sides to figures, verdicts, sentences and warnings."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from grpo.errors import OutOfRangeError
from grpo.statistics import (
    CONFIDENCE,
    Curves,
    aggregate_curves,
    area_under_curve,
    difference,
    holm,
    iqm_interval,
    mean_interval,
    p_value,
    performance_profile,
    probability_of_improvement,
)
from grpo_platform.comparisons.matching import Matched, matched
from grpo_platform.comparisons.records import Band, Comparison, Estimate, Pair, Profile, Side
from grpo_platform.comparisons.request import ComparisonRequest
from grpo_platform.comparisons.sides import Contestant, Contestants
from grpo_platform.comparisons.wording import correction_of, notices_of, sentence_of, warning_of

__all__ = ["compare"]

_THRESHOLDS: Final = 101
_POINTS: Final = 101

Float64Array = npt.NDArray[np.float64]


class _Tested(NamedTuple):
    places: tuple[int, int]
    matched: Matched
    p_value: float


def compare(comparison_id: str, contestants: Contestants, request: ComparisonRequest) -> Comparison:
    """All figures of a comparison.

    Args:
        comparison_id: run that keeps it.
        contestants: with their returns.
        request: what was asked for.
    """
    sides = contestants.sides
    tested = [_tested(i, j, sides) for i, j in itertools.combinations(range(len(sides)), 2)]
    adjusted = holm([pair.p_value for pair in tested])
    levels = _levels([pair.p_value for pair in tested])
    pairs = tuple(
        _pair(pair, float(p), level, [side.label for side in sides])
        for pair, p, level in zip(tested, adjusted, levels, strict=True)
    )
    notices = tuple(notices_of(contestants, pairs))
    return Comparison(
        comparison_id=comparison_id,
        created_at=datetime.now(UTC),
        normalized=request.normalize,
        seed=request.seed,
        curve_metric=contestants.curve_metric,
        sides=_sides(sides),
        pairs=pairs,
        correction=correction_of(len(pairs)),
        warnings=tuple(map(warning_of, notices)),
        notices=notices,
    )


def _tested(i: int, j: int, sides: Sequence[Contestant]) -> _Tested:
    pair = matched(sides[i], sides[j])
    p = p_value(
        lambda c: difference(pair.first, pair.second, paired=pair.paired, confidence=c).mean
    )
    return _Tested((i, j), pair, p)


def _levels(p_values: Sequence[float]) -> list[float]:
    """Confidence of each pair's intervals, so that they leave 0 out where Holm's test does."""
    order = np.argsort(p_values, kind="stable")
    levels = [CONFIDENCE] * len(p_values)
    level, going_on = CONFIDENCE, True
    for rank, place in enumerate(order):
        if going_on:
            share = (1.0 - CONFIDENCE) / (len(p_values) - rank)
            level, going_on = 1.0 - share, p_values[place] <= share
        levels[place] = level
    return levels


def _pair(tested: _Tested, adjusted: float, level: float, labels: Sequence[str]) -> Pair:
    first, second, paired, alike = tested.matched
    mean, iqm = difference(first, second, paired=paired, confidence=level)
    chance = probability_of_improvement(first, second, paired=paired, confidence=level)
    verdict = "first" if mean.low > 0.0 else "second" if mean.high < 0.0 else "none"
    i, j = tested.places
    return Pair(
        first=i,
        second=j,
        paired=paired,
        units=(len(first), len(second)),
        confidence=level,
        mean=Estimate.of(mean),
        iqm=Estimate.of(iqm) if alike else None,
        probability=Estimate.of(chance) if alike else None,
        p_value=tested.p_value,
        adjusted_p_value=adjusted,
        verdict=verdict,  # type: ignore[arg-type]
        sentence=sentence_of(
            (labels[i], labels[j]), tested.matched, (mean, iqm, chance), level, verdict
        ),
    )


def _sides(contestants: Sequence[Contestant]) -> tuple[Side, ...]:
    pooled = np.concatenate([side.returns for side in contestants])
    thresholds = np.linspace(pooled.min(), pooled.max(), _THRESHOLDS)
    budget = min(side.total_timesteps for side in contestants)
    return tuple(_side(side, thresholds, budget) for side in contestants)


def _side(side: Contestant, thresholds: Float64Array, budget: int) -> Side:
    return Side(
        reference=side.reference,
        label=side.label,
        env_name=side.env_name,
        env_kwargs=side.env_kwargs,
        reward_function_type=side.reward_function_type,
        total_timesteps=side.total_timesteps,
        unit=side.unit,
        seeds=tuple(map(int, side.seeds)),
        returns=tuple(map(float, side.returns)),
        mean=Estimate.of(mean_interval(side.returns)),
        iqm=Estimate.of(iqm_interval(side.returns)),
        chosen=side.chosen,
        left_out=side.left_out,
        profile=Profile.of(performance_profile(side.returns, thresholds)),
        curve=_curve(side),
        area=_area(side, budget),
    )


def _curve(side: Contestant) -> Band | None:
    """The side's band, from where all its runs have begun: fewer would make it jump."""
    if not side.histories:
        return None
    found = aggregate_curves(side.histories, _POINTS)
    begun = found.steps >= max(history.steps[0] for history in side.histories)
    return Band.of(Curves(*(values[begun] for values in found)) if begun.any() else found)


def _area(side: Contestant, budget: int) -> float | None:
    try:
        areas = [area_under_curve(h.steps, h.values, budget) for h in side.histories]
    except OutOfRangeError:
        return None
    return float(np.mean(areas)) if areas else None
