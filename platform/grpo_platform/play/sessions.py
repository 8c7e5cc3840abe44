"""All sessions of a server: who may open one, who watches it, and when it ends."""

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from grpo.errors import GRPOError
from grpo_platform.core.errors import (
    ConflictError,
    NotFoundError,
    PlatformError,
    TooManySessionsError,
)
from grpo_platform.core.settings import Settings
from grpo_platform.jobs.fork_server import ForkServer
from grpo_platform.play.feed import CheckpointWishes, Feed
from grpo_platform.play.helper import Helper, Message
from grpo_platform.registry.models import Registry
from grpo_platform.tracking.jobs import JobStore

__all__ = ["PlaySession", "PlaySessions", "SessionSource"]

_log = logging.getLogger(__name__)

_MODULE: Final = "grpo_platform.play.process"
_REAP_SECONDS: Final = 0.5
_UNWATCHED_SECONDS: Final = 3.0
"""How long a stream that viewers share stays without any: a page that is loaded again."""

_REST_SECONDS: Final = 60.0
"""After the last session, the process that they were forked from is let go."""

Viewer = Callable[[Message, bytes], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionSource:
    """What is played."""

    env_name: str
    env_kwargs: dict[str, Any]
    model: str | None = None
    """`name/version`, of a version."""

    job_id: str | None = None
    """Of a job, whose newest checkpoint is played."""


class PlaySession:
    """One session, as the server sees it. Safe to call from several threads.

    Attributes:
        id: nobody can guess it.
        source: what is played.
        shared: viewers share it, and nobody steers.
        client: who opened it.
        reason: why it has ended; empty while it has not.
    """

    def __init__(self, source: SessionSource, client: str, *, shared: bool) -> None:
        self.id = secrets.token_hex(16)
        self.source = source
        self.shared = shared
        self.client = client
        self.reason = ""
        self.used_at = time.monotonic()
        self.opened = threading.Event()
        self.failure: BaseException | None = None
        self._helper: Helper | None = None
        self._folder = TemporaryDirectory(prefix="grpo-play-")
        self._lock = threading.Lock()
        self._viewers: set[Viewer] = set()
        self._latest: dict[object, tuple[Message, bytes]] = {}
        self._closed = threading.Event()

    @property
    def folder(self) -> Path:
        """For files that its process reads; deleted when it ends."""
        return Path(self._folder.name)

    @property
    def described(self) -> Message:
        """What `Session.describe` said."""
        return {} if self._helper is None else self._helper.described

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._closed.is_set()

    def wait_closed(self, seconds: float) -> bool:
        """Wait for its end; whether it has come."""
        return self._closed.wait(seconds)

    def open(self, forks: ForkServer, seed: int, deterministic: bool) -> None:
        """Start its process; raises as `Helper`."""
        question = {
            "env_name": self.source.env_name,
            "env_kwargs": self.source.env_kwargs,
            "seed": seed,
            "deterministic": deterministic,
            "endless": self.shared,
        }
        helper = Helper(forks, question, self._on_frame, self.close)
        with self._lock:
            self._helper = helper
            is_late = self.is_closed
        if is_late:
            helper.close()

    def do(self, command: Message, timeout_seconds: float = 60.0) -> Message:
        """Let its process obey; raises as `Helper.ask`.

        Raises:
            ConflictError: viewers share this one.
            NotFoundError: it has ended.
        """
        if self.shared:
            raise ConflictError(
                "All viewers of this job share this stream; open a session of your own, without "
                "`watch`, to steer."
            )
        self.used_at = time.monotonic()
        found = self.tell(command, timeout_seconds)
        self.used_at = time.monotonic()
        return found

    def film(self, steps: int, kind: str) -> bytes:
        """Play on, and give what is seen as an animated image.

        Args:
            steps: at most.
            kind: `webp` or `gif`.

        Raises:
            IncompatibleError: the environment cannot be drawn here.
        """
        with TemporaryDirectory(dir=self.folder) as folder:
            path = Path(folder) / "film"
            self.do({"command": "film", "steps": steps, "kind": kind.upper(), "path": str(path)})
            return path.read_bytes()

    def tell(self, command: Message, timeout_seconds: float = 60.0) -> Message:
        """As `do`, for the server itself."""
        if self._helper is None or self.is_closed:
            raise NotFoundError(self.reason or "The session has ended.")
        return self._helper.ask(command, timeout_seconds)

    def watch(self, viewer: Viewer) -> None:
        """Call a function with each frame, and with what changes, from now on.

        Raises:
            NotFoundError: it has ended.
        """
        with self._lock:
            if self.is_closed:
                raise NotFoundError(self.reason or "The session has ended.")
            self._viewers.add(viewer)
            latest = list(self._latest.values())
        self.used_at = time.monotonic()
        for header, message in latest:
            viewer(header, message)
        self._count_viewers()

    def leave(self, viewer: Viewer) -> None:
        """Call it no more."""
        with self._lock:
            self._viewers.discard(viewer)
        self.used_at = time.monotonic()
        with contextlib.suppress(GRPOError, PlatformError):
            self._count_viewers()

    def publish(self, header: Message) -> None:
        """Tell viewers what is no frame."""
        self._on_frame(header, b"")

    def close(self, reason: str = "The session has ended.") -> None:
        """End it; whoever watches is told why."""
        with self._lock:
            if self.is_closed:
                return
            self.reason = reason
            self._closed.set()
            helper, viewers = self._helper, list(self._viewers)
        if helper is not None:
            helper.close()
        for viewer in viewers:
            viewer({"type": "end", "reason": reason}, b"")
        self._folder.cleanup()

    def _count_viewers(self) -> None:
        self.tell({"command": "viewers", "viewers": self.viewers})

    def _on_frame(self, header: Message, message: bytes) -> None:
        with self._lock:
            self._latest[header["type"], header.get("lane")] = header, message
            if header.get("lanes") == 1:
                self._latest.pop(("frame", 1), None)
            viewers = list(self._viewers)
        for viewer in viewers:
            viewer(header, message)


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
            self._hand_over(session, f"version {ref.version}", files)
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
        feed = Feed(session, self._jobs, self._registry, self._hand_over, self._wishes)
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
        return session

    def _hand_over(self, session: PlaySession, name: str, files: dict[str, bytes] | Path) -> None:
        """Give a session a policy: a version's files, or a checkpoint."""
        with TemporaryDirectory(dir=session.folder) as folder:
            path = Path(folder)
            if isinstance(files, Path):
                path = files
            else:
                for file, content in files.items():
                    (path / file).write_bytes(content)
            session.tell({"command": "policy", "name": name, "path": str(path)})

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
                elif session.shared and not session.viewers and unused > _UNWATCHED_SECONDS:
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
