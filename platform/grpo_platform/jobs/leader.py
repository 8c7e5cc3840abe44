"""Leads parents of jobs, one server each: takes over from a lost one, and sees to the end.

Nothing is remembered here that the store does not hold. Two servers may lead one parent for a
moment; the claim of each job's number makes that harmless.
"""

import abc
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

from grpo_platform.core.errors import (
    ConflictError,
    NotFoundError,
    PlatformError,
    QueueFullError,
    StoreUnavailableError,
    UnknownJobError,
)
from grpo_platform.core.process import liveness, worker_name
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.recovery import Observer
from grpo_platform.jobs.runner import Runner
from grpo_platform.tracking.group_records import GroupMember, GroupRecord
from grpo_platform.tracking.job_groups import JobGroupStore

__all__ = ["Leader"]

_log = logging.getLogger(__name__)

_BUSY_SECONDS: Final = 0.5
_IDLE_SECONDS: Final = 2.0
_BEAT_SECONDS: Final = 3.0
_LONGEST_PAUSE_SECONDS: Final = 2.0
_SHARE: Final = 2


class _Ending:
    """The end of a parent, seen to by a thread of its own."""

    def __init__(self, work: Callable[[], None], turn: threading.Lock) -> None:
        self._work = work
        self._turn = turn
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, name="ending", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with self._turn:  # they play episodes: one at a time
            try:
                self._work()
            except Exception as error:  # noqa: BLE001 - raised where the parent is led
                self.error = error


_G = TypeVar("_G", bound=GroupRecord)
_M = TypeVar("_M", bound=GroupMember)


class Leader(abc.ABC, Generic[_G, _M]):
    """The parents of one kind that one server leads. `stop` and `resume` are for any thread.

    Args:
        groups: in MLflow.
        runner: takes their jobs.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        groups: JobGroupStore[_G, _M],
        runner: Runner,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._groups = groups
        self._runner = runner
        self._clock = clock
        self._owner = worker_name(os.getpid())
        self._observer = Observer(liveness, groups.takes_beats, clock)
        self._own_beats: dict[str, float] = {}
        self._endings: dict[str, _Ending] = {}
        self._ending_turn = threading.Lock()
        self._closing = False
        self._wake = threading.Event()
        name = f"{groups.noun.lower()}s"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abc.abstractmethod
    def _advance(self, group: _G) -> None:
        """Do what is due for a parent that this server leads."""

    def start(self) -> None:
        """Start this object's thread."""
        self._thread.start()

    def shutdown(self, timeout_seconds: float = 10.0) -> None:
        """Lead no more; the next start goes on."""
        self._closing = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def stop(self, group_id: str) -> None:
        """Stop a parent and its running jobs; it can be resumed.

        Raises:
            NotFoundError: no such parent.
            ConflictError: it is finished.
        """
        group = self._groups.request_stop(group_id)
        self._stop_members(self._groups.members(group))
        self._wake.set()

    def look(self) -> bool:
        """Do what is due for each parent; returns whether there is one. The thread calls this."""
        try:
            return self._step()
        except StoreUnavailableError as error:
            _log.warning("%ss wait for the store: %s", self._groups.noun, error)
            self._observer.store_was_away()
        except Exception:  # noqa: BLE001 - the others must go on being led
            _log.exception("The %s runner goes on after an error.", self._groups.noun.lower())
        return False

    def _run(self) -> None:
        while not self._closing:
            began = self._clock()
            pause = _BUSY_SECONDS if self.look() else _IDLE_SECONDS
            # where there is much to look at, others need the processor more
            took = self._clock() - began
            self._wake.wait(max(pause, min(_LONGEST_PAUSE_SECONDS, _SHARE * took)))
            self._wake.clear()

    def _step(self) -> bool:
        every = self._groups.unfinished()
        unfinished = [group for group in every if self._groups.may_lead(group)]
        self._forget_others(unfinished)
        others = [g for g in unfinished if g.owner not in (None, self._owner)]
        lost = {group.group_id for group in self._observer.lost(others)}
        for group in unfinished:
            if self._closing:
                break
            try:
                if self._lead(group, lost) and not self._is_ending(group):
                    self._advance(group)
            except StoreUnavailableError:
                raise
            except (ConflictError, QueueFullError, NotFoundError) as error:
                _log.info("%s %s waits: %s", self._groups.noun, group.group_id, error)
            except Exception as error:  # noqa: BLE001 - the others must be led
                _log.exception("%s %s cannot go on.", self._groups.noun, group.group_id)
                self._give_up(group, error)
        orphans, ended = self._groups.strays({group.group_id for group in every})
        for job_id in orphans:
            self._stop_job(job_id)
        for group in ended:
            self._outlived(group)
        return bool(unfinished)

    def _outlived(self, group: _G) -> None:
        """See to a parent that ended and one of whose jobs goes on; by default nothing."""

    def _forget_others(self, unfinished: list[_G]) -> None:
        """Keep of what was remembered only what is about these parents."""
        own = {group.group_id for group in unfinished}
        self._own_beats = {i: at for i, at in self._own_beats.items() if i in own}
        self._endings = {i: ending for i, ending in self._endings.items() if i in own}

    def _lead(self, group: _G, lost: set[str]) -> bool:
        """Whether this server leads the parent; takes over from one that is lost."""
        if group.owner not in (None, self._owner) and group.group_id not in lost:
            return False
        if group.owner != self._owner or group.status is JobStatus.QUEUED:
            self._groups.start(group.group_id, self._owner)
            return True
        now = self._clock()
        if now - self._own_beats.get(group.group_id, -_BEAT_SECONDS) >= _BEAT_SECONDS:
            self._own_beats[group.group_id] = now
            self._groups.beat(group.group_id)
        return True

    def _end(self, group: _G, complete: Callable[[], None]) -> None:
        """See to the end of a parent, which plays episodes for minutes, beside leading the others.

        Args:
            group: whose jobs have all ended.
            complete: makes it terminal; it is called again where a server died in it.
        """

        def work() -> None:
            try:
                complete()
            finally:
                self._wake.set()

        self._endings[group.group_id] = _Ending(work, self._ending_turn)

    def _is_ending(self, group: _G) -> bool:
        """Whether the end of a parent is being seen to; raises what that raised."""
        ending = self._endings.get(group.group_id)
        if ending is None:
            return False
        if not ending.thread.is_alive():
            del self._endings[group.group_id]
            if ending.error is not None:
                raise ending.error
        return True  # also where it is done: the next look sees that

    def _give_up(self, group: _G, error: Exception) -> None:
        """End a parent that would fail again at each look; it can be resumed."""
        with contextlib.suppress(PlatformError):
            self._stop_members(self._groups.members(group))
        with contextlib.suppress(PlatformError):
            said = f"The {self._groups.noun.lower()} cannot go on ({type(error).__name__}: "
            said += f"{str(error)[:500]}). The server's log says more; resume it once that is "
            said += "mended."
            self._groups.finish(group.group_id, JobStatus.FAILED, said)

    def _publish_drafts(self, members: Iterable[_M]) -> bool:
        """Complete jobs that a server could not; whether there was one."""
        published = False
        for member in members:
            if member.job is None and (job := self._groups.publish(member.job_id)) is not None:
                self._runner.enqueue(job)
                published = True
        return published

    def _stopped(self, group: _G, members: list[_M]) -> bool:
        """See to a parent that is to stop; whether it is."""
        if not group.stop_requested:
            return False
        self._stop_members(members)
        if all(member.ended for member in members):
            self._groups.finish(group.group_id, JobStatus.STOPPED)
        return True

    def _fail(self, group: _G, members: list[_M], said: str) -> None:
        self._stop_members(members)
        self._groups.finish(group.group_id, JobStatus.FAILED, said)

    def _stop_members(self, members: Iterable[_M]) -> None:
        for member in members:
            if not member.ended:
                self._stop_job(member.job_id)

    def _stop_job(self, job_id: str) -> None:
        # it may end, or be deleted, in this moment
        with contextlib.suppress(ConflictError, UnknownJobError):
            self._runner.stop(job_id)
