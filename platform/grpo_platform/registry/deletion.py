"""Delete a name with everything that is its own, and nothing else; a crash is made good later."""

from collections.abc import Callable, Collection, Iterable
from functools import partial

from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion

from grpo_platform.core.errors import ConflictError, StoreError, UnknownModelError
from grpo_platform.registry.decisions import DecisionLog
from grpo_platform.registry.models import Registry
from grpo_platform.registry.names import MODEL_KIND, Tag
from grpo_platform.registry.records import is_ours
from grpo_platform.tracking.exceptions import error_code, is_missing, retrying

__all__ = ["delete_logged_model", "delete_model"]

_GONE = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})


def delete_model(registry: Registry, name: str) -> None:
    """Delete a name with its versions, files and decisions.

    Who subscribed hears of it as soon as nobody can resolve the name any more. Called again after
    a crash, it finishes what was begun.

    Raises:
        UnknownModelError: no such model of ours.
        ConflictError: somebody registered a version of their own under it.
    """
    found = registry.lookup(name)
    if found is None or not is_ours(found):
        raise UnknownModelError(name)
    versions = registry.all_versions(name)
    _refuse_foreign(name, versions)
    client = registry.client
    logged_models = _logged_models(registry, name, versions)
    for logged in logged_models:
        registry.files.guard.require(logged.artifact_location)
    retrying(lambda: client.set_registered_model_tag(name, Tag.DELETING, "true"))
    registry.changed(name, deleted=True)
    for logged in logged_models:
        if not _used_elsewhere(registry, name, logged.model_id):
            delete_logged_model(registry, logged)
    run_id = found.tags.get(Tag.DECISIONS)
    if run_id:
        DecisionLog(client, registry.files, run_id).delete()
    _ignore_gone(lambda: client.delete_registered_model(name))


def delete_logged_model(registry: Registry, logged: LoggedModel) -> None:
    """Delete a logged model's files, then itself."""
    registry.files.delete(logged.artifact_location)
    _ignore_gone(lambda: registry.client.delete_logged_model(logged.model_id))


def _refuse_foreign(name: str, versions: Iterable[ModelVersion]) -> None:
    foreign = [version.version for version in versions if not is_ours(version)]
    if foreign:
        raise ConflictError(
            f"Version {foreign[0]} of {name!r} was registered by something else than this "
            "platform. Move or delete it in MLflow first."
        )


def _logged_models(
    registry: Registry, name: str, versions: Iterable[ModelVersion]
) -> Collection[LoggedModel]:
    """Those behind the versions, and those that a crashed registration left."""
    client = registry.client
    found: dict[str, LoggedModel] = {}
    ids = {v.tags[Tag.MODEL_ID] for v in versions if Tag.MODEL_ID in v.tags}
    for model_id in ids:
        try:
            logged = retrying(partial(client.get_logged_model, model_id))
        except StoreError as error:
            if not is_missing(error):
                raise
            continue
        if logged.tags.get(Tag.KIND) == MODEL_KIND:
            found[logged.model_id] = logged
    experiments = sorted({logged.experiment_id for logged in found.values()})
    if experiments:
        ours = f"tags.`{Tag.KIND}` = '{MODEL_KIND}' AND tags.`{Tag.MODEL_NAME}` = '{name}'"
        for logged in retrying(lambda: client.search_logged_models(experiments, ours)):
            found[logged.model_id] = logged
    return found.values()


def _used_elsewhere(registry: Registry, name: str, model_id: str) -> bool:
    """Whether a version was copied to another name, in MLflow, and needs the files."""
    versions = registry.search_versions(f"tags.`{Tag.MODEL_ID}` = '{model_id}'")
    return any(version.name != name for version in versions)


def _ignore_gone(call: Callable[[], object]) -> None:
    try:
        retrying(call)
    except StoreError as error:
        if error_code(error) not in _GONE:
            raise
