"""Which implementation steps an environment's members."""

import logging
from collections.abc import Mapping
from typing import Any

from grpo.envs.acrobot import AcrobotMembers
from grpo.envs.branching import NoBranching
from grpo.envs.cartpole import CartPoleMembers
from grpo.envs.classic_control import ClassicMembers
from grpo.envs.gym_members import GymMembers
from grpo.envs.members import MemberEnvs
from grpo.envs.mountain_car import MountainCarContinuousMembers, MountainCarMembers
from grpo.envs.pendulum import PendulumMembers
from grpo.envs.proof import find_brancher, resets_afresh, steps_exactly
from grpo.envs.spec import EnvironmentSpec, check_environment

__all__ = ["make_member_envs", "steps_together"]

_log = logging.getLogger(__name__)

_CLASSIC: Mapping[str, type[ClassicMembers]] = {
    members.family: members
    for members in (
        AcrobotMembers,
        CartPoleMembers,
        MountainCarContinuousMembers,
        MountainCarMembers,
        PendulumMembers,
    )
}


def make_member_envs(
    env_name: str,
    env_kwargs: Mapping[str, Any] | None,
    num_members: int,
    *,
    branching: bool = True,
) -> MemberEnvs:
    """Members of an environment, in the fastest way that is exactly Gymnasium's own.

    Args:
        env_name: Gymnasium id.
        env_kwargs: keyword arguments of `gymnasium.make`.
        num_members: how many.
        branching: whether snapshots will be taken; without, no time is spent to prove how.

    Raises:
        ConfigError: as `check_environment`.
        EnvironmentFaultError: the environment raised while it was tried.
    """
    spec = check_environment(env_name, env_kwargs)
    classic = _classic_control(spec)
    if classic is not None:
        return classic(spec, num_members)
    brancher = find_brancher(spec) if branching else NoBranching
    return GymMembers(spec, num_members, brancher(), afresh=resets_afresh(spec))


def steps_together(spec: EnvironmentSpec) -> bool:
    """Whether members share one array, so that a hundred cost little more than one."""
    return _classic_control(spec) is not None


def _classic_control(spec: EnvironmentSpec) -> type[ClassicMembers] | None:
    classic = _CLASSIC.get(spec.family)
    if classic is None or set(spec.env_kwargs) - classic.kwargs - {"max_episode_steps"}:
        return None
    if spec.deviations:
        _log.info("%s is stepped one by one: %s.", spec.env_name, ", ".join(spec.deviations))
        return None
    return classic if steps_exactly(spec, classic) else None
