"""How often nominal 95 % intervals hold the truth, for 3 to 30 seeds, on many kinds of returns.

Samples are drawn through each distribution's quantile function, so that the true mean and the true
interquartile mean are integrals of it. The other side of a difference draws the worse of two values
of the same distribution, so that it has the same ties and bounds; where paired, the two share half
of their normal scores' variance. 93 to 97 % is what is asked; where no interval can have that, the
coverages next to it are told, see `attainable`.
"""

import argparse
import csv
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from benchmarks.results import FOLDER, write_machine
from grpo.statistics import (
    difference_limits,
    iqm_limits,
    mean_limits,
    probability_limits,
)

__all__ = [
    "DISTRIBUTIONS",
    "ESTIMATES",
    "SEEDS",
    "Attainable",
    "Cell",
    "attainable",
    "attainable_table",
    "cells",
    "summary",
    "table",
]

Float64Array = npt.NDArray[np.float64]
Quantile = Callable[[Float64Array], Float64Array]

SEEDS: Final = (3, 5, 10, 20, 30)
LOW, HIGH = 0.93, 0.97
_BATCH: Final = 2_000
_SHARED: Final = 0.5
_GRID: Final = (np.arange(4_000) + 0.5) / 4_000

ESTIMATES: Final = {
    "mean": "mean",
    "iqm": "IQM",
    "mean_unpaired": "difference of means, unpaired",
    "iqm_unpaired": "difference of IQMs, unpaired",
    "probability_unpaired": "probability of improvement, unpaired",
    "mean_paired": "difference of means, paired",
    "iqm_paired": "difference of IQMs, paired",
    "probability_paired": "probability of improvement, paired",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """Returns of an algorithm over seeds."""

    about: str
    quantile: Quantile
    """Value below which a share lies, elementwise."""

    mean: float
    iqm: float
    worse_mean: float
    """Of the worse of two values; so below."""
    worse_iqm: float


def _distribution(about: str, quantile: Quantile, mean: float | None = None) -> Distribution:
    grid = (np.arange(4_000_000) + 0.5) / 4_000_000
    inner = slice(1_000_000, 3_000_000)
    values, worse = quantile(grid), quantile(_worse(grid))
    return Distribution(
        about=about,
        quantile=quantile,
        mean=float(values.mean()) if mean is None else mean,
        iqm=float(values[inner].mean()),
        worse_mean=float(worse.mean()),
        worse_iqm=float(worse[inner].mean()),
    )


def _worse(share: Float64Array) -> Float64Array:
    """Where the worse of two values stands in the distribution of one."""
    return 1.0 - np.sqrt(1.0 - share)


DISTRIBUTIONS: Final[Mapping[str, Distribution]] = {
    "normal": _distribution("normal", lambda u: 3.0 + special.ndtri(u), 3.0),
    "exponential": _distribution("skewed: exponential", lambda u: -np.log1p(-u), 1.0),
    "lognormal": _distribution(
        "skewed: log-normal (sigma 0.5)",
        lambda u: np.exp(0.5 * special.ndtri(u)),
        float(np.exp(0.125)),
    ),
    "very_skewed": _distribution(
        "very skewed: log-normal (sigma 1)",
        lambda u: np.exp(special.ndtri(u)),
        float(np.exp(0.5)),
    ),
    "coin": _distribution(
        "discrete: 0 or 500, as often", lambda u: np.where(u < 0.5, 0.0, 500.0), 250.0
    ),
    "five_values": _distribution("discrete: 0 to 4, as often", lambda u: np.floor(5.0 * u), 2.0),
    "capped": _distribution(
        "tied: normal, 37 % at its cap of 500",
        lambda u: np.minimum(480.0 + 60.0 * special.ndtri(u), 500.0),
    ),
}


class Cell(NamedTuple):
    """How often one interval held the truth."""

    estimate: str
    distribution: str
    seeds: int
    coverage: float


def _pairs(
    rng: np.random.Generator, quantile: Quantile, shape: tuple[int, int], shared: float
) -> tuple[Float64Array, Float64Array]:
    """One side and the other, which is worse, of R samples: shape (n, R) each."""
    common, one, other = rng.standard_normal((3, *shape))
    scores = (np.sqrt(shared) * common + np.sqrt(1.0 - shared) * z for z in (one, other))
    a, b = (special.ndtr(z) for z in scores)
    return quantile(a), quantile(_worse(b))


def _chance(quantile: Quantile, shared: float) -> float:
    """True probability of improvement, the two sides correlated as the pairs are."""
    if shared == 0.0:
        a, b = quantile(_GRID), quantile(_worse(_GRID))
        return float(0.5 + np.sign(a[:, None] - b).mean() / 2.0)
    rng = np.random.default_rng(2**40)
    a, b = _pairs(rng, quantile, (2_000, 2_000), shared)
    return float(0.5 + np.sign(a - b).mean() / 2.0)


def _inside(limits: tuple[Float64Array, Float64Array], truth: float) -> Float64Array:
    """Whether each interval holds the truth, shape (R,)."""
    low, high = limits
    slack = 1e-9 * (1.0 + abs(truth))  # an end that is the truth but for round-off
    return (low <= truth + slack) & (truth - slack <= high)


def _batch(
    rng: np.random.Generator, given: Distribution, chances: tuple[float, float], n: int, size: int
) -> dict[str, Float64Array]:
    """Whether each of so many intervals holds the truth, by estimate."""
    held = {}
    for paired, chance in zip((False, True), chances, strict=True):
        a, b = _pairs(rng, given.quantile, (n, size), _SHARED if paired else 0.0)
        if not paired:
            held["mean"] = _inside(mean_limits(a), given.mean)
            held["iqm"] = _inside(iqm_limits(a), given.iqm)
        word = "paired" if paired else "unpaired"
        means, iqms = difference_limits(a, b, paired)
        held[f"mean_{word}"] = _inside(means, given.mean - given.worse_mean)
        held[f"iqm_{word}"] = _inside(iqms, given.iqm - given.worse_iqm)
        _, low, high = probability_limits(a, b, paired)
        held[f"probability_{word}"] = _inside((low, high), chance)
    return held


def cells(samples: int, seed: int = 0) -> Iterator[Cell]:
    """Simulate every cell, so many samples each."""
    for name, given in DISTRIBUTIONS.items():
        chances = _chance(given.quantile, 0.0), _chance(given.quantile, _SHARED)
        for n in SEEDS:
            rng = np.random.default_rng([seed, n, list(DISTRIBUTIONS).index(name)])
            sizes = [min(_BATCH, samples - start) for start in range(0, samples, _BATCH)]
            held = [_batch(rng, given, chances, n, size) for size in sizes]
            for estimate in ESTIMATES:
                share = np.concatenate([batch[estimate] for batch in held]).mean()
                yield Cell(estimate, name, n, float(share))


class Attainable(NamedTuple):
    """What coverage an interval can have where none has 93 to 97 %."""

    estimate: str
    distribution: str
    seeds: int
    below: float
    """The highest that is less."""

    above: float
    """The lowest that is more; NaN where there is none."""


def attainable(samples: int, seed: int = 1) -> Iterator[Attainable]:
    """Cells in which no interval of a kind covers the truth in 93 to 97 % of samples.

    Discrete returns have few outcomes, and an interval covers a sum of their chances. It is asked
    that intervals move and stretch with the returns, so that a sample of equal values leaves no
    width; that those of mirrored samples are mirrored; and that their ends rise with the estimate.
    """
    for name, given in DISTRIBUTIONS.items():
        chances = _chance(given.quantile, 0.0), _chance(given.quantile, _SHARED)
        for n in SEEDS:
            rng = np.random.default_rng([seed, n, list(DISTRIBUTIONS).index(name)])
            batches = [
                [_outcomes(rng, given, n, paired) for _ in range(0, samples, _BATCH)]
                for paired in (False, True)
            ]
            for word, outcomes, chance in zip(
                ("unpaired", "paired"), batches, chances, strict=True
            ):
                estimates, alone, equal = (
                    np.concatenate(each) for each in zip(*outcomes, strict=True)
                )
                most = float(1.0 - equal.mean())
                reached = [_ranges(estimates, chance)]
                reached += [[most, 1.0] if most < LOW else [LOW]] * 2
                named = [f"{kind}_{word}" for kind in ("probability", "mean", "iqm")]
                if word == "unpaired":
                    one = _counts(n) if name == "coin" else [float(1.0 - alone.mean()), 1.0]
                    reached += [one if name == "coin" or one[0] < LOW else [LOW]] * 2
                    named += ["mean", "iqm"]
                for estimate, values in zip(named, reached, strict=True):
                    if any(LOW <= value <= HIGH for value in values):
                        continue
                    below = max((value for value in values if value < LOW), default=np.nan)
                    above = min((value for value in values if value > HIGH), default=np.nan)
                    yield Attainable(estimate, name, n, below, above)


def _outcomes(
    rng: np.random.Generator, given: Distribution, n: int, paired: bool
) -> tuple[Float64Array, ...]:
    """Chances of improvement; whether one side is all one wrong value; whether both are equal."""
    a, b = _pairs(rng, given.quantile, (n, _BATCH), _SHARED if paired else 0.0)
    signs = np.sign(a - b) if paired else np.sign(a[:, None] - b[None]).reshape(-1, _BATCH)
    alone = (a.min(axis=0) == a.max(axis=0)) & (a[0] != given.mean)
    both = np.concatenate([a, b])
    return 0.5 + signs.mean(axis=0) / 2.0, alone, both.min(axis=0) == both.max(axis=0)


def _counts(n: int) -> list[float]:
    """Coverages of a coin's interval: as many on either side of a half are held, but never all."""
    chances = [math.comb(n, k) / 2.0**n for k in range(n + 1)]
    return [sum(chances[k : n + 1 - k]) for k in range(1, n // 2 + 1)] + [1.0]


def _ranges(estimates: Float64Array, truth: float) -> list[float]:
    """Coverages of intervals that hold the truth for a range of estimates around it."""
    values, counts = np.unique(estimates.round(9), return_counts=True)
    sums = np.concatenate([[0.0], np.cumsum(counts / counts.sum())])
    middle = int(np.searchsorted(values, truth))
    spans = (sums[None, middle:] - sums[: middle + 1, None]).ravel()
    return [float(span) for span in np.unique(spans.round(4))]


def _rows(name: str = "coverage") -> list[dict[str, str]]:
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def summary() -> str:
    """The page's sentence about how many cells lie where."""
    shares = [float(row["coverage"]) for row in _rows()]
    below, above = sum(s < LOW for s in shares), sum(s > HIGH for s in shares)
    error = 196.0 * np.sqrt(0.05 * 0.95 / int(_rows()[0]["samples"]))
    impossible = {tuple(row[key] for key in ("estimate", "distribution", "seeds"))
                  for row in _rows("coverage_attainable")}  # fmt: skip
    forced = sum(
        not LOW <= float(row["coverage"]) <= HIGH
        and (row["estimate"], row["distribution"], row["seeds"]) in impossible
        for row in _rows()
    )
    return (
        f"{len(shares) - below - above} of {len(shares)} cells lie within 93 to 97 %, "
        f"{above} above and {below} below; in {forced} of those no interval can lie within. "
        f"Each is known to ± {error:.1f}."
    )


def attainable_table() -> str:
    """The page's table of cells in which no interval has 93 to 97 %, Markdown."""
    found = {(row["estimate"], row["distribution"], int(row["seeds"])): float(row["coverage"])
             for row in _rows()}  # fmt: skip
    lines = ["| of | returns | n | ours | next below | next above |", "|---|---|---|---|---|---|"]
    for row in _rows("coverage_attainable"):
        key = row["estimate"], row["distribution"], int(row["seeds"])
        below, above = (
            "–" if row[side] == "nan" else f"{100 * float(row[side]):.1f}"
            for side in ("below", "above")
        )
        about = DISTRIBUTIONS[key[1]].about
        lines.append(f"| {ESTIMATES[key[0]]} | {about} | {key[2]} | {100 * found[key]:.1f} | "
                     f"{below} | {above} |")  # fmt: skip
    return "\n".join(lines)


def table() -> str:
    """The page's table of what was measured, Markdown; what misses 93 to 97 % is bold."""
    found = {
        (row["estimate"], row["distribution"], int(row["seeds"])): float(row["coverage"])
        for row in _rows()
    }
    lines = ["| of | returns | " + " | ".join(f"n = {n}" for n in SEEDS) + " |"]
    lines.append("|---|---|" + "---|" * len(SEEDS))
    for estimate, words in ESTIMATES.items():
        for name, given in DISTRIBUTIONS.items():
            shares = [found[estimate, name, n] for n in SEEDS]
            shown = [f"{100 * s:.1f}" if LOW <= s <= HIGH else f"**{100 * s:.1f}**" for s in shares]
            lines.append(f"| {words} | {given.about} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, print, and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print, and keep nothing")
    options = parser.parse_args()
    found = []
    for cell in cells(options.samples, options.seed):
        found.append(cell)
        mark = "" if LOW <= cell.coverage <= HIGH else " *"
        print(f"{cell.distribution:12} {cell.seeds:3} {cell.estimate:22} "
              f"{100 * cell.coverage:6.2f}{mark}", flush=True)  # fmt: skip
    if options.dry:
        return
    with (FOLDER / "coverage.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*Cell._fields, "samples"])
        for cell in found:
            writer.writerow([*cell[:3], f"{cell.coverage:.4f}", options.samples])
    with (FOLDER / "coverage_attainable.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Attainable._fields)
        for row in attainable(min(options.samples, 10_000)):
            writer.writerow([*row[:3], *(f"{share:.4f}" for share in row[3:])])
    write_machine("coverage")
    print(summary())


if __name__ == "__main__":
    main()
