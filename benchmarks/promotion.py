"""How often the promotion gate lets a version through that is no better, and one that is.

The gate's own rule (`grpo_platform.registry.comparison`) on simulated returns; at most 2.5 % of
versions that are equal in the mean may be promoted. Beside it stands what one look at 100 episodes
with a percentile bootstrap gives, which is how it was decided before.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.results import write_rows
from grpo.evaluation import mean_limits
from grpo_platform.registry.comparison import LOOKS, look_at, suffices

__all__ = ["SCENARIOS", "promoted", "simulate"]

Float64Array = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Float64Array]

_RESAMPLES: Final = 1_000
_BATCH: Final = 500  # decisions at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """Two versions: how their returns differ, on the same seed."""

    about: str
    draw: Draw
    """Differences, candidate minus champion, shape (episodes, decisions)."""

    mean: float = 0.0
    """True mean of the differences."""


def _independent(draw: Draw) -> Draw:
    return lambda rng, shape: draw(rng, shape) - draw(rng, shape)


def _capped(rng: np.random.Generator, shape: tuple[int, int]) -> Float64Array:
    failed = rng.random(shape) < 0.1
    return np.where(failed, rng.uniform(50.0, 500.0, shape), 500.0)


def _crashing(share: float, gain: float | None = None, loss: float = 300.0) -> Draw:
    """A candidate that loses `loss` in a share of episodes, and gains else; equal if None."""
    gains = share * loss if gain is None else gain

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Float64Array:
        noise = rng.standard_normal(shape)
        return gains + noise - np.where(rng.random(shape) < share, loss, 0.0)

    return draw


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "normal": Scenario(
        about="ordinary: normal returns, independent",
        draw=_independent(lambda rng, shape: rng.standard_normal(shape)),
    ),
    "capped": Scenario(
        about="ordinary: 500 at most, every tenth episode fails sooner", draw=_independent(_capped)
    ),
    "skewed_pair": Scenario(
        about="skewed: lognormal returns (sigma 1), independent",
        draw=_independent(lambda rng, shape: rng.lognormal(0.0, 1.0, shape)),
    ),
    "skewed_left": Scenario(
        about="skewed: the candidate's losses are exponential",
        draw=lambda rng, shape: 1.0 - rng.exponential(1.0, shape),
    ),
    "very_skewed_left": Scenario(
        about="skewed: the candidate's losses are lognormal (sigma 1)",
        draw=lambda rng, shape: np.exp(0.5) - rng.lognormal(0.0, 1.0, shape),
    ),
    "heavy": Scenario(
        about="heavy tails: Student's t with 2 degrees of freedom",
        draw=lambda rng, shape: rng.standard_t(2.0, shape),
    ),
    "very_heavy": Scenario(
        about="heavy tails: Pareto returns (1.5), independent",
        draw=_independent(lambda rng, shape: rng.pareto(1.5, shape)),
    ),
    "crash_3": Scenario(
        about="rare crashes: 3 % of episodes, equal in the mean", draw=_crashing(0.03)
    ),
    "crash_1": Scenario(
        about="rare crashes: 1 % of episodes, equal in the mean", draw=_crashing(0.01)
    ),
    "crash_1_worse": Scenario(
        about="rare crashes: 1 % of episodes, worse by 2", draw=_crashing(0.01, 1.0), mean=-2.0
    ),
    "crash_0.2": Scenario(
        about="rarer than can be seen: 0.2 % of episodes, equal in the mean",
        draw=_crashing(0.002),
    ),
    "better": Scenario(
        about="power: better by a fifth of the standard deviation",
        draw=lambda rng, shape: 0.2 + rng.standard_normal(shape),
        mean=0.2,
    ),
    "slightly_better": Scenario(
        about="power: better by a tenth of the standard deviation",
        draw=lambda rng, shape: 0.1 + rng.standard_normal(shape),
        mean=0.1,
    ),
}


def promoted(differences: Float64Array) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """What the gate decides, and after how many episodes.

    Args:
        differences: shape (most episodes of a comparison, decisions).

    Returns:
        Whether each was promoted, and the episodes that it took, shape (decisions,) each.
    """
    wins = np.zeros(differences.shape[1], np.bool_)
    episodes = np.zeros(differences.shape[1], np.int64)
    undecided = np.arange(differences.shape[1])
    for index in range(len(LOOKS)):
        look = look_at(index)
        played = differences[: look.episodes, undecided]
        low, high = mean_limits(played, look.confidence)
        equal = ~played.any(axis=0)
        figures = zip(low, high, equal, strict=True)
        ends = np.array([suffices(a, b, e, look.episodes) for a, b, e in figures]) | look.last
        wins[undecided] = ends & ((low > 0.0) | equal)
        episodes[undecided] = look.episodes
        undecided = undecided[~ends]
        if not undecided.size:
            break
    return wins, episodes


def simulate(draw: Draw, decisions: int, seed: int = 0) -> tuple[float, float]:
    """Share of decisions that promote, and mean episodes of a decision."""
    rng = np.random.default_rng(seed)
    wins, played = [], []
    for start in range(0, decisions, _BATCH):
        won, episodes = promoted(draw(rng, (LOOKS[-1], min(_BATCH, decisions - start))))
        wins.append(won)
        played.append(episodes)
    return float(np.concatenate(wins).mean()), float(np.concatenate(played).mean())


def one_look(draw: Draw, decisions: int, seed: int = 0) -> float:
    """Share promoted by a percentile bootstrap interval of 100 differences."""
    rng = np.random.default_rng(seed)
    times = rng.multinomial(LOOKS[0], np.full(LOOKS[0], 1.0 / LOOKS[0]), _RESAMPLES)
    means = times @ draw(rng, (LOOKS[0], decisions)) / LOOKS[0]
    return float((np.quantile(means, 0.025, axis=0) > 0.0).mean())


def main() -> None:
    """Simulate every scenario, print the shares, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=4_000)
    decisions = parser.parse_args().decisions
    rows = []
    print(
        f"{decisions} decisions each; promoted, in per cent: now (standard error) | one look at 100"
    )
    for name, scenario in SCENARIOS.items():
        share, episodes = simulate(scenario.draw, decisions)
        before = one_look(scenario.draw, decisions)
        error = np.sqrt(share * (1.0 - share) / decisions)
        print(
            f"{scenario.about:62} {100 * share:6.2f} ({100 * error:.2f}) | {100 * before:6.2f}"
            f"   {episodes:5.0f} episodes",
            flush=True,
        )
        rows.append(
            {
                "scenario": name,
                "true_mean": scenario.mean,
                "decisions": decisions,
                "promoted": round(share, 5),
                "episodes": round(episodes),
                "promoted_by_one_look": round(before, 5),
            }
        )
    write_rows("promotion", rows)


if __name__ == "__main__":
    main()
