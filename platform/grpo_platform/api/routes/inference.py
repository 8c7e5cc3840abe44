"""Inference calls. POST /inference is the hot path: see `FastJsonRoute`."""

import time
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from grpo_platform.api.dependencies import FastJsonRoute, model_for, predict_batch
from grpo_platform.api.errors import documented
from grpo_platform.api.metrics import Metrics
from grpo_platform.api.schemas.inference import (
    BatchReply,
    BatchRequest,
    InferenceReply,
    InferenceRequest,
)

__all__ = ["router"]

router = APIRouter(
    tags=["inference"],
    route_class=FastJsonRoute,
    responses=documented(401, 403, 404, 409, 413, 415, 422, 503),
)


@router.post("/inference", operation_id="infer", response_model=InferenceReply)
async def infer(body: InferenceRequest, request: Request) -> Response:
    """Ask a model for the action in one observation."""
    started = time.perf_counter()
    metrics: Metrics = request.app.state.metrics
    model = await model_for(request, body.model_name)
    answer = model.predict_one(body.observation, body.deterministic, body.action_mask)
    reply = {
        "action": answer.action,
        "action_probs": answer.action_probs,
        "value": answer.value,
        "model_version": model.version,
    }
    metrics.inference(model.name, model.version, time.perf_counter() - started, 1)
    return _reply(reply)


@router.post("/inference/batch", operation_id="infer_batch", response_model=BatchReply)
async def infer_batch(body: BatchRequest, request: Request) -> Response:
    """Ask a model for the actions in many observations at once."""
    started = time.perf_counter()
    metrics: Metrics = request.app.state.metrics
    model = await model_for(request, body.model_name)
    outputs = await predict_batch(
        request, model, body.observations, body.deterministic, body.action_masks
    )
    actions, probabilities = model.as_json(outputs["action"], outputs.get("action_probs"))
    reply = {
        "actions": actions,
        "action_probs": probabilities,
        "values": outputs["value"],
        "model_version": model.version,
    }
    seconds = time.perf_counter() - started
    metrics.inference(model.name, model.version, seconds, len(body.observations))
    # straight from the arrays, float32 in as few digits as tell it apart; not finite becomes null
    content = orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


def _reply(values: dict[str, Any]) -> Response:
    return Response(to_json(values, inf_nan_mode="null"), media_type="application/json")
