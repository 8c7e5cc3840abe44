"""A comparison in words: a sentence for each pair, and what to know before believing it."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from grpo.statistics import Interval
from grpo_platform.comparisons.matching import Matched
from grpo_platform.comparisons.records import Notice, Pair
from grpo_platform.comparisons.sides import Contestant, Contestants

__all__ = ["WARNINGS", "correction_of", "figure", "notices_of", "sentence_of", "warning_of"]

_FEW_SEEDS: Final = 10
_FEW_EPISODES: Final = 50
_PLENTY: Final = 10.0

WARNINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "few_seeds": (
            "{label} has only {n} seeds: its intervals are wide, and on skewed returns they hold "
            f"the truth less often than they say. Train at least {_FEW_SEEDS}."
        ),
        "few_episodes": ("{label} played only {n} episodes; a rare failure may not be among them."),
        "unfinished": (
            "{label} is not finished, and {n} of its seeds are left out: what they would have "
            "returned may be worse than the others."
        ),
        "seeds_failed": (
            "{label} has failed or stopped seeds, and {n} of its seeds are left out: what they "
            "would have returned may be worse than the others."
        ),
        "chosen": (
            "{label} was chosen after looking ({how}). It plays episodes that it was not chosen "
            "by, so its figures are its own; but training its configuration again may give less: "
            "train an experiment to compare configurations."
        ),
        "maybe_chosen": (
            "{label} may have been chosen after looking ({how}). It plays episodes that it was "
            "not chosen by, so its figures are its own; but training its configuration again may "
            "give less: train an experiment to compare configurations."
        ),
        "all_equal": (
            "All {n} returns of {label} are equal, so that nothing tells their spread: the "
            "intervals are too short if other returns can occur."
        ),
        "budgets": (
            "The budgets differ ({told} timesteps): a longer training may be all there is to it."
        ),
        "rewards": (
            "They were trained on different rewards ({told}); compared is the environment's own."
        ),
        "environments": (
            "The environments differ: returns are normalised, 0 is a policy that acts at random "
            "and 1 the environment's reward threshold, which need not mean the same in each."
        ),
        "env_kwargs": (
            "The environment's keyword arguments differ (env_kwargs): each side is judged in its "
            "own variant of the environment."
        ),
        "no_time": (
            "There was no time for more than {n} episodes; raise max_seconds for a narrower "
            "interval."
        ),
        "mixed_units": (
            "One side's returns are of training seeds and another's of episodes of one policy: "
            "only their means compare, and what training again would give shows on one side only."
        ),
        "not_paired": (
            "{first} and {second} share some of their seeds, but too few to be compared in pairs; "
            "train both with the same seeds for a narrower interval."
        ),
    }
)
"""What a reader must know before believing a comparison, by what it is."""


def figure(value: float, *, signed: bool = False) -> str:
    """A return in words: one decimal from 10 on, else three digits."""
    sign = "+" if signed else ""
    return f"{value:{sign},.1f}" if abs(value) >= _PLENTY else f"{value:{sign}.3g}"


def sentence_of(
    labels: tuple[str, str],
    matched: Matched,
    found: tuple[Interval, Interval, Interval],
    confidence: float,
    verdict: str,
) -> str:
    """What one pair shows.

    Args:
        labels: of the two.
        matched: their returns.
        found: differences of mean and interquartile mean, and the chance of improvement.
        confidence: of the intervals.
        verdict: `first`, `second` or `none`.
    """
    one, other = labels
    mean, iqm, chance = found
    head = {
        "first": f"{one} is better than {other}",
        "second": f"{other} is better than {one}",
        "none": f"No difference is shown between {one} and {other}",
    }[verdict]
    level = f"{100 * confidence:.3g} %"
    said = (
        f"{head}: mean return {figure(matched.first.mean())} against "
        f"{figure(matched.second.mean())}, difference {_interval(mean, level)}, over "
        f"{_units(matched)}."
    )
    if not matched.alike:
        return said
    return (
        f"{said} The interquartile means differ by {_interval(iqm, level)}; the chance that {one} "
        f"returns more than {other} is {100 * chance.estimate:.0f} % ({100 * chance.low:.0f} to "
        f"{100 * chance.high:.0f} %)."
    )


def _interval(found: Interval, level: str) -> str:
    estimate, low, high = (figure(value, signed=True) for value in found)
    return f"{estimate} ({level} interval {low} to {high})"


def _units(matched: Matched) -> str:
    n, m = len(matched.first), len(matched.second)
    if matched.paired:
        return f"{n} pairs of equal seeds"
    return f"{n} and {m} {'values' if not matched.alike else 'values, not paired'}"


def correction_of(pairs: int) -> str | None:
    """How several pairs are corrected for."""
    if pairs == 1:
        return None
    return (
        f"{pairs} pairs are compared, so the verdicts are corrected by Holm's procedure: where no "
        "pair differs at all, the chance of one or more wrong verdicts is 5 %. Each pair's "
        "intervals have the confidence at which the procedure decides about it."
    )


def warning_of(notice: Notice) -> str:
    """A notice in words."""
    return WARNINGS[notice.kind].format_map(notice.values)


def notices_of(contestants: Contestants, pairs: Sequence[Pair]) -> Iterator[Notice]:
    """What a reader must know before believing a comparison."""
    sides = contestants.sides
    for side in sides:
        yield from _of_side(side)
    yield from _of_settings(sides)
    if contestants.cut_short:
        played = max(len(side.returns) for side in sides if side.unit == "episode")
        yield Notice.of("no_time", n=played)
    if len({side.unit for side in sides}) > 1:
        yield Notice.of("mixed_units")
    for pair in pairs:
        first, second = sides[pair.first], sides[pair.second]
        shared = set(first.seeds.tolist()) & set(second.seeds.tolist())
        if first.unit == second.unit == "seed" and shared and not pair.paired:
            yield Notice.of("not_paired", first=first.label, second=second.label)


def _of_side(side: Contestant) -> Iterator[Notice]:
    n, label = len(side.returns), side.label
    if side.unit == "seed" and n < _FEW_SEEDS:
        yield Notice.of("few_seeds", label=label, n=n)
    if side.unit == "episode" and n < _FEW_EPISODES:
        yield Notice.of("few_episodes", label=label, n=n)
    if side.left_out:
        kind = "unfinished" if side.unfinished else "seeds_failed"
        yield Notice.of(kind, label=label, n=side.left_out)
    if side.chosen is not None:
        kind = "chosen" if side.surely else "maybe_chosen"
        yield Notice.of(kind, label=label, how=side.chosen.rstrip("."))
    if n > 1 and side.returns.min() == side.returns.max():
        yield Notice.of("all_equal", label=label, n=n)


def _of_settings(sides: Sequence[Contestant]) -> Iterator[Notice]:
    """Settings that differ between the sides, beside what is compared."""
    budgets = {side.label: side.total_timesteps for side in sides}
    if len(set(budgets.values())) > 1:
        told = ", ".join(f"{label} {budget:,}" for label, budget in budgets.items())
        yield Notice.of("budgets", told=told)
    rewards = {side.label: side.reward_function_type for side in sides}
    if len(set(rewards.values())) > 1:
        told = ", ".join(f"{label}: {reward}" for label, reward in rewards.items())
        yield Notice.of("rewards", told=told)
    if len({side.env_name for side in sides}) > 1:
        yield Notice.of("environments")
    elif len({str(sorted(side.env_kwargs.items())) for side in sides}) > 1:
        yield Notice.of("env_kwargs")
