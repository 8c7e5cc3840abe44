"""Two sides set against each other: in pairs of equal seeds, where they share enough of them."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from grpo_platform.comparisons.sides import Contestant

__all__ = ["Matched", "matched"]

_MOST_UNMATCHED: Final = 0.2
"""Share of the larger side whose seeds the other may lack, and the two still be paired."""

_LEAST_PAIRS: Final = 3


class Matched(NamedTuple):
    """The returns of two sides."""

    first: npt.NDArray[np.float64]
    """Shape (n,)."""

    second: npt.NDArray[np.float64]
    """Shape (m,); where paired (n,), in the order of the first's."""

    paired: bool
    alike: bool
    """Whether both are of seeds, or both of episodes."""


def matched(first: Contestant, second: Contestant) -> Matched:
    """The returns of two sides, those of equal seeds in the same place where they are paired."""
    alike = first.unit == second.unit
    common, at_first, at_second = np.intersect1d(first.seeds, second.seeds, return_indices=True)
    most = max(len(first.seeds), len(second.seeds))
    enough = len(common) >= max(_LEAST_PAIRS, (1.0 - _MOST_UNMATCHED) * most)
    if alike and first.env_name == second.env_name and enough:
        return Matched(first.returns[at_first], second.returns[at_second], True, True)
    return Matched(first.returns, second.returns, False, alike)
