"""The names and versions that are ours, as read from the MLflow registry."""

import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.tracking import MlflowClient

from grpo.errors import did_you_mean
from grpo_platform.core.errors import (
    ConflictError,
    StoreError,
    StoreUnavailableError,
    UnknownModelError,
)
from grpo_platform.core.request import MODEL_NAME, MODEL_REFERENCE
from grpo_platform.registry.card import canonical_json
from grpo_platform.registry.integrity import (
    DOWNLOAD_NOTE,
    PolicyFiles,
    check_sizes,
    read_policy_files,
)
from grpo_platform.registry.names import MODEL_KIND, Tag
from grpo_platform.registry.parsing import (
    champion_of,
    environment_tagged,
    is_ours,
    latest_of,
    version_ref,
)
from grpo_platform.registry.records import ModelEnvironment, ModelVersionRef
from grpo_platform.tracking.exceptions import is_missing, retrying
from grpo_platform.tracking.files import RunFiles
from grpo_platform.tracking.locations import local_path

__all__ = ["OURS", "Catalogue"]

_T = TypeVar("_T")
_PAGE: Final = 1000
_SUGGESTED: Final = 100

OURS: Final = f"tags.`{Tag.KIND}` = '{MODEL_KIND}'"
"""Filter of a search for this platform's models."""


class Catalogue:
    """Reads of the registry; knows no decisions and changes nothing.

    Args:
        tracking_uri: MLflow store, which is also the registry.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self.client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        self.files = RunFiles(tracking_uri)

    def lookup(self, name: str) -> RegisteredModel | None:
        """The registered model of this name, ours or not; None if there is none."""
        if not re.fullmatch(MODEL_NAME.expression, name):
            return None
        found = retrying(
            lambda: self.client.search_registered_models(f"name = '{name}'", max_results=1)
        )
        return found[0] if found else None

    def model(self, name: str) -> RegisteredModel:
        """The registered model of this name, if it is ours and not being deleted.

        Raises:
            UnknownModelError: it is not.
        """
        found = self.lookup(name)
        if found is None or not is_ours(found) or Tag.DELETING in found.tags:
            raise UnknownModelError(name, did_you_mean(name, self._latest_names()))
        return found

    def _latest_names(self) -> list[str]:
        """Of the models that changed last, for suggestions; empty where the store is away."""
        try:
            found = retrying(
                lambda: self.client.search_registered_models(
                    OURS, _SUGGESTED, ["last_updated_timestamp DESC"]
                )
            )
        except StoreError:
            return []
        return [model.name for model in found if Tag.DELETING not in model.tags]

    def environment_of(self, name: str) -> ModelEnvironment | None:
        """The environment that a name belongs to; None if the name is free.

        Raises:
            ConflictError: the name is that of a model that is not ours.
        """
        found = self.lookup(name)
        if found is None:
            return None
        if not is_ours(found):
            raise ConflictError(
                f"The MLflow registry has a model {name!r} that this platform did not make. "
                "Choose another model_name."
            )
        return None if Tag.DELETING in found.tags else environment_tagged(found)

    def check_name(self, name: str, env_name: str, env_kwargs: object) -> None:
        """Refuse a name that a job in this environment must not write.

        Raises:
            ConflictError: it is another environment's, or of a model that is not ours.
        """
        owner = self.environment_of(name)
        if owner is None or (owner.env_name, canonical_json(owner.env_kwargs)) == (
            env_name,
            canonical_json(env_kwargs),
        ):
            return
        kwargs = f" with env_kwargs {canonical_json(owner.env_kwargs)}" if owner.env_kwargs else ""
        raise ConflictError(
            f"The model name {name!r} belongs to {owner.env_name}{kwargs}. Choose another "
            "model_name, or delete that model first."
        )

    def resolve(self, reference: str) -> ModelVersionRef:
        """What `name` (its champion, else its latest version), `name@alias` or `name/3` names.

        Raises:
            UnknownModelError: no such name, alias or version of ours.
            UnsafeModelError: the version was not registered by this platform.
        """
        if not re.fullmatch(MODEL_REFERENCE.expression, reference):
            raise UnknownModelError(reference)
        named, _, alias = reference.partition("@")
        name, _, version = named.partition("/")
        model = self.model(name)
        latest = latest_of(model)
        if version:
            number: int | None = int(version)
        elif alias:
            number = model.aliases.get(alias)
        else:
            number = champion_of(model)
            if number is None:
                latest = latest if latest is not None and is_ours(latest) else None
                latest = latest or next(iter(self.versions(model.name)), None)
                number = int(latest.version) if latest else None
        if number is None:
            raise UnknownModelError(reference)
        if latest is not None and int(latest.version) == int(number):
            return version_ref(latest)
        return version_ref(self.version(model.name, int(number)))

    def version(self, name: str, number: int) -> ModelVersion:
        """One version of a name.

        Raises:
            UnknownModelError: there is none of this number.
        """
        return self._existing(
            f"{name}/{number}", lambda: self.client.get_model_version(name, str(number))
        )

    def versions(self, name: str) -> list[ModelVersion]:
        """The versions of a name that are ours, newest first."""
        return [version for version in self.all_versions(name) if is_ours(version)]

    def all_versions(self, name: str) -> list[ModelVersion]:
        """Every version of a name, newest first."""
        return list(self.search_versions(f"name = '{name}'", "version_number DESC"))

    def search_versions(self, filter_string: str, *order_by: str) -> Iterator[ModelVersion]:
        """Versions that match an MLflow filter."""
        token: str | None = None
        while True:
            page = retrying(
                partial(
                    self.client.search_model_versions,
                    filter_string,
                    _PAGE,
                    list(order_by) or None,
                    token,
                )
            )
            yield from page
            token = page.token
            if not token:
                return

    def read(self, ref: ModelVersionRef) -> PolicyFiles:
        """The files that our loader reads, after all of the model's files were verified.

        Raises:
            UnknownModelError: the model was deleted.
            UnsafeModelError: its files are not what was registered, or not ours.
            StoreUnavailableError: they cannot be read now.
        """
        label = f"{ref.name}/{ref.version}"
        location = self.location(ref)
        folder = local_path(location)
        try:
            if folder is not None:
                return read_policy_files(folder, ref.files, label)
            with TemporaryDirectory() as scratch:
                fetched = self._fetch(location, Path(scratch), label)
                return read_policy_files(fetched, ref.files, label)
        except OSError as error:
            raise StoreUnavailableError(f"The files of {label} cannot be read now.") from error

    def copy(self, ref: ModelVersionRef, target: Path) -> None:
        """Copy all of a version's files, verified, to the folder `target`, which must not exist.

        Raises:
            UnknownModelError: the model was deleted.
            UnsafeModelError: its files are not what was registered, or not ours.
            StoreUnavailableError: they cannot be read, or not be written there.
        """
        label = f"{ref.name}/{ref.version}"
        location = self.location(ref)
        folder = local_path(location)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # beside it, so that it appears as a whole or not at all
            with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
                fetched, copy = Path(scratch) / "fetched", Path(scratch) / "copy"
                fetched.mkdir()
                source = folder or self._fetch(location, fetched, label)
                shutil.copytree(source, copy, symlinks=True, ignore=_left_by_readers)
                read_policy_files(copy, ref.files, label)
                copy.rename(target)
        except OSError as error:
            raise StoreUnavailableError(
                f"{label} cannot be copied to {target}: {error.strerror or error}."
            ) from error

    def _fetch(self, location: str, folder: Path, label: str) -> Path:
        check_sizes(self.files.sizes(location), label)
        return self.files.download(location, "", folder)

    def location(self, ref: ModelVersionRef) -> str:
        """URI of the model's files.

        Raises:
            UnknownModelError: the logged model was deleted.
            StoreGoneError: the root of all artifacts is away.
        """
        logged = self._existing(
            f"{ref.name}/{ref.version}", lambda: self.client.get_logged_model(ref.model_id)
        )
        location: str = logged.artifact_location
        self.files.require(location)
        return location

    def _existing(self, label: str, call: Callable[[], _T]) -> _T:
        try:
            return retrying(call)
        except StoreError as error:
            if is_missing(error):
                raise UnknownModelError(label) from error
            raise


_left_by_readers = shutil.ignore_patterns("__pycache__", DOWNLOAD_NOTE)
"""Of a model's folder: what is not checked is not handed on; byte code would be run."""
