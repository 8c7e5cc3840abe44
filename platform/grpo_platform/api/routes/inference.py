"""Inference calls. POST /inference is the hot path: see `FastJsonRoute`."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from grpo.observations import NEXT_STATE
from grpo_platform.api.dependencies import FastJsonRoute, model_for, note_answer, predict_batch
from grpo_platform.api.errors import documented
from grpo_platform.api.schemas.inference import (
    BatchReply,
    BatchRequest,
    InferenceReply,
    InferenceRequest,
)
from grpo_platform.core.errors import InvalidObservationError
from grpo_platform.serving.episodes import Episode, Episodes, pack, unpack
from grpo_platform.serving.model import LoadedModel

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
    if body.state is None and body.episode_id is None:
        model, state = await model_for(request, body.model_name), None
    else:
        model, state = await _in_episode(request, body)
    answer = model.predict_one(body.observation, body.deterministic, body.action_mask, state)
    reply = {
        "action": answer.action,
        "action_probs": answer.action_probs,
        "value": answer.value,
        "model_version": model.version,
    }
    if answer.state is not None:
        after = Episode(model.version, model.mark, np.array(answer.state, np.float32))
        reply["state"] = pack(after)
        if body.episode_id is not None:
            request.app.state.episodes.put(body.model_name, body.episode_id, after)
    note_answer(request, model, started, body.observation, answer.action)
    return _reply(reply)


@router.post("/inference/batch", operation_id="infer_batch", response_model=BatchReply)
async def infer_batch(body: BatchRequest, request: Request) -> Response:
    """Ask a model for the actions in many observations at once."""
    started = time.perf_counter()
    episodes = _episodes(body)
    model = await model_for(request, _stays(body.model_name, episodes, "states"))
    for i, episode in enumerate(episodes):
        _check_mark(model, episode, f"states.{i}")
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
        after = [Episode(model.version, model.mark, row) for row in outputs[NEXT_STATE]]
        reply["states"] = [pack(episode) for episode in after]
    n = len(body.observations)
    note_answer(request, model, started, body.observations, outputs["action"], n)
    # straight from the arrays, float32 in as few digits as tell it apart; not finite becomes null
    content = orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


async def _in_episode(
    request: Request, body: InferenceRequest
) -> tuple[LoadedModel, npt.NDArray[np.float32] | None]:
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
        return await model_for(request, body.model_name), None
    model = await model_for(request, _stays(body.model_name, [before], "state"))
    if body.state is not None:
        _check_mark(model, before, "state")
    known = body.state is not None or before.mark == model.mark
    return model, before.state if known else None


def _check_mark(model: LoadedModel, episode: Episode | None, field: str) -> None:
    if episode is not None and model.has_memory and episode.mark != model.mark:
        raise InvalidObservationError(
            f"This state is of another model that was called {model.ref.label}: begin the episode "
            "anew, without a state.",
            field=field,
        )


def _episodes(body: BatchRequest) -> list[Episode | None]:
    given = body.states or []
    if body.states is not None and len(given) != len(body.observations):
        raise InvalidObservationError(
            f"There are {len(body.observations)} observations and {len(given)} states.",
            field="states",
        )
    return [None if text is None else unpack(text, f"states.{i}") for i, text in enumerate(given)]


def _stays(reference: str, episodes: Sequence[Episode | None], field: str) -> str:
    """The version that episodes began with, where there is one; else what the caller names."""
    versions = sorted({episode.version for episode in episodes if episode is not None})
    if not versions:
        return reference
    name, _, asked = reference.partition("/")
    if len(versions) > 1:
        told = ", ".join(map(str, versions))
        raise InvalidObservationError(
            f"These states are of the versions {told}: send one request for each.", field=field
        )
    if asked and asked != str(versions[0]):
        raise InvalidObservationError(
            f"This state is of version {versions[0]}, and {reference} was asked.", field=field
        )
    return f"{name.partition('@')[0]}/{versions[0]}"


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
