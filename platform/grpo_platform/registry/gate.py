"""The suite that a name's versions must pass before they are compared with its champion."""

import logging
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from mlflow.entities.model_registry import RegisteredModel

from grpo.errors import GRPOError
from grpo.scenarios.results import SuiteResult
from grpo.scenarios.suite import Suite
from grpo_platform.core.errors import (
    NotFoundError,
    StoreError,
    StoreUnavailableError,
    UnsafeModelError,
)
from grpo_platform.registry.comparison import Contender
from grpo_platform.registry.integrity import PolicyFiles
from grpo_platform.registry.models import Registry
from grpo_platform.registry.names import Tag
from grpo_platform.registry.suites import ResultRecord, SuiteLog
from grpo_platform.tracking.exceptions import retrying

__all__ = ["SUITE_SECONDS", "Gate", "PlaySuite", "check_gate", "keep_result"]

_log = logging.getLogger(__name__)

SUITE_SECONDS: Final = 600.0
"""That a suite may take."""


class PlaySuite(Protocol):
    """What `play_suite_files` does, wherever."""

    def __call__(
        self,
        files: PolicyFiles,
        name: str,
        env_name: str,
        /,
        *,
        env_kwargs: Mapping[str, Any],
        suite: Suite,
        seconds: float,
    ) -> SuiteResult:
        """Put a policy through a suite."""


class Gate(NamedTuple):
    """What the suite says of a version."""

    digest: str | None
    """Of the suite; None where the name has none."""

    passed: bool
    """Whether all of it held."""

    reason: str
    """A sentence: which scenario failed, or why it could not be played."""

    @property
    def lets_pass(self) -> bool:
        """Whether nothing stands against the version."""
        return self.digest is None or self.passed


def check_gate(
    play: PlaySuite | None, model: RegisteredModel, candidate: Contender, actor: str
) -> Gate:
    """What the name's present suite says of a version; played unless that is known.

    Args:
        play: puts a policy through a suite; None where that cannot be done here.
        model: the name.
        candidate: the version.
        actor: for whom it is played.
    """
    log = candidate.registry.suites(model)
    suite, known = log.look(candidate.number)
    if suite is None:
        return Gate(None, True, "")
    if known is None:
        if play is None:
            return Gate(suite.digest, False, "Scenarios cannot be played by this process.")
        try:
            found = play(
                candidate.files,
                f"{candidate.name}/{candidate.number}",
                candidate.card.env_name,
                env_kwargs=candidate.card.env_kwargs,
                suite=log.read(suite)[0],
                seconds=SUITE_SECONDS,
            )
        except (GRPOError, UnsafeModelError, NotFoundError) as error:
            return Gate(suite.digest, False, f"The scenarios could not be played: {error}")
        except StoreError as error:
            if isinstance(error, StoreUnavailableError):
                raise  # whoever asked tries again
            return Gate(suite.digest, False, f"The scenarios could not be read: {error}")
        known = keep_result(candidate.registry, log, candidate, found, actor)
    return Gate(suite.digest, known.passed, known.reason)


def keep_result(
    registry: Registry, log: SuiteLog, candidate: Contender, found: SuiteResult, actor: str
) -> ResultRecord:
    """Keep what a version came to, and show it beside the version in the MLflow UI."""
    record = log.add_result(candidate.number, found, actor)
    shown = f"{'passed' if record.passed else 'failed'} ({record.digest[:12]})"
    try:
        retrying(
            lambda: registry.client.set_model_version_tag(
                candidate.name, str(candidate.number), Tag.SCENARIOS, shown
            )
        )
    except StoreError as error:
        _log.warning("%s/%d is not marked: %s", candidate.name, candidate.number, error)
    return record
