"""Answers of slow trials, kept on disk while the code that they are about stays the same."""

import contextlib
import functools
import hashlib
import json
import logging
import os
import platform
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from grpo.actions import choices
from grpo.envs.branching import (
    AttributeState,
    Brancher,
    DeepCopy,
    MujocoState,
    NoBranching,
    Replay,
)
from grpo.envs.classic_control import ClassicControlVecEnv
from grpo.envs.spec import EnvironmentSpec
from grpo.envs.sync_vec_env import SyncVecEnv
from grpo.envs.vec_env import StepResult, VecEnv
from grpo.errors import EnvironmentFaultError, GRPOError

__all__ = [
    "TRIAL_SECONDS",
    "BranchingPlan",
    "find_branching",
    "find_branching_between",
    "remembered",
    "resets_afresh",
    "step_seconds",
    "steps_exactly",
]

_log = logging.getLogger(__name__)

_WORTH_KEEPING_SECONDS = 1.0
_FORMAT = 1

T = TypeVar("T")


def remembered(spec: EnvironmentSpec, question: str, find: Callable[[], T]) -> T:
    """The answer of an earlier process to the same question about the same code, else `find()`.

    Kept below the user's cache directory, and only if finding it took long and the environment is
    registered by the name of its code: of a function that was handed over nobody knows the version.

    Args:
        spec: what it is about.
        question: its name.
        find: gives the answer, JSON values.
    """
    path = _path(spec, question)
    if path is not None:
        with contextlib.suppress(OSError, ValueError):
            kept: T = json.loads(path.read_bytes())
            _log.info("What trials of %s showed is known from an earlier run.", spec.env_name)
            return kept
    start = time.monotonic()
    answer = find()
    seconds = time.monotonic() - start
    if seconds >= _WORTH_KEEPING_SECONDS:
        _log.info("Trials of %s took %.1f s.", spec.env_name, seconds)
        if path is not None:
            with contextlib.suppress(OSError):
                _write(path, json.dumps(answer))
    return answer


def _path(spec: EnvironmentSpec, question: str) -> Path | None:
    registered = spec.source
    if not isinstance(registered, EnvSpec) or not isinstance(registered.entry_point, str):
        return None
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        key = json.dumps([
            *(_FORMAT, question, registered.entry_point, str(registered.additional_wrappers)),
            *(registered.kwargs, spec.to_dict(), platform.python_version()),
            # changes whenever anything is installed or removed, engines for example
            os.stat(sysconfig.get_path("purelib")).st_mtime_ns,
            _files_of(registered.entry_point.partition(":")[0]),
        ])  # fmt: skip
    except (LookupError, OSError, RuntimeError, TypeError, ValueError):
        return None
    return home / "grpo-trials" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _files_of(module: str) -> list[tuple[str, int, int]]:
    """Name, size and time of each source file of the package that a module belongs to."""
    package: Any = sys.modules.get(module.partition(".")[0])
    name = getattr(package, "__file__", None) or sys.modules[module].__file__
    if name is None:
        raise ValueError(f"{module} has no file")
    file = Path(name)
    files = file.parent.rglob("*.py") if file.name == "__init__.py" else [file]
    stats = [(str(path), path.stat()) for path in sorted(files)]
    return [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(text.encode())
    os.replace(file.name, path)


TRIAL_SECONDS = 10.0
"""Time after which no further trial of an environment begins."""

_log = logging.getLogger(__name__)

_PREFIXES = (7, 0, 1, 30)  # steps before the snapshot of a trial; the most telling first
_TAIL = 20  # steps compared after it
_STEP_SECONDS = 0.5  # in which a step's time is taken
_LONGEST_REASON = 200
_FIRST, _SECOND, _THIRD = np.array([0]), np.array([1]), np.array([2])

_CANDIDATES: dict[str, tuple[type[Brancher], ...]] = {
    "mujoco": (MujocoState, Replay),
    "box2d": (Replay,),  # a deep copy of a Box2D world may crash the process
}
_OTHER: tuple[type[Brancher], ...] = (AttributeState, DeepCopy, Replay)
_KNOWN: tuple[type[Brancher], ...] = (*_OTHER, MujocoState, NoBranching)
_BRANCHERS = {way.__name__: way for way in _KNOWN}

Actions = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class BranchingPlan:
    """How an environment is put into visited states."""

    brancher: type[Brancher]
    """The way; `NoBranching` if none is exact."""

    reason: str
    """Why this one, in sentences."""


@functools.lru_cache(maxsize=256)
def find_branching(spec: EnvironmentSpec) -> BranchingPlan:
    """The cheapest way of branching that trials show to be exact.

    What took long is remembered on disk for as long as the environment's code stays the same.
    """
    brancher, reason = remembered(spec, "branching", lambda: _find_branching(spec))
    plan = BranchingPlan(brancher=_BRANCHERS.get(brancher, NoBranching), reason=reason)
    if plan.brancher is NoBranching:
        _log.warning("%s is not branched. %s", spec.env_name, reason)
    return plan


@functools.lru_cache(maxsize=256)
def find_branching_between(spec: EnvironmentSpec) -> BranchingPlan:
    """As `find_branching`, for members in several processes, between which no copy travels.

    Where instances are copied in one process, their episodes are played again, if that is exact.
    """
    plan = find_branching(spec)
    if plan.brancher is not DeepCopy:
        return plan
    why = "A copy of an instance cannot be handed to another process."
    failure = why_not_exact(spec, Replay)
    if failure is None:
        return BranchingPlan(brancher=Replay, reason=f"{why} So {Replay.how}.")
    reason = f"{why} So {NoBranching.how}: Replay ({failure.rstrip('.')})."
    return BranchingPlan(brancher=NoBranching, reason=reason)


def _find_branching(spec: EnvironmentSpec) -> tuple[str, str]:
    """Name and reason of the way."""
    _log.info(
        "Trying how %s can be put into visited states, on instances of its own. No trial begins "
        "after %.0f s.",
        *(spec.env_name, TRIAL_SECONDS),
    )
    ways = _CANDIDATES.get(spec.family, _OTHER)
    failures: list[str] = []
    for way in ways:
        failure = why_not_exact(spec, way, TRIAL_SECONDS / len(ways))
        if failure is None:
            cheaper = f" Cheaper ways failed: {'; '.join(failures)}." if failures else ""
            return way.__name__, f"In trials this was exact: {way.how}.{cheaper}"
        failures.append(f"{way.__name__} ({failure.rstrip('.')[:_LONGEST_REASON]})")
    return NoBranching.__name__, (
        f"No way was exact in trials, so {NoBranching.how}: {'; '.join(failures)}."
    )


def why_not_exact(
    spec: EnvironmentSpec, make_brancher: Callable[[], Brancher], seconds: float = TRIAL_SECONDS
) -> str | None:
    """Snapshot, step the original and its restored twins alike, compare every bit.

    Args:
        spec: the environment.
        make_brancher: the way.
        seconds: time after which no further trial begins.

    Returns:
        None if nothing differed and nothing was raised, `close` included; else what did.
    """
    clock = _Clock(seconds)
    try:
        envs = SyncVecEnv(spec, 3, make_brancher(), afresh=resets_afresh(spec))
        try:
            found = None
            for seed, prefix in enumerate(_PREFIXES):
                if found is None and not (seed and clock.is_over()):
                    found = _first_difference(envs, seed, prefix, clock)
        finally:
            errors = envs.shut()
    except GRPOError as error:
        return str(error)
    return found or (str(errors[0]) if errors else None)


@functools.lru_cache(maxsize=256)
def resets_afresh(spec: EnvironmentSpec) -> bool:
    """Whether a used instance, reset with a seed, may go on differently from a new one.

    Box2D's walkers do: their world keeps traces of earlier episodes, which show after a while.
    """
    if spec.family == "box2d":
        return True
    if spec.family != "other" and not spec.deviations:
        return False
    return bool(remembered(spec, "afresh", lambda: _find_afresh(spec)))


def _find_afresh(spec: EnvironmentSpec) -> bool:
    if _resets_repeat(spec, afresh=False):
        return False
    if not _resets_repeat(spec, afresh=True):
        _log.warning("%s differs from one run to the next, with the same seed.", spec.env_name)
    return True


@functools.lru_cache(maxsize=256)
def steps_exactly(spec: EnvironmentSpec, classic: type[ClassicControlVecEnv]) -> bool:
    """Whether a fast path and the Gymnasium that is installed step alike to the last bit."""
    fast, plain = classic(spec, 2), SyncVecEnv(spec, 2, NoBranching())
    try:
        for seed in range(3):
            seeds = [seed, seed + 100]
            both = np.array([0, 1])
            same = _equal(fast.reset(both, seeds), plain.reset(both, seeds))
            actions = _actions(spec, 2 * _TAIL, seed)
            if not same or _walk(fast, _FIRST, actions) != _walk(plain, _FIRST, actions):
                _log.warning(
                    "The fast path of %s is not what the installed Gymnasium does; using the "
                    "latter, step by step.",
                    spec.env_name,
                )
                return False
    finally:
        plain.close()
    return True


class _Clock:
    """Says when a time is over."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def is_over(self) -> bool:
        return time.monotonic() >= self._end


@functools.lru_cache(maxsize=256)
def step_seconds(spec: EnvironmentSpec) -> tuple[float, float]:
    """Seconds that a step takes, and those of them in which it keeps a core busy; kept.

    Of the quickest of some steps: on a busy machine others are interrupted.

    Raises:
        EnvironmentFaultError: the environment raised.
    """
    env, clock, found = SyncVecEnv(spec, 1, NoBranching()), _Clock(_STEP_SECONDS), []
    try:
        env.reset(_FIRST, [0])
        for action in _actions(spec, _TAIL, 0):
            started, busy = time.perf_counter(), time.process_time()
            bits = _walk(env, _FIRST, action[None])
            found.append((time.perf_counter() - started, time.process_time() - busy))
            if _ended(bits) or clock.is_over():
                break
        return min(found)
    finally:
        env.close()


def _resets_repeat(spec: EnvironmentSpec, *, afresh: bool) -> bool:
    """Whether a used instance starts as a new one; also true where a trial failed.

    What an environment raises is told when a run steps it, with the actions of that run.
    """
    clock = _Clock(TRIAL_SECONDS / 4)
    used, new = (SyncVecEnv(spec, 3, NoBranching(), afresh=afresh) for _ in range(2))
    try:
        return all(
            _starts_alike(used, new, seed, clock)
            for seed in range(3)
            if not (seed and clock.is_over())
        )
    except EnvironmentFaultError as error:
        _log.warning("%s failed in a trial: %s", spec.env_name, error)
        return True
    finally:
        used.close()
        new.close()


def _starts_alike(used: SyncVecEnv, new: SyncVecEnv, seed: int, clock: _Clock) -> bool:
    member, spec = np.array([seed]), used.spec
    used.reset(member, [seed + 100])
    _walk(used, member, _actions(spec, 5 * _TAIL, seed + 100), clock)
    first, second = used.reset(member, [seed]), new.reset(member, [seed])
    tail = _actions(spec, _TAIL, seed)
    return _equal(first, second) and _walk(used, member, tail) == _walk(new, member, tail)


def _first_difference(envs: SyncVecEnv, seed: int, prefix: int, clock: _Clock) -> str | None:
    """One trial: None if the twins are equal, or the episode ended before the snapshot."""
    envs.reset(_FIRST, [seed])
    if _ended(_walk(envs, _FIRST, _actions(envs.spec, prefix, seed))):
        return None
    envs.reset(_SECOND, [seed + 100])  # so that the twin has a past that must not matter
    _walk(envs, _SECOND, _actions(envs.spec, 5, seed + 100))
    snapshot = envs.snapshot(0)
    tail = _actions(envs.spec, _TAIL, seed + 200)
    original = _walk(envs, _FIRST, tail)
    twins = {"another instance": _SECOND, "the same instance": _FIRST, "a third instance": _THIRD}
    for name, member in twins.items():
        if member is not _SECOND and clock.is_over():
            break
        observation = envs.restore(member, snapshot)
        if not _equal(observation[0], snapshot["observation"]):
            return f"{name} showed another observation after {prefix} steps"
        if _walk(envs, member, tail) != original:
            return f"{name} went on differently after {prefix} steps"
    return None


def _walk(
    envs: VecEnv, member: npt.NDArray[np.int64], actions: Actions, clock: _Clock | None = None
) -> list[bytes]:
    """Bits of each step of one member, until its episode ends or the time is over."""
    bits: list[bytes] = []
    for action in actions:
        if clock is not None and clock.is_over():
            break
        if isinstance(envs, SyncVecEnv) and envs.spec.masks != "none":
            action = _allowed(envs.spec, action, envs.observation_of(int(member[0])))
        result = envs.step(member, action[None])
        bits.append(_bits(result))
        if result.terminated[0] or result.truncated[0]:
            break
    return bits


def _allowed(
    spec: EnvironmentSpec, action: npt.NDArray[Any], row: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """An action that may be taken after a row, which follows from one that may not."""
    masks = spec.observation.masks(row[None])[0]
    counts = choices(spec.action)
    first = spec.action.to_env(np.zeros((1, len(counts)), np.int64)).reshape(np.shape(action))
    picked, end = [], 0
    for index, n in zip(np.ravel(action - first), counts, strict=True):
        allowed = np.flatnonzero(masks[end : end + n])
        picked.append(allowed[int(index) % len(allowed)])
        end += n
    return np.reshape(picked, np.shape(action)) + first


def _bits(result: StepResult) -> bytes:
    # The flags come last: `_ended` reads them.
    return b"".join(
        part.tobytes()
        for part in (result.observations, result.rewards, result.terminated, result.truncated)
    )


def _ended(bits: list[bytes]) -> bool:
    return bool(bits) and any(bits[-1][-2:])


def _equal(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> bool:
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _actions(spec: EnvironmentSpec, n: int, seed: int) -> Actions:
    return spec.action.random(np.random.default_rng(seed), n)
