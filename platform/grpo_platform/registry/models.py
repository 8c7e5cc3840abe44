"""The registry of models, read: names, versions and files that are ours; and who hears of changes.

What changes it is `register_policy` (registering.py), `Promoter` (promotion.py) and `delete_model`
(deletion.py).
"""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.tracking import MlflowClient
from mlflow.utils.search_utils import SearchUtils

from grpo.errors import did_you_mean
from grpo.policies import BasePolicy
from grpo_platform.core.errors import (
    ConflictError,
    StoreError,
    StoreUnavailableError,
    UnknownModelError,
)
from grpo_platform.core.request import MODEL_NAME, MODEL_REFERENCE
from grpo_platform.registry.card import canonical_json
from grpo_platform.registry.decisions import DecisionLog
from grpo_platform.registry.integrity import (
    DOWNLOAD_NOTE,
    PolicyFiles,
    check_sizes,
    read_policy_files,
    read_registered,
)
from grpo_platform.registry.names import MODEL_KIND, REFERENCE_FILE, Tag
from grpo_platform.registry.policy_files import policy_from_files, predictor_from_files
from grpo_platform.registry.records import (
    ModelEnvironment,
    ModelInfo,
    ModelSummary,
    ModelVersionRef,
    champion_of,
    environment_tagged,
    is_ours,
    json_object,
    latest_of,
    version_info,
    version_ref,
)
from grpo_platform.registry.reference import ReferenceEpisodes
from grpo_platform.registry.suites import SuiteLog
from grpo_platform.tracking.exceptions import is_missing, retrying
from grpo_platform.tracking.files import RunFiles
from grpo_platform.tracking.locations import local_path
from grpo_platform.tracking.reader import Cursor, Page, decode_token, encode_token, list_digest

__all__ = ["Listener", "Registry"]

_T = TypeVar("_T")

Listener = Callable[[str, bool], None]
"""Called with a model's name, and whether it was deleted."""

_OURS: Final = f"tags.`{Tag.KIND}` = '{MODEL_KIND}'"
_PAGE: Final = 1000
_SUGGESTED: Final = 100
_LIST: Final = list_digest("models")


class Registry:
    """The models that this platform made.

    Nothing without our tag is listed or loaded. Safe to call from several threads; several servers
    may work on one store.

    Args:
        tracking_uri: MLflow store, which is also the registry.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        self.files = RunFiles(tracking_uri)
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` whenever this process changed what a name serves.

        It is called in the thread that made the change, before the change is reported as done.
        """
        self._listeners.append(listener)

    def changed(self, name: str, *, deleted: bool = False) -> None:
        """Tell those who subscribed; whoever changes what a name serves calls it."""
        for listener in self._listeners:
            listener(name, deleted)

    def list(self, limit: int = 100, page_token: str | None = None) -> Page[ModelSummary]:
        """Models by name.

        Args:
            limit: most items of the page, 1 to 1000.
            page_token: from the page before.

        Raises:
            InvalidPageTokenError: the token is not one of this list.
        """
        offset = 0 if page_token is None else decode_token(page_token, _LIST).rank
        token: str | None = None
        if offset:
            token = SearchUtils.create_page_token(offset)  # type: ignore[no-untyped-call]
        client = self.client
        found = retrying(lambda: client.search_registered_models(_OURS, limit, ["name ASC"], token))
        items = [self._summary(model) for model in found if Tag.DELETING not in model.tags]
        if not found.token:  # None or, over HTTP, empty
            return Page(items, None)
        # a server that hides models from this user has counted them
        after = SearchUtils.parse_start_offset_from_page_token(found.token)  # type: ignore[no-untyped-call]
        return Page(items, encode_token(Cursor(after, ""), _LIST))

    def get(self, name: str) -> ModelInfo:
        """One model with all its versions and decisions.

        Raises:
            UnknownModelError: no such model of ours.
        """
        model = self.model(name)
        versions = [version_info(v, model) for v in self.versions(name)]
        return ModelInfo(
            name=name,
            environment=environment_tagged(model),
            champion=champion_of(model),
            latest_version=versions[0].version if versions else None,
            versions=tuple(versions),
            decisions=self.log(model).read(),
            scenarios=self.suites(model).latest(),
        )

    def log(self, model: RegisteredModel) -> DecisionLog:
        """What was decided about a name."""
        return DecisionLog(self.client, self.files, model.tags.get(Tag.DECISIONS, ""))

    def suites(self, model: RegisteredModel) -> SuiteLog:
        """The suites of a name, and what its versions came to in them."""
        return SuiteLog(self.client, self.files, model.tags.get(Tag.DECISIONS, ""))

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

    def _latest_names(self) -> Sequence[str]:
        """Of the models that changed last, for suggestions; empty where the store is away."""
        try:
            found = retrying(
                lambda: self.client.search_registered_models(
                    _OURS, _SUGGESTED, ["last_updated_timestamp DESC"]
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

    def versions(self, name: str) -> Sequence[ModelVersion]:
        """The versions of a name that are ours, newest first."""
        return [version for version in self.all_versions(name) if is_ours(version)]

    def all_versions(self, name: str) -> Sequence[ModelVersion]:
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
        location = self.location(ref)
        folder = local_path(location)
        try:
            if folder is not None:
                return read_policy_files(folder, ref.files, ref.label)
            with TemporaryDirectory() as scratch:
                fetched = self._fetch(location, Path(scratch), ref.label)
                return read_policy_files(fetched, ref.files, ref.label)
        except OSError as error:
            raise StoreUnavailableError(f"The files of {ref.label} cannot be read now.") from error

    def reference_of(self, ref: ModelVersionRef) -> ReferenceEpisodes | None:
        """How a version played when it was made; None for one of before that was kept.

        Raises:
            UnknownModelError: the model was deleted.
            UnsafeModelError: the file is not what was registered.
            StoreUnavailableError: it cannot be read now.
        """
        if REFERENCE_FILE not in ref.files:
            return None
        location = self.location(ref)
        try:
            with TemporaryDirectory() as scratch:
                folder = local_path(location) or Path(scratch)
                if folder == Path(scratch):
                    self.files.download(location, REFERENCE_FILE, folder)
                content = read_registered(folder, REFERENCE_FILE, ref.files, ref.label)
        except OSError as error:
            raise StoreUnavailableError(f"The files of {ref.label} cannot be read now.") from error
        return ReferenceEpisodes.from_bytes(content, ref.label)

    def experiment_of(self, ref: ModelVersionRef) -> str:
        """Id of the MLflow experiment that a version was made in.

        Raises:
            UnknownModelError: the model was deleted.
        """
        logged = self._existing(ref.label, lambda: self.client.get_logged_model(ref.model_id))
        return str(logged.experiment_id)

    def load_policy(self, reference: str) -> BasePolicy:
        """The policy of a version, to train on or to evaluate; a plug-in's class is imported.

        Raises:
            UnknownModelError: no such version of ours.
            UnsafeModelError: its files are not what was registered, or not ours.
            grpo.IncompatibleError: its class is not installed here.
        """
        ref = self.resolve(reference)
        return policy_from_files(self.read(ref), ref.label)

    def download(self, reference: str, target: Path) -> ModelVersionRef:
        """Copy a version's files, verified, to a new folder: an MLflow model to take elsewhere.

        Args:
            reference: as `resolve`.
            target: must not exist.

        Raises:
            UnknownModelError: no such version of ours.
            UnsafeModelError: its files are not what was registered, or not ours.
            StoreUnavailableError: they cannot be read, or not be written there.
        """
        ref = self.resolve(reference)
        location = self.location(ref)
        folder = local_path(location)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # beside it, so that it appears as a whole or not at all
            with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
                fetched, copy = Path(scratch) / "fetched", Path(scratch) / "copy"
                fetched.mkdir()
                source = folder or self._fetch(location, fetched, ref.label)
                files = read_policy_files(source, ref.files, ref.label)  # no pipe is copied
                predictor_from_files(files, ref.label)
                shutil.copytree(source, copy, symlinks=True, ignore=_left_by_readers)
                read_policy_files(copy, ref.files, ref.label)
                copy.rename(target)
        except OSError as error:
            raise StoreUnavailableError(
                f"{ref.label} cannot be copied to {target}: {error.strerror or error}."
            ) from error
        return ref

    def is_stored(self, ref: ModelVersionRef) -> bool:
        """Whether the files of a version still exist, be it in the registry or not."""
        try:
            self.location(ref)
        except UnknownModelError:
            return False
        return True

    def location(self, ref: ModelVersionRef) -> str:
        """URI of the model's files.

        Raises:
            UnknownModelError: the logged model was deleted.
            StoreGoneError: the root of all artifacts is away.
        """
        logged = self._existing(ref.label, lambda: self.client.get_logged_model(ref.model_id))
        location: str = logged.artifact_location
        self.files.guard.require(location)
        return location

    def _fetch(self, location: str, folder: Path, label: str) -> Path:
        check_sizes(self.files.sizes(location), label)
        return self.files.download(location, "", folder)

    def _summary(self, model: RegisteredModel) -> ModelSummary:
        champion, latest = champion_of(model), latest_of(model)
        return ModelSummary(
            name=model.name,
            env_name=model.tags.get(Tag.ENV_NAME, ""),
            champion=champion,
            latest_version=int(latest.version) if latest else None,
            eval_return_mean=self._serving_mean(model, champion),
        )

    def _serving_mean(self, model: RegisteredModel, champion: int | None) -> float | None:
        """Evaluation of the version that serves the name, from what the list holds if it does."""
        latest = latest_of(model)
        if latest and champion in (None, int(latest.version)):
            return _number(latest.tags.get(Tag.EVAL_MEAN))
        copy = json_object(model.tags.get(Tag.CHAMPION_CARD) or "{}") or {}
        if copy.get("version") == champion:
            return _number(copy.get("mean"))
        if champion is None:
            return None
        # someone set the alias in MLflow
        found = self.version(model.name, champion)
        return _number(found.tags.get(Tag.EVAL_MEAN)) if is_ours(found) else None

    def _existing(self, label: str, call: Callable[[], _T]) -> _T:
        try:
            return retrying(call)
        except StoreError as error:
            if is_missing(error):
                raise UnknownModelError(label) from error
            raise


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except (TypeError, ValueError):
        return None


_left_by_readers = shutil.ignore_patterns("__pycache__", DOWNLOAD_NOTE)
"""Of a model's folder: what is not checked is not handed on; byte code would be run."""
