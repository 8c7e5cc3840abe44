"""Entry point `evaluate`: a model's version is played, and MLflow's run gets the figures."""

from collections.abc import Mapping
from typing import Annotated

from grpo.evaluation import EVALUATION_SEED
from grpo_platform.api.schemas.common import WHOLE, ModelReference, RequestBody, bounded
from grpo_platform.core.names import Tag
from grpo_platform.core.settings import Settings
from grpo_platform.mlproject.parameters import validated
from grpo_platform.registry.models import Registry
from grpo_platform.services.evaluation import evaluate_version
from grpo_platform.tracking.addresses import existing_store_uri
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.lifecycle import now_ms
from grpo_platform.tracking.reporter import Point, evaluation_figures

__all__ = ["EvaluateParameters", "evaluate"]


class EvaluateParameters(RequestBody):
    """Parameters of `mlflow run . -e evaluate`."""

    model: ModelReference
    """`name` (its champion), `name@alias` or `name/version`."""

    episodes: Annotated[int, bounded("n_eval_episodes"), WHOLE] = 100
    """Episodes that are played greedily, on the environment's own reward."""

    seed: Annotated[int, bounded("seed"), WHOLE] = EVALUATION_SEED
    """Gives the episodes' seeds; the default is that of a job's own evaluation."""


def evaluate(run_id: str, given: Mapping[str, str]) -> int:
    """Play a version and log `eval/…` to the run, which is no job: no list of jobs has it.

    Raises:
        InvalidRequestError: the parameters are malformed.
        grpo.GRPOError: the environment cannot be evaluated here.
        PlatformError: no such version, or the store is away.
    """
    body = validated(EvaluateParameters, given)
    uri = existing_store_uri(Settings())
    store = JobStore(uri)
    version, found = evaluate_version(
        Registry(uri), body.model, episodes=body.episodes, seed=body.seed
    )
    now = now_ms()
    points = [Point(key, value, 0, now) for key, value in evaluation_figures(found).items()]
    store.log_points(run_id, points, {Tag.EVALUATES: f"{version.name}/{version.version}"})
    return 0
