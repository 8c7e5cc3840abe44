"""What goes wrong in a training, told from its statistics once, with what to try."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, get_args

from grpo.actions import ActionSpec, BoxActions, DictActions, choices
from grpo.reporting import Reporter, RolloutStats, UpdateStats

__all__ = ["TEXTS", "Hint", "Hints"]

Hint = Literal[
    "groups_degenerate", "no_gradient", "policy_unchanged", "entropy_gone", "values_exploding"
]
"""What is wrong."""

_PATIENCE: Final = 5  # iterations in a row
_STILL: Final = 1e-9  # nats: approx_kl of updates that change nothing
_LEAST_SHARE: Final = 0.01  # of a uniform choice's entropy; of half a bounded number's range
_LARGEST_ERROR: Final = 10.0  # mean squared error of the values, in variances of the returns
_EXPLOSIONS: Final = 2  # iterations in a row: more of them often end in NaN

TEXTS: Final[Mapping[Hint, str]] = MappingProxyType(
    {
        "groups_degenerate": (
            f"In {_PATIENCE} iterations in a row all members of every group came to the same "
            "return, or none got any reward, so that there was nothing to learn from. That is as "
            "it should be once all of them do the best; before that, try a reward that tells good "
            "from bad sooner (reward_function_type), longer segments (n_steps), bootstrap, a "
            "larger group_size, or a higher ent_coef."
        ),
        "no_gradient": (
            f"The policy's gradient was 0 in {_PATIENCE} iterations in a row, though returns "
            "differed: nothing is learned. Its networks may be saturated (lower learning_rate, set "
            "normalize_observations), or there is only one action to choose."
        ),
        "policy_unchanged": (
            f"The policy did not change in {_PATIENCE} iterations in a row, though it has a "
            "gradient: raise learning_rate."
        ),
        "entropy_gone": (
            "The policy has no randomness left (its entropy is at its least), so that all members "
            "of a group do the same and it learns no more. Where it does not do well yet, lower "
            "learning_rate, or raise ent_coef."
        ),
        "values_exploding": (
            "The value estimates are off by more than three standard deviations of the returns in "
            f"{_EXPLOSIONS} iterations in a row: lower learning_rate, or gamma where bootstrap is "
            "on."
        ),
    }
)
"""What is told of each."""


class Hints(Reporter):
    """Hears of a training, and tells what is wrong with it, each thing once.

    Args:
        action: what the policy chooses among.

    Attributes:
        found: what was wrong so far, in the order that it was found, with what to try.
    """

    def __init__(self, action: ActionSpec) -> None:
        self.found: dict[Hint, str] = {}
        self._least_entropy = _LEAST_SHARE * sum(math.log(n) for n in choices(action))
        self._least_entropy += _numbers(action) * _entropy_of_normal(_LEAST_SHARE)
        self._degenerate = False
        self._in_a_row: dict[Hint, int] = dict.fromkeys(get_args(Hint), 0)

    def on_rollout(self, stats: RolloutStats) -> None:
        """Note whether an iteration's comparisons gave a signal."""
        self._degenerate = stats.degenerate_fraction == 1.0

    def on_update(self, stats: UpdateStats) -> None:
        """Look at an iteration."""
        silent = stats.grad_norm == 0.0
        wrong: dict[Hint, bool] = {
            "groups_degenerate": self._degenerate,
            "no_gradient": silent and not self._degenerate,
            "policy_unchanged": not silent and stats.approx_kl < _STILL,
            "entropy_gone": stats.entropy < self._least_entropy,
            "values_exploding": (
                stats.explained_variance != 0.0  # which it is where all returns are equal
                and stats.value_loss > _LARGEST_ERROR * stats.return_std**2
            ),
        }
        for hint, is_wrong in wrong.items():
            self._in_a_row[hint] = self._in_a_row[hint] + 1 if is_wrong else 0
            patience = _EXPLOSIONS if hint == "values_exploding" else _PATIENCE
            if self._in_a_row[hint] == patience:
                self.found.setdefault(hint, TEXTS[hint])


def _entropy_of_normal(std: float) -> float:
    """Of a normal distribution, nats."""
    return 0.5 * math.log(2.0 * math.pi * math.e) + math.log(std)


def _numbers(action: ActionSpec) -> int:
    """How many components of an action are numbers of a density."""
    parts = [part for _, part in action.parts] if isinstance(action, DictActions) else [action]
    return sum(part.size for part in parts if isinstance(part, BoxActions))
