"""The experiments that are ours: made once by whoever comes first, and restored when deleted."""

import logging
from typing import Final

from mlflow.entities import Experiment, LifecycleStage
from mlflow.tracking import MlflowClient

from grpo_platform.core.errors import StoreError
from grpo_platform.tracking.exceptions import error_code, retrying, when_granted

__all__ = ["ensure_experiment"]

_log = logging.getLogger(__name__)

_NOTE: Final = "mlflow.note.content"


def ensure_experiment(
    client: MlflowClient, name: str, *, location: str | None = None, note: str | None = None
) -> Experiment:
    """The experiment of this name, made if it is missing, restored if it was deleted in MLflow.

    Args:
        client: of the store.
        name: of the experiment.
        location: of its artifacts, if it is made; None leaves it to the store.
        note: description that the MLflow UI shows, Markdown; one that is there stays.

    Raises:
        StoreUnavailableError: the store is away.
        StoreError: it refused.
    """
    found = retrying(lambda: client.get_experiment_by_name(name))
    if found is None:
        try:
            retrying(lambda: client.create_experiment(name, artifact_location=location))
        except StoreError as error:
            # another server did it between our two calls
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
        found = retrying(lambda: client.get_experiment_by_name(name))
        if found is None:
            raise StoreError(f"MLflow created the experiment {name} but does not return it.")
    if found.lifecycle_stage == LifecycleStage.DELETED:
        _log.warning("Experiment %s was deleted in MLflow; it is restored.", name)
        retrying(lambda: client.restore_experiment(found.experiment_id))
    if note is not None and _NOTE not in found.tags:
        when_granted(lambda: client.set_experiment_tag(found.experiment_id, _NOTE, note))
    return found
