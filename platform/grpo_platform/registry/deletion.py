"""Delete a name with everything that is its own, and nothing else; a crash is made good later."""

from collections.abc import Callable, Collection, Iterable
from functools import partial

from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion

from grpo_platform.core.errors import ConflictError, StoreError, UnknownModelError
from grpo_platform.registry.catalogue import Catalogue
from grpo_platform.registry.decisions import DecisionLog
from grpo_platform.registry.names import MODEL_KIND, Tag
from grpo_platform.registry.parsing import is_ours
from grpo_platform.tracking.exceptions import error_code, is_missing, retrying

__all__ = ["delete_logged_model", "delete_model"]

_GONE = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})


def delete_model(
    catalogue: Catalogue, name: str, hidden: Callable[[], None] = lambda: None
) -> None:
    """Delete a name; called again after a crash, it finishes what was begun.

    Args:
        catalogue: the registry.
        name: of the model.
        hidden: called as soon as nobody can resolve the name any more.

    Raises:
        UnknownModelError: no such model of ours.
        ConflictError: somebody registered a version of their own under it.
    """
    found = catalogue.lookup(name)
    if found is None or not is_ours(found):
        raise UnknownModelError(name)
    versions = catalogue.all_versions(name)
    _refuse_foreign(name, versions)
    client = catalogue.client
    logged_models = _logged_models(catalogue, name, versions)
    for logged in logged_models:
        catalogue.files.require(logged.artifact_location)
    retrying(lambda: client.set_registered_model_tag(name, Tag.DELETING, "true"))
    hidden()
    for logged in logged_models:
        if not _used_elsewhere(catalogue, name, logged.model_id):
            delete_logged_model(catalogue, logged)
    run_id = found.tags.get(Tag.DECISIONS)
    if run_id:
        DecisionLog(catalogue, run_id).delete()
    _ignore_gone(lambda: client.delete_registered_model(name))


def delete_logged_model(catalogue: Catalogue, logged: LoggedModel) -> None:
    """Delete a logged model's files, then itself."""
    catalogue.files.delete(logged.artifact_location)
    _ignore_gone(lambda: catalogue.client.delete_logged_model(logged.model_id))


def _refuse_foreign(name: str, versions: Iterable[ModelVersion]) -> None:
    foreign = [version.version for version in versions if not is_ours(version)]
    if foreign:
        raise ConflictError(
            f"Version {foreign[0]} of {name!r} was registered by something else than this "
            "platform. Move or delete it in MLflow first."
        )


def _logged_models(
    catalogue: Catalogue, name: str, versions: Iterable[ModelVersion]
) -> Collection[LoggedModel]:
    """Those behind the versions, and those that a crashed registration left."""
    client = catalogue.client
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


def _used_elsewhere(catalogue: Catalogue, name: str, model_id: str) -> bool:
    """Whether a version was copied to another name, in MLflow, and needs the files."""
    versions = catalogue.search_versions(f"tags.`{Tag.MODEL_ID}` = '{model_id}'")
    return any(version.name != name for version in versions)


def _ignore_gone(call: Callable[[], object]) -> None:
    try:
        retrying(call)
    except StoreError as error:
        if error_code(error) not in _GONE:
            raise
