"""Register a job's policy: once, whatever crashes in between."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import LoggedModel, LoggedModelOutput, Metric

from grpo.policies import BasePolicy
from grpo_platform.core.errors import StoreError
from grpo_platform.core.names import Tag as RunTag
from grpo_platform.registry.card import ModelCard, canonical_json
from grpo_platform.registry.catalogue import Catalogue
from grpo_platform.registry.decisions import DecisionLog
from grpo_platform.registry.deletion import delete_logged_model, delete_model
from grpo_platform.registry.integrity import file_hashes
from grpo_platform.registry.names import MODEL_KIND, POLICY_DIR, WEIGHTS_FILE, Tag
from grpo_platform.registry.packaging import save_policy
from grpo_platform.registry.parsing import is_ours, version_ref
from grpo_platform.registry.records import ModelVersionRef
from grpo_platform.tracking.exceptions import error_code, retrying

__all__ = ["Point", "register_policy"]

Point = tuple[str, float, int, int]
"""Of a metric: key, value, step (timesteps), unix milliseconds."""

_MODEL_TYPE = "grpo-policy"
_VERSIONS_TAG = "mlflow.modelVersions"  # how the MLflow UI finds the versions of a logged model


def register_policy(
    catalogue: Catalogue,
    job_id: str,
    policy: BasePolicy,
    name: str,
    card: ModelCard,
    metrics: Sequence[Point],
) -> ModelVersionRef:
    """See `Registry.register`."""
    for version in catalogue.search_versions(f"run_id = '{job_id}'"):
        if version.name == name and is_ours(version):
            return version_ref(version)
    run = retrying(lambda: catalogue.client.get_run(job_id))
    catalogue.files.require(run.info.artifact_uri)  # before there is a name, or a version of it
    experiment_id = run.info.experiment_id
    _ensure_name(catalogue, name, card, experiment_id, _description(name, card, run.data.tags))
    _drop_leftovers(catalogue, job_id, experiment_id)
    logged, files = _log_model(catalogue, job_id, experiment_id, policy, name, card)
    _attach_to_run(catalogue, job_id, logged.model_id, card.timesteps, metrics)
    tags = card.to_tags() | {
        Tag.KIND: MODEL_KIND,
        Tag.MODEL_ID: logged.model_id,
        Tag.FILES: canonical_json(files),
        Tag.WEIGHTS_SHA256: files[f"{POLICY_DIR}/{WEIGHTS_FILE}"],
    }
    version = retrying(
        lambda: catalogue.client.create_model_version(
            name,
            logged.artifact_location,
            run_id=job_id,
            tags=tags,
            description=card.to_markdown(),
            model_id=logged.model_id,
        )
    )
    shown = canonical_json([{"name": name, "version": version.version}])
    retrying(
        lambda: catalogue.client.set_logged_model_tags(logged.model_id, {_VERSIONS_TAG: shown})
    )
    return version_ref(version)


def _ensure_name(
    catalogue: Catalogue, name: str, card: ModelCard, experiment_id: str, description: str
) -> None:
    """Make the registered model, with its log of decisions, unless it exists."""
    while True:
        catalogue.check_name(name, card.env_name, card.env_kwargs)
        found = catalogue.lookup(name)
        if found is not None and Tag.DELETING in found.tags:
            delete_model(catalogue, name)
        elif found is not None or _create_name(catalogue, name, card, experiment_id, description):
            return


def _create_name(
    catalogue: Catalogue, name: str, card: ModelCard, experiment_id: str, description: str
) -> bool:
    """Whether the name is ours now; False if another job was faster."""
    client = catalogue.client
    experiment = retrying(lambda: client.get_experiment(experiment_id))
    run_id = DecisionLog.create(catalogue, name, experiment)
    tags = {
        Tag.KIND: MODEL_KIND,
        Tag.ENV_NAME: card.env_name,
        Tag.ENV_KWARGS: canonical_json(card.env_kwargs),
        Tag.DECISIONS: run_id,
    }
    try:
        retrying(lambda: client.create_registered_model(name, tags, description))
    except StoreError as error:
        DecisionLog(catalogue, run_id).delete()
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


def _drop_leftovers(catalogue: Catalogue, job_id: str, experiment_id: str) -> None:
    """Delete what an attempt that crashed here had uploaded."""
    found = retrying(
        lambda: catalogue.client.search_logged_models(
            [experiment_id], f"source_run_id = '{job_id}' AND tags.`{Tag.KIND}` = '{MODEL_KIND}'"
        )
    )
    for logged in found:
        delete_logged_model(catalogue, logged)


def _log_model(
    catalogue: Catalogue,
    job_id: str,
    experiment_id: str,
    policy: BasePolicy,
    name: str,
    card: ModelCard,
) -> tuple[LoggedModel, dict[str, str]]:
    client = catalogue.client
    params = {key: str(value) for key, value in card.config.items() if value is not None}
    logged = retrying(
        lambda: client.create_logged_model(
            experiment_id,
            name=name,
            source_run_id=job_id,
            tags={Tag.KIND: MODEL_KIND, Tag.MODEL_NAME: name},
            params=params,
            model_type=_MODEL_TYPE,
        )
    )
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        save_policy(
            policy, folder, metadata=card.to_dict(), model_id=logged.model_id, run_id=job_id
        )
        files = file_hashes(folder)
        catalogue.files.upload_folder(logged.artifact_location, folder)
    retrying(lambda: client.finalize_logged_model(logged.model_id, "READY"))
    return logged, files


def _attach_to_run(
    catalogue: Catalogue, job_id: str, model_id: str, timesteps: int, metrics: Sequence[Point]
) -> None:
    client = catalogue.client
    output = LoggedModelOutput(model_id, step=timesteps)
    retrying(lambda: client.log_outputs(job_id, [output]))
    if metrics:
        points = [
            Metric(key, value, timestamp, step, model_id=model_id, run_id=job_id)
            for key, value, step, timestamp in metrics
        ]
        retrying(lambda: client.log_batch(job_id, metrics=points))
