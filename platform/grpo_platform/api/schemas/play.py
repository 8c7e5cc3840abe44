"""Calls about policies at play: what they take and what they give."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, JsonValue, model_validator

from grpo_platform.api.schemas.common import (
    ID_OR_BEGINNING,
    WHOLE,
    ModelReference,
    Reply,
    RequestBody,
    example,
)
from grpo_platform.play.play_session import PlaySession
from grpo_platform.scenarios.grammar import SCENARIO_NAME

__all__ = [
    "CommandBody", "EndedSession", "ExplainBody", "Explanation", "FilmBody", "KeepBody",
    "KeptState", "Obeyed", "PlayBody", "Session", "session_reply",
]  # fmt: skip

Seed = Annotated[int, Field(ge=0, le=2**32 - 1), WHOLE]

_TAKES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "play": ((), ("speed",)),
    "pause": ((), ()),
    "step": ((), ("n",)),
    "seek": (("step",), ()),
    "act": (("action",), ()),
    "control": (("by",), ("action",)),
    "disturb": (("state",), ()),
    "fork": ((), ("action",)),
    "replay": (("actions",), ()),
    "unfork": ((), ("keep",)),
    "reset": ((), ("seed",)),
    "checkpoint": (("checkpoint",), ()),
    "deterministic": (("deterministic",), ()),
    "cancel": ((), ()),
}
"""By command, the fields that it needs, and those that it may have."""


class PlayBody(RequestBody):
    """What is played: a model's version, or a job's newest checkpoint."""

    model_config = example(model="my_cartpole_model", seed=7)

    model: ModelReference | None = None
    """`name`, `name/version` or `name@alias`."""

    job_id: Annotated[str, Field(pattern=ID_OR_BEGINNING)] | None = None
    """Of a job, instead of a model: its newest checkpoint, and each that it makes from now on."""

    watch: bool = False
    """Take the one stream that all viewers of the job share, which nobody steers."""

    seed: Seed = 0
    """Of the first episode's reset."""

    deterministic: bool = True
    """Take the most probable action; else sample."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.model is None) == (self.job_id is None):
            raise ValueError("give a model or a job_id, one of the two")
        if self.watch and self.job_id is None:
            raise ValueError("only a job is watched: give its job_id")
        return self


class CommandBody(RequestBody):
    """One command; each takes the fields that docs/api.md lists."""

    model_config = example(command="step", n=10)

    command: Literal[
        "play", "pause", "step", "seek", "act", "control", "disturb", "fork", "replay", "unfork",
        "reset", "checkpoint", "deterministic", "cancel",
    ]  # fmt: skip
    """What is done."""

    speed: Annotated[float, Field(ge=0.05, le=8.0)] | None = None
    """Of `play`: times what the environment says looks natural."""

    n: Annotated[int, Field(ge=1, le=1000), WHOLE] | None = None
    """Of `step`: how many."""

    step: Annotated[int, Field(ge=0, le=100_000), WHOLE] | None = None
    """Of `seek`: the step of the episode to go to."""

    action: JsonValue = None
    """As the environment takes it: a number, or a list of them."""

    actions: Annotated[list[JsonValue], Field(max_length=10_000)] | None = None
    """Of `replay`: those of a continuation that an explanation gave."""

    by: Literal["human", "policy"] | None = None
    """Of `control`: who acts from now on."""

    state: dict[str, float | list[float]] | None = None
    """Of `disturb`: variables of the state by name; the others stay."""

    keep: Annotated[int, Field(ge=0, le=1), WHOLE] | None = None
    """Of `unfork`: which of the two goes on; 0 is the first."""

    seed: Seed | None = None
    """Of `reset`: of the new episode; one more than the last when left out."""

    checkpoint: Annotated[str, Field(max_length=100)] | None = None
    """Of `checkpoint`: one of the frame's `checkpoints`."""

    deterministic: bool | None = None
    """Of `deterministic`: take the most probable action; else sample."""

    @model_validator(mode="after")
    def _takes(self) -> Self:
        needed, allowed = _TAKES[self.command]
        given = self.arguments
        missing = [name for name in needed if name not in given]
        if missing:
            raise ValueError(f"{self.command} needs {missing[0]}")
        other = [name for name in given if name not in (*needed, *allowed)]
        if other:
            raise ValueError(f"{self.command} takes no {other[0]}")
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """What was given beside the command's name."""
        values = self.model_dump(exclude={"command"})
        return {name: value for name, value in values.items() if value is not None}


class ExplainBody(RequestBody):
    """How closely it is looked at."""

    model_config = example(continuations=16, horizon=100)

    continuations: Annotated[int, Field(ge=2, le=256), WHOLE] = 64
    """After each action, with the same random numbers."""

    horizon: Annotated[int, Field(ge=1, le=10_000), WHOLE] = 1000
    """Steps after which a continuation is cut."""

    seconds: Annotated[float, Field(ge=0.1, le=120.0)] = 20.0
    """After which no further lot of continuations begins."""


class FilmBody(RequestBody):
    """How long the film is."""

    model_config = example(steps=50)

    steps: Annotated[int, Field(ge=1, le=300), WHOLE] = 200
    """At most; the film ends with the episode."""

    format: Literal["webp", "gif"] = "webp"


class KeepBody(RequestBody):
    """What the state that is kept must lead to."""

    model_config = example(scenario="from here", assertions=["return >= 100"])

    scenario: Annotated[str, Field(pattern=SCENARIO_NAME)]
    """That gets the state as a start; made where the model's suite has none of this name."""

    assertions: Annotated[list[str], Field(max_length=20)] | None = None
    """What must hold from there on, where the scenario is made."""


class Session(Reply):
    """A session: one environment, one policy, in a process of its own."""

    session_id: str
    """Nobody can guess it; the other calls take it."""

    model: str | None
    """`name/version` that is played."""

    job_id: str | None
    """Job whose checkpoints are played."""

    shared: bool
    """Whether it is the one that all viewers of the job share."""

    viewers: int
    """WebSockets that watch it."""

    env_name: str
    """Gymnasium id."""

    action: dict[str, JsonValue]
    """What can be done: `kind` is `Discrete`, with `n` and `start`, or `Box`, with `shape`, `low`
    and `high`, or another."""

    features: list[str]
    """Names of the observation's numbers; empty where they have none."""

    state_variables: dict[str, float | list[float]]
    """What `disturb` can set, with the values at the start."""

    can_branch: bool
    """Whether it can be wound back, forked, kept and explained."""

    branching_reason: str
    """Why so."""

    fps: int
    """Steps a second that look natural."""

    max_episode_steps: int | None
    """Of the environment."""


class Obeyed(Reply):
    """What a command came to."""

    step: int
    """Steps of the episode so far."""

    frame: dict[str, JsonValue]
    """The frame's header: the numbers that viewers see."""


class EndedSession(Reply):
    """It has ended."""

    message: str


class KeptState(Reply):
    """The state is a start of the model's suite."""

    model_name: str
    scenario: str
    suite: dict[str, Any]
    """As it is now."""


class OutcomeEstimate(Reply):
    """A mean with its 95 % interval."""

    estimate: float
    low: float
    high: float


class ActionOutcome(Reply):
    """What one action leads to."""

    action: JsonValue
    returns: list[float]
    """Of each continuation, undiscounted, from this action on."""

    mean_length: float
    """Steps."""

    mean: OutcomeEstimate
    """Of the returns."""

    difference: OutcomeEstimate | None
    """To the preferred action's returns, in pairs; null for that one itself."""

    parts_at: int | None
    """Median step after which the return so far differs from the pair's; null where more than half
    never do."""

    typical: list[JsonValue]
    """Actions of the continuation with the median return; `replay` shows it."""

    worst: list[JsonValue]
    """Likewise with the lowest."""


class FeatureAttribution(Reply):
    """What one number of the observation counts for."""

    name: str
    value: float
    baseline: float
    """Its mean in training."""

    attribution: float


class Attribution(Reply):
    """Integrated gradients of the preferred action."""

    target: str
    """What they add up to the difference of."""

    at_observation: float | None
    at_baseline: float | None
    features: list[FeatureAttribution]


class Explanation(Reply):
    """Every action from one state, and what in the observation counts."""

    at: str
    """What the state is known by; equal to a frame's `at` where that shows it."""

    step: int
    preferred: JsonValue
    """The policy's most probable action; the first of `actions`."""

    value: float
    """The policy's own estimate of the state."""

    continuations: int
    """After each action; fewer than asked for where the time was over."""

    horizon: int
    cut: int
    """Continuations that reached the horizon."""

    seconds: float
    """How long it took."""

    actions: list[ActionOutcome]
    attribution: Attribution | None
    why_no_attribution: str
    """Empty where there is one."""


def session_reply(session: PlaySession) -> Session:
    """The reply that shows a session."""
    return Session.model_validate(
        {
            **session.described,
            "session_id": session.id,
            "model": session.source.model,
            "job_id": session.source.job_id,
            "shared": session.shared,
            "viewers": session.viewers,
        }
    )
