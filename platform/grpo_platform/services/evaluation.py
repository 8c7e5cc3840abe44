"""Play a registered version on its environment's own reward."""

import grpo
from grpo.evaluation import Evaluation
from grpo_platform.core.errors import UnknownModelError
from grpo_platform.registry.models import Registry
from grpo_platform.registry.records import ModelVersionRef

__all__ = ["evaluate_version"]


def evaluate_version(
    registry: Registry, reference: str, *, episodes: int, seed: int, deterministic: bool = True
) -> tuple[ModelVersionRef, Evaluation]:
    """Which version a reference names, and how well it does.

    Args:
        registry: that has it.
        reference: `name`, `name@alias` or `name/version`.
        episodes: how many, at least 1.
        seed: gives the episodes' seeds.
        deterministic: take the likeliest action instead of sampling.

    Raises:
        UnknownModelError: no such version of ours.
        UnsafeModelError: its files are not what was registered.
        grpo.GRPOError: the environment cannot be evaluated here.
    """
    version = registry.resolve(reference)
    environment = registry.environment_of(version.name)
    if environment is None:
        raise UnknownModelError(version.name)
    found = grpo.evaluate(
        registry.load_policy(f"{version.name}/{version.version}"),
        environment.env_name,
        env_kwargs=environment.env_kwargs,
        n_episodes=episodes,
        seed=seed,
        deterministic=deterministic,
    )
    return version, found
