"""From a request to a model's answer: what waits, waits in a thread; what computes, in turn."""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from anyio import to_thread
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from grpo_platform.api.services import Services
from grpo_platform.serving.model import LoadedModel

__all__ = ["Batch", "model_for", "predict_batch"]

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
