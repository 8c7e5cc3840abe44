"""Which implementation steps an environment's members."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gymnasium.wrappers import TimeLimit

from grpo.envs.acrobot import AcrobotVecEnv
from grpo.envs.branching import NoBranching
from grpo.envs.cartpole import CartPoleVecEnv
from grpo.envs.classic_control import ClassicControlVecEnv
from grpo.envs.families import layers_of
from grpo.envs.mountain_car import MountainCarContinuousVecEnv, MountainCarVecEnv
from grpo.envs.pendulum import PendulumVecEnv
from grpo.envs.spec import EnvironmentSpec, check_environment
from grpo.envs.subproc_vec_env import SubprocVecEnv
from grpo.envs.sync_vec_env import SyncVecEnv
from grpo.envs.vec_env import Snapshot, VecEnv
from grpo.envs.verification import (
    BranchingPlan,
    find_branching,
    find_branching_between,
    resets_afresh,
    step_seconds,
    steps_exactly,
)
from grpo.errors import IncompatibleError
from grpo.registry import Objects

__all__ = ["make_branches", "make_vec_env"]

_log = logging.getLogger(__name__)

_MOST_WORKERS = 64  # that are taken unasked
_WORTH_SECONDS = 0.002  # to step all members, below which talking to processes takes longer

_CLASSIC: Mapping[str, type[ClassicControlVecEnv]] = {
    vec_env.family: vec_env
    for vec_env in (
        AcrobotVecEnv,
        CartPoleVecEnv,
        MountainCarContinuousVecEnv,
        MountainCarVecEnv,
        PendulumVecEnv,
    )
}


def make_vec_env(
    env_name: str,
    env_kwargs: Mapping[str, Any] | None,
    num_members: int,
    *,
    objects: Objects | None = None,
    branching: bool = True,
    most_instances: int | None = None,
    env_workers: int | Literal["auto"] = 0,
) -> VecEnv:
    """Members of an environment, in the fastest way that is exactly Gymnasium's own.

    Args:
        env_name: Gymnasium id.
        env_kwargs: keyword arguments of `gymnasium.make`.
        num_members: how many.
        objects: those that were handed in.
        branching: whether snapshots will be taken; without, no time is spent to find out how.
        most_instances: make fewer members where each is an instance of its own, which costs time
            and memory.
        env_workers: processes that step the members side by side; 0 steps them in this one, as
            does classic control, whose members are one array. `auto` takes as many as pay, where
            they change no result.

    Raises:
        ConfigError: as `check_environment`.
        EnvironmentFaultError: the environment raised while it was tried.
    """
    spec = check_environment(env_name, env_kwargs, objects)
    classic = _classic_control(spec)
    if classic is not None:
        return classic(spec, num_members)
    members = min(num_members, most_instances or num_members)
    afresh = resets_afresh(spec)
    plan = BranchingPlan(brancher=NoBranching, reason="Not asked for.")
    if branching:
        plan = find_branching(spec)
    if env_workers == "auto":
        # copies of instances do not travel, and episodes that are played again count as steps
        workers = _workers_that_pay(spec, members) if plan.brancher.storable else 0
    else:
        workers = min(env_workers, members)
    if branching and workers:
        plan = find_branching_between(spec)
    if not workers:
        return SyncVecEnv(spec, members, plan.brancher(), afresh=afresh, reason=plan.reason)
    return SubprocVecEnv(spec, members, workers, plan.brancher, afresh=afresh, reason=plan.reason)


def make_branches(
    spec: EnvironmentSpec, snapshot: Snapshot, actions: Sequence[npt.NDArray[Any]], num_members: int
) -> tuple[VecEnv, Snapshot]:
    """Members that go on from a state which another instance was in.

    Classic control's members are one array, if that is exact from this state on: they begin with
    each of the actions as an instance of Gymnasium's does.

    Args:
        spec: the environment.
        snapshot: the state, of an instance of it that is stepped by itself.
        actions: that will be taken first, as the environment takes them.
        num_members: how many.

    Returns:
        The members, and the state as they take it.

    Raises:
        IncompatibleError: it cannot be put into the same state twice.
        EnvironmentFaultError: the environment raised.
    """
    plan = find_branching(spec)
    if plan.brancher().branching == "none":
        raise IncompatibleError(
            f"{spec.env_name} cannot be put into the same state twice. {plan.reason}"
        )
    afresh = resets_afresh(spec)
    classic = _classic_control(spec)
    if classic is not None:
        one = SyncVecEnv(spec, 1, plan.brancher(), afresh=afresh)
        try:
            found = _as_one_array(classic(spec, num_members), one, snapshot, actions)
        finally:
            one.close()
        if found is not None:
            return found
    return SyncVecEnv(spec, num_members, plan.brancher(), afresh=afresh), snapshot


def _as_one_array(
    envs: ClassicControlVecEnv,
    one: SyncVecEnv,
    snapshot: Snapshot,
    actions: Sequence[npt.NDArray[Any]],
) -> tuple[VecEnv, Snapshot] | None:
    """The members and the state, if each action leads where it leads an instance."""
    first = np.array([0])
    seen = one.restore(first, snapshot)
    layers = list(layers_of(one.envs[0]))
    elapsed = next((e._elapsed_steps for e in layers if isinstance(e, TimeLimit)), 0)
    if elapsed is None:  # not reset
        return None
    core: Any = layers[-1]
    state = envs.snapshot_of(core.state, elapsed)
    if envs.restore(first, state).tobytes() != seen.tobytes():
        return None
    for action in actions:
        one.restore(first, snapshot)
        envs.restore(first, state)
        steps = [each.step(first, np.asarray(action)[None]) for each in (one, envs)]
        a, b = [[np.asarray(part).tobytes() for part in step] for step in steps]
        if a != b:
            return None
    return envs, state


def _workers_that_pay(spec: EnvironmentSpec, members: int) -> int:
    """Processes that step so many members sooner than this one does; 0 where it is soonest.

    As many as there are cores, and more of them the more a step only waits.
    """
    seconds, busy = step_seconds(spec)
    cores = len(os.sched_getaffinity(0))
    workers = min(members, _MOST_WORKERS, math.ceil(cores * seconds / max(busy, 1e-9)))
    if members * seconds < _WORTH_SECONDS or workers < 2:
        workers = 0
    _log.info(
        "A step of %s takes %.2f ms, %.2f ms of it on a core: env_workers is %d for %d members.",
        *(spec.env_name, 1e3 * seconds, 1e3 * busy, workers, members),
    )
    return workers


def _classic_control(spec: EnvironmentSpec) -> type[ClassicControlVecEnv] | None:
    classic = _CLASSIC.get(spec.family)
    if classic is None or set(spec.env_kwargs) - classic.kwargs - {"max_episode_steps"}:
        return None
    if spec.deviations:
        _log.info("%s is stepped one by one: %s.", spec.env_name, ", ".join(spec.deviations))
        return None
    return classic if steps_exactly(spec, classic) else None
