"""Inference calls. POST /inference is the hot path: see `FastJsonRoute`."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from grpo.observations import NEXT_STATE
from grpo_platform.api.dependencies import FastJsonRoute, model_for, predict_batch
from grpo_platform.api.errors import documented
from grpo_platform.api.metrics import Metrics
from grpo_platform.api.schemas.inference import (
    BatchReply,
    BatchRequest,
    InferenceReply,
    InferenceRequest,
)
from grpo_platform.core.errors import InvalidObservationError
from grpo_platform.serving.episodes import Episode, Episodes, pack, unpack

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
    reference, state = body.model_name, None
    if body.state is not None or body.episode_id is not None:
        reference, state = _episode(request, body)
    model = await model_for(request, reference)
    answer = model.predict_one(body.observation, body.deterministic, body.action_mask, state)
    reply = {
        "action": answer.action,
        "action_probs": answer.action_probs,
        "value": answer.value,
        "model_version": model.version,
    }
    if answer.state is not None:
        after = Episode(model.version, np.array(answer.state, np.float32))
        reply["state"] = pack(after)
        if body.episode_id is not None:
            request.app.state.episodes.put(body.model_name, body.episode_id, after)
    metrics.inference(model.name, model.version, time.perf_counter() - started, 1)
    return _reply(reply)


@router.post("/inference/batch", operation_id="infer_batch", response_model=BatchReply)
async def infer_batch(body: BatchRequest, request: Request) -> Response:
    """Ask a model for the actions in many observations at once."""
    started = time.perf_counter()
    metrics: Metrics = request.app.state.metrics
    episodes = _episodes(body)
    model = await model_for(request, _stays(body.model_name, *episodes))
    outputs = await predict_batch(
        request,
        model,
        body.observations,
        body.deterministic,
        body.action_masks,
        _states(episodes),
    )
    actions, probabilities = model.as_json(outputs["action"], outputs.get("action_probs"))
    reply = {
        "actions": actions,
        "action_probs": probabilities,
        "values": outputs["value"],
        "model_version": model.version,
    }
    if NEXT_STATE in outputs:
        reply["states"] = [pack(Episode(model.version, row)) for row in outputs[NEXT_STATE]]
    seconds = time.perf_counter() - started
    metrics.inference(model.name, model.version, seconds, len(body.observations))
    # straight from the arrays, float32 in as few digits as tell it apart; not finite becomes null
    content = orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


def _episode(
    request: Request, body: InferenceRequest
) -> tuple[str, npt.NDArray[np.float32] | None]:
    """Who answers, and what is remembered before the observation: nothing at the start."""
    if body.state is not None and body.episode_id is not None:
        raise InvalidObservationError("Send state or episode_id, not both.", field="episode_id")
    before = None
    if body.state is not None:
        before = unpack(body.state)
    elif body.episode_id is not None:
        kept: Episodes = request.app.state.episodes
        before = kept.get(body.model_name, body.episode_id)
    if before is None or body.episode_start:
        return body.model_name, None
    return _stays(body.model_name, before), before.state


def _episodes(body: BatchRequest) -> list[Episode | None]:
    given = body.states or []
    if body.states is not None and len(given) != len(body.observations):
        raise InvalidObservationError(
            f"There are {len(body.observations)} observations and {len(given)} states.",
            field="states",
        )
    return [None if text is None else unpack(text, f"states.{i}") for i, text in enumerate(given)]


def _stays(reference: str, *episodes: Episode | None) -> str:
    """The version that episodes began with, where there is one; else what the caller names."""
    versions = {episode.version for episode in episodes if episode is not None}
    if not versions:
        return reference
    name, _, version = reference.partition("/")
    if len(versions) > 1 or (version and version != str(*versions)):
        raise InvalidObservationError(
            "A state belongs to the version that gave it, and a request asks one version: "
            f"{', '.join(map(str, sorted(versions)))} gave these.",
            field="state",
        )
    return f"{name.partition('@')[0]}/{versions.pop()}"


def _states(episodes: list[Episode | None]) -> npt.NDArray[np.float32] | None:
    """What is remembered in each, shape (N, n_state)."""
    known = [episode.state for episode in episodes if episode is not None]
    if not known:
        return None
    blank = np.zeros_like(known[0])
    rows = [blank if episode is None else episode.state for episode in episodes]
    if any(row.shape != blank.shape for row in rows):
        raise InvalidObservationError("These states are of several models.", field="states")
    return np.stack(rows)


def _reply(values: dict[str, Any]) -> Response:
    return Response(to_json(values, inf_nan_mode="null"), media_type="application/json")
