"""What a client asked to be compared: typed references, and how."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from grpo.errors import ConfigError
from grpo.fields import Bound, check_fields
from grpo_platform.core.errors import InvalidRequestError

__all__ = ["KINDS", "MAX_SIDES", "ComparisonRequest", "Kind", "Reference", "reference_from"]

Kind = Literal["experiment", "job", "model", "sweep"]

KINDS: Final[tuple[Kind, ...]] = ("experiment", "job", "model", "sweep")

MAX_SIDES: Final = 8
"""Of one comparison: each further one is compared with all others, and costs all of them power."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One thing that can be compared."""

    kind: Kind
    """`experiment`: all its seeds; `job`: the version that it made; `model`: a version; `sweep`:
    the version of its best trial."""

    name: str
    """An id; of a model `name`, `name@alias` or `name/version`."""

    def to_dict(self) -> dict[str, str]:
        """As the API takes it."""
        return {self.kind: self.name}


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonRequest:
    """One comparison, all values in force.

    Raises:
        InvalidRequestError: fewer than two sides, too many, or one twice; a value out of its range.
    """

    references: tuple[Reference, ...]
    """Sides, 2 to 8 different ones."""

    normalize: bool = False
    """Put returns on a scale from 0, a policy that acts at random, to 1, the environment's reward
    threshold; sides of different environments are compared only so."""

    episodes: Annotated[int, Bound(20, 2_000)] = 100
    """Episodes that each version plays, all on the same seeds; an experiment's seeds were evaluated
    when they were trained."""

    seed: Annotated[int, Bound(0, 2**32 - 1)]
    """Gives the episodes' seeds."""

    max_seconds: Annotated[int, Bound(1, 3_600)] = 40
    """No further episodes are begun that are not expected to end within this time."""

    def __post_init__(self) -> None:
        """Validate what the schema of a client may not have seen."""
        count = len(self.references)
        if not 2 <= count <= MAX_SIDES:
            raise InvalidRequestError(
                f"A comparison takes 2 to {MAX_SIDES} references, and {count} "
                f"{'is' if count == 1 else 'are'} given.",
                field="references",
            )
        twice = [r for i, r in enumerate(self.references) if r in self.references[:i]]
        if twice:
            raise InvalidRequestError(
                f"The {twice[0].kind} {twice[0].name} is named twice; name each side once.",
                field="references",
            )
        try:
            check_fields(self)
        except ConfigError as error:
            raise InvalidRequestError(str(error), field=error.field) from error


def reference_from(given: Sequence[tuple[str, str | None]]) -> Reference:
    """The one reference among fields by kind, of which all others are None.

    Raises:
        InvalidRequestError: there is none, or more than one.
    """
    named = [(kind, name) for kind, name in given if name is not None]
    if len(named) != 1:
        raise InvalidRequestError(
            f"Each reference names exactly one of {', '.join(KINDS)}, such as "
            '{"model": "my_model/3"}.',
            field="references",
        )
    ((kind, name),) = named
    found = next(known for known in KINDS if known == kind)
    return Reference(found, name)
