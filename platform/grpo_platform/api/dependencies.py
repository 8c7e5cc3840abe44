"""What routes ask for, as `Annotated` aliases."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, cast

import numpy.typing as npt
from anyio import to_thread
from fastapi import Depends, Path, Query, Request
from starlette.concurrency import run_in_threadpool

from grpo_platform.api.schemas.common import MODEL_EXAMPLE, ModelName
from grpo_platform.core.errors import UnknownJobError
from grpo_platform.services.container import Services
from grpo_platform.serving.model import LoadedModel

__all__ = [
    "Batch",
    "JobId",
    "Limit",
    "ModelPath",
    "PageToken",
    "ServicesDep",
    "model_for",
    "predict_batch",
]

_JOB_ID = re.compile(r"[0-9a-f]{32}")


async def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


async def _job_id(job_id: Annotated[str, Path(description="Id that POST /train gave.")]) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise UnknownJobError(job_id)
    return job_id


ServicesDep = Annotated[Services, Depends(_services)]

JobId = Annotated[str, Depends(_job_id)]
"""Path parameter `job_id`; what cannot be an id is unknown without a look at the store."""

ModelPath = Annotated[
    ModelName, Path(description="Name of a registered model.", examples=[MODEL_EXAMPLE])
]

Limit = Annotated[int, Query(ge=1, le=1000, description="Most items on a page.")]

PageToken = Annotated[
    str | None,
    Query(max_length=1000, description="`next_page_token` of the page before; none is the first."),
]


Batch = npt.NDArray[Any] | Sequence[Sequence[float]]
"""N observations, each flattened in C order or, of an array, in its own shape."""


async def model_for(request: Request, reference: str) -> LoadedModel:
    """The model that serves a reference, at once if it is loaded.

    Raises:
        PlatformError: as `ServingService.load`.
    """
    services: Services = request.app.state.services
    model = services.serving.ready(reference)
    if model is None:
        model = await run_in_threadpool(services.serving.load, reference)
    return model


async def predict_batch(
    request: Request, model: LoadedModel, observations: Batch, deterministic: bool
) -> dict[str, npt.NDArray[Any]]:
    """As `LoadedModel.predict_batch`, one batch at a time: several would fight for the interpreter.

    Raises:
        InvalidObservationError: an observation does not fit the model.
    """
    return await to_thread.run_sync(
        model.predict_batch, observations, deterministic, limiter=request.app.state.one_batch
    )
