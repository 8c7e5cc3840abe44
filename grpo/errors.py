"""Every error that `grpo` raises on purpose, and what each asks the caller to do.

GRPOError
├── ConfigError                    a configuration that cannot be trained (also a ValueError)
│   ├── OutOfRangeError            one value outside its documented range or of the wrong type
│   ├── UnknownNameError           a name that no registry knows; lists those that are allowed
│   ├── IncompatibleError          values that do not go together
│   └── UnsupportedEnvironmentError  spaces that the policy cannot represent, or no such build
├── RewardError                    a reward function returned the wrong shape, NaN or infinity
├── EnvironmentFaultError               an environment raised while it was stepped
├── TrainingDivergedError          loss or parameters became NaN or infinite
└── CheckpointError                a checkpoint or policy file that cannot be read
"""

from collections.abc import Iterable

__all__ = [
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
]


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
    """A name that its registry does not know.

    Attributes:
        allowed: the names that would have been accepted, sorted.
    """

    def __init__(self, field: str, value: object, allowed: Iterable[str]) -> None:
        self.allowed = tuple(sorted(allowed))
        super().__init__(
            f"Unknown {field} {str(value)[:100]!r}. Use one of: {', '.join(self.allowed)}.",
            field=field,
        )


class IncompatibleError(ConfigError):
    """Values that are each valid but do not go together."""


class UnsupportedEnvironmentError(ConfigError):
    """An environment whose spaces the policy cannot represent, or that cannot be made here."""


class RewardError(GRPOError):
    """A reward function returned the wrong shape, NaN or infinity."""


class EnvironmentFaultError(GRPOError):
    """An environment raised while it was being reset or stepped."""


class TrainingDivergedError(GRPOError):
    """The loss or the parameters became NaN or infinite."""


class CheckpointError(GRPOError):
    """A checkpoint or policy file that is damaged, foreign, or of an unknown version."""
