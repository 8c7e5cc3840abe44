"""What commands do with suites without a server: check a file, and replay what failed."""

from typing import Any

from grpo.errors import ConfigError
from grpo.scenarios.playing import check_suite
from grpo.scenarios.suite import Suite
from grpo_platform.core.errors import InvalidRequestError, UnknownModelError
from grpo_platform.core.settings import Settings
from grpo_platform.scenarios.files import parse_text
from grpo_platform.scenarios.keeping import Replayed, replay_failures
from grpo_platform.services.direct import open_store

__all__ = ["check_text", "replay_episodes"]


def check_text(
    text: str,
    env_name: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    *,
    model: str | None = None,
    settings: Settings | None = None,
) -> Suite:
    """The suite that a text holds, tried in an environment where one is named.

    Args:
        text: YAML or JSON.
        env_name: Gymnasium id.
        env_kwargs: keyword arguments of it.
        model: take the environment of this model of the store.
        settings: name the store.

    Raises:
        InvalidRequestError: it is no suite, or the environment cannot be put through it.
        UnknownModelError: no such model.
        grpo.EnvironmentFaultError: the environment raised.
        StoreError: there is no store, or it cannot be used.
    """
    suite = parse_text(text)
    if model is not None:
        _, registry = open_store(settings or Settings())
        owner = registry.environment_of(model)
        if owner is None:
            raise UnknownModelError(model)
        env_name, env_kwargs = owner.env_name, dict(owner.env_kwargs)
    if env_name is not None:
        try:
            check_suite(suite, env_name, env_kwargs or {})
        except ConfigError as error:
            raise InvalidRequestError(str(error), field=error.field) from error
    return suite


def replay_episodes(
    settings: Settings, reference: str, scenario: str | None, episode: int | None
) -> list[Replayed]:
    """Play what failed in a version's latest result again; raises as `replay_failures`."""
    _, registry = open_store(settings)
    return replay_failures(registry, reference, scenario, episode)
