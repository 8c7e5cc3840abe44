"""The registry of models: what the rest of the platform calls."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from mlflow.entities.model_registry import RegisteredModel
from mlflow.utils.search_utils import SearchUtils

import grpo
from grpo.policies import BasePolicy
from grpo_platform.core.errors import InvalidPageTokenError, UnknownModelError
from grpo_platform.registry.card import ModelCard
from grpo_platform.registry.catalogue import OURS, Catalogue
from grpo_platform.registry.comparison import Evaluate
from grpo_platform.registry.deletion import delete_model
from grpo_platform.registry.integrity import PolicyFiles
from grpo_platform.registry.names import Tag
from grpo_platform.registry.packaging import policy_from_files
from grpo_platform.registry.parsing import (
    champion_of,
    environment_tagged,
    is_ours,
    json_object,
    latest_of,
    version_info,
)
from grpo_platform.registry.promotion import Promoter
from grpo_platform.registry.records import (
    Decision,
    ModelEnvironment,
    ModelInfo,
    ModelSummary,
    ModelVersionRef,
)
from grpo_platform.registry.registering import Point, register_policy
from grpo_platform.tracking.exceptions import retrying
from grpo_platform.tracking.pages import Page

__all__ = ["Listener", "Registry"]

Listener = Callable[[str, bool], None]
"""Called with a model's name, and whether it was deleted."""

_MAX_OFFSET: Final = 2**31


class Registry:
    """Names, versions, aliases and promotion of the models that this platform made.

    Nothing without our tag is listed, loaded, changed or deleted. Safe to call from several
    threads; several servers may work on one store.

    Args:
        tracking_uri: MLflow store, which is also the registry.
        evaluate: plays what is compared; a server's own does so elsewhere than in itself.
    """

    def __init__(self, tracking_uri: str, *, evaluate: Evaluate = grpo.evaluate) -> None:
        self._catalogue = Catalogue(tracking_uri)
        self._promoter = Promoter(self._catalogue, evaluate)
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` whenever this process changed what a name serves.

        It is called in the thread that made the change, before the change is reported as done.
        """
        self._listeners.append(listener)

    def register(
        self,
        job_id: str,
        policy: BasePolicy,
        name: str,
        card: ModelCard,
        metrics: Sequence[Point] = (),
    ) -> ModelVersionRef:
        """Make a version of a job's policy, or return the one that the job made before.

        Args:
            job_id: MLflow run that trained it.
            policy: what it trained.
            name: registered model; made if it is new.
            card: of the version.
            metrics: points of the run (key, value, step, unix ms) that belong to the model too,
                such as its evaluation.

        Raises:
            ConflictError: the name is another environment's, or not ours.
            StoreError: the store refused, or is away.
        """
        ref = register_policy(self._catalogue, job_id, policy, name, card, metrics)
        self._notify(name)
        return ref

    def check_name(self, name: str, env_name: str, env_kwargs: object) -> None:
        """Refuse a name that a job in this environment must not write.

        Raises:
            ConflictError: it is another environment's, or of a model that is not ours.
        """
        self._catalogue.check_name(name, env_name, env_kwargs)

    def environment_of(self, name: str) -> ModelEnvironment | None:
        """The environment that a name belongs to; None if the name is free.

        Raises:
            ConflictError: the name is that of a model that is not ours.
        """
        return self._catalogue.environment_of(name)

    def list(self, limit: int = 100, page_token: str | None = None) -> Page[ModelSummary]:
        """Models by name.

        Args:
            limit: most items of the page, 1 to 1000.
            page_token: from the page before.

        Raises:
            InvalidPageTokenError: the token is not one of this list.
        """
        offset = _offset(page_token)
        token: str | None = None
        if offset:
            token = SearchUtils.create_page_token(offset)  # type: ignore[no-untyped-call]
        client = self._catalogue.client
        found = retrying(lambda: client.search_registered_models(OURS, limit, ["name ASC"], token))
        items = [self._summary(model) for model in found if Tag.DELETING not in model.tags]
        if not found.token:  # None or, over HTTP, empty
            return Page(items, None)
        # a server that hides models from this user has counted them
        after = SearchUtils.parse_start_offset_from_page_token(found.token)  # type: ignore[no-untyped-call]
        return Page(items, _token(after))

    def get(self, name: str) -> ModelInfo:
        """One model with all its versions and decisions.

        Raises:
            UnknownModelError: no such model of ours.
        """
        model = self._catalogue.model(name)
        versions = [version_info(v, model) for v in self._catalogue.versions(name)]
        return ModelInfo(
            name=name,
            environment=environment_tagged(model),
            champion=champion_of(model),
            latest_version=versions[0].version if versions else None,
            versions=tuple(versions),
            decisions=self._promoter.history(model),
        )

    def resolve(self, reference: str) -> ModelVersionRef:
        """What `name` (its champion, else its latest version), `name@alias` or `name/3` names.

        Raises:
            UnknownModelError: no such name, alias or version of ours.
            UnsafeModelError: the version was not registered by this platform.
        """
        return self._catalogue.resolve(reference)

    def read(self, ref: ModelVersionRef) -> PolicyFiles:
        """The files of a version that our loader reads, once all of its files were verified.

        Raises:
            UnknownModelError: the model was deleted.
            UnsafeModelError: its files are not what was registered, or not ours.
        """
        return self._catalogue.read(ref)

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
        policy_from_files(self.read(ref))
        self._catalogue.copy(ref, target)
        return ref

    def is_stored(self, ref: ModelVersionRef) -> bool:
        """Whether the files of a version still exist, be it in the registry or not."""
        try:
            self._catalogue.location(ref)
        except UnknownModelError:
            return False
        return True

    def load_policy(self, reference: str) -> BasePolicy:
        """The policy of a version, to train on or to evaluate.

        Raises:
            UnknownModelError: no such version of ours.
            UnsafeModelError: its files are not what was registered, or not ours.
        """
        return policy_from_files(self.read(self.resolve(reference)))

    def decide_after_training(self, ref: ModelVersionRef, rule: str, actor: str) -> Decision:
        """Whether a job's new version becomes champion; asked again, the same answer.

        Args:
            ref: what `register` returned.
            rule: `if_better`, `always` or `never`.
            actor: who decides, such as the job's id.
        """
        decision = self._promoter.after_training(ref.name, ref.version, rule, actor)
        self._notify(ref.name)
        return decision

    def promote(self, name: str, version: int, force: bool, actor: str) -> Decision:
        """Compare a version with the champion and promote it if it is better, or if forced.

        Raises:
            UnknownModelError: no such version.
            ConflictError: it is champion already, or belongs to another environment.
            UnsafeModelError: its files are not what was registered.
            GRPOError: the environment cannot be evaluated here, and `force` was not given.
        """
        decision = self._promoter.promote(name, version, force, actor)
        self._notify(name)
        return decision

    def rollback(self, name: str, actor: str) -> Decision:
        """Give the name back to the champion before the present one.

        Raises:
            UnknownModelError: no such model.
            ConflictError: there is none to go back to.
        """
        decision = self._promoter.rollback(name, actor)
        self._notify(name)
        return decision

    def delete(self, name: str) -> None:
        """Delete a name: registry entry, logged models, artifacts and decisions.

        Raises:
            UnknownModelError: no such model of ours.
            ConflictError: somebody registered a version of their own under it.
        """
        delete_model(self._catalogue, name, lambda: self._notify(name, deleted=True))

    def _notify(self, name: str, *, deleted: bool = False) -> None:
        for listener in self._listeners:
            listener(name, deleted)

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
        found = self._catalogue.version(model.name, champion)
        return _number(found.tags.get(Tag.EVAL_MEAN)) if is_ours(found) else None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except (TypeError, ValueError):
        return None


def _token(offset: int) -> str:
    return base64.urlsafe_b64encode(json.dumps(["models", offset]).encode()).decode().rstrip("=")


def _offset(token: str | None) -> int:
    if token is None:
        return 0
    try:
        padded = token[:100].encode("ascii") + b"=" * (-len(token[:100]) % 4)
        values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeError, binascii.Error, ValueError) as error:
        raise InvalidPageTokenError from error
    match values:
        case ["models", int(offset)] if not isinstance(offset, bool) and 0 < offset < _MAX_OFFSET:
            return offset
    raise InvalidPageTokenError
