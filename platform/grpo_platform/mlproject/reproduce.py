"""Entry point `reproduce`: MLflow's run becomes the reproduction of a job."""

import sys
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from grpo_platform.api.schemas.common import WHOLE, RequestBody, bounded
from grpo_platform.core.settings import Settings
from grpo_platform.mlproject.parameters import validated
from grpo_platform.registry.models import Registry
from grpo_platform.reproduction.reproducing import plan_reproduction, run_plan
from grpo_platform.reproduction.verdict import Verdict
from grpo_platform.tracking.addresses import existing_store_uri
from grpo_platform.tracking.jobs import JobStore

__all__ = ["ReproduceParameters", "reproduce"]


class ReproduceParameters(RequestBody):
    """Parameters of `mlflow run . -e reproduce`."""

    run_id: Annotated[str, Field(min_length=1, max_length=64)]
    """The job: its id is its run's."""

    seed: Annotated[int, bounded("seed"), WHOLE] | None = None
    """Train with another seed than the job's."""


def reproduce(run_id: str, given: Mapping[str, str]) -> int:
    """Train a job again in MLflow's run, and write the verdict to it.

    Returns:
        Exit code: 1 for the verdict `different`, else 0.

    Raises:
        InvalidRequestError: the parameters are malformed.
        PlatformError: the job cannot be reproduced, or the store is away.
    """
    body = validated(ReproduceParameters, given)
    uri = existing_store_uri(Settings())
    store = JobStore(uri)
    plan = plan_reproduction(store, body.run_id, body.seed)
    result = run_plan(store, Registry(uri), plan, run_id)
    sys.stdout.write(result.to_markdown())
    return int(result.comparison.verdict is Verdict.DIFFERENT)
