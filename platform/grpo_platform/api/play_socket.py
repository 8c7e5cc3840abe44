"""A WebSocket on a session at play: frames to a viewer, commands from whoever steers.

Frames are binary messages, as `play.frames` packs them: a viewer that is slow gets the newest one,
never a queue. All else is JSON in text messages, by `type`: `session`, `job`, `error`, `end`.
Commands are JSON as POST /play/{id}/commands takes it. They are obeyed one after the other; those
that come faster are put together: of several that set the same thing the last one counts, and at
most `MOST_WAITING` wait. Settings and a reset are never dropped: moves give way to them.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from anyio import create_task_group, to_thread
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from grpo.errors import GRPOError
from grpo_platform.api.schemas.play import CommandBody, session_reply
from grpo_platform.core.errors import NotFoundError, PlatformError
from grpo_platform.play.play_session import PlaySession
from grpo_platform.services.container import Services

__all__ = ["MOST_WAITING", "PlaySocket"]

MOST_WAITING: Final = 32
"""Commands of one client that wait for their turn; beyond, the newest moves are dropped."""

_MOST_CHARACTERS: Final = 65_536
_REPLACED: Final = frozenset(
    {"play", "pause", "seek", "control", "disturb", "checkpoint", "deterministic"}
)
"""Commands that set something: of two that follow each other, the first one has no use."""

_LASTING: Final = frozenset(
    {"play", "pause", "control", "checkpoint", "deterministic", "unfork", "cancel"}
)
"""Commands that still mean something when another episode begins."""

_NOT_TEXT: Final = 1003
_GONE: Final = 4404
_FULL: Final = 4429
_TOO_LONG: Final = 1009


class PlaySocket:
    """One connection.

    Args:
        websocket: not accepted yet.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._socket = websocket
        self._services: Services = websocket.app.state.services
        self._frames: dict[int, bytes] = {}
        self._texts: deque[str] = deque(maxlen=64)
        self._told = asyncio.Event()
        self._waiting: deque[dict[str, Any]] = deque()
        self._ordered = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def run(self, session_id: str) -> None:
        """Serve the connection to its end."""
        await self._socket.accept()
        state = self._socket.app.state
        watching: int = getattr(state, "play_viewers", 0)
        if watching >= self._services.settings.max_watchers:
            await self._socket.close(_FULL, "As many watch as may (GRPO_MAX_WATCHERS).")
            return
        try:
            session = self._services.play.get(session_id)
        except NotFoundError as error:
            await self._socket.close(_GONE, str(error)[:120])
            return
        state.play_viewers = watching + 1
        viewer = self._hear
        try:
            self._texts.append(
                json.dumps({"type": "session", **session_reply(session).model_dump(mode="json")})
            )
            self._told.set()
            await to_thread.run_sync(partial(session.watch, viewer), limiter=state.play)
            async with create_task_group() as group:

                async def until_one_ends(serve: Callable[[], Awaitable[None]]) -> None:
                    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it has gone
                        await serve()
                    group.cancel_scope.cancel()

                for serve in (self._send, self._receive, partial(self._obey, session)):
                    group.start_soon(until_one_ends, serve)
        except (NotFoundError, GRPOError) as error:
            await self._close(_GONE, str(error)[:120])
        finally:
            state.play_viewers -= 1
            # not awaited under a cancelled task: the thread does it whatever becomes of this one
            self._loop.run_in_executor(None, session.leave, viewer)

    # --- to the viewer --------------------------------------------------------------------

    def _hear(self, header: dict[str, Any], message: bytes) -> None:
        """Called from the session's thread."""
        try:
            self._loop.call_soon_threadsafe(self._take, header, message)
        except RuntimeError:  # the loop has ended, and with it this connection
            return

    def _take(self, header: dict[str, Any], message: bytes) -> None:
        if header["type"] == "frame":
            self._frames[header["lane"]] = message
            if header["lanes"] == 1:
                self._frames.pop(1, None)
        else:
            self._texts.append(json.dumps(header))
        self._told.set()

    async def _send(self) -> None:
        while True:
            await self._told.wait()
            self._told.clear()
            while self._texts:
                text = self._texts.popleft()
                await self._socket.send_text(text)
                if text.startswith('{"type": "end"'):
                    await self._close(_GONE, json.loads(text)["reason"][:120])
                    return
            frames, self._frames = self._frames, {}
            for lane in sorted(frames):
                await self._socket.send_bytes(frames[lane])

    async def _close(self, code: int, reason: str) -> None:
        try:
            await self._socket.close(code, reason)
        except RuntimeError:  # it is closed already
            return

    # --- from the viewer ------------------------------------------------------------------

    async def _receive(self) -> None:
        while True:
            try:
                text = await self._socket.receive_text()
            except KeyError:  # a binary message
                await self._close(_NOT_TEXT, "Commands are JSON in text messages.")
                return
            if len(text) > _MOST_CHARACTERS:
                await self._close(_TOO_LONG, "A command may have 65536 characters.")
                return
            try:
                body = CommandBody.__pydantic_validator__.validate_json(text)
            except ValidationError as error:
                finding = error.errors(include_url=False, include_input=False)[0]
                place = ".".join(map(str, finding["loc"]))
                self._say(f"{place}: {finding['msg']}." if place else f"{finding['msg']}.")
                continue
            self._queue({"command": body.command, **body.arguments})

    def _queue(self, command: dict[str, Any]) -> None:
        if command["command"] == "reset":
            lasting = [each for each in self._waiting if each["command"] in _LASTING]
            newest = {each["command"]: place for place, each in enumerate(lasting)}
            self._waiting = deque(lasting[place] for place in sorted(newest.values()))
        last = self._waiting[-1] if self._waiting else None
        if last is not None and last["command"] == command["command"] in _REPLACED:
            self._waiting[-1] = command
        elif len(self._waiting) < MOST_WAITING:
            self._waiting.append(command)
        elif command["command"] in _LASTING:
            alike = [each for each in self._waiting if each["command"] == command["command"]]
            moves = [each for each in self._waiting if each["command"] not in _LASTING]
            self._waiting.remove((alike or moves[::-1] or self._waiting)[0])
            self._waiting.append(command)
        self._ordered.set()

    async def _obey(self, session: PlaySession) -> None:
        while True:
            await self._ordered.wait()
            self._ordered.clear()
            while self._waiting:
                command = self._waiting.popleft()
                try:
                    await to_thread.run_sync(
                        session.do, command, limiter=self._socket.app.state.play
                    )
                except (GRPOError, PlatformError) as error:
                    self._say(str(error), command["command"])

    def _say(self, detail: str, command: str | None = None) -> None:
        self._texts.append(json.dumps({"type": "error", "command": command, "detail": detail}))
        self._told.set()
