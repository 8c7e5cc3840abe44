"""Proof, by trial, that a way of stepping or branching an environment is exactly Gymnasium's own.

Trials run on instances of their own; their steps belong to no training run's budget.
"""

import functools
import logging
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from grpo.envs.branching import (
    AttributeState,
    Brancher,
    DeepCopy,
    MujocoState,
    NoBranching,
    Replay,
)
from grpo.envs.classic_control import ClassicMembers
from grpo.envs.gym_members import GymMembers
from grpo.envs.members import MemberEnvs, StepResult
from grpo.envs.spec import EnvironmentSpec
from grpo.errors import EnvironmentFaultError, GRPOError
from grpo.spaces import DiscreteActions

__all__ = ["find_brancher", "resets_afresh", "steps_exactly", "why_not_exact"]

_log = logging.getLogger(__name__)

_PREFIXES = (0, 1, 7, 30)  # steps before the snapshot of a trial
_TAIL = 20  # steps compared after it
_FIRST, _SECOND = np.array([0]), np.array([1])

_CANDIDATES: dict[str, tuple[Callable[[], Brancher], ...]] = {
    "mujoco": (MujocoState, Replay),
    "box2d": (Replay,),  # a deep copy of a Box2D world may crash the process
}
_OTHER: tuple[Callable[[], Brancher], ...] = (AttributeState, DeepCopy, Replay)

Actions = npt.NDArray[np.int64] | npt.NDArray[np.float64]


@functools.lru_cache(maxsize=256)
def find_brancher(spec: EnvironmentSpec) -> Callable[[], Brancher]:
    """The cheapest way of branching that is proved exact, or `NoBranching`; logged."""
    for candidate in _CANDIDATES.get(spec.family, _OTHER):
        name = getattr(candidate, "__name__", "?")
        reason = why_not_exact(spec, candidate)
        if reason is None:
            _log.info("%s is branched by %s, proved exact.", spec.env_name, name)
            return candidate
        _log.info("%s is not branched by %s: %s", spec.env_name, name, reason)
    _log.warning(
        "No way to put %s into a visited state is exact: every group starts at a seeded reset.",
        spec.env_name,
    )
    return NoBranching


def why_not_exact(spec: EnvironmentSpec, make_brancher: Callable[[], Brancher]) -> str | None:
    """Snapshot, step the original and its restored twins alike, compare every bit.

    Returns:
        None if nothing differed, else what did.
    """
    try:
        instances = len(_PREFIXES) + 2
        envs = GymMembers(spec, instances, make_brancher(), afresh=resets_afresh(spec))
        try:
            differences = (
                _first_difference(envs, seed, prefix) for seed, prefix in enumerate(_PREFIXES)
            )
            return next((found for found in differences if found is not None), None)
        finally:
            envs.close()
    except GRPOError as error:
        return str(error)


@functools.lru_cache(maxsize=256)
def resets_afresh(spec: EnvironmentSpec) -> bool:
    """Whether a used instance, reset with a seed, may go on differently from a new one.

    Box2D's walkers do: their world keeps traces of earlier episodes, which show after a while.
    """
    if spec.family == "box2d":
        return True
    if spec.family != "other" and not spec.deviations:
        return False
    if _resets_repeat(spec, afresh=False):
        return False
    if not _resets_repeat(spec, afresh=True):
        _log.warning("%s differs from one run to the next, with the same seed.", spec.env_name)
    return True


@functools.lru_cache(maxsize=256)
def steps_exactly(spec: EnvironmentSpec, classic: type[ClassicMembers]) -> bool:
    """Whether a fast path and the Gymnasium that is installed step alike to the last bit."""
    fast, plain = classic(spec, 2), GymMembers(spec, 2, NoBranching())
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


def _resets_repeat(spec: EnvironmentSpec, *, afresh: bool) -> bool:
    """Whether a used instance starts as a new one; also true where a trial failed.

    What an environment raises is told when a run steps it, with the actions of that run.
    """
    used, new = (GymMembers(spec, 3, NoBranching(), afresh=afresh) for _ in range(2))
    try:
        return all(_starts_alike(used, new, seed) for seed in range(3))
    except EnvironmentFaultError as error:
        _log.warning("%s failed in a trial: %s", spec.env_name, error)
        return True
    finally:
        used.close()
        new.close()


def _starts_alike(used: GymMembers, new: GymMembers, seed: int) -> bool:
    member, spec = np.array([seed]), used.spec
    used.reset(member, [seed + 100])
    _walk(used, member, _actions(spec, 5 * _TAIL, seed + 100))
    first, second = used.reset(member, [seed]), new.reset(member, [seed])
    tail = _actions(spec, _TAIL, seed)
    return _equal(first, second) and _walk(used, member, tail) == _walk(new, member, tail)


def _first_difference(envs: GymMembers, seed: int, prefix: int) -> str | None:
    """One trial: None if the twins are equal, or the episode ended before the snapshot."""
    envs.reset(_FIRST, [seed])
    if _ended(_walk(envs, _FIRST, _actions(envs.spec, prefix, seed))):
        return None
    envs.reset(_SECOND, [seed + 100])  # so that the twin has a past that must not matter
    _walk(envs, _SECOND, _actions(envs.spec, 5, seed + 100))
    snapshot = envs.snapshot(0)
    tail = _actions(envs.spec, _TAIL, seed + 200)
    original = _walk(envs, _FIRST, tail)
    twins = (
        ("another instance", _SECOND),
        ("the same instance", _FIRST),
        ("a new instance", np.array([2 + seed])),
    )
    for name, member in twins:
        observation = envs.restore(member, snapshot)
        if not _equal(observation[0], snapshot["observation"]):
            return f"{name} showed another observation after {prefix} steps"
        if _walk(envs, member, tail) != original:
            return f"{name} went on differently after {prefix} steps"
    return None


def _walk(envs: MemberEnvs, member: npt.NDArray[np.int64], actions: Actions) -> list[bytes]:
    """Bits of each step of one member, until its episode ends."""
    bits: list[bytes] = []
    for action in actions:
        result = envs.step(member, action[None])
        bits.append(_bits(result))
        if result.terminated[0] or result.truncated[0]:
            break
    return bits


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
    rng = np.random.default_rng(seed)
    action = spec.action
    if isinstance(action, DiscreteActions):
        return rng.integers(0, action.n, n)
    drawn = rng.standard_normal((n, *action.shape))
    bounds = (np.reshape(bound, action.shape) for bound in (action.low, action.high))
    return np.clip(drawn, *bounds)
