"""What the registry hands out: frozen records of models, versions and decisions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from grpo_platform.registry.card import ModelCard

__all__ = [
    "Comparison",
    "Decision",
    "ModelEnvironment",
    "ModelInfo",
    "ModelSummary",
    "ModelVersionRef",
    "VersionInfo",
]


class ModelEnvironment(NamedTuple):
    """The environment that a model name belongs to."""

    env_name: str
    env_kwargs: Mapping[str, Any]


class ModelVersionRef(NamedTuple):
    """One version, resolved: all that is needed to load and to verify it."""

    name: str
    version: int
    model_id: str
    """Logged model that holds the files; a name that was deleted and made anew has another."""

    run_id: str
    """Job that trained it."""

    files: Mapping[str, str]
    """SHA-256 of each of the model's files, by relative path."""

    @property
    def key(self) -> tuple[str, int, str]:
        """Identity of what is loaded: (name, version, model id)."""
        return (self.name, self.version, self.model_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two versions on the same evaluation seeds; difference = candidate − champion."""

    champion: int
    """Version that was champion."""

    episodes: int
    """Seeds that both played."""

    seed: int
    """Gives the episodes' seeds: another one for each decision, none of a reported evaluation."""

    candidate_mean: float
    champion_mean: float
    difference: float
    """Mean of the paired differences of returns."""

    ci_low: float
    """Lower end of the mean difference's 95 % interval, which allows for looking repeatedly."""

    ci_high: float
    """Upper end of it."""

    equal: bool
    """Whether every single difference is zero."""

    ended: str | None = None
    """Why no more episodes were played: the `evidence` sufficed, or the limit of `episodes` or
    `seconds` was reached; None in comparisons of 100 fixed seeds, as they were made before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One promotion, refusal or rollback, as kept in the audit."""

    number: int
    """Position in the name's history, from 1."""

    action: str
    """`train` (a job ended), `promote` or `rollback` (by hand)."""

    version: int
    """Version that was decided about."""

    rule: str
    """`if_better`, `always` or `never`; of a rollback, `rollback`."""

    verdict: str
    """`promoted`, `kept` (the champion stays) or `rolled_back`."""

    reason: str
    """A sentence with the figures."""

    champion_before: int | None
    champion_after: int | None
    forced: bool
    actor: str
    """Who decided: a job id, or who called."""

    decided_at: str
    """ISO 8601, UTC."""

    comparison: Comparison | None = None

    @property
    def promoted(self) -> bool:
        """Whether the version became champion."""
        return self.champion_after == self.version

    @property
    def outcome(self) -> str:
        """The reason, and who stays champion where the version did not become it."""
        if self.promoted or self.champion_after is None:
            return self.reason
        return f"{self.reason} Version {self.champion_after} stays champion."


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionInfo:
    """One version with its card."""

    version: int
    model_id: str
    job_id: str
    created_at: datetime
    aliases: tuple[str, ...]
    weights_sha256: str
    card: ModelCard
    verdict: str | None
    """Verdict of the latest decision about it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """One model name with its versions, newest first, and its decisions, oldest first."""

    name: str
    environment: ModelEnvironment
    champion: int | None
    latest_version: int | None
    versions: tuple[VersionInfo, ...]
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSummary:
    """One model name in a list."""

    name: str
    env_name: str
    champion: int | None
    latest_version: int | None
    eval_return_mean: float | None
    """Evaluation of the version that serves the bare name."""
