"""What other intervals of the mean reach beside ours, on few values of skewed distributions.

That an interval which knows nothing of the distribution cannot hold its level for a mean was proved
by Bahadur & Savage (1956, Annals of Mathematical Statistics 27). How near each comes is measured:
Student's t, Johnson's (1978) and Chen's (1995) modified t, Hall's transformation (1992), the
bootstrap-t and BCa (Efron & Tibshirani 1993), and Owen's empirical likelihood (1988), calibrated by
F. All see the same samples.
"""

import argparse
import csv
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from benchmarks.coverage import DISTRIBUTIONS, HIGH, LOW, SEEDS
from benchmarks.results import FOLDER, write_machine
from grpo.limits import mean_limits

__all__ = ["METHODS", "SKEWED", "held", "table"]

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Method = Callable[[Float64Array, float], BoolArray]

SKEWED: Final = ("normal", "exponential", "lognormal", "very_skewed")
_RESAMPLES: Final = 1_000
_BATCH: Final = 200
_LEVEL: Final = 0.025


def _parts(x: Float64Array, truth: float) -> tuple[Float64Array, Float64Array, float]:
    """Studentised mean, skewness, and Student's quantile, of samples of shape (n, R)."""
    n = len(x)
    centred = x - x.mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=0) / (n - 1.0))
    skewness = n / ((n - 1.0) * (n - 2.0)) * ((centred / scale) ** 3).sum(axis=0)
    t = (x.mean(axis=0) - truth) / scale * np.sqrt(n)
    return t, skewness, float(stats.t.ppf(1.0 - _LEVEL, n - 1))


def _student(x: Float64Array, truth: float) -> BoolArray:
    t, _, q = _parts(x, truth)
    return np.abs(t) <= q


def _johnson(x: Float64Array, truth: float) -> BoolArray:
    t, g, q = _parts(x, truth)
    a = g / (6.0 * np.sqrt(len(x)))
    return np.abs(t + a + 2.0 * a * t**2) <= q


def _chen(x: Float64Array, truth: float) -> BoolArray:
    t, g, q = _parts(x, truth)
    a = g / (6.0 * np.sqrt(len(x)))
    return np.abs(t + a * (1.0 + 2.0 * t**2) + 4.0 * a**2 * (t + 2.0 * t**3)) <= q


def _hall(x: Float64Array, truth: float) -> BoolArray:
    t, g, q = _parts(x, truth)
    a = g / np.sqrt(len(x))
    return np.abs(t + a * t**2 / 3.0 + a**2 * t**3 / 27.0 + a / 6.0) <= q


def _resampled(x: Float64Array) -> Float64Array:
    """Resamples, shape (resamples, n, R)."""
    picks = np.random.default_rng(1).integers(0, len(x), (_RESAMPLES, len(x)))
    return x[picks]


def _bootstrap_t(x: Float64Array, truth: float) -> BoolArray:
    t, _, _ = _parts(x, truth)
    drawn = _resampled(x)
    scale = drawn.std(axis=1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        studentised = (drawn.mean(axis=1) - x.mean(axis=0)) / scale * np.sqrt(len(x))
    studentised[scale < 1e-12] = np.nan  # one value drawn again and again
    low, high = np.nanquantile(studentised, (_LEVEL, 1.0 - _LEVEL), axis=0)
    return (low <= t) & (t <= high)


def _bca(x: Float64Array, truth: float) -> BoolArray:
    means = np.sort(_resampled(x).mean(axis=1), axis=0)
    bias = special.ndtri(np.clip((means < x.mean(axis=0)).mean(axis=0), 1e-3, 1.0 - 1e-3))
    centred = x - x.mean(axis=0)
    a = (centred**3).sum(axis=0) / (6.0 * (centred**2).sum(axis=0) ** 1.5)
    ends = []
    for z in (special.ndtri(_LEVEL), -special.ndtri(_LEVEL)):
        rank = special.ndtr(bias + (bias + z) / (1.0 - a * (bias + z))) * (_RESAMPLES - 1)
        ends.append(means[rank.astype(int), np.arange(x.shape[1])])
    return (ends[0] <= truth) & (truth <= ends[1])


def _likelihood(x: Float64Array, truth: float) -> BoolArray:
    """Owen's ratio at the truth, its multiplier by bisection; beyond the sample it is 0."""
    n = len(x)
    apart = x - truth
    least, most = apart.min(axis=0), apart.max(axis=0)
    inside = (least < 0.0) & (most > 0.0)
    apart = np.where(inside, apart, np.linspace(-1.0, 1.0, n)[:, None])
    low, high = (1.0 / n - 1.0) / apart.max(axis=0), (1.0 / n - 1.0) / apart.min(axis=0)
    for _ in range(60):
        middle = (low + high) / 2.0
        falls = (apart / (1.0 + middle * apart)).sum(axis=0) > 0.0
        low, high = np.where(falls, middle, low), np.where(falls, high, middle)
    ratio = 2.0 * np.log1p((low + high) / 2.0 * apart).sum(axis=0)
    return inside & (ratio <= stats.f.ppf(1.0 - 2.0 * _LEVEL, 1, n - 1))


def _ours(x: Float64Array, truth: float) -> BoolArray:
    low, high = mean_limits(x)
    return (low <= truth) & (truth <= high)


METHODS: Final[Mapping[str, tuple[str, Method]]] = {
    "student": ("Student's t", _student),
    "johnson": ("Johnson's t", _johnson),
    "chen": ("Chen's t", _chen),
    "hall": ("Hall's transformation", _hall),
    "bootstrap_t": ("bootstrap-t", _bootstrap_t),
    "bca": ("BCa bootstrap", _bca),
    "likelihood": ("empirical likelihood", _likelihood),
    "ours": ("**ours**", _ours),
}


def held(name: str, n: int, samples: int, seed: int = 0) -> dict[str, float]:
    """Share of intervals that hold the true mean, by method."""
    given = DISTRIBUTIONS[name]
    rng = np.random.default_rng([seed, n, SKEWED.index(name), 1])
    shares: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(0, samples, _BATCH):
        x = given.quantile(rng.random((n, _BATCH)))
        for method, (_, call) in METHODS.items():
            shares[method].append(float(call(x, given.mean).mean()))
    return {method: float(np.mean(each)) for method, each in shares.items()}


def table() -> str:
    """The page's table, Markdown; what misses 93 to 97 % is bold."""
    with (FOLDER / "coverage_peers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["distribution"], row["method"], int(row["seeds"])): float(row["coverage"])
             for row in rows}  # fmt: skip
    lines = ["| returns | interval | " + " | ".join(f"n = {n}" for n in SEEDS) + " |"]
    lines.append("|---|---|" + "---|" * len(SEEDS))
    for name in SKEWED:
        for method, (words, _) in METHODS.items():
            shares = [found[name, method, n] for n in SEEDS]
            shown = [f"{100 * s:.1f}" if LOW <= s <= HIGH else f"**{100 * s:.1f}**" for s in shares]
            lines.append(f"| {DISTRIBUTIONS[name].about} | {words} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=4_000)
    samples = parser.parse_args().samples
    with (FOLDER / "coverage_peers.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["distribution", "seeds", "method", "coverage", "samples"])
        for name in SKEWED:
            for n in SEEDS:
                for method, share in held(name, n, samples).items():
                    writer.writerow([name, n, method, f"{share:.4f}", samples])
                    print(f"{name:12} {n:3} {method:12} {100 * share:6.2f}", flush=True)
    write_machine("coverage_peers")


if __name__ == "__main__":
    main()
