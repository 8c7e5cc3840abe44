r"""What must hold in a scenario, in a small language of its own: `never |x| > 2`.

| form | holds when |
|---|---|
| `return >= 450 in 95% of 100 episodes` | so many episodes, or more, return it |
| `length >= 200` | every episode is so long; a share as above |
| `mean return >= 450`, `mean length >= 200` | the mean over the episodes is |
| `never \|x\| > 2`, `always theta < 0.2` | at no step, or at every one, of every episode; a share as above |
| `latency <= 200 us`, `p99 latency <= 1 ms` | the median, or the 99th percentile, of the time an answer takes |
"""  # noqa: E501 - a table

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from grpo.errors import did_you_mean

__all__ = ["MOST_EPISODES", "Assertion", "Feature"]

MOST_EPISODES: Final = 1_000
"""Of one scenario."""

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_PER_SECOND: Final = {"us": 1e6, "ms": 1e3, "s": 1.0}
_WORDS: Final = ("always", "latency", "length", "mean", "median", "never", "p99", "return")

_NUMBER: Final = r"(?P<bound>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_COMPARED: Final = rf"\s*(?P<operator>>=|<=|>|<)\s*{_NUMBER}"
_SHARE: Final = (
    r"(?:\s+in\s+(?P<percent>\d+(?:\.\d+)?)\s*%\s+of\s+(?:(?P<episodes>\d{1,9})\s+)?episodes)?"
)
_FEATURE: Final = r"(?P<feature>[A-Za-z_][\w.-]*)(?:\[(?P<index>\d{1,9}(?:\s*,\s*\d{1,9}){0,7})\])?"
_FORMS: Final = tuple(
    re.compile(form)
    for form in (
        rf"(?P<statistic>mean)\s+(?P<subject>return|length){_COMPARED}",
        rf"(?P<subject>return|length){_COMPARED}{_SHARE}",
        rf"(?P<subject>never|always)\s+(?P<bar>\|?)\s*{_FEATURE}\s*(?P=bar){_COMPARED}{_SHARE}",
        rf"(?:(?P<statistic>median|p99)\s+)?(?P<subject>latency){_COMPARED}\s*(?P<unit>us|ms|s)",
    )
)

Subject = Literal["return", "length", "never", "always", "latency"]
Statistic = Literal["share", "mean", "median", "p99"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One number of an observation."""

    name: str
    """Its own name (`theta`), or that of a leaf of the observation (`observation`, `goal.0`)."""

    index: tuple[int, ...] = ()
    """Place in the leaf; of one index, in C order."""

    absolute: bool = False
    """Whether its absolute value is meant."""

    @classmethod
    def parse(cls, text: str) -> "Feature":
        """The feature that a text names.

        Raises:
            ValueError: it names none.
        """
        found = re.fullmatch(_FEATURE, text.strip())
        if found is None:
            raise ValueError(f"{text[:100]!r} is no feature of an observation, such as x or x[0]")
        return cls(found["feature"], _index(found["index"]))

    def __str__(self) -> str:
        """As it is written."""
        place = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        return f"|{self.name}{place}|" if self.absolute else f"{self.name}{place}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Assertion:
    """One thing that must hold."""

    text: str
    """As it was written, with one space between words and plain ASCII."""

    subject: Subject
    """What it is about: an episode, the observations of its steps, or the time of an answer."""

    statistic: Statistic
    """What is compared: a share of the episodes that hold, or a figure of all."""

    operator: str
    """`>=`, `<=`, `>` or `<`."""

    bound: float
    """What it is compared with; of a latency, in seconds."""

    share: float = 1.0
    """Share of the episodes that must hold at least."""

    episodes: int | None = None
    """How many are played, where it says so."""

    feature: Feature | None = None
    """Of `never` and `always`."""

    @classmethod
    def parse(cls, text: str) -> "Assertion":
        """The assertion that a text is.

        Raises:
            ValueError: it is none; the message says what there is, or what is wrong.
        """
        for sign, ascii_sign in (("≥", ">="), ("≤", "<="), ("µ", "u"), ("μ", "u")):
            text = text.replace(sign, ascii_sign)
        text = " ".join(text.split())
        found = next((f for form in _FORMS if (f := form.fullmatch(text))), None)
        if found is None:
            near = did_you_mean(text.partition(" ")[0], _WORDS)
            near = "" if text.partition(" ")[0] in _WORDS else near
            raise ValueError(
                f"{text[:100]!r} is no assertion. {near}It looks like 'return >= 450 in 95% of 100 "
                "episodes', 'mean length >= 200', 'never |x| > 2', 'always theta < 0.2' or "
                "'p99 latency <= 1 ms'"
            )
        return _assertion(text, found.groupdict())

    def holds(self, values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether figures, or a feature's values, are on the right side of the bound."""
        given: npt.NDArray[np.bool_] = np.asarray(
            _OPERATORS[self.operator](np.asarray(values, np.float64), self.bound)
        )
        return ~given if self.subject == "never" else given


def _assertion(text: str, parts: Mapping[str, str | None]) -> Assertion:
    subject: Any = parts["subject"]
    default = "median" if subject == "latency" else "share"
    statistic: Any = parts.get("statistic") or default
    bound = float(parts["bound"] or 0)
    if subject == "latency":
        bound /= _PER_SECOND[parts["unit"] or "s"]
        if (parts["operator"] or "").startswith(">") or bound <= 0.0:
            raise ValueError("a latency is bounded from above, by a time: 'latency <= 200 us'")
    percent = parts.get("percent")
    if percent is not None and not 0.0 < float(percent) <= 100.0:
        raise ValueError(f"a share is above 0% and at most 100%, not {percent}%")
    episodes = None if parts.get("episodes") is None else int(parts["episodes"] or 0)
    if episodes is not None and not 1 <= episodes <= MOST_EPISODES:
        raise ValueError(f"a scenario plays 1 to {MOST_EPISODES} episodes, not {episodes}")
    feature = None
    if name := parts.get("feature"):
        feature = Feature(name, _index(parts["index"]), absolute=bool(parts["bar"]))
    return Assertion(
        text=text,
        subject=subject,
        statistic=statistic,
        operator=parts["operator"] or "",
        bound=bound,
        share=1.0 if percent is None else float(percent) / 100.0,
        episodes=episodes,
        feature=feature,
    )


def _index(text: str | None) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()
