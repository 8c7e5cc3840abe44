"""Members that are ordinary Gymnasium environments, one instance each, stepped in turn."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo.envs.branching import Brancher
from grpo.envs.spec import EnvironmentSpec, fault
from grpo.envs.vec_env import FloatArray, IntArray, Snapshot, StepResult, VecEnv
from grpo.errors import EnvironmentFaultError, GRPOError
from grpo.spaces import environment_actions

__all__ = ["SyncVecEnv"]

_log = logging.getLogger(__name__)


class SyncVecEnv(VecEnv):
    """`num_members` instances, and the brancher that puts them into visited states.

    Args:
        spec: the environment.
        num_members: how many.
        brancher: of these members alone.
        afresh: make a new instance for each reset, where a used one does not start as a new one.
        reason: why this brancher.

    Attributes:
        envs: the instances, by member.
    """

    def __init__(
        self,
        spec: EnvironmentSpec,
        num_members: int,
        brancher: Brancher,
        *,
        afresh: bool = False,
        reason: str = "",
    ) -> None:
        self.spec = spec
        self.num_members = num_members
        self.branching = brancher.branching
        self.branching_reason = reason
        self.storable_snapshots = brancher.storable
        self.steps_taken = 0
        self._brancher = brancher
        self._afresh = afresh
        self.envs = [spec.make() for _ in range(num_members)]
        self._used = [False] * num_members
        self._action_space = self.envs[0].action_space
        self._observations: FloatArray = np.zeros(
            (num_members, *spec.observation_shape), dtype=spec.observation.dtype
        )

    def reset(self, members: IntArray, seeds: Sequence[int] | IntArray) -> FloatArray:
        """See `VecEnv.reset`."""
        for member, seed in zip(members.tolist(), seeds, strict=True):
            self.reset_one(member, int(seed))
        return self._observations[members]

    def step(self, members: IntArray, actions: npt.NDArray[Any]) -> StepResult:
        """See `VecEnv.step`."""
        n = len(members)
        rewards = np.empty(n)
        terminated = np.empty(n, dtype=np.bool_)
        truncated = np.empty(n, dtype=np.bool_)
        taken = environment_actions(self._action_space, actions)
        for i, member in enumerate(members.tolist()):
            result = self._step(member, actions[i], taken[i])
            rewards[i], terminated[i], truncated[i] = result
        observations = self._observations[members]
        if not (np.isfinite(observations).all() and np.isfinite(rewards).all()):
            raise self._not_finite(members, rewards)
        return StepResult(observations, rewards, terminated, truncated)

    def snapshot(self, member: int) -> Snapshot:
        """See `VecEnv.snapshot`."""
        with self._faults("a snapshot"):
            state = self._brancher.snapshot(self, member)
        return {**state, "observation": self.observation_of(member).copy()}

    def restore(self, members: IntArray, snapshot: Snapshot) -> FloatArray:
        """See `VecEnv.restore`."""
        for member in members.tolist():
            with self._faults("a restore"):
                self._brancher.restore(self, member, snapshot)
            self._observations[member] = snapshot["observation"]
            self._used[member] = True
        return self._observations[members]

    def restore_cost(self, snapshot: Snapshot) -> int:
        """See `VecEnv.restore_cost`."""
        return self._brancher.cost(snapshot)

    def close(self) -> None:
        """See `VecEnv.close`."""
        for error in self.shut():
            _log.warning("%s", error)

    def shut(self) -> list[EnvironmentFaultError]:
        """Close every instance, and tell what they raised."""
        errors = []
        while self.envs:
            try:
                self.envs.pop().close()
            except Exception as error:  # noqa: BLE001 - foreign; the caller says what it means
                errors.append(fault(self.spec.env_name, "close", error))
        return errors

    def reset_one(self, member: int, seed: int) -> None:
        """Start an episode of one member.

        Raises:
            EnvironmentFaultError: the environment raised, or gave what is no observation.
        """
        with self._faults("reset"):
            if self._afresh and self._used[member]:
                self._renew(member)
            self._used[member] = True
            observation, info = self.envs[member].reset(seed=seed)
            self._observe(member, observation, info)
        if not np.isfinite(self._observations[member]).all():
            raise EnvironmentFaultError(
                f"{self.spec.env_name} gave an observation that is not finite in reset, with the "
                f"seed {seed}: {_shown(self._observations[member])}."
            )
        self._brancher.on_reset(member, seed)

    def step_one(self, member: int, action: npt.NDArray[Any]) -> tuple[float, bool, bool]:
        """Step one member.

        Args:
            member: its index.
            action: in the environment's numbers, shape `spec.action.shape`.

        Returns:
            Reward, terminated, truncated.

        Raises:
            EnvironmentFaultError: the environment raised, or gave what is no observation or reward.
        """
        (taken,) = environment_actions(self._action_space, np.asarray(action)[None])
        return self._step(member, action, taken)

    def _step(
        self,
        member: int,
        action: npt.NDArray[Any],
        taken: object,
    ) -> tuple[float, bool, bool]:
        """As `step_one`, with the action as the space has it, too."""
        self.steps_taken += 1
        try:
            observation, reward, terminated, truncated, info = self.envs[member].step(taken)
            result = _number(reward), bool(terminated), bool(truncated)
            self._observe(member, observation, info, ended=result[1] or result[2])
        except Exception as error:
            raise fault(self.spec.env_name, "step", error) from error
        self._brancher.on_step(member, action)
        return result

    def observation_of(self, member: int) -> FloatArray:
        """What a member observed last, shape `observation_shape`; a view."""
        view: FloatArray = self._observations[member, ...]
        return view

    def _observe(
        self,
        member: int,
        observation: object,
        info: dict[str, Any],
        *,
        ended: bool = False,
    ) -> None:
        row = self.spec.row(self.envs[member], observation, info, ended=ended)
        self._observations[member] = row

    def _renew(self, member: int) -> None:
        try:
            self.envs[member].close()
        except Exception as error:  # noqa: BLE001 - foreign, and it is not needed any more
            _log.warning("%s", fault(self.spec.env_name, "close", error))
        self.envs[member] = self.spec.make()

    def _not_finite(
        self, members: IntArray, rewards: npt.NDArray[np.float64]
    ) -> EnvironmentFaultError:
        """Says which of the two it was, and at which of the steps just taken."""
        sound = np.array([np.isfinite(self._observations[m]).all() for m in members])
        i = int(np.flatnonzero(~(sound & np.isfinite(rewards)))[0])
        what = (
            f"a reward that is not finite, {rewards[i]}"
            if sound[i]
            else f"an observation that is not finite, {_shown(self.observation_of(members[i]))}"
        )
        return EnvironmentFaultError(
            f"{self.spec.env_name} returned {what}, in environment step "
            f"{self.steps_taken - len(members) + i + 1} since this process began to step it."
        )

    @contextlib.contextmanager
    def _faults(self, where: str) -> Iterator[None]:
        try:
            yield
        except GRPOError:
            raise
        except Exception as error:
            raise fault(self.spec.env_name, where, error) from error


def _number(reward: Any) -> float:  # noqa: ANN401 - whatever the environment returned
    """A reward as a float; an array of one value counts as that value."""
    if isinstance(reward, float) or np.ndim(reward) == 0:
        return float(reward)
    if np.size(reward) == 1:
        return float(np.reshape(reward, ()))
    raise ValueError(f"a reward has shape {np.shape(reward)}, but must be one number")


def _shown(observation: FloatArray) -> str:
    return np.array2string(observation, threshold=8, precision=4)
