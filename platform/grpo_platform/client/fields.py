"""The fields that training and sweep calls take, for type checkers and at run time."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from grpo_platform.client.replies import JobStatus

__all__ = [
    "ComparisonFields",
    "ExperimentFields",
    "JobFilters",
    "SweepFields",
    "TrainFields",
    "TrainSettings",
    "UnknownFieldError",
    "check_fields",
]

Promote = Literal["always", "if_better", "never"]
Register = Literal["best", "median", "each"]
Sampler = Literal["tpe", "random", "grid"]
Pruner = Literal["median", "none"]


class JobFilters(TypedDict, total=False):
    """Which jobs or experiments a list has."""

    status: JobStatus | None
    env_name: str | None
    model_name: str | None


class TrainSettings(TypedDict, total=False):
    """What `GRPOClient.train_model` takes beside names; docs/api.md says what each field means."""

    env_kwargs: Mapping[str, Any]
    wrappers: Sequence[str | Mapping[str, Any]] | None
    reward_function_type: str
    total_timesteps: int
    learning_rate: float
    learning_rate_schedule: Literal["constant", "cooldown", "linear"]
    log_std_rate: float
    n_steps: int
    batch_size: int
    n_epochs: int
    seed: int | None
    gamma: float
    num_groups: int
    group_size: int
    clip_range: float
    clip_range_high: float | None
    ent_coef: float
    kl_coef: float
    reference_iterations: int
    max_grad_norm: float
    advantage: str
    baseline: Literal["group", "critic", "both", "shrinkage"]
    gae_lambda: float
    normalize_advantage: bool
    start_states: Literal["branch", "branch_worst", "reset", "continue", "mixed"]
    branch_probability: float
    bootstrap: bool
    normalize_observations: bool
    normalize_rewards: bool
    net_arch: list[int]
    policy: str
    policy_kwargs: Mapping[str, Any]
    eval_freq: int
    n_eval_episodes: int
    target_return: float | None
    env_workers: int | Literal["auto"]
    device: Literal["auto", "cpu", "cuda"]
    promote: Promote
    init_from: str | None
    max_seconds: float | None
    checkpoint_seconds: float
    max_attempts: int
    max_metric_points: int
    failure_gallery: int
    num_cpus: float
    num_gpus: float | None


class TrainFields(TrainSettings, total=False):
    """Every field of POST /train."""

    env_name: str
    model_name: str | None


class ExperimentFields(TrainFields, total=False):
    """What an experiment takes beside its seeds."""

    register: Register


class SweepFields(TypedDict, total=False):
    """What POST /sweeps takes beside the search space and the number of trials."""

    config: TrainFields
    metric: str
    direction: Literal["maximize", "minimize"]
    sampler: Sampler
    pruner: Pruner
    max_concurrent_trials: int
    seed: int | None
    seeds: int | Sequence[int] | None
    model_name: str | None
    promote: Promote


class ComparisonFields(TypedDict, total=False):
    """What POST /comparisons takes beside the references."""

    normalize: bool
    episodes: int
    seed: int | None
    max_seconds: int


class UnknownFieldError(TypeError):
    """A call was given a field that the API does not have; the message names the nearest."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        from grpo.errors import did_you_mean  # imports torch, which no other call waits for

        names = sorted(known)
        hint = did_you_mean(name, names) or f"There are: {', '.join(names)}."
        super().__init__(f"There is no field {name!r}. {hint.strip()}")


def check_fields(given: Iterable[str], kind: type) -> None:
    """Refuse names that a TypedDict does not have.

    Args:
        given: names.
        kind: the TypedDict.

    Raises:
        UnknownFieldError: the first of them that is not there.
    """
    known = kind.__annotations__
    for name in given:
        if name not in known:
            raise UnknownFieldError(name, known)
