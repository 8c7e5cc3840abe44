"""Calls about policies at play."""

from typing import Final, Literal

from grpo_platform.client.operations import Calls, Operation, part
from grpo_platform.client.replies import EndedSession, Explanation, KeptState, Obeyed, Session

__all__ = ["PlayCalls"]

_OPENING_SECONDS: Final = 180.0
_EXPLAINING_SECONDS: Final = 90.0


class PlayCalls(Calls):
    """Play a model or a job's checkpoints, steer, wind back, and ask why."""

    @Operation
    async def play(
        self,
        model: str | None = None,
        *,
        job_id: str | None = None,
        seed: int = 0,
        deterministic: bool = True,
    ) -> Session:
        """Open a session.

        Args:
            model: `name`, `name/version` or `name@alias`.
            job_id: of a job, instead of a model.
            seed: of the first episode.
            deterministic: take the most probable action; else sample.

        Returns:
            What is played, and its `session_id`.

        Raises:
            ApiError: it cannot be played, or as many are at play as may be.
        """
        body = {"model": model, "job_id": job_id, "seed": seed, "deterministic": deterministic}
        return await self._transport.call(
            Session, "POST", "/play", json=body, timeout_seconds=_OPENING_SECONDS
        )

    @Operation
    async def play_session(self, session_id: str) -> Session:
        """What is played, and what can be done with it."""
        return await self._transport.call(Session, "GET", f"/play/{part(session_id)}")

    @Operation
    async def end_play(self, session_id: str) -> EndedSession:
        """End a session, and its process."""
        return await self._transport.call(EndedSession, "DELETE", f"/play/{part(session_id)}")

    @Operation
    async def steer(self, session_id: str, /, command: str, **arguments: object) -> Obeyed:
        """One command, such as `step`, `seek` or `act`.

        Args:
            session_id: of the session.
            command: what is done.
            **arguments: what it takes.

        Returns:
            `step`, and the `frame` with all numbers.

        Raises:
            ApiError: it cannot be done.
        """
        path = f"/play/{part(session_id)}/commands"
        return await self._transport.call(
            Obeyed, "POST", path, json={"command": command, **arguments}
        )

    @Operation
    async def explain(
        self,
        session_id: str,
        *,
        continuations: int = 64,
        horizon: int = 1000,
        seconds: float = 20.0,
    ) -> Explanation:
        """What every action leads to from the present state, and what in the observation counts.

        Args:
            session_id: of the session.
            continuations: after each action.
            horizon: steps after which one is cut.
            seconds: after which no further lot of continuations begins.

        Raises:
            ApiError: the environment cannot be branched exactly, or the actions not be compared.
        """
        body = {"continuations": continuations, "horizon": horizon, "seconds": seconds}
        path = f"/play/{part(session_id)}/explain"
        limit = seconds + _EXPLAINING_SECONDS
        return await self._transport.call(
            Explanation, "POST", path, json=body, timeout_seconds=limit
        )

    @Operation
    async def keep_state(
        self, session_id: str, scenario: str, assertions: list[str] | None = None
    ) -> KeptState:
        """Let the model be tested from the present state on.

        Args:
            session_id: of the session.
            scenario: that gets the start state; made where there is none.
            assertions: what must hold, where the scenario is made.

        Raises:
            ApiError: what comes out is no suite.
        """
        body = {"scenario": scenario, "assertions": assertions}
        return await self._transport.call(
            KeptState, "POST", f"/play/{part(session_id)}/scenario", json=body
        )

    @Operation
    async def play_film(
        self, session_id: str, *, steps: int = 200, format: Literal["webp", "gif"] = "webp"
    ) -> bytes:
        """Play on, and give what is seen as an animated image.

        Args:
            session_id: of the session.
            steps: at most; the film ends with the episode.
            format: of the image.

        Raises:
            ApiError: the environment cannot be drawn where the server runs.
        """
        body = {"steps": steps, "format": format}
        return await self._transport.content("POST", f"/play/{part(session_id)}/film", json=body)
