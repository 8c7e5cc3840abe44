"""Every error that `grpo` raises on purpose, and what each asks the caller to do.

GRPOError
├── ConfigError                    a configuration that cannot be trained (also a ValueError)
│   ├── OutOfRangeError            one value outside its documented range or of the wrong type
│   ├── UnknownNameError           a name that no registry knows; lists those that are allowed
│   ├── IncompatibleError          values that do not go together
│   └── UnsupportedEnvironmentError  spaces that the policy cannot represent, or no such build
├── UnsupportedPolicyError         a policy whose code cannot be packaged
├── AdvantageError                 an advantage function raised, or returned what is none
├── RewardError                    a reward function raised, or returned what is none
├── EnvironmentFaultError          an environment raised, or gave what is not finite
├── TrainingDivergedError          loss or parameters became NaN or infinite
└── CheckpointError                a checkpoint or policy file that cannot be read
"""

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = [
    "AdvantageError",
    "CheckpointError",
    "ConfigError",
    "EnvironmentFaultError",
    "GRPOError",
    "IncompatibleError",
    "OutOfRangeError",
    "RewardError",
    "TrainingDivergedError",
    "UnknownNameError",
    "UnsupportedEnvironmentError",
    "UnsupportedPolicyError",
    "did_you_mean",
    "in_words",
    "nearest",
]

_MAX_LISTED: Final = 60
_MAX_COMPARED: Final = 100  # characters: the comparison's time grows with their square
_LIKENESS: Final = 0.6
_MAX_WORDS: Final = 500


def nearest(name: object, allowed: Iterable[str]) -> str | None:
    """The allowed name that a misspelled one most likely means; None where none is like it.

    Case does not count. Among equally near names the last one wins, which is the newest version
    of an environment (`LunarLander-v3` for `LunarLander-v2`).
    """
    by_folded = {known.casefold(): known for known in sorted(allowed)}
    text = str(name)[:_MAX_COMPARED].casefold()
    found = difflib.get_close_matches(text, by_folded, 5, _LIKENESS)
    if not found:
        return None
    likeness = {folded: difflib.SequenceMatcher(None, folded, text).ratio() for folded in found}
    return by_folded[max(found, key=lambda folded: (likeness[folded], folded))]


def did_you_mean(name: object, allowed: Iterable[str]) -> str:
    """`Did you mean 'learning_rate'? ` for a misspelled name, or nothing where none is like it.

    It ends in a space, to stand before another sentence.
    """
    found = nearest(name, allowed)
    return "" if found is None else f"Did you mean {found!r}? "


def in_words(error: BaseException, where: str = "") -> str:
    """A foreign exception within a sentence of ours: `KeyError in step: 'x'`, without full stop.

    One without a message, such as a bare `assert`, is described by the line that raised it.
    """
    message = " ".join(str(error).split())[:_MAX_WORDS].rstrip(" .:")
    kind = f"{type(error).__name__}{where and f' in {where}'}"
    if not message and (frames := traceback.extract_tb(error.__traceback__)):
        last = frames[-1]
        code = f", `{last.line[:_MAX_WORDS]}`" if last.line else ""
        message = f"line {last.lineno} of {Path(last.filename).name}{code}"
    return f"{kind}: {message}" if message else kind


class GRPOError(Exception):
    """Base of all errors raised by this package."""


class ConfigError(GRPOError, ValueError):
    """A configuration that cannot be trained.

    Attributes:
        field: the configuration field at fault, or None where several are.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class OutOfRangeError(ConfigError):
    """One value is outside its documented range, or of the wrong type."""


class UnknownNameError(ConfigError):
    """A name that its registry does not know; the message has the nearest one that it does.

    Args:
        field: the configuration field that holds the name.
        value: the name.
        allowed: the names that would have been accepted.
        known: names that exist, from which the nearest is told; those allowed where left out.
        advice: a further sentence.

    Attributes:
        allowed: the names that would have been accepted, sorted.
    """

    def __init__(
        self,
        field: str,
        value: object,
        allowed: Iterable[str],
        *,
        known: Iterable[str] | None = None,
        advice: str = "",
    ) -> None:
        self.allowed = tuple(sorted(allowed))
        listed = ", ".join(self.allowed[:_MAX_LISTED])
        more = len(self.allowed) - _MAX_LISTED
        near = did_you_mean(value, self.allowed if known is None else known)
        super().__init__(
            f"Unknown {field} {str(value)[:100]!r}. {near}"
            f"Use one of: {listed}{f', and {more} more' if more > 0 else ''}."
            f"{advice and f' {advice}'}",
            field=field,
        )


class IncompatibleError(ConfigError):
    """Values that are each valid but do not go together."""


class UnsupportedEnvironmentError(ConfigError):
    """An environment whose spaces the policy cannot represent, or that cannot be made here."""


class UnsupportedPolicyError(GRPOError):
    """A policy whose code cannot be written down as a graph of plain tensor operations."""


class AdvantageError(GRPOError):
    """An advantage function raised, or returned the wrong shape, NaN or infinity."""


class RewardError(GRPOError):
    """A reward function raised, or returned the wrong shape, NaN or infinity."""


class EnvironmentFaultError(GRPOError):
    """An environment raised while it was reset or stepped, or gave what is not finite."""


class TrainingDivergedError(GRPOError):
    """The loss or the parameters became NaN or infinite."""


class CheckpointError(GRPOError):
    """A checkpoint or policy file that is damaged, foreign, or of an unknown version."""
