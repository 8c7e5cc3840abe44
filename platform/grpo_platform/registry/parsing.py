"""What MLflow's registered models and versions say, where they are ours."""

import json
from datetime import UTC, datetime
from typing import Any

from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from grpo_platform.core.errors import UnsafeModelError
from grpo_platform.registry.card import ModelCard
from grpo_platform.registry.names import CHAMPION, MODEL_KIND, Tag
from grpo_platform.registry.records import ModelEnvironment, ModelVersionRef, VersionInfo

__all__ = [
    "champion_of",
    "environment_tagged",
    "is_ours",
    "json_object",
    "latest_of",
    "version_info",
    "version_ref",
]


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
