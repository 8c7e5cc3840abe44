"""What a shell completes: ids and names that the server knows; nothing where none answers."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, Final

import typer

from grpo_platform.client import GRPOClient
from grpo_platform.client.fields import TrainFields

__all__ = [
    "comparison_ids", "env_names", "experiment_ids", "job_ids", "model_names", "references",
    "reward_names", "settings", "sweep_ids",
]  # fmt: skip

_SECONDS: Final = 1.0
_MOST: Final = 50
"""Of each kind, the newest ones."""

_Found = Iterable[tuple[str, str]]


def _asked(of: Callable[[GRPOClient], _Found]) -> Callable[[typer.Context, str], list[Any]]:
    """What begins with what was typed so far, each with a word about it."""

    def complete(context: typer.Context, incomplete: str) -> list[Any]:
        given = context.find_root().params
        try:
            with GRPOClient(
                given.get("url"), token=given.get("token"), timeout_seconds=_SECONDS
            ) as client:
                found = itertools.islice(of(client), _MOST)
                return [each for each in found if each[0].startswith(incomplete)]
        except Exception:  # noqa: BLE001 - a shell that completes is no place for errors
            return []

    return complete


def _jobs(client: GRPOClient) -> _Found:
    for job in client.iter_jobs():
        yield job["job_id"], f"{job['status']} {job['env_name']} {job['model_name']}"


def _experiments(client: GRPOClient) -> _Found:
    for one in client.iter_experiments():
        yield one["experiment_id"], f"{one['status']} {one['env_name']} {one['n_seeds']} seeds"


def _sweeps(client: GRPOClient) -> _Found:
    for one in client.iter_sweeps():
        yield one["sweep_id"], f"{one['status']} {one['env_name']} {one['n_trials']} trials"


def _comparisons(client: GRPOClient) -> _Found:
    for one in client.iter_comparisons():
        yield one["comparison_id"], " against ".join(one["labels"])


def _models(client: GRPOClient) -> _Found:
    for model in client.iter_models():
        yield model["name"], str(model["env_name"])


def _references(client: GRPOClient) -> _Found:
    for of in (_models, _experiments, _jobs, _sweeps):
        yield from itertools.islice(of(client), _MOST // 4)


job_ids = _asked(_jobs)
experiment_ids = _asked(_experiments)
sweep_ids = _asked(_sweeps)
comparison_ids = _asked(_comparisons)
model_names = _asked(_models)
references = _asked(_references)
reward_names = _asked(lambda client: ((r["name"], r["description"]) for r in client.rewards()))


def env_names(context: typer.Context, incomplete: str) -> list[Any]:
    """Environments that can be trained in."""
    return _asked(
        lambda client: ((e["env_name"], "") for e in client.iter_environments(incomplete))
    )(context, incomplete)


def settings(incomplete: str) -> list[str]:
    """Fields of POST /train, up to their value."""
    return [f"{name}=" for name in sorted(TrainFields.__annotations__) if
            name.startswith(incomplete)]  # fmt: skip
