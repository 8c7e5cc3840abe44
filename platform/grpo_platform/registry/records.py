"""Frozen records of models, versions and decisions, and how they are read from MLflow's."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from grpo_platform.core.errors import UnsafeModelError
from grpo_platform.registry.card import ModelCard
from grpo_platform.registry.names import CHAMPION, MODEL_KIND, Tag
from grpo_platform.registry.suites import ResultRecord

__all__ = [
    "Comparison",
    "Decision",
    "End",
    "ModelEnvironment",
    "ModelInfo",
    "ModelSummary",
    "ModelVersionRef",
    "VersionInfo",
    "champion_of",
    "environment_tagged",
    "is_ours",
    "json_object",
    "latest_of",
    "version_info",
    "version_ref",
]

End = Literal["evidence", "episodes", "seconds"]
"""Why a comparison ended."""


@dataclass(frozen=True, slots=True)
class ModelEnvironment:
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

    @property
    def label(self) -> str:
        """Of the version, for messages."""
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two versions on the same evaluation seeds; difference = candidate − champion."""

    champion: int
    """Version that was champion."""

    episodes: int
    seed: int
    """Both played the episode seeds that are drawn from it; another one for each decision."""

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

    ended: End | None = None
    """Why no more episodes were played: the evidence sufficed, or the limit of episodes or of time
    was reached; null in comparisons of 100 fixed seeds, as they were made before."""


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
    """Who decided: a job, or who called."""

    decided_at: str
    """ISO 8601, UTC."""

    note: str | None = None
    """What was told before the reason, in the actor's words; null in decisions of earlier
    releases."""

    comparison: Comparison | None = None

    suite_digest: str | None = None
    """SHA-256 of the suite of scenarios that was required; null where the name had none."""

    suite_passed: bool | None = None
    """Whether the version passed it; also false where it could not be played."""

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
    """Job, and MLflow run, that trained it."""

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
    scenarios: Mapping[int, ResultRecord]
    """By version, what it came to in the suite that there is now, the latest time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSummary:
    """One model name in a list."""

    name: str
    env_name: str
    champion: int | None
    """Version that serves under the bare name, where one was promoted."""

    latest_version: int | None
    eval_return_mean: float | None
    """Mean return of the evaluation of the version that serves the bare name, on the environment's
    own reward."""


def is_ours(entity: RegisteredModel | ModelVersion) -> bool:
    """Whether a registered model or a version carries our tag."""
    return entity.tags.get(Tag.KIND) == MODEL_KIND


def champion_of(model: RegisteredModel) -> int | None:
    """Version that the alias `champion` names."""
    number = model.aliases.get(CHAMPION)
    return None if number is None else int(number)


def environment_tagged(model: RegisteredModel) -> ModelEnvironment:
    """The environment that a name of ours belongs to.

    Raises:
        UnsafeModelError: somebody changed the tags that say so.
    """
    kwargs = json_object(model.tags.get(Tag.ENV_KWARGS) or "{}")
    if kwargs is None:
        raise UnsafeModelError(
            f"The tag {Tag.ENV_KWARGS} of model {model.name!r} was changed and is no JSON object; "
            "set it right in MLflow, {} where the environment takes no arguments."
        )
    return ModelEnvironment(model.tags.get(Tag.ENV_NAME, ""), kwargs)


def json_object(text: str) -> dict[str, Any] | None:
    """What a tag holds; None if somebody made something else of it."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def latest_of(model: RegisteredModel) -> ModelVersion | None:
    """The newest version of a name, ours or not."""
    return max(model.latest_versions or (), key=lambda v: int(v.version), default=None)


def version_ref(version: ModelVersion) -> ModelVersionRef:
    """What is needed to load a version.

    Raises:
        UnsafeModelError: it was not registered by this platform.
    """
    label = f"{version.name}/{version.version}"
    if not is_ours(version):
        raise UnsafeModelError(f"{label} was not registered by this platform; it is not loaded.")
    try:
        files = {
            str(path): str(digest) for path, digest in json.loads(version.tags[Tag.FILES]).items()
        }
        model_id = version.tags[Tag.MODEL_ID]
    except (AttributeError, KeyError, ValueError) as error:
        raise UnsafeModelError(f"{label} is not loaded: its tags were changed.") from error
    return ModelVersionRef(
        version.name, int(version.version), model_id, version.run_id or "", files
    )


def version_info(version: ModelVersion, model: RegisteredModel) -> VersionInfo:
    """A version of ours with its card."""
    number = int(version.version)
    return VersionInfo(
        version=number,
        model_id=version.tags.get(Tag.MODEL_ID, ""),
        job_id=version.run_id or "",
        created_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        aliases=tuple(sorted(a for a, v in model.aliases.items() if int(v) == number)),
        weights_sha256=version.tags.get(Tag.WEIGHTS_SHA256, ""),
        card=ModelCard.from_json(version.tags.get(Tag.CARD, "")),
        verdict=version.tags.get(Tag.VERDICT),
    )
