"""Register a job's policy: once, whatever crashes in between."""

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion

from grpo.policies import BasePolicy
from grpo_platform.core.errors import StoreError
from grpo_platform.core.names import Tag as RunTag
from grpo_platform.registry.card import ModelCard, canonical_json
from grpo_platform.registry.decisions import DecisionLog
from grpo_platform.registry.deletion import delete_logged_model, delete_model
from grpo_platform.registry.integrity import file_hashes
from grpo_platform.registry.models import Registry
from grpo_platform.registry.names import MODEL_KIND, POLICY_DIR, REFERENCE_FILE, WEIGHTS_FILE, Tag
from grpo_platform.registry.packaging import restate, save_policy
from grpo_platform.registry.records import ModelVersionRef, is_ours, version_ref
from grpo_platform.tracking.exceptions import error_code, retrying

__all__ = ["register_copy", "register_policy"]

_MODEL_TYPE = "grpo-policy"
_VERSIONS_TAG = "mlflow.modelVersions"  # how the MLflow UI finds the versions of a logged model

_Write = Callable[[Path, str], None]
"""Writes a model to a folder, which does not exist, for the logged model of this id."""


def register_policy(
    registry: Registry,
    job_id: str,
    policy: BasePolicy,
    name: str,
    card: ModelCard,
    before_write: Callable[[], None] = lambda: None,
    reference: bytes | None = None,
) -> ModelVersionRef:
    """Make a version of a job's policy, or return the one that the job made before.

    Args:
        registry: gets it.
        job_id: MLflow run that trained it.
        policy: what it trained.
        name: registered model; made if it is new.
        card: of the version.
        before_write: called before the job's earlier uploads are deleted, and before the version
            is made; what it raises leaves both as they are.
        reference: what `record_reference` gave, which its files have then, too.

    Raises:
        ConflictError: the name is another environment's, or not ours.
        StoreError: the store refused, or is away.
    """

    def write(folder: Path, model_id: str) -> None:
        save_policy(policy, folder, metadata=card.to_dict(), model_id=model_id, run_id=job_id)
        if reference is not None:
            path = folder / REFERENCE_FILE
            path.parent.mkdir()
            path.write_bytes(reference)

    return _register(registry, job_id, name, card, write, before_write)


def register_copy(
    registry: Registry, source: ModelVersionRef, name: str, card: ModelCard
) -> ModelVersionRef:
    """Make a version of another name of what a version holds, or return the one made before.

    Both have files of their own: either can be deleted without the other.

    Args:
        registry: has the version, and gets the new one.
        source: the version, which a job trained.
        name: registered model; made if it is new.
        card: of the new version.

    Raises:
        UnknownModelError: the version is gone.
        UnsafeModelError: its files are not what was registered.
        ConflictError: the name is another environment's, or not ours.
        StoreError: the store refused, or is away.
    """

    def write(folder: Path, model_id: str) -> None:
        registry.download(source.label, folder)
        restate(folder, card.to_dict(), model_id)

    return _register(registry, source.run_id, name, card, write, lambda: None)


def _register(
    registry: Registry,
    job_id: str,
    name: str,
    card: ModelCard,
    write: _Write,
    before_write: Callable[[], None],
) -> ModelVersionRef:
    if made := _version_of(registry, job_id, name):
        return version_ref(made)
    run = retrying(lambda: registry.client.get_run(job_id))
    registry.files.guard.require(run.info.artifact_uri)  # before a name or version is made
    experiment_id = run.info.experiment_id
    _ensure_name(registry, name, card, experiment_id, _description(name, card, run.data.tags))
    before_write()  # another worker's upload is no leftover
    _drop_leftovers(registry, job_id, experiment_id, name)
    logged, files = _log_model(registry, job_id, experiment_id, write, name, card)
    output = LoggedModelOutput(logged.model_id, step=card.timesteps)
    retrying(lambda: registry.client.log_outputs(job_id, [output]))
    tags = card.to_tags() | {
        Tag.KIND: MODEL_KIND,
        Tag.MODEL_ID: logged.model_id,
        Tag.FILES: canonical_json(files),
        Tag.WEIGHTS_SHA256: files[f"{POLICY_DIR}/{WEIGHTS_FILE}"],
    }
    before_write()
    tries = count()
    version = retrying(
        # a call that was refused may have been carried out all the same
        lambda: (
            (next(tries) and _version_of(registry, job_id, name))
            or registry.client.create_model_version(
                name,
                logged.artifact_location,
                run_id=job_id,
                tags=tags,
                description=card.to_markdown(),
                model_id=logged.model_id,
            )
        )
    )
    shown = canonical_json([{"name": name, "version": version.version}])
    retrying(lambda: registry.client.set_logged_model_tags(logged.model_id, {_VERSIONS_TAG: shown}))
    registry.changed(name)
    return version_ref(version)


def _version_of(registry: Registry, job_id: str, name: str) -> ModelVersion | None:
    """The version that a job made, if it has."""
    found = registry.search_versions(f"run_id = '{job_id}'")
    return next((v for v in found if v.name == name and is_ours(v)), None)


def _ensure_name(
    registry: Registry, name: str, card: ModelCard, experiment_id: str, description: str
) -> None:
    """Make the registered model, with its log of decisions, unless it exists."""
    while True:
        registry.check_name(name, card.env_name, card.env_kwargs)
        found = registry.lookup(name)
        if found is not None and Tag.DELETING in found.tags:
            delete_model(registry, name)
        elif found is not None or _create_name(registry, name, card, experiment_id, description):
            return


def _create_name(
    registry: Registry, name: str, card: ModelCard, experiment_id: str, description: str
) -> bool:
    """Whether the name is ours now; False if another job was faster."""
    client = registry.client
    experiment = retrying(lambda: client.get_experiment(experiment_id))
    log = DecisionLog.create(client, registry.files, name, experiment)
    tags = {
        Tag.KIND: MODEL_KIND,
        Tag.ENV_NAME: card.env_name,
        Tag.ENV_KWARGS: canonical_json(card.env_kwargs),
        Tag.DECISIONS: log.run_id,
    }
    try:
        retrying(lambda: client.create_registered_model(name, tags, description))
    except StoreError as error:
        log.delete()
        if error_code(error) != "RESOURCE_ALREADY_EXISTS":
            raise
        return False
    return True


def _description(name: str, card: ModelCard, run_tags: Mapping[str, str]) -> str:
    """What the MLflow UI says of a new name."""
    if origin := run_tags.get(RunTag.REPRODUCES):
        return (
            f"Trained by `grpo-platform reproduce {origin}`, to be compared with that run; it is "
            f"never promoted. `grpo-platform models delete {name}` removes it."
        )
    return f"GRPO policies for {card.env_name}; the alias champion serves the bare name."


def _drop_leftovers(registry: Registry, job_id: str, experiment_id: str, name: str) -> None:
    """Delete what an attempt that crashed here had uploaded; under another name it is another's."""
    ours = f"tags.`{Tag.KIND}` = '{MODEL_KIND}' AND tags.`{Tag.MODEL_NAME}` = '{name}'"
    found = retrying(
        lambda: registry.client.search_logged_models(
            [experiment_id], f"source_run_id = '{job_id}' AND {ours}"
        )
    )
    for logged in found:
        delete_logged_model(registry, logged)


def _log_model(
    registry: Registry,
    job_id: str,
    experiment_id: str,
    write: _Write,
    name: str,
    card: ModelCard,
) -> tuple[LoggedModel, dict[str, str]]:
    client = registry.client
    params = {key: str(value) for key, value in card.config.items() if value is not None}
    logged = retrying(
        lambda: client.create_logged_model(
            experiment_id,
            name=name.replace(".", "_"),  # which MLflow allows in a registered model's name only
            source_run_id=job_id,
            tags={Tag.KIND: MODEL_KIND, Tag.MODEL_NAME: name},
            params=params,
            model_type=_MODEL_TYPE,
        )
    )
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        write(folder, logged.model_id)
        files = file_hashes(folder)
        registry.files.upload_folder(logged.artifact_location, folder)
    retrying(lambda: client.finalize_logged_model(logged.model_id, "READY"))
    return logged, files
