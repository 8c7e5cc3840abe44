"""Calls about policies at play, and the WebSocket that shows and steers them."""

from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path, Request, WebSocket
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from grpo_platform.api.dependencies import JsonRoute, ServicesDep
from grpo_platform.api.errors import documented
from grpo_platform.api.play_socket import PlaySocket
from grpo_platform.api.schemas.play import (
    CommandBody,
    EndedSession,
    ExplainBody,
    Explanation,
    FilmBody,
    KeepBody,
    KeptState,
    Obeyed,
    PlayBody,
    Session,
    session_reply,
)
from grpo_platform.services.play import keep_state

__all__ = ["router"]

router = APIRouter(
    tags=["play"], route_class=JsonRoute, responses=documented(400, 401, 403, 404, 409, 422, 503)
)

_ACTOR = "api"
_GRACE_SECONDS = 60.0

SessionId = Annotated[str, Path(max_length=64, description="Id of the session.")]


@router.post("/play", operation_id="play", responses=documented(413, 415, 429))
async def play(body: PlayBody, services: ServicesDep, request: Request) -> Session:
    """Play a model, or a job's checkpoints while it trains, in a process of its own."""
    client = request.client.host if request.client else ""
    if body.job_id is not None:
        job_id = await run_in_threadpool(services.store.id_of, body.job_id)
        call: Any = partial(services.play.open_job, job_id, watch=body.watch)
    else:
        call = partial(services.play.open_model, body.model or "")
    call = partial(call, client=client, seed=body.seed, deterministic=body.deterministic)
    session = await to_thread.run_sync(call, limiter=request.app.state.play)
    return session_reply(session)


@router.get("/play/{session_id}", operation_id="get_play")
async def get_play(session_id: SessionId, services: ServicesDep) -> Session:
    """What is played, and what can be done with it."""
    return session_reply(services.play.get(session_id))


@router.delete("/play/{session_id}", operation_id="end_play")
def end_play(session_id: SessionId, services: ServicesDep) -> EndedSession:
    """End a session, and its process."""
    services.play.close(session_id)
    return EndedSession(message="The session has ended.")


@router.post(
    "/play/{session_id}/commands", operation_id="steer_play", responses=documented(413, 415)
)
async def steer_play(
    session_id: SessionId, body: CommandBody, services: ServicesDep, request: Request
) -> Obeyed:
    """Play, pause, step, wind back, act, disturb, fork: one command."""
    session = services.play.get(session_id)
    command = {"command": body.command, **body.arguments}
    found = await to_thread.run_sync(session.do, command, limiter=request.app.state.play)
    return Obeyed.model_validate({"step": 0, "frame": {}, **found})


@router.post(
    "/play/{session_id}/explain", operation_id="explain_play", responses=documented(413, 415)
)
async def explain_play(
    session_id: SessionId, body: ExplainBody, services: ServicesDep, request: Request
) -> Explanation:
    """Take every action from here, and let the policy go on many times after each."""
    session = services.play.get(session_id)
    command = {"command": "explain", **body.model_dump()}
    call = partial(session.do, command, body.seconds + _GRACE_SECONDS)
    found = await to_thread.run_sync(call, limiter=request.app.state.play)
    return Explanation.model_validate(found)


@router.post(
    "/play/{session_id}/scenario", operation_id="keep_play", responses=documented(413, 415)
)
def keep_play(session_id: SessionId, body: KeepBody, services: ServicesDep) -> KeptState:
    """Test the model from this state on: a start state of its suite."""
    session = services.play.get(session_id)
    found = keep_state(services, session, body.scenario, _ACTOR, body.assertions or ())
    return KeptState(
        model_name=found.model_name, scenario=body.scenario, suite=found.kept.suite.to_dict()
    )


@router.post(
    "/play/{session_id}/film",
    operation_id="film_play",
    response_class=Response,
    responses={
        **documented(413, 415),
        200: {"content": {"image/webp": {}, "image/gif": {}}, "description": "The film."},
    },
)
async def film_play(
    session_id: SessionId, body: FilmBody, services: ServicesDep, request: Request
) -> Response:
    """Play on, and give what is seen as an animated image."""
    session = services.play.get(session_id)
    call = partial(session.film, body.steps, body.format)
    content = await to_thread.run_sync(call, limiter=request.app.state.play)
    return Response(content, media_type=f"image/{body.format}")


@router.websocket("/play/{session_id}/ws")
async def play_socket(websocket: WebSocket, session_id: str) -> None:
    """Frames from the session, commands to it."""
    await PlaySocket(websocket).run(session_id)
