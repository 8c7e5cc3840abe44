"""Entry points that do one thing in the run that `mlflow run` made: train, evaluate, reproduce."""

import sys
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from grpo.evaluation import EVALUATION_SEED
from grpo_platform.api.schemas.common import WHOLE, ModelReference, RequestBody, bounded
from grpo_platform.api.schemas.training import TrainRequest
from grpo_platform.core.request import JobRequest, resolve_request
from grpo_platform.core.settings import Settings
from grpo_platform.mlproject.experiment import experiment
from grpo_platform.mlproject.parameters import validated
from grpo_platform.reproduction.verdict import Verdict
from grpo_platform.services.direct import evaluate_into_run, reproduce_job, train_in_run

__all__ = [
    "EvaluateParameters",
    "ReproduceParameters",
    "evaluate",
    "reproduce",
    "request_of",
    "train",
]


class EvaluateParameters(RequestBody):
    """Parameters of `mlflow run . -e evaluate`."""

    model: ModelReference
    """`name` (its champion), `name@alias` or `name/version`."""

    episodes: Annotated[int, bounded("n_eval_episodes"), WHOLE] = 100
    """Episodes that are played greedily, on the environment's own reward."""

    seed: Annotated[int, bounded("seed"), WHOLE] = EVALUATION_SEED
    """Gives the episodes' seeds; the default is that of a job's own evaluation."""


class ReproduceParameters(RequestBody):
    """Parameters of `mlflow run . -e reproduce`."""

    run_id: Annotated[str, Field(min_length=1, max_length=64)]
    """The job: its id is its run's."""

    seed: Annotated[int, bounded("seed"), WHOLE] | None = None
    """Train with another seed than the job's."""


def train(run_id: str, given: Mapping[str, str]) -> int:
    """Make the run a job and train it here, in the foreground, as POST /train does.

    With `seeds` it becomes an experiment, and each seed a job under it.

    Returns:
        Exit code: 0 when it completed, 1 when it failed or was stopped.

    Raises:
        InvalidRequestError: the parameters are malformed.
        grpo.ConfigError: they cannot be trained.
        PlatformError: they do not fit what is in the store, or it is away.
    """
    if given.get("seeds", "").strip():
        return experiment(run_id, given)
    return train_in_run(Settings(), run_id, request_of(given))


def request_of(given: Mapping[str, str]) -> JobRequest:
    """Validated like the body of POST /train, but for its types: every value came as text."""
    body = validated(TrainRequest, given)
    return resolve_request(body.model_dump(exclude_unset=True), Settings().max_timesteps)


def evaluate(run_id: str, given: Mapping[str, str]) -> int:
    """Play a version and log `eval/…` to the run, which is no job: no list of jobs has it.

    Raises:
        InvalidRequestError: the parameters are malformed.
        grpo.GRPOError: the environment cannot be evaluated here.
        PlatformError: no such version, or the store is away.
    """
    body = validated(EvaluateParameters, given)
    evaluate_into_run(Settings(), run_id, body.model, episodes=body.episodes, seed=body.seed)
    return 0


def reproduce(run_id: str, given: Mapping[str, str]) -> int:
    """Train a job again in MLflow's run, and write the verdict to it.

    Returns:
        Exit code: 1 for the verdict `different`, else 0.

    Raises:
        InvalidRequestError: the parameters are malformed.
        PlatformError: the job cannot be reproduced, or the store is away.
    """
    body = validated(ReproduceParameters, given)
    result = reproduce_job(Settings(), body.run_id, body.seed, run_id=run_id)
    sys.stdout.write(result.to_markdown())
    return int(result.comparison.verdict is Verdict.DIFFERENT)
