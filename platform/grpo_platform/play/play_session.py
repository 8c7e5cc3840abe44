"""One session, as the server sees it: its process, who watches it, and how it ended."""

import contextlib
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from grpo.errors import EnvironmentFaultError, GRPOError
from grpo_platform.core.errors import ConflictError, NotFoundError, PlatformError
from grpo_platform.jobs.fork_server import ForkServer
from grpo_platform.play.helper import Helper, Message

__all__ = ["PlaySession", "SessionSource", "handing_over"]

Viewer = Callable[[Message, bytes], None]


@contextlib.contextmanager
def handing_over() -> Iterator[Path]:
    """A folder for files between the server and a session's process.

    Whoever fills it removes it, so that nothing is written into what another has just removed.
    """
    with TemporaryDirectory(prefix="grpo-play-") as folder:
        yield Path(folder)


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
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._viewers: set[Viewer] = set()
        self._was_watched = False
        self._latest: dict[object, tuple[Message, bytes]] = {}
        self._closed = threading.Event()

    @property
    def described(self) -> Message:
        """What `Session.describe` said."""
        return {} if self._helper is None else self._helper.described

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    @property
    def is_left(self) -> bool:
        """Whether nobody watches what is there to be watched."""
        return (self.shared or self._was_watched) and not self._viewers

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
        self.used_at = math.inf  # until it is answered, however long that takes
        try:
            return self.tell(command, timeout_seconds)
        finally:
            self.used_at = time.monotonic()

    def film(self, steps: int, kind: str) -> bytes:
        """Play on, and give what is seen as an animated image.

        Args:
            steps: at most.
            kind: `webp` or `gif`.

        Raises:
            IncompatibleError: the environment cannot be drawn here.
        """
        with handing_over() as folder:
            path = folder / "film"
            self.do({"command": "film", "steps": steps, "kind": kind.upper(), "path": str(path)})
            return path.read_bytes()

    def add_policy(self, name: str, files: Mapping[str, bytes] | Path) -> None:
        """Give its process a policy: a version's files, or a checkpoint; raises as `tell`."""
        command = {"command": "policy", "name": name}
        if isinstance(files, Path):
            self.tell({**command, "path": str(files)})
            return
        with handing_over() as folder:
            for file, content in files.items():
                (folder / file).write_bytes(content)
            self.tell({**command, "path": str(folder)})

    def tell(self, command: Message, timeout_seconds: float = 60.0) -> Message:
        """As `do`, for the server itself."""
        if self._helper is None or self.is_closed:
            raise NotFoundError(self.reason or "The session has ended.")
        try:
            return self._helper.ask(command, timeout_seconds)
        except EnvironmentFaultError:
            if self.is_closed:  # meanwhile, and known why
                raise NotFoundError(self.reason) from None
            raise

    def expect(self, seconds: float) -> None:
        """Count as used for so long: a viewer comes."""
        self.used_at = time.monotonic() + seconds

    def watch(self, viewer: Viewer) -> None:
        """Call a function with each frame, and with what changes, from now on.

        Raises:
            NotFoundError: it has ended.
        """
        with self._lock:
            if self.is_closed:
                raise NotFoundError(self.reason or "The session has ended.")
            self._viewers.add(viewer)
            self._was_watched = True
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

    def _count_viewers(self) -> None:
        with self._counting:  # whoever tells last tells how many there are
            self.tell({"command": "viewers", "viewers": self.viewers})

    def _on_frame(self, header: Message, message: bytes) -> None:
        with self._lock:
            self._latest[header["type"], header.get("lane")] = header, message
            if header.get("lanes") == 1:
                self._latest.pop(("frame", 1), None)
            viewers = list(self._viewers)
        for viewer in viewers:
            viewer(header, message)
