"""All sessions of a server: who may open one, and when it ends."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from grpo_platform.core.errors import NotFoundError, TooManySessionsError
from grpo_platform.core.settings import Settings
from grpo_platform.jobs.fork_server import ForkServer
from grpo_platform.play.feed import CheckpointWishes, Feed
from grpo_platform.play.play_session import PlaySession, SessionSource
from grpo_platform.registry.models import Registry
from grpo_platform.tracking.jobs import JobStore

__all__ = ["PlaySessions"]


_MODULE: Final = "grpo_platform.play.process"
_REAP_SECONDS: Final = 0.5
_UNWATCHED_SECONDS: Final = 3.0
"""How long a stream that viewers share stays without any: a page that is loaded again."""

_LEFT_SECONDS: Final = 30.0
"""How long one of a viewer's own stays once its last one has left: a browser that was closed."""

_ARRIVAL_SECONDS: Final = 30.0
"""How long it waits for who asked for it: they have the answer, and connect next."""

_REST_SECONDS: Final = 60.0
"""After the last session, the process that they were forked from is let go."""


class PlaySessions:
    """Opens, finds and ends sessions. Safe to call from several threads.

    Args:
        jobs: has the jobs that are watched.
        registry: has the versions that are played.
        settings: say how many there may be.
        closing: set when the server begins to shut down: sessions end, and who waits for one is
            answered.
    """

    def __init__(
        self, jobs: JobStore, registry: Registry, settings: Settings, closing: threading.Event
    ) -> None:
        self._jobs = jobs
        self._registry = registry
        self._settings = settings
        self._forks = ForkServer(_MODULE)
        self._lock = threading.Lock()
        self._sessions: dict[str, PlaySession] = {}
        self._reaper: threading.Thread | None = None
        self._closing = closing
        self._wishes = CheckpointWishes(jobs, settings.viewer_checkpoint_seconds)

    def __len__(self) -> int:
        return len(self._sessions)

    def open_model(
        self, reference: str, *, client: str, seed: int = 0, deterministic: bool = True
    ) -> PlaySession:
        """Play a version.

        Args:
            reference: `name`, `name/version` or `name@alias`.
            client: who asks.
            seed: of the first episode.
            deterministic: whether the policy takes its most probable action.

        Raises:
            UnknownModelError: no such version.
            UnsafeModelError: its files are not what was registered.
            TooManySessionsError: there are as many as may be.
            grpo.GRPOError: the environment cannot be played.
        """
        ref = self._registry.resolve(reference)
        environment = self._registry.environment_of(ref.name)
        if environment is None:
            raise NotFoundError(f"The environment of model {ref.name!r} is not known.")
        source = SessionSource(
            env_name=environment.env_name,
            env_kwargs=dict(environment.env_kwargs),
            model=f"{ref.name}/{ref.version}",
        )
        session, _ = self._admit(source, client)
        with self._opening(session):
            files = self._registry.read(ref)._asdict()
            session.open(self._forks, seed, deterministic)
            session.add_policy(f"version {ref.version}", files)
        return session

    def open_job(
        self,
        job_id: str,
        *,
        client: str,
        watch: bool = False,
        seed: int = 0,
        deterministic: bool = True,
    ) -> PlaySession:
        """Play the newest checkpoint of a job, and each that it makes while it is played.

        Args:
            job_id: the job.
            client: who asks.
            watch: take the stream that all viewers of the job share.
            seed: of the first episode.
            deterministic: whether the policy takes its most probable action.

        Raises:
            UnknownJobError: no such job.
            TooManySessionsError: there are as many as may be.
            grpo.GRPOError: the environment cannot be played.
        """
        job = self._jobs.get(job_id)
        config = job.request.config
        source = SessionSource(
            env_name=config.env_name, env_kwargs=dict(config.env_kwargs), job_id=job_id
        )
        session, is_new = self._admit(source, client, shared=watch)
        if not is_new:
            return self._join(session)
        with self._opening(session):
            session.open(self._forks, seed, deterministic)
            if watch:
                session.tell({"command": "play", "speed": 1.0})
                session.expect(_ARRIVAL_SECONDS)
        feed = Feed(session, self._jobs, self._registry, self._wishes)
        threading.Thread(target=feed.run, name="play-feed", daemon=True).start()
        return session

    def get(self, session_id: str) -> PlaySession:
        """A session.

        Raises:
            NotFoundError: there is none, or it has ended.
        """
        session = self._sessions.get(session_id)
        if session is None:
            raise NotFoundError(
                f"No session {session_id[:64]!r} is at play: it has ended, or never was. Open "
                "another one."
            )
        return session

    def list(self) -> list[PlaySession]:
        """All sessions, the oldest first."""
        return list(self._sessions.values())

    def close(self, session_id: str) -> None:
        """End a session; raises as `get`."""
        self._end(self.get(session_id), "The session was ended.")

    def shutdown(self) -> None:
        """End all of them, and what they were forked from."""
        for session in list(self._sessions.values()):
            self._end(session, "The server ends.")
        self._forks.close()

    # --- admission ------------------------------------------------------------------------

    def _admit(
        self, source: SessionSource, client: str, *, shared: bool = False
    ) -> tuple[PlaySession, bool]:
        """A place for a session; or the one that viewers of the job share, which is not new."""
        with self._lock:
            for session in self._sessions.values():
                if shared and session.shared and session.source.job_id == source.job_id:
                    return session, False
            mine = [each for each in self._sessions.values() if each.client == client]
            if len(self._sessions) >= self._settings.max_play_sessions:
                limit = self._settings.max_play_sessions
                raise TooManySessionsError(limit, "GRPO_MAX_PLAY_SESSIONS")
            if not shared and len(mine) >= self._settings.max_play_sessions_per_client:
                limit = self._settings.max_play_sessions_per_client
                raise TooManySessionsError(limit, "GRPO_MAX_PLAY_SESSIONS_PER_CLIENT")
            session = PlaySession(source, "" if shared else client, shared=shared)
            self._sessions[session.id] = session
            if self._reaper is None:
                self._reaper = threading.Thread(target=self._reap, name="play-reaper", daemon=True)
                self._reaper.start()
            return session, True

    @contextlib.contextmanager
    def _opening(self, session: PlaySession) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            session.failure = error
            self._end(session, str(error) or "The session could not be opened.")
            raise
        finally:
            session.opened.set()

    def _join(self, session: PlaySession) -> PlaySession:
        session.opened.wait()
        if session.failure is not None:
            raise session.failure
        session.expect(_ARRIVAL_SECONDS)
        return session

    def _end(self, session: PlaySession, reason: str) -> None:
        with self._lock:
            self._sessions.pop(session.id, None)
        session.close(reason)

    def _reap(self) -> None:
        """End what nobody uses."""
        idle_since = time.monotonic()
        while True:
            if self._closing.wait(_REAP_SECONDS):
                self.shutdown()
                return
            now = time.monotonic()
            for session in list(self._sessions.values()):
                unused = now - session.used_at
                if not session.opened.is_set():
                    continue
                if session.is_closed:
                    self._end(session, session.reason)
                elif session.is_left and unused > (
                    _UNWATCHED_SECONDS if session.shared else _LEFT_SECONDS
                ):
                    self._end(session, "Nobody watches any more.")
                elif not session.shared and unused > self._settings.play_idle_seconds:
                    seconds = self._settings.play_idle_seconds
                    self._end(
                        session,
                        f"It was not used for {seconds:g} s (GRPO_PLAY_IDLE_SECONDS); open "
                        "another one.",
                    )
            with self._lock:
                if self._sessions:
                    idle_since = now
                elif now - idle_since > _REST_SECONDS:
                    self._forks.rest()
                    self._reaper = None
                    return
